"""labelme to COCO's form."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.formats import import_dataset, sources_of
from mask_rcnn_ext.errors import DataError, UsageError

HEIGHT, WIDTH = 30, 40
TRIANGLE = [[1.5, 2], [20, 3.25], [4, 28]]


def decode(annotation: dict[str, Any]) -> np.ndarray:
    """(H, W) bool of an annotation with RLE."""
    return coco_mask.decode(annotation["segmentation"]).astype(bool)


def shape(label: str, points: Any = TRIANGLE, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "shape_type": kind, "flags": {}, **more}


def mask_shape(label: str, mask: np.ndarray, x: int, y: int, **more: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).convert("1").save(buffer, "PNG")
    points = [[float(x), float(y)], [x + mask.shape[1] - 1.0, y + mask.shape[0] - 1.0]]
    text = base64.b64encode(buffer.getvalue()).decode()
    return shape(label, points, "mask", mask=text, **more)


def write(folder: Path, name: str, shapes: Any, **more: Any) -> Path:
    picture = folder / "pictures" / f"{name}.jpg"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(picture)
    data = {
        "version": "5.5.0",
        "flags": {},
        "shapes": shapes,
        "imagePath": f"pictures\\{name}.jpg",
        "imageData": "AAAA",
        "imageHeight": HEIGHT,
        "imageWidth": WIDTH,
        **more,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(data))
    return path


def test_polygons_exact_rectangles_circles(tmp_path):
    shapes = [
        shape("dog", flags={"old": True}, description="left"),
        shape("ant", [[30, 20], [10, 5]], "rectangle"),  # any two opposite corners
        shape("dog", [[20, 15], [20, 25]], "circle"),
    ]
    write(tmp_path, "b", [])
    path = write(tmp_path, "a", shapes, flags={"checked": True})
    found = import_dataset("labelme", tmp_path)
    assert [i["file_name"] for i in found.coco["images"]] == ["pictures/a.jpg", "pictures/b.jpg"]
    assert found.coco["images"][0]["attributes"] == {"checked": True}
    assert [c["name"] for c in found.coco["categories"]] == ["ant", "dog"]
    polygon, rectangle, circle = found.coco["annotations"]
    assert polygon["segmentation"] == [[1.5, 2, 20, 3.25, 4, 28]]
    assert polygon["attributes"] == {"old": True, "description": "left"}
    assert rectangle["segmentation"] == [[10, 5, 30, 5, 30, 20, 10, 20]]
    assert circle["bbox"] == pytest.approx([10, 5, 20, 20], abs=0.1)
    assert found.notes == []
    assert found.sources == sources_of("labelme", tmp_path) == [path, tmp_path / "b.json"]


def test_masks_keep_their_holes_exactly(tmp_path):
    crop = np.ones((9, 12), dtype=bool)
    crop[3:6, 4:8] = False
    whole = np.zeros((HEIGHT, WIDTH), dtype=bool)
    whole[5:14, 7:19] = crop
    write(tmp_path, "a", [mask_shape("ring", crop, 7, 5)])
    (annotation,) = import_dataset("labelme", tmp_path).coco["annotations"]
    assert (decode(annotation) == whole).all()
    assert annotation["area"] == crop.sum()
    assert annotation["bbox"] == [7, 5, 12, 9]


def test_group_joins_parts_of_one_label(tmp_path):
    square = [[2, 2], [6, 2], [6, 6], [2, 6]]
    shapes = [
        shape("dog", square, group_id=1),
        shape("dog", [[20, 20], [25, 25]], "rectangle", group_id=1),
        shape("cat", square, group_id=1),
        shape("dog", square, group_id=2),
        mask_shape("dog", np.ones((3, 4), bool), 10, 10, group_id=2),
        shape("dog", square),
        shape("dog", square),
    ]
    write(tmp_path, "a", shapes)
    found = import_dataset("labelme", tmp_path).coco["annotations"]
    assert len(found) == 5
    assert found[0]["segmentation"] == [[2, 2, 6, 2, 6, 6, 2, 6], [20, 20, 25, 20, 25, 25, 20, 25]]
    assert found[0]["area"] == 16 + 25
    mixed = decode(found[2])
    assert mixed.sum() == 16 + 12
    assert mixed[10:13, 10:14].all()


def test_labels_file_gives_order_and_is_a_source(tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("__ignore__\n_background_\nzebra\nant\nnever\n")
    write(tmp_path, "a", [shape("ant"), shape("unlisted")])
    found = import_dataset("labelme", tmp_path, labels=str(labels))
    assert [c["name"] for c in found.coco["categories"]] == ["zebra", "ant", "never", "unlisted"]
    assert labels in found.sources


def test_nothing_is_dropped_without_a_word(tmp_path):
    kinds = ["line", "linestrip", "linestrip", "point", "points", "scribble"]
    shapes = [shape("dog", [[1, 1], [2, 2]], kind) for kind in kinds]
    shapes += [shape("dog"), shape("dog", [[1, 1], [2, 2]])]
    shapes += [mask_shape("dog", np.zeros((3, 3), bool), 1, 1)]
    write(tmp_path, "a", shapes)
    Image.new("RGB", (5, 5)).save(tmp_path / "pictures" / "alone.png")
    found = import_dataset("labelme", tmp_path)
    left_out = [note for note in found.notes if "left out" in note]
    assert len(found.coco["annotations"]) == 1
    assert sum(int(note.split(" x ")[0]) for note in left_out) == len(shapes) - 1
    assert any("linestrip" in note and note.startswith("2 x") for note in left_out)
    assert any("not taken (pictures/alone.png)" in note for note in found.notes)


@pytest.mark.parametrize(
    ("shapes", "more", "words"),
    [
        ({}, {}, ["no labelme file"]),
        ([], {"imagePath": 3}, ["no labelme file"]),
        ([], {"imagePath": "x/gone.jpg"}, ["x/gone.jpg"]),
        ([], {"imageHeight": 31}, ["40x31", "40x30"]),
        ([{}], {}, ["shape 0", "label"]),
        ([shape("dog", 5)], {}, ["shape 0", "'dog'", "points"]),
        ([shape("dog", [[1, None]])], {}, ["shape 0", "None"]),
        ([shape("dog", TRIANGLE, "circle")], {}, ["3 points", "expected 2"]),
        ([shape("dog", [[1, 1], [2, 2]], "mask", mask="?")], {}, ["base64"]),
        ([mask_shape("dog", np.ones((3, 3), bool), 39, 1)], {}, ["outside"]),
    ],
)
def test_broken_files_are_refused_with_file_and_element(tmp_path, shapes, more, words):
    write(tmp_path, "a", shapes, **more)
    with pytest.raises(DataError) as caught:
        import_dataset("labelme", tmp_path)
    for word in ["a.json", *words]:
        assert word in str(caught.value)


def test_mask_of_another_size_than_its_points(tmp_path):
    wrong = mask_shape("dog", np.ones((3, 3), bool), 1, 1)
    wrong["points"] = [[1, 1], [9, 9]]
    write(tmp_path, "a", [wrong])
    with pytest.raises(DataError, match=r"shape \(3, 3\), its points ask for \(9, 9\)"):
        import_dataset("labelme", tmp_path)


def test_two_files_for_one_picture_and_no_file_at_all(tmp_path):
    path = write(tmp_path, "a", [shape("dog")])
    (tmp_path / "b.json").write_text(path.read_text())
    with pytest.raises(DataError, match=r"b\.json: .*already, from .*a\.json"):
        import_dataset("labelme", tmp_path)
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match=r"no \.json"):
        import_dataset("labelme", tmp_path / "none")


def test_pictures_elsewhere(tmp_path):
    write(tmp_path / "work", "a", [shape("dog")])
    (tmp_path / "work" / "pictures").rename(tmp_path / "elsewhere")
    found = import_dataset("labelme", tmp_path / "work", tmp_path / "elsewhere")
    assert found.coco["images"][0]["file_name"] == "a.jpg"
    assert found.image_root == tmp_path / "elsewhere"
