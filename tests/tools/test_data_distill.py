"""`mask-rcnn-ext data distill`: a file that training takes, and everything that it refuses."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_model import save_tiny_model

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.registration import register_dataset
from mask_rcnn_ext.engine.distillation import predictions
from mask_rcnn_ext.engine.setup import check_data
from mask_rcnn_ext.engine.trainer import Trainer
from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools.cli import main
from mask_rcnn_ext.tools.data import distill

SHAPES = "circle square triangle star ring bar cross crescent person"
VIEWS = ["TEST.AUG.MIN_SIZES", "(48, 64)", "TEST.DETECTIONS_PER_IMAGE", "12"]


@pytest.fixture(scope="module")
def shape_model(tmp_path_factory, scenes_root):
    """Finds all nine classes everywhere, with masks."""
    content = json.loads((scenes_root / "scenes/annotations/instances_train.json").read_text())
    names = [one["name"] for one in content["categories"]]
    return save_tiny_model(tmp_path_factory.mktemp("shapes"), VIEWS, class_names=names)


@pytest.fixture(scope="module")
def person_model(tmp_path_factory):
    words = ["MODEL.KEYPOINT_ON", "True", "MODEL.MASK_ON", "False"]
    words += ["MODEL.ROI_HEADS.NUM_CLASSES", "1", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(8,)"]
    words += ["DATASETS.TRAIN", "('scenes_keypoints_train',)", "DATASETS.TEST", "()"]
    folder = tmp_path_factory.mktemp("persons")
    return save_tiny_model(folder, [*VIEWS, *words], class_names=["person"])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for number, size in enumerate([(64, 80), (80, 64), (64, 64)]):
        noise = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def run(scenes, pictures, tmp_path, capsys):
    """(exit code, standard output, errors) of the command on a model."""

    def call(model, *words, like="scenes_train", images=pictures, out="labels.json"):
        parser = argparse.ArgumentParser()
        distill.add_arguments(parser)
        config, weights = model
        given = ["--config-file", config, "--weights", weights, "--images", str(images)]
        given += ["--like", like, "--output", str(tmp_path / out), "--quiet"]
        args = parser.parse_args([*given, *map(str, words)])
        args.command = "distill"
        code = exit_code_of(lambda: distill.run(args), "mask-rcnn-ext data")
        return (code, *capsys.readouterr())

    return call


def read(path: Path) -> dict:
    content = json.loads(path.read_text())
    content["info"].pop("commits")  # somebody may be working on the checkout
    return content


def labelled(scenes, kind="instances"):
    content = json.loads((scenes / f"scenes/annotations/{kind}_train.json").read_text())
    return content, [one for one in content["annotations"] if not one["iscrowd"]]


def test_labels_that_training_takes(run, shape_model, scenes, pictures, tmp_path):
    code, out, err = run(shape_model)
    assert (code, err) == (0, "")
    coco = read(tmp_path / "labels.json")
    truth, objects = labelled(scenes)
    wanted = 3 * len(objects) / len(truth["images"])
    assert abs(len(coco["annotations"]) - wanted) <= 0.5
    assert f"{wanted:.1f} wanted" in out
    assert [(one["file_name"], one["height"], one["width"]) for one in coco["images"]] == [
        ("0.png", 64, 80),
        ("1.png", 80, 64),
        ("2.png", 64, 64),
    ]
    assert coco["categories"] == truth["categories"]
    for one in coco["annotations"]:
        assert coco_mask.area(one["segmentation"]) == one["area"] > 0
    lowest = min(one["score"] for one in coco["annotations"])
    assert lowest == coco["info"]["thresholds"][0]["score"]
    assert coco["info"]["views"]["count"] == 4
    # The command that it names finds nothing wrong.
    assert f"data check {tmp_path}/labels.json --images {pictures}" in out
    words = ["data", "check", str(tmp_path / "labels.json"), "--images", str(pictures)]
    assert main(words) == 0

    # Both sets are one for training.
    register_dataset(
        name="distilled", annotations=str(tmp_path / "labels.json"), images=str(pictures)
    )
    cfg = load_config(
        "quickstart/mask_rcnn_R_18_FPN_scenes.yaml",
        ["DATASETS.TRAIN", "('scenes_train', 'distilled')", "MODEL.DEVICE", "cpu"],
    )
    assert set(check_data(cfg, training=True)) >= {"scenes_train", "distilled"}
    loader = Trainer.build_train_loader(cfg)
    seen = set()
    for _, batch in zip(range(12), loader, strict=False):
        assert all(len(one["instances"]) for one in batch)
        seen |= {one["file_name"] for one in batch}
    assert any(name.startswith(str(pictures)) for name in seen)
    assert any(name.startswith(str(scenes)) for name in seen)


def test_keypoints(run, person_model, scenes, tmp_path):
    code, _, err = run(person_model, like="scenes_keypoints_train")
    assert (code, err) == (0, "")
    coco = read(tmp_path / "labels.json")
    truth, persons = labelled(scenes, "person_keypoints")
    assert abs(len(coco["annotations"]) - 3 * len(persons) / len(truth["images"])) <= 0.5
    each = sum(one["num_keypoints"] for one in persons) / len(persons)
    kept = sum(one["num_keypoints"] for one in coco["annotations"])
    assert kept == pytest.approx(each * len(coco["annotations"]), abs=0.5)
    for one in coco["annotations"]:
        assert len(one["keypoints"]) == 51
        assert sum(v == 2 for v in one["keypoints"][2::3]) == one["num_keypoints"]
        assert "segmentation" not in one
    assert main(["data", "check", str(tmp_path / "labels.json"), "--images", "."]) in (0, 1)


def test_a_stopped_run_gives_the_same_file(run, shape_model, tmp_path, monkeypatch):
    monkeypatch.setattr(predictions, "PART", 1)
    monkeypatch.setattr(distill, "_PART", 1, raising=False)
    assert run(shape_model)[0] == 0
    assert run(shape_model, out="other.json")[0] == 0
    parts = sorted((tmp_path / "other.json.parts").rglob("*.json"))
    parts[-1].unlink()
    before = parts[0].stat().st_mtime_ns if len(parts) > 1 else None
    assert run(shape_model, "--force", out="other.json")[0] == 0
    assert read(tmp_path / "other.json") == read(tmp_path / "labels.json")
    if before is not None:
        assert parts[0].stat().st_mtime_ns == before
