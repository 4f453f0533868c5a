"""`mask-rcnn-ext analyze`: the page and its numbers from files, exit codes, what it refuses."""

from __future__ import annotations

import argparse
import json

import pytest

from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools import analyze


def run(*words: object) -> int:
    parser = argparse.ArgumentParser()
    analyze.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    return exit_code_of(lambda: analyze.run(args), "mask-rcnn-ext analyze")


@pytest.fixture
def annotations(scenes):
    return scenes / "scenes" / "annotations" / "instances_val.json"


@pytest.fixture
def predictions(annotations, tmp_path):
    """The ground truth as predictions, but the first object of each image."""
    truth = json.loads(annotations.read_text())
    found, seen = [], set()
    for one in truth["annotations"]:
        if one["iscrowd"]:
            continue
        if one["image_id"] in seen:
            keys = ("image_id", "category_id", "bbox", "segmentation")
            found.append({key: one[key] for key in keys} | {"score": 0.9})
        seen.add(one["image_id"])
    path = tmp_path / "predictions.json"
    path.write_text(json.dumps(found))
    return path


@pytest.fixture
def words(predictions, tmp_path):
    out = tmp_path / "report.html"
    return ["--predictions", predictions, "--dataset", "scenes_val", "--out", out, "--samples", 20]


def report_of(tmp_path, *words):
    path = tmp_path / "report.json"
    assert run(*words, "--json", path) == 0
    return json.loads(path.read_text())


def test_page_and_numbers(words, annotations, tmp_path, capsys):
    report = report_of(tmp_path, *words)
    out = capsys.readouterr().out
    numbers = report["tasks"][0]
    ap = numbers["figures"][0]["value"]
    assert 0 < ap < 100
    assert f"segm: AP {ap:.1f} (95% interval " in out
    page = (tmp_path / "report.html").read_text()
    assert f'data-value="{ap}"' in page
    assert str(tmp_path) not in page  # the same bytes anywhere
    assert len(numbers["pictures"]["worst"]) + len(numbers["pictures"]["best"]) == 4
    assert page.count("data:image/") == 8
    assert not any(one["note"] for part in numbers["pictures"].values() for one in part)
    eval_json = tmp_path / "eval.json"
    from mask_rcnn_ext.tools import evaluate

    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    given = ["--predictions", str(words[1]), "--dataset", str(annotations)]
    evaluate.run(parser.parse_args([*given, "--tasks", "segm", "--json", str(eval_json)]))
    official = json.loads(eval_json.read_text())["results"]["segm"]
    assert ap == pytest.approx(official["figures"]["AP"], abs=1e-9)
    assert numbers["notes"] == [
        note.replace(str(annotations), annotations.name) for note in official["notes"]
    ]


def test_the_same_call_gives_the_same_bytes(words, tmp_path):
    first = report_of(tmp_path, *words), (tmp_path / "report.html").read_bytes()
    second = report_of(tmp_path, *words), (tmp_path / "report.html").read_bytes()
    assert first == second
    other = report_of(tmp_path, *words, "--seed", 1)
    assert other["tasks"][0]["figures"][0]["low"] != first[0]["tasks"][0]["figures"][0]["low"]


def test_tasks_pictures_and_classes(words, tmp_path):
    report = report_of(
        tmp_path, *words, "--tasks", "bbox", "segm", "--pictures", 0, "--classes", "disk"
    )
    assert [one["task"] for one in report["tasks"]] == ["bbox", "segm"]
    assert [one["name"] for one in report["tasks"][0]["curves"]["classes"]] == ["disk"]
    page = (tmp_path / "report.html").read_text()
    assert "data:image/" not in page
    assert page.index('id="bbox-class-table"') < page.index('id="segm-class-table"')


def test_boxes_alone_are_compared_as_boxes(words, predictions, tmp_path):
    found = json.loads(predictions.read_text())
    for one in found:
        del one["segmentation"]
    predictions.write_text(json.dumps(found))
    report = report_of(tmp_path, *words)
    assert [one["task"] for one in report["tasks"]] == ["bbox"]
    assert "IoU is of boxes" in (tmp_path / "report.html").read_text()


def test_keypoints_are_said_not_to_be_analysed(words, predictions, tmp_path, capsys):
    found = json.loads(predictions.read_text())
    for one in found:
        one["keypoints"] = [1.0, 2.0, 0.5]
    predictions.write_text(json.dumps(found))
    report = report_of(tmp_path, *words)
    assert "keypoints, which are not analysed" in report["notes"][0]
    assert "keypoints, which are not analysed" in (tmp_path / "report.html").read_text()
    for one in found:
        del one["bbox"], one["segmentation"]
    predictions.write_text(json.dumps(found))
    assert run(*words) == 1
    assert "keypoints without boxes or masks" in capsys.readouterr().err


def test_no_predictions_at_all(words, predictions, tmp_path, capsys):
    predictions.write_text("[]")
    report = report_of(tmp_path, *words)
    assert report["tasks"][0]["task"] == "segm"
    assert report["tasks"][0]["figures"][0]["value"] == 0
    assert "no detection at all" in capsys.readouterr().out


def test_compare(words, predictions, tmp_path, capsys):
    folder = tmp_path / "old"
    folder.mkdir()
    other = folder / predictions.name
    other.write_text(json.dumps(json.loads(predictions.read_text())[::2]))
    report = report_of(tmp_path, *words, "--compare", other)
    first = report["tasks"][0]["paired"]["figures"][0]
    assert first["own"] == report["tasks"][0]["figures"][0]["value"]
    assert first["difference"] > 0
    assert report["compared_with"] == "old/predictions.json"
    out = capsys.readouterr().out
    assert first["says"] in out
    assert "more than old/predictions.json" in out
    found = json.loads(other.read_text())
    found[1]["image_id"] = 123456
    other.write_text(json.dumps(found))
    assert run(*words, "--compare", other) == 1
    assert f"{other}: entry 1 (image 123456)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_id": 123456}, "entry 1 (image 123456) has the image_id 123456, which is not in"),
        ({"category_id": 99}, "has the category_id 99, which is not in"),
        ({"score": 2}, "has the score 2, expected a number from 0 to 1"),
        ({"segmentation": {"size": [64, 64], "counts": "9"}}, "does not add up to 64 x 64"),
        ({"segmentation": None}, "lacks 'segmentation'"),
    ],
)
def test_a_wrong_prediction_is_1(words, predictions, tmp_path, capsys, values, message):
    found = json.loads(predictions.read_text())
    found[1].update(values)
    predictions.write_text(json.dumps(found))
    assert run(*words) == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert str(predictions) in captured.err
    assert not captured.out
    assert not (tmp_path / "report.html").exists()


def test_wrong_calls_are_2(words, predictions, tmp_path, capsys):
    assert run(*words, "--classes", "no such class") == 2
    assert "there is no class 'no such class'" in capsys.readouterr().err
    assert run(*words, "--json", words[5]) == 2
    assert "--out and --json are both" in capsys.readouterr().err
    assert run(*words, "--json", predictions) == 2
    assert "is the file that is read" in capsys.readouterr().err
    assert run(*words[:5], "no/such/report.html") == 2
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    assert run(*words[:5], mine, "--samples", 5) == 2
    assert mine.read_text() == "mine"
    assert run(*words[:5], mine, "--samples", 5, "--force") == 0
    assert run(*words[:5], mine, "--samples", 5) == 0  # its own page
    for wrong in (["--tasks", "keypoints"], ["--samples", "0"], ["--pictures", "-1"]):
        with pytest.raises(SystemExit) as caught:
            run(*words, *wrong)
        assert caught.value.code == 2


def test_real_images(coco_images, tmp_path):
    from pycocotools import mask as coco_mask

    file = coco_images / "coco" / "annotations" / "instances_val2017.json"
    truth = json.loads(file.read_text())
    size = {i["id"]: (i["height"], i["width"]) for i in truth["images"]}
    found = []
    for one in truth["annotations"]:
        if one["iscrowd"]:
            continue
        rle = coco_mask.merge(coco_mask.frPyObjects(one["segmentation"], *size[one["image_id"]]))
        shape = {"size": rle["size"], "counts": rle["counts"].decode()}
        found.append({"image_id": one["image_id"], "category_id": one["category_id"],
                      "score": 0.5, "segmentation": shape})  # fmt: skip
    path, out = tmp_path / "p.json", tmp_path / "r.html"
    path.write_text(json.dumps(found))
    words = ["--predictions", path, "--dataset", file, "--out", out, "--samples", 5]
    images = ["--images", coco_images / "coco" / "val2017", "--pictures", 3]
    numbers = report_of(tmp_path, *words, *images)["tasks"][0]
    assert numbers["figures"][0]["value"] == pytest.approx(100)
    assert numbers["pictures"]["worst"] == []
    assert len(numbers["pictures"]["best"]) == 3
    assert not any(one["note"] for one in numbers["pictures"]["best"])
    assert {one["kind"]: one["count"] for one in numbers["errors"]["kinds"]}["missed"] == 0
