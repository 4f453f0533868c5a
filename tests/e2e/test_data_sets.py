"""Training on data in other formats, and evaluation where an image cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from runner import Runner

from mask_rcnn_ext.data.scenes import generate_splits


def _results(runner: Runner) -> dict[str, float]:
    return json.loads((runner.out / "results.json").read_text())


STREETS = {
    "DATASETS__TRAIN": "('cityscapes_scenes_train',)",
    "DATASETS__TEST": "('cityscapes_scenes_val',)",
    "MODEL__ROI_HEADS__NUM_CLASSES": "8",
    "MODEL__ROI_HEADS__SCORE_THRESH_TEST": "0.0",
    "INPUT__MAPPER": "CityscapesMapper",
    "TEST__CITYSCAPES_SUBMISSION": "True",
}


@pytest.fixture(scope="module")
def streets(tmp_path_factory) -> Runner:
    """A run on streets in Cityscapes' layout, trained and evaluated."""
    folder = tmp_path_factory.mktemp("streets")
    root = folder / "data"
    splits = {"train": 6, "val": 5}
    generate_splits(
        root / "cityscapes_scenes", splits, (64, 128), 5, 1, progress=False, layout="cityscapes"
    )
    runner = Runner(Path(__file__).resolve().parents[2], root, folder / "out")
    result = runner(**STREETS)
    assert result.returncode == 0, result.stdout + result.stderr
    return runner


def test_streets_in_cityscapes_layout(streets):
    assert {"segm/AP", "bbox/AP", "cityscapes/AP", "cityscapes/AP50"} <= set(_results(streets))
    assert (streets.out / "samples.png").is_file()


def test_streets_evaluated_by_one_process_and_by_two(streets, tmp_path):
    """The same figures, the same detections, and the benchmark's submission."""
    both = [_evaluated(streets)]
    runner = Runner(streets.root, streets.datasets, tmp_path / "two")
    weights = str(streets.out / "model_final.pth")
    result = runner("--eval-only", "--num-gpus", "2", **STREETS, MODEL__WEIGHTS=weights)
    assert result.returncode == 0, result.stdout + result.stderr
    both.append(_evaluated(runner))
    one, two = both
    assert one[1] == two[1] != []
    assert one[2] == two[2]
    assert sum(name.endswith(".txt") for name in one[2]) == 5
    assert one[0] == pytest.approx(two[0], nan_ok=True)


def _evaluated(runner: Runner) -> tuple[dict[str, float], list, dict[str, bytes]]:
    folder = runner.out / "inference" / "cityscapes_scenes_val"
    found = json.loads((folder / "coco_instances_results.json").read_text())
    found.sort(key=lambda one: (one["image_id"], one["bbox"], one["score"]))
    submission = {p.name: p.read_bytes() for p in sorted((folder / "submission").rglob("*.*"))}
    return _results(runner), found, submission


@pytest.fixture
def via_set(tmp_path):
    """Ten pictures of squares and disks, annotated as VIA exports it, and a YAML beside them."""
    folder = tmp_path / "via"
    folder.mkdir()
    random = np.random.default_rng(0)
    export = {}
    for number in range(10):
        picture = random.integers(0, 60, (64, 64, 3), dtype=np.uint8)
        x, y = random.integers(5, 30, 2).tolist()
        cv2.rectangle(picture, (x, y), (x + 20, y + 15), (255, 200, 0), -1)
        name = f"{number}.png"
        cv2.imwrite(str(folder / name), picture)
        corners = [x, x + 21, x + 21, x], [y, y, y + 16, y + 16]
        square = {"name": "polygon", "all_points_x": corners[0], "all_points_y": corners[1]}
        disk = {"name": "circle", "cx": 50, "cy": 50, "r": 8}
        cv2.circle(picture, (50, 50), 8, (0, 0, 255), -1)
        size = (folder / name).stat().st_size
        export[f"{name}{size}"] = {
            "filename": name,
            "size": size,
            "regions": [
                {"shape_attributes": square, "region_attributes": {"kind": "square"}},
                {"shape_attributes": disk, "region_attributes": {"kind": "disk"}},
            ],
            "file_attributes": {},
        }
    (folder / "via.json").write_text(json.dumps(export))
    (folder / "toy.yaml").write_text(
        "name: toy\nformat: via\nannotations: via.json\nimages: .\n"
        "options: {class_attribute: kind}\n"
    )
    return folder


def test_ten_pictures_of_via_by_a_yaml_alone(repo_root, tmp_path, via_set):
    runner = Runner(repo_root, tmp_path / "none", tmp_path / "out")
    # The config names no number of classes and no form of masks: the data say them.
    result = runner(
        config="configs/COCO-InstanceSegmentation/mask_rcnn_R_18_FPN_overfit_4.yaml",
        DATASETS__TRAIN="('toy',)",
        DATASETS__TEST="('toy',)",
        DATASETS__REGISTRY=f"['{via_set / 'toy.yaml'}']",
        DATASETS__MAX_IMAGES="0",
        MODEL__RPN__POST_NMS_TOPK_TRAIN="50",
        MODEL__RPN__POST_NMS_TOPK_TEST="50",
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "NUM_CLASSES is 2, as data set toy has" in result.stdout + result.stderr
    assert {"segm/AP", "segm/AP-square", "segm/AP-disk"} <= set(_results(runner))
    settings = yaml.safe_load((runner.out / "config.yaml").read_text())
    assert settings["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 2
    assert settings["INPUT"]["MASK_FORMAT"] == "bitmask"


def test_an_image_that_cannot_be_evaluated_is_named_and_the_others_count(
    repo_root, scenes_root, tmp_path
):
    root = tmp_path / "data"
    shutil.copytree(scenes_root / "scenes", root / "scenes")
    runner = Runner(repo_root, root, tmp_path / "out")
    assert runner().returncode == 0
    before = _results(runner)
    (root / "scenes" / "val" / "000000000002.png").write_bytes(b"no picture")
    again = Runner(repo_root, root, tmp_path / "again")
    weights = {"MODEL__WEIGHTS": str(runner.out / "model_final.pth")}
    result = again("--eval-only", **weights)
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert "1 test images could not be used" in result.stderr
    assert "000000000002.png (image id 2) does not decode" in result.stderr
    assert set(_results(again)) == set(before)
    allowed = Runner(repo_root, root, tmp_path / "allowed")
    result = allowed("--eval-only", **weights, TEST__ALLOW_FAILED_IMAGES="True")
    assert result.returncode == 0, result.stderr
