"""`mask-rcnn-ext data stats`: the table, the JSON, the picture, and what it refuses."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from mask_rcnn_ext.tools.cli import main


def _file(folder: Path, names: list[str], images: int = 3) -> Path:
    annotations = [
        {"id": k, "image_id": k % images, "category_id": k % len(names), "bbox": [0, 0, 20, 10],
         "area": 100, "iscrowd": 0}
        for k in range(5 * len(names) // 2)
    ]  # fmt: skip
    data = {
        "images": [{"id": k, "height": 40, "width": 60} for k in range(images)],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names)],
    }
    path = folder / "my set.json"
    path.write_text(json.dumps(data))
    return path


def _columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in line)


def test_a_registered_set(scenes, tmp_path, capsys):
    target, picture = tmp_path / "s.json", tmp_path / "s.png"
    words = ["data", "stats", "scenes_train", "--json", str(target), "--picture", str(picture)]
    assert main(words) == 0
    text = capsys.readouterr().out
    data = json.loads((scenes / "scenes/annotations/instances_train.json").read_text())
    figures = json.loads(target.read_text())
    plain = [a for a in data["annotations"] if not a["iscrowd"]]
    assert figures["name"] == "scenes_train"
    assert figures["images"] == len(data["images"])
    assert figures["instances"] == len(plain)
    assert f"{len(data['images'])} images" in text
    assert f"{len(plain)} instances" in text
    for category in data["categories"]:
        count = sum(a["category_id"] == category["id"] for a in plain)
        assert any(
            line.split(category["name"])[-1].split()[:1] == [str(count)]
            for line in text.splitlines()
            if category["name"] in line
        ), category
    assert picture.read_bytes().startswith(b"\x89PNG")
    # The tool's own files are replaced by the same call, byte for byte.
    before = target.read_bytes(), picture.read_bytes()
    assert main(words) == 0
    assert (target.read_bytes(), picture.read_bytes()) == before


def test_a_terminal_of_100_columns_holds_the_table(tmp_path, capsys):
    names = [f"class {k} " + "long" * (k % 9) for k in range(70)] + [
        "犬" * 30,
        "tab\there",
        "\x1b[31m",
    ]
    assert main(["data", "stats", str(_file(tmp_path, names)), "--classes", "all"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(_columns, lines[1:])) <= 100
    assert not any("\x1b" in line or "\t" in line for line in lines)
    assert len([line for line in lines if "class 1" in line]) >= 5


def test_the_most_frequent_classes_come_first_and_the_rest_is_said(tmp_path, capsys):
    path = _file(tmp_path, [f"c{k}" for k in range(50)])
    assert main(["data", "stats", str(path), "--classes", "10"]) == 0
    text = capsys.readouterr().out
    assert "... and 40 more classes with 3 to 2 instances (--classes all)" in text
    assert "c0 " in text
    assert "c49" not in text


def test_the_size_in_training_follows_the_options(tmp_path, capsys):
    path = _file(tmp_path, ["a"])
    target = tmp_path / "s.json"
    words = ["--short-edge", "80", "--max-size", "120", "--json", str(target)]
    assert main(["data", "stats", str(path), *words]) == 0
    assert "in training (80, at most 120)" in capsys.readouterr().out
    assert json.loads(target.read_text())["sizes_training"]["median"] == 20


def test_what_is_odd_is_noted(tmp_path, capsys):
    path = _file(tmp_path, ["a", "b"])
    data = json.loads(path.read_text())
    data["annotations"] += [{"id": 99, "image_id": 77, "category_id": 0, "bbox": [0, 0, 9, 9]}] * 2
    data["annotations"][0].pop("area")
    data["annotations"] += [
        {"id": k, "image_id": 0, "category_id": 0, "bbox": [0, 0, 9, 9], "area": 9}
        for k in range(100, 220)
    ]
    data["categories"].append({"id": 5, "name": "never"})
    path.write_text(json.dumps(data))
    assert main(["data", "stats", str(path)]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "2 annotations of an unknown image are not counted" in text
    assert "1 areas were missing and are taken from their boxes" in text
    assert "1 images have more than 100 instances" in text
    assert "1 classes without an instance: never" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["nothing_of_that_name"], 2, "nothing_of_that_name"),
        (["{folder}/gone.json"], 2, "does not exist"),
        (["{file}", "--json", "{folder}/no/s.json"], 2, "there is no folder"),
        (["{file}", "--picture", "{file}"], 2, "is the file that is read"),
        (["{file}", "--json", "{other}"], 2, "was not written by this command"),
        (["{file}", "--picture", "{folder}"], 2, "is a folder"),
        (["{other}"], 1, "is not JSON"),
    ],
)
def test_a_wrong_call_is_refused_and_nothing_is_lost(tmp_path, capsys, words, code, message):
    path, other = _file(tmp_path, ["a"]), tmp_path / "diary.txt"
    other.write_text("dear diary")
    before = path.read_bytes()
    filled = [word.format(file=path, other=other, folder=tmp_path) for word in words]
    assert main(["data", "stats", *filled]) == code
    shown = capsys.readouterr()
    assert message in shown.err
    assert "Traceback" not in shown.err
    assert (path.read_bytes(), other.read_text()) == (before, "dear diary")


def test_force_replaces(tmp_path):
    path, other = _file(tmp_path, ["a"]), tmp_path / "old.json"
    other.write_text("{}")
    assert main(["data", "stats", str(path), "--json", str(other), "--force"]) == 0
    assert json.loads(other.read_text())["instances"] == 2


def test_the_real_file_reads_well(coco_images, capsys):
    assert main(["data", "stats", "coco_2017_train"]) == 0
    text = capsys.readouterr().out
    assert "80 classes" in text
    assert max(map(len, text.splitlines()[1:])) <= 100
