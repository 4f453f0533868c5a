"""Pictures of findings: cut out around the object, whatever is wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from PIL import Image

from mask_rcnn_ext.data.checks import check_table
from mask_rcnn_ext.data.coco_table import read_coco_table
from mask_rcnn_ext.visualization.draw import class_colour
from mask_rcnn_ext.visualization.findings import draw_findings

HEIGHT, WIDTH = 200, 300


def _data() -> dict:
    return {
        "images": [{"id": 7, "file_name": "a.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cat", "keypoints": ["a", "b"], "skeleton": [[1, 2]]}],
        "annotations": [
            {
                "id": 5,
                "image_id": 7,
                "category_id": 1,
                "bbox": [100, 80, 40, 30],
                "area": 1200,
                "iscrowd": 0,
                "segmentation": [[100, 80, 140, 80, 140, 110, 100, 110]],
                "keypoints": [105, 85, 2, 130, 100, 2],
                "num_keypoints": 2,
            }
        ],
    }


@pytest.fixture
def draw(tmp_path):
    """Write the file and a black picture, check, draw; the folder."""

    def run(data: dict, **options):
        images = tmp_path / "images"
        images.mkdir(exist_ok=True)
        if not (images / "a.png").exists():
            Image.new("RGB", (WIDTH, HEIGHT)).save(images / "a.png")
        path = tmp_path / "set.json"
        path.write_text(json.dumps(data))
        report = check_table(read_coco_table(path), str(images))
        folder = tmp_path / "drawn"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        count = draw_findings(report, str(images), folder, **options)
        assert count == len(list(folder.glob("*.jpg")))
        return folder

    return run


def _picture(folder, name: str) -> np.ndarray:
    return cv2.imread(str(folder / name))[:, :, ::-1].astype(int)


def _share(picture: np.ndarray, colour, tolerance: int = 40) -> float:
    return float((np.abs(picture - np.array(colour)).max(axis=2) < tolerance).mean())


def test_the_object_is_cut_out_with_its_mask_and_both_boxes(draw):
    data = _data()
    data["annotations"][0]["bbox"] = [20, 20, 40, 30]
    folder = draw(data)
    picture = _picture(folder, "error-box-not-around-mask-7-5.jpg")
    # Around 20..140 x 20..110 with a margin of 60: cut at the left and upper edges.
    assert picture.shape[:2] == (408, 480)  # 200 x 170 pixels, 2.4 times
    mask = np.array(class_colour(0)) * 0.45
    assert np.abs(picture[int(95 * 2.4), int(115 * 2.4)] - mask).max() < 40
    assert picture[int(150 * 2.4), int(20 * 2.4)].max() < 30  # the black picture
    page = (folder / "index.html").read_text()
    assert "annotation 5: bbox [20, 20, 40, 30] is off by" in page
    assert "1 error, 0 warnings, 0 notes" in page


def test_outside_of_the_image_is_grey(draw):
    data = _data()
    data["annotations"][0]["bbox"] = [100, 80, 140, 110]  # corners: leaves nothing here
    data["images"][0]["height"] = HEIGHT
    data["annotations"][0]["segmentation"] = [[260, 80, 340, 80, 340, 110, 260, 110]]
    folder = draw(data)
    picture = _picture(folder, "warning-mask-beyond-edge-7-5.jpg")
    assert picture.shape[1] == 480
    data["annotations"][0]["bbox"] = [280, 80, 100, 30]
    picture = _picture(draw(data), "error-box-outside-7-5.jpg")
    assert _share(picture[:, -60:-20], (110, 110, 110), 12) > 0.3


def test_a_missing_picture_and_broken_values_are_drawn_all_the_same(draw):
    data = _data()
    data["images"].append({"id": 8, "file_name": "gone.png", "height": 40, "width": 50})
    data["images"].append({"id": 9, "file_name": 3, "height": None, "width": 50})
    for number, change in enumerate(
        [
            {"bbox": None},
            {"bbox": [float("nan"), 1, 2, 3]},
            {"bbox": [1e300, 1e300, 1e300, 1e300]},
            {"bbox": [-1e5, -1e5, 3e5, 3e5]},
            {"segmentation": [1, 2, 3, 4, 5, 6]},
            {"segmentation": "x"},
            {"segmentation": {"size": [1, 1], "counts": "zzz"}},
            {"keypoints": ["x"]},
            {"keypoints": [1, 2, 2]},
            {"category_id": 99},
            {"image_id": 8, "bbox": [60, 60, 10, 10]},
            {"image_id": 9, "bbox": [60, 60, -10, 0]},
            {"image_id": None},
            {"id": None},
            {"id": "a/../b"},
        ],
        start=100,
    ):
        data["annotations"].append({**_data()["annotations"][0], "id": number, **change})
    folder = draw(data)
    names = {path.name for path in folder.iterdir()}
    assert "error-missing-image-8.jpg" in names
    assert "error-box-malformed-7-101.jpg" in names
    assert "error-annotation-id-7-None.jpg" in names
    assert all(max(_picture(folder, n).shape) <= 480 for n in names if n.endswith("jpg"))


def test_same_ids_do_not_share_a_file(draw):
    data = _data()
    data["annotations"] += [dict(data["annotations"][0]) for _ in range(2)]
    names = {path.name for path in draw(data).iterdir()}
    assert {
        "error-duplicate-annotation-id-7-5.jpg",
        "error-duplicate-annotation-id-7-5-2.jpg",
    } <= names


def test_limit_says_what_is_left_out(draw):
    data = _data()
    one = {**data["annotations"][0], "area": 0}
    data["annotations"] = [dict(one, id=i, bbox=[i, 5, 9, 9]) for i in range(1, 9)]
    folder = draw(data, limit=3)
    assert len(list(folder.glob("*area-not-positive*"))) == 3
    assert "5 more of area-not-positive are not drawn" in (folder / "index.html").read_text()


def test_text_of_the_file_is_no_markup(draw):
    data = _data()
    data["categories"].append({"id": 2, "name": "<img src=x onerror=alert(1)>"})
    page = (draw(data) / "index.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x" in page


def test_the_page_in_a_browser(draw, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("needs Chromium")
    data = _data()
    data["annotations"][0]["bbox"] = [20, 20, 40, 30]
    page = draw(data) / "index.html"
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=900,700"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}"]
    subprocess.run([*words, page.as_uri()], check=True, capture_output=True, timeout=120)
    shot = cv2.imread(str(tmp_path / "page.png"))[:, :, ::-1].astype(int)
    assert _share(shot, (209, 52, 56), 12) > 0.0005  # the bar of an error
    assert _share(shot, np.array(class_colour(0)) * 0.45) > 0.001  # the mask of the thumbnail
