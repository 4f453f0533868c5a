"""`mask-rcnn-ext data distill`: a file that training takes, and everything that it refuses."""

from __future__ import annotations

import argparse
import json
import pickle
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from tiny_model import save_tiny_model

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.registration import register_dataset
from mask_rcnn_ext.engine import distillation
from mask_rcnn_ext.engine.setup import check_data
from mask_rcnn_ext.engine.trainer import Trainer
from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools.cli import main
from mask_rcnn_ext.tools.data import distill

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
        name="distilled_by_a_test", annotations=str(tmp_path / "labels.json"), images=str(pictures)
    )
    cfg = load_config(
        "quickstart/mask_rcnn_R_18_FPN_scenes.yaml",
        ["DATASETS.TRAIN", "('scenes_train', 'distilled_by_a_test')", "MODEL.DEVICE", "cpu"],
    )
    assert set(check_data(cfg, training=True)) >= {"scenes_train", "distilled_by_a_test"}
    loader = Trainer.build_train_loader(cfg)
    seen = set()
    for _, batch in zip(range(12), loader, strict=False):
        assert all(len(one["instances"]) for one in batch)
        seen |= {one["file_name"] for one in batch}
    assert any(name.startswith(str(pictures)) for name in seen)
    assert any(name.startswith(str(scenes)) for name in seen)


def test_keypoints(run, person_model, scenes, pictures, tmp_path):
    # The labelled set knows left from right, whatever the teacher was trained on.
    words = ["DATASETS.TRAIN", "('elsewhere',)"]
    code, _, err = run(person_model, *words, like="scenes_keypoints_train")
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
    words = ["data", "check", str(tmp_path / "labels.json"), "--images", str(pictures)]
    assert main(words) == 0


def test_a_stopped_run_gives_the_same_file(run, shape_model, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "PART", 1)
    assert run(shape_model)[0] == 0
    whole = read(tmp_path / "labels.json")
    parts = sorted((tmp_path / "labels.json.parts").rglob("*.json"))
    assert len(parts) == 3
    before = parts[0].stat().st_mtime_ns
    parts[1].unlink()
    code, _, err = run(shape_model)
    assert code == 2
    assert "--force" in err  # labels may have been corrected by hand
    assert run(shape_model, "--force")[0] == 0
    assert read(tmp_path / "labels.json") == whole
    assert parts[1].exists()
    assert parts[0].stat().st_mtime_ns == before
    # Other views, other predictions, in a folder of their own.
    assert run(shape_model, "--force", "--no-flip", "--scales", "48")[0] == 0
    other = read(tmp_path / "labels.json")
    assert other["info"]["views"]["count"] == 1
    assert other["annotations"] != whole["annotations"]
    assert len(list((tmp_path / "labels.json.parts").iterdir())) == 2


def test_a_signal_means_again(run, shape_model, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(
        distillation, "predict_parts", lambda *_, **__: signal.raise_signal(signal.SIGTERM)
    )
    code, _, err = run(shape_model)
    assert code == 75
    assert "run the same command again" in err
    assert signal.getsignal(signal.SIGTERM) == before


def test_shares(run, shape_model, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation, "PART", 1)
    code, out, _ = run(shape_model, "--shard", "1/2")
    assert code == 0
    assert "share 1 of 2 is done; 1 of 3 parts are missing" in out
    assert not (tmp_path / "labels.json").exists()
    code, out, _ = run(shape_model, "--shard", "2/2")
    assert "the same command without --shard" in out
    monkeypatch.setattr(distillation, "predict_parts", lambda *_, **__: None)  # nothing is left
    assert run(shape_model)[0] == 0
    assert len(read(tmp_path / "labels.json")["images"]) == 3


def test_images_of_a_data_set(run, shape_model, scenes, tmp_path):
    code, out, _ = run(shape_model, "--limit", "2", "--per-class", images="scenes_train")
    assert code == 0
    assert "note: 2 of the images are in scenes_train, labelled already" in out
    coco = read(tmp_path / "labels.json")
    truth, _ = labelled(scenes)
    assert coco["images"] == [
        {key: one[key] for key in ("id", "file_name", "height", "width")}
        for one in truth["images"][:2]
    ]
    assert len(coco["info"]["thresholds"]) == 9
    assert f"--images {scenes}/scenes/train" in out
    file = scenes / "scenes/annotations/instances_val.json"
    words = ["--image-root", scenes / "scenes/val", "--limit", "1", "--force"]
    assert run(shape_model, *words, images=file)[0] == 0
    report = tmp_path / "report.json"
    assert run(shape_model, *words, "--json", report, images=file)[0] == 0
    assert json.loads(report.read_text())["images"] == 1


def test_an_image_that_does_not_decode_is_named(run, shape_model, pictures, tmp_path):
    folder = tmp_path / "mixed"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "a.png").write_bytes((pictures / "0.png").read_bytes())
    (folder / "b.png").write_bytes(b"no picture")
    code, out, _ = run(shape_model, images=folder)
    assert code == 0
    assert f"left out: image {folder}/b.png does not decode" in out
    assert f"labels.json --images {folder}\n" in out
    assert [one["id"] for one in read(tmp_path / "labels.json")["images"]] == [1]


def test_too_few_predictions(run, shape_model, tmp_path):
    code, out, _ = run(shape_model, "TEST.DETECTIONS_PER_IMAGE", "1")
    assert code == 0
    assert "but there are only 3 predictions: all are taken" in out
    assert len(read(tmp_path / "labels.json")["annotations"]) == 3


def test_nothing_is_found(run, shape_model, tmp_path):
    code, _, err = run(shape_model, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "1.0")
    assert code == 1
    assert "found nothing in 3 images" in err
    assert not (tmp_path / "labels.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "empty"], "holds no image"),
        (["--images", "nowhere.json"], "does not exist"),
        (["--images", "no_such_set"], "no_such_set"),
        (["--image-root", "x"], "--image-root goes with an annotation file"),
        (["--like", "no_such_set"], "no_such_set"),
        (["--output", "no/such/folder/l.json"], "there is no folder"),
        (["MODEL.NONSENSE", "1"], "unknown config key"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
    ],
)
def test_wrong_calls(run, shape_model, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, err = run(shape_model, *words)
    assert code in (1, 2)
    assert message in err
    assert not (tmp_path / "labels.json.parts").exists()


def test_options_that_cannot_be_read(run, shape_model, capsys):
    for words, message in (
        (["--scales", "400,x"], "'x' is not a whole number"),
        (["--shard", "3/2"], "expected I/N"),
        (["--shard", "0/2"], "expected I/N"),
    ):
        with pytest.raises(SystemExit):
            run(shape_model, *words)
        assert message in capsys.readouterr().err


def test_models_that_do_not_fit_the_set(run, shape_model, person_model):
    def refused(model, *words, like):
        code, _, err = run(model, *words, like=like)
        assert code == 2
        return err

    assert "has keypoints, but this model predicts none" in refused(
        shape_model, like="scenes_keypoints_train"
    )
    assert "9 there, 1 here" in refused(
        shape_model, "--no-keypoints", like="scenes_keypoints_train"
    )
    assert "scenes_train has none" in refused(person_model, like="scenes_train")
    assert "1 there, 9 here" in refused(person_model, "--no-keypoints", like="scenes_train")
    assert "predicts 5 keypoints" in refused(
        person_model,
        "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS",
        "5",
        like="scenes_keypoints_train",
    )


def test_labels_without_keypoints(run, person_model, tmp_path):
    assert run(person_model, "--no-keypoints", like="scenes_keypoints_train")[0] == 0
    coco = read(tmp_path / "labels.json")
    assert coco["annotations"]
    assert not any("keypoints" in one for one in coco["annotations"])


@pytest.fixture(scope="module")
def apart_model(tmp_path_factory):
    """Its RPN is another model."""
    words = ["MODEL.KEYPOINT_ON", "True", "MODEL.MASK_ON", "False"]
    words += ["MODEL.ROI_HEADS.NUM_CLASSES", "1", "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "(8,)"]
    words += ["MODEL.LOAD_PROPOSALS", "True"]
    words += ["MODEL.PROPOSAL_GENERATOR.NAME", "PrecomputedProposals"]
    words += ["DATASETS.TRAIN", "('scenes_keypoints_train',)", "DATASETS.TEST", "()"]
    folder = tmp_path_factory.mktemp("apart")
    return save_tiny_model(folder, [*VIEWS, *words], class_names=["person"])


def test_a_model_whose_rpn_is_apart(run, apart_model, person_model, tmp_path):
    sets = {"like": "scenes_keypoints_train"}
    boxes = [np.array([[4, 4, 40, 50], [30, 10, 60, 64], [0, 0, 0, 9]], np.float32)] * 3
    content = {"boxes": boxes, "objectness_logits": [np.array([0.1, 0.9, 5.0], np.float32)] * 3}
    file = tmp_path / "proposals.pkl"

    def dump(ids):
        file.write_bytes(pickle.dumps({"ids": ids, "bbox_mode": 0} | content))

    dump([3, 1, 2])
    code, out, _ = run(apart_model, "--proposals", file, **sets)
    assert code == 0
    assert "of 6 predictions" in out  # one of a proposal; an empty one gives none
    coco = read(tmp_path / "labels.json")
    assert coco["info"]["proposals"] == "proposals.pkl"
    first = len(list((tmp_path / "labels.json.parts").iterdir()))
    topk = ["DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST", "2"]  # the empty one is the best
    assert "of 3 predictions" in run(apart_model, "--proposals", file, "--force", *topk, **sets)[1]
    dump([1, 3, 2])
    assert run(apart_model, "--proposals", file, "--force", **sets)[0] == 0
    assert len(list((tmp_path / "labels.json.parts").iterdir())) == first + 2

    dump([1, 2, 7])
    code, _, err = run(apart_model, "--proposals", file, "--force", **sets)
    assert code == 1
    assert "1 of 3 images have no proposals, the first is id 3 (2.png)" in err
    assert "--proposals" in run(apart_model, "--force", **sets)[2]
    assert "has its own RPN" in run(person_model, "--proposals", file, "--force", **sets)[2]
    words = ["--proposals", tmp_path / "none.pkl", "--force"]
    assert "does not exist" in run(apart_model, *words, **sets)[2]
