"""`mask-rcnn-ext eval`: figures from files, exit codes, what it says about wrong input."""

from __future__ import annotations

import argparse
import json

import pytest
from detectron2.data import DatasetCatalog
from pycocotools import mask as coco_mask

from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools import evaluate


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    return exit_code_of(lambda: evaluate.run(args), "mask-rcnn-ext eval")


@pytest.fixture
def annotations(scenes):
    return scenes / "scenes" / "annotations" / "instances_val.json"


@pytest.fixture
def predictions(annotations, tmp_path):
    """The ground truth as predictions."""
    truth = json.loads(annotations.read_text())
    found = [
        {key: one[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
        | {"score": 0.9}
        for one in truth["annotations"]
        if not one["iscrowd"]
    ]
    assert all(isinstance(one["segmentation"], dict) for one in found)
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(found))
    return path


def change(path, **values):
    found = json.loads(path.read_text())
    found[1].update(values)
    path.write_text(json.dumps(found))


def test_by_file_and_by_name(annotations, predictions, tmp_path, capsys):
    reports = []
    for number, dataset in enumerate((annotations, "scenes_val")):
        report = tmp_path / f"{number}.json"
        assert run("--predictions", predictions, "--dataset", dataset, "--json", report) == 0
        out = capsys.readouterr().out
        assert out.index("bbox") < out.index("segm")
        assert "100.00" in out
        reports.append(json.loads(report.read_text()))
    assert reports[0]["results"] == reports[1]["results"]
    assert reports[0]["dataset"] == "instances_val"
    for task in ("bbox", "segm"):
        figures = reports[0]["results"][task]
        assert figures["figures"]["AP"] == pytest.approx(100)
        assert figures["images"] == 4
        assert figures["detections"] == len(json.loads(predictions.read_text()))
    assert str(tmp_path) not in (tmp_path / "0.json").read_text()  # the same bytes anywhere


def test_backends_tasks_classes_and_caps(predictions, tmp_path, capsys):
    words = ["--predictions", predictions, "--dataset", "scenes_val", "--per-class"]
    reports = []
    for backend in ("auto", "pycocotools"):
        path = tmp_path / f"{backend}.json"
        words_of = ["--tasks", "segm", "boundary", "--max-dets", "5", "--backend", backend]
        assert run(*words, *words_of, "--json", path) == 0
        reports.append(json.loads(path.read_text())["results"])
        out = capsys.readouterr().out
        assert "segm, per class" in out
        assert "AR5" in out
        assert "5 detections an image and class count" in out
    assert list(reports[0]) == ["segm", "boundary"]
    for one in (*reports[0].values(), *reports[1].values()):
        one.pop("backend")
    assert reports[0] == reports[1]


def test_no_predictions_at_all(tmp_path, scenes, capsys):
    path = tmp_path / "none.json"
    path.write_text("[]")
    assert run("--predictions", path, "--dataset", "scenes_val") == 0
    out = capsys.readouterr().out
    assert "segm" in out
    assert "no detection at all" in out


def test_keypoints(scenes, tmp_path, capsys):
    file = scenes / "scenes" / "annotations" / "person_keypoints_val.json"
    truth = json.loads(file.read_text())
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "score": 1.0,
         "keypoints": a["keypoints"]}
        for a in truth["annotations"]
    ]  # fmt: skip
    path = tmp_path / "k.json"
    path.write_text(json.dumps(found))
    assert run("--predictions", path, "--dataset", "scenes_keypoints_val") == 0
    out = capsys.readouterr().out
    assert "keypoints" in out
    assert "segm" not in out
    assert run("--predictions", path, "--dataset", file, "--sigmas", "0.1", "0.2") == 1
    assert "2 sigmas" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_id": 123456}, "entry 1 (image 123456) has the image_id 123456, which is not in"),
        ({"category_id": 99}, "has the category_id 99, which is not in"),
        ({"score": 2}, "has the score 2, expected a number from 0 to 1"),
        ({"score": float("nan")}, "has the score nan"),
        ({"segmentation": {"size": [3, 3], "counts": "9"}}, "an RLE of the size [3, 3]"),
        ({"segmentation": {"size": [64, 64], "counts": "9"}}, "does not add up to 64 x 64"),
    ],
)
def test_a_wrong_prediction_is_1(predictions, tmp_path, capsys, values, message):
    change(predictions, **values)
    report = tmp_path / "r.json"
    words = ["--predictions", predictions, "--dataset", "scenes_val", "--json", report]
    assert run(*words) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert str(predictions) in captured.err
    assert not captured.out
    assert not report.exists()


def test_broken_files_are_1(predictions, annotations, capsys):
    predictions.write_text(predictions.read_text()[:-30])
    assert run("--predictions", predictions, "--dataset", annotations) == 1
    assert "is not JSON" in capsys.readouterr().err
    predictions.write_text("")
    assert run("--predictions", predictions, "--dataset", annotations) == 1
    assert "is empty" in capsys.readouterr().err
    assert run("--predictions", annotations, "--dataset", annotations) == 1
    assert "is an annotation file, expected COCO results" in capsys.readouterr().err
    assert run("--predictions", predictions.parent / "no.json", "--dataset", annotations) == 1
    assert "cannot read" in capsys.readouterr().err


def test_wrong_calls_are_2(predictions, annotations, capsys):
    assert run("--predictions", predictions, "--dataset", "no_such_set") == 2
    assert "no_such_set" in capsys.readouterr().err
    words = ["--predictions", predictions, "--dataset", annotations]
    assert run(*words, "--json", predictions) == 2
    assert "is the file that is read" in capsys.readouterr().err
    assert run(*words, "--json", "no/such/r.json") == 2
    assert run(*words, "--backend", "hotcoco", "--tasks", "boundary") == 2
    for wrong in (["--tasks", "mask"], ["--max-dets", "0"], ["--backend", "fast"]):
        with pytest.raises(SystemExit) as caught:
            run(*words, *wrong)
        assert caught.value.code == 2


def test_somebody_else_s_report_is_left_alone(predictions, tmp_path, capsys):
    report = tmp_path / "notes.json"
    report.write_text("mine")
    words = ["--predictions", predictions, "--dataset", "scenes_val", "--json", report]
    assert run(*words) == 2
    assert report.read_text() == "mine"
    assert run(*words, "--force") == 0
    first = report.read_bytes()
    assert run(*words) == 0  # its own report
    assert report.read_bytes() == first


def test_the_help_names_every_task_and_backend(capsys):
    with pytest.raises(SystemExit):
        run("--help")
    out = capsys.readouterr().out
    from mask_rcnn_ext.evaluation.coco_backends import BACKENDS
    from mask_rcnn_ext.evaluation.coco_truth import TASKS

    assert evaluate._TASKS == TASKS
    assert evaluate._BACKENDS == BACKENDS
    for word in (*TASKS, *BACKENDS):
        assert word in out


def test_ground_truth_of_real_images_scores_100(coco_images, tmp_path, capsys):
    truth_file = coco_images / "coco" / "annotations" / "instances_val2017.json"
    truth = json.loads(truth_file.read_text())
    size = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    found = []
    for one in truth["annotations"]:
        if one["iscrowd"]:
            continue
        rle = coco_mask.merge(coco_mask.frPyObjects(one["segmentation"], *size[one["image_id"]]))
        shape = {"size": rle["size"], "counts": rle["counts"].decode()}
        found.append({"image_id": one["image_id"], "category_id": one["category_id"],
                      "bbox": one["bbox"], "score": 1.0, "segmentation": shape})  # fmt: skip
    path, report = tmp_path / "p.json", tmp_path / "r.json"
    path.write_text(json.dumps(found))
    assert "coco_2017_val" in DatasetCatalog.list()
    words = ["--predictions", path, "--dataset", truth_file, "--per-class", "--json", report]
    assert run(*words, "--tasks", "bbox", "segm", "boundary") == 0
    for task, one in json.loads(report.read_text())["results"].items():
        assert one["figures"]["AP"] == pytest.approx(100), task
        assert all(row["AP"] is None or row["AP"] == pytest.approx(100) for row in one["per_class"])
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines()[:60])) < 130
