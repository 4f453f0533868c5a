"""`data convert`, `split`, `merge` and `subset` as a user calls them."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.errors import exit_code_of
from mask_rcnn_ext.tools import data

HEIGHT, WIDTH = 30, 40


def call(*words: Any) -> int:
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    args = parser.parse_args([str(word) for word in words])
    return exit_code_of(lambda: data.run(args), "data")


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)
    return path


def via(folder: Path) -> Path:
    regions = [
        {
            "shape_attributes": {
                "name": "polygon",
                "all_points_x": [1, 20, 20, 1],
                "all_points_y": [2, 2, 9, 9],
            },
            "region_attributes": {"kind": kind, "age": "1"},
        }
        for kind in ("dog", "cat", "")
    ]
    picture(folder / "pictures" / "a.png")
    picture(folder / "pictures" / "b.png")
    path = folder / "via.json"
    path.write_text(
        json.dumps(
            {
                "a": {"filename": "a.png", "size": -1, "regions": regions},
                "b": {"filename": "b.png", "size": -1, "regions": []},
            }
        )
    )
    return path


def coco(path: Path, images: int = 10, first_id: int = 1, extra: str = "kept") -> Path:
    """Ring-shaped masks, one a picture, classes in turn; the last picture is empty."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[5:20, 5:25] = 1
    mask[9:12, 9:12] = 0
    counts = coco_mask.encode(mask)["counts"].decode()
    made: dict[str, Any] = {"info": {"extra": extra}, "images": [], "annotations": []}
    for k in range(images):
        number = first_id + k
        name = f"v{k % 3}_{number}.png"
        picture(path.parent / name)
        made["images"].append(
            {"id": number, "file_name": name, "height": HEIGHT, "width": WIDTH, "extra": 1.5}
        )
        if k < images - 1:
            made["annotations"].append(
                {
                    "id": number,
                    "image_id": number,
                    "category_id": 1 + k % 2,
                    "bbox": [5, 5, 20, 15],
                    "area": int(mask.sum()),
                    "iscrowd": 0,
                    "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts},
                    "extra": extra,
                }
            )
    made["categories"] = [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}]
    path.write_text(json.dumps(made))
    return path


def load(path: Path) -> Any:
    return json.loads(path.read_text())


def test_via_to_coco_with_counts_notes_and_the_next_command(tmp_path, capsys):
    source, out = via(tmp_path), tmp_path / "coco.json"
    words = ["convert", source, "--images", tmp_path / "pictures", "--class-attribute", "kind"]
    report = tmp_path / "report.json"
    assert call(*words, "--from", "via", "--out", out, "--json", report) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("note: 1 x region without a class: left out")
    assert lines[1] == f"{out}: 2 images (1 without objects), 2 objects, 0 crowds, 2 classes"
    assert lines[2].startswith("Next: mask-rcnn-ext data check ")
    assert len(load(out)["annotations"]) == 2
    assert load(report)["counts"]["objects"] == 2
    assert load(report)["notes"] == [lines[0].removeprefix("note: ")]
    # The command that is printed can be run.
    parser = argparse.ArgumentParser()
    data.add_arguments(parser)
    assert parser.parse_args(shlex.split(lines[2])[3:]).command == "check"

    # The same call again gives the same bytes, when it may.
    before = out.read_bytes()
    assert call(*words, "--out", out) == 2
    assert "--force" in capsys.readouterr().err
    assert call(*words, "--out", out, "--force") == 0
    assert "taken as via" in capsys.readouterr().out
    assert out.read_bytes() == before


def test_the_class_attribute_must_be_said(tmp_path, capsys):
    source = via(tmp_path)
    assert call("convert", source, "--images", tmp_path / "pictures", "--out", tmp_path / "o") == 2
    assert "kind, age" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


def test_coco_to_yolo_and_back_keeps_every_mask(tmp_path, capsys):
    source = coco(tmp_path / "in" / "set.json")
    yolo, back = tmp_path / "yolo", tmp_path / "back.json"
    assert call("convert", source, "--to", "yolo-seg", "--out", yolo, "--part", "val") == 0
    out = capsys.readouterr().out
    assert f"{source}: taken as coco" in out
    assert "9 x annotation with 'extra'" in out
    assert f"Written: {yolo}" in out
    assert call("convert", yolo, "--out", back) == 0
    masks = [
        coco_mask.decode(annotation["segmentation"]) for annotation in load(source)["annotations"]
    ]
    found = load(back)
    assert len(found["images"]) == 10
    assert [c["name"] for c in found["categories"]] == ["dog", "cat"]
    for annotation in found["annotations"]:
        rles = coco_mask.frPyObjects(annotation["segmentation"], HEIGHT, WIDTH)
        assert (coco_mask.decode(rles)[..., 0] == masks[0]).all()
    assert len(found["annotations"]) == len(masks)


def test_via_to_yolo_in_one_step(tmp_path, capsys):
    source = via(tmp_path)
    words = ["--images", tmp_path / "pictures", "--class-attribute", "kind", "--pictures", "none"]
    assert call("convert", source, *words, "--to", "yolo-seg", "--out", tmp_path / "y") == 0
    assert (tmp_path / "y/labels/train/a.txt").read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.json", "--out", "o"], "not there"),
        (["set.json", "--out", "o"], "coco already"),
        (["set.json", "--from", "coco", "--out", "o"], "coco already"),
        (["v1_2.png", "--out", "o"], "--from"),
        (["set.json", "--from", "via", "--out", "set.json"], "the file that is read"),
        (["set.json", "--from", "via", "--out", "o", "--split", "x"], "no option split"),
        (["set.json", "--from", "via", "--out", "o", "--holes", "fill"], "no option holes"),
        (["set.json", "--to", "yolo-seg", "--out", "o", "--split", "x"], "no option split"),
        (["set.json", "--to", "yolo-seg", "--out", "o", "--holes", "x"], "holes is 'x'"),
        (["set.json", "--from", "via", "--out", "no/such/o"], "no folder"),
    ],
)
def test_wrong_calls_end_in_2_and_write_nothing(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    coco(tmp_path / "set.json")
    before = sorted(tmp_path.rglob("*"))
    assert call("convert", *words) == 2
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_formats_are_told_apart(tmp_path):
    from mask_rcnn_ext.data.formats.guess import guess_format

    assert guess_format(via(tmp_path)) == "via"
    assert guess_format(coco(tmp_path / "set.json")) == "coco"
    (tmp_path / "a.xml").write_text("<?xml version='1.0'?><annotations></annotations>")
    assert guess_format(tmp_path / "a.xml") == "cvat"
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm" / "a.json").write_text('{"shapes": [], "imagePath": "a.jpg"}')
    assert guess_format(tmp_path / "lm") == guess_format(tmp_path / "lm" / "a.json") == "labelme"
    for name in ("voc/SegmentationObject", "voc/SegmentationClass", "maps"):
        (tmp_path / name).mkdir(parents=True)
    assert guess_format(tmp_path / "voc") == "voc-masks"
    picture(tmp_path / "maps" / "a.png")
    for name in ("maps", "maps/a.png"):
        assert call("convert", tmp_path / name, "--out", tmp_path / "o") == 2


def test_split_writes_parts_that_make_up_the_whole(tmp_path, capsys):
    source, out = coco(tmp_path / "set.json", 20), tmp_path / "parts"
    words = ["split", source, "--out", out, "--parts", "train=0.8", "val=0.2", "--seed", "3"]
    assert call(*words, "--json", tmp_path / "r.json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["instances", "train", "val"],
        ["dog", "8", "2"],
        ["cat", "7", "2"],
    ]
    parts = [load(out / f"set_{part}.json") for part in ("train", "val")]
    assert [len(part["images"]) for part in parts] == [16, 4]
    for section in ("images", "annotations"):
        together = sorted(parts[0][section] + parts[1][section], key=lambda e: e["id"])
        assert together == load(source)[section]
    assert parts[0]["info"] == {"extra": "kept"}
    assert load(tmp_path / "r.json")["parts"]["val"]["instances"] == {"dog": 2, "cat": 2}
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert call(*words) == 2
    assert call(*words, "--force") == 0
    assert {path: path.read_bytes() for path in out.iterdir()} == before


def test_split_by_group(tmp_path):
    source, out = coco(tmp_path / "set.json", 20), tmp_path / "parts"
    words = ["--parts", "x=0.5", "y=0.5", "--by-group", r"^(v\d)_"]
    assert call("split", source, "--out", out, *words) == 0
    groups = [
        {image["file_name"][:2] for image in load(out / f"set_{part}.json")["images"]}
        for part in "xy"
    ]
    assert not groups[0] & groups[1]
    assert groups[0] | groups[1] == {"v0", "v1", "v2"}


@pytest.mark.parametrize(
    "parts", [["train=0.8"], ["train=0.8", "train=0.2"], ["train=0.8", "val=0.3"]]
)
def test_split_refuses_odd_parts(tmp_path, capsys, parts):
    source = coco(tmp_path / "set.json")
    assert call("split", source, "--out", tmp_path / "o", "--parts", *parts) == 2
    message = capsys.readouterr().err
    assert "--parts" in message or "sum up to 1" in message
    with pytest.raises(SystemExit):
        call("split", source, "--out", tmp_path / "o", "--parts", "../train=0.8", "val=0.2")


def test_merge_of_two_folders(tmp_path, capsys):
    one = coco(tmp_path / "one" / "set.json", 4)
    two = coco(tmp_path / "two" / "set.json", 3, extra="other")
    out = tmp_path / "both.json"
    assert call("merge", one, two, "--out", out) == 0
    text = capsys.readouterr().out
    assert "note: 3 x ids of images shared by parts" in text
    assert "note: 1 x key 'info' with another value" in text
    assert f"{out}: 7 images (2 without objects), 5 objects" in text
    assert f"data check {out}" in text
    assert "--images" not in text  # the common folder is that of the file
    made = load(out)
    assert all((tmp_path / image["file_name"]).is_file() for image in made["images"])
    assert {image["file_name"].split("/")[0] for image in made["images"]} == {"one", "two"}
    assert [a["extra"] for a in made["annotations"]] == ["kept"] * 3 + ["other"] * 2
    assert made["annotations"][0]["segmentation"] == load(one)["annotations"][0]["segmentation"]
    assert call("merge", one, "--out", tmp_path / "x.json") == 2
    assert call("merge", one, two, "--out", one, "--force") == 2
    words = ["--images", "a", "b", "c"]
    assert call("merge", one, two, "--out", tmp_path / "x.json", *words) == 2


def test_subset(tmp_path, capsys):
    source = coco(tmp_path / "set.json")
    out = tmp_path / "some.json"
    assert call("subset", source, "--out", out, "--classes", "cat", "--count", "4") == 0
    assert f"{out}: 4 images (2 without objects), 2 objects" in capsys.readouterr().out
    made = load(out)
    assert made["categories"] == [{"id": 2, "name": "cat"}]
    assert made["images"] == load(source)["images"][:4]
    assert made["annotations"] == load(source)["annotations"][1:4:2]
    words = ["subset", source, "--force", "--out", out]
    assert call(*words, "--ids", "3", "5") == 0
    assert [image["id"] for image in load(out)["images"]] == [3, 5]
    assert call(*words, "--drop-empty") == 0
    assert len(load(out)["images"]) == 9
    assert call(*words) == 2
    assert call(*words, "--seed", "1") == 2
    assert call(*words, "--classes", "cow") == 2
    assert "unknown class cow" in capsys.readouterr().err


def test_registered_sets_have_names(scenes, tmp_path, capsys):
    out = tmp_path / "some.json"
    assert call("subset", "scenes_train", "--out", out, "--count", "2") == 0
    assert f"--images {scenes / 'scenes/train'}" in capsys.readouterr().out
    words = ["--to", "yolo-seg", "--out", tmp_path / "yolo"]
    assert call("convert", "scenes_train", "--from", "coco", *words) == 0
    assert len(list((tmp_path / "yolo/images/train").iterdir())) == 12
