"""`mask-rcnn-ext data check`: lines, summary, JSON, exit codes, and what it refuses to write to."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mask_rcnn_ext.tools.cli import main


@pytest.fixture
def good(tmp_path) -> dict:
    """Two pictures with an object each, on disk."""
    (tmp_path / "images").mkdir()
    data: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cat"}]}
    for number in (1, 2):
        noise = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{number}.png")
        data["images"].append(
            {"id": number, "file_name": f"{number}.png", "height": 40, "width": 50}
        )
        data["annotations"].append(
            {
                "id": 10 + number,
                "image_id": number,
                "category_id": 1,
                "bbox": [20, 10, 10, 12],
                "area": 120,
                "iscrowd": 0,
                "segmentation": [[20, 10, 30, 10, 30, 22, 20, 22]],
            }
        )
    return data


@pytest.fixture
def check(tmp_path, capsys):
    """Write the file, run the command; (exit code, stdout, stderr)."""

    def run(data: dict | str, *options: str, images: str = "images") -> tuple[int, str, str]:
        path = tmp_path / "set.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data))
        words = ["data", "check", str(path), "--images", str(tmp_path / images), *options]
        code = main(words)
        return (code, *capsys.readouterr())

    return run


def test_a_good_file(check, good, tmp_path):
    code, out, err = check(good)
    assert code == 0
    summary = "2 images, 2 annotations, 1 classes: 0 errors, 0 warnings, 0 notes"
    assert out == f"{tmp_path}/set.json: {summary}\n"
    assert err == ""


def test_one_line_a_finding_and_one_for_the_file(check, good, tmp_path):
    good["annotations"][0]["bbox"] = [20, 10, 30, 22]
    good["annotations"][1]["area"] = 0
    code, out, _ = check(good)
    assert code == 1
    error, warning, summary = out.splitlines()
    where = f"{tmp_path}/set.json: image 1 (1.png), annotation 11: bbox [20, 10, 30, 22] looks"
    assert error.startswith(f"error: {where}")
    assert warning.startswith(f"warning: {tmp_path}/set.json: image 2 (2.png), annotation 12: ")
    assert summary.endswith("1 error, 1 warning, 0 notes")


def test_warnings_alone_are_no_failure(check, good):
    good["annotations"][1]["area"] = 0
    assert check(good)[0] == 0


def test_many_of_a_kind_are_cut_and_counted(check, good):
    good["annotations"] = [dict(good["annotations"][0], id=i, bbox=[0, 0, -1, 1]) for i in range(9)]
    _, out, _ = check(good)
    assert out.count("[box-negative]") == 5
    assert "  box-negative: 9, 5 of them printed\n" in out
    _, out, _ = check(good, "--all")
    assert out.count("[box-negative]") == 9
    assert "printed" not in out


def test_json(check, good, tmp_path):
    good["annotations"][0]["bbox"] = [20, 10, 30, 22]
    target = tmp_path / "report.json"
    assert check(good, "--json", str(target))[0] == 1
    report = json.loads(target.read_text())
    assert report["counts"] == {"error": 1, "warning": 0, "note": 0}
    assert report["counts_by_code"] == {"box-xyxy": 1}
    (finding,) = report["findings"]
    assert finding["severity"] == "error"
    assert finding["file"] == str(tmp_path / "set.json")
    assert (finding["image_id"], finding["annotation_id"]) == (1, 11)
    first = target.read_bytes()
    check(good, "--json", str(target))  # our own report may be replaced
    assert target.read_bytes() == first


@pytest.mark.parametrize("content", ["", "[]", '{"images": [', '{"images": []}', "[" * 99999])
def test_what_cannot_be_read_is_refused_with_exit_code_1(check, tmp_path, content):
    target = tmp_path / "report.json"
    code, out, err = check(content, "--json", str(target))
    assert code == 1
    assert out == ""
    assert "set.json" in err
    assert "Traceback" not in err
    assert "set.json" in json.loads(target.read_text())["refused"]


def test_wrong_calls(check, good, tmp_path, capsys):
    precious = tmp_path / "precious.json"
    precious.write_text("{}")
    for options, say in (
        (["--fix", str(tmp_path / "set.json")], "is the file that is read"),
        (["--fix", str(tmp_path / "set.json"), "--force"], "is the file that is read"),
        (["--fix", str(precious)], "is there already"),
        (["--json", str(precious)], "is there already"),
        (["--fix", str(tmp_path / "none" / "x.json")], "there is no folder"),
        (["--thumbnails", str(precious)], "is a file, expected a folder"),
        (["--thumbnails", str(tmp_path / "images")], "holds other files"),
        (["--against", "no_such_set"], "'no_such_set' is not registered"),
    ):
        code, _, err = check(good, *options)
        assert (code, say in err) == (2, True), (options, err)
    assert precious.read_text() == "{}"
    assert main(["data", "check", str(tmp_path / "gone.json")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_fix_says_what_it_did_and_counts_what_is_left(check, good, tmp_path):
    good["annotations"][0]["bbox"] = [20, 10, 30, 22]
    out_file = tmp_path / "fixed.json"
    code, out, _ = check(good, "--fix", str(out_file))
    assert code == 0  # it is the new file that counts
    assert "1 values changed, 0 entries moved out" in out
    assert out.splitlines()[-1].startswith(f"{out_file}: 2 images, 2 annotations")
    assert json.loads(out_file.read_text())["annotations"][0]["bbox"] == [20, 10, 10, 12]
    assert (tmp_path / "fixed.changes.json").is_file()
    good["images"][0]["file_name"] = "gone.png"
    code, out, _ = check(good, "--fix", str(out_file), "--force")
    assert code == 1
    assert "  not fixed: missing-image: 1\n" in out


def test_fix_without_anything_to_mend(check, good, tmp_path):
    code, out, _ = check(good, "--fix", str(tmp_path / "fixed.json"))
    assert code == 0
    assert "no file was written" in out
    assert not (tmp_path / "fixed.json").exists()


def test_pictures_are_opened_unless_there_are_many(check, good, tmp_path, monkeypatch):
    Image.new("RGB", (9, 9)).save(tmp_path / "images" / "1.png")
    assert "[image-size-differs]" in check(good)[1]
    code, out, _ = check(good, "--no-open-images")
    assert code == 0
    assert "not looked at: the images' content: add --open-images" in out
    monkeypatch.setattr("mask_rcnn_ext.tools.data.check.OPENED_BY_DEFAULT", 1)
    assert "[image-size-differs]" not in check(good)[1]
    assert "[image-size-differs]" in check(good, "--open-images")[1]


def test_pictures_of_another_split(check, good, tmp_path):
    folder = tmp_path / "val"
    folder.mkdir()
    picture = (tmp_path / "images" / "2.png").read_bytes()
    (folder / "x.png").write_bytes(picture)
    other = {"images": [{"id": 5, "file_name": "x.png", "height": 40, "width": 50}]}
    (folder / "val.json").write_text(json.dumps({**other, "annotations": [], "categories": []}))
    code, out, _ = check(good, "--against", str(folder / "val.json"))
    assert code == 1
    assert "image 2 (2.png): is the same picture as image 5 (x.png) of val." in out


def test_thumbnails(check, good, tmp_path):
    good["annotations"][0]["bbox"] = [20, 10, 30, 22]
    folder = tmp_path / "drawn"
    _, out, _ = check(good, "--thumbnails", str(folder))
    assert f"1 pictures: {folder}/index.html" in out
    assert sorted(p.name for p in folder.iterdir()) == ["error-box-xyxy-1-11.jpg", "index.html"]
    before = (folder / "index.html").read_bytes()
    check(good, "--thumbnails", str(folder))  # our own folder may be used again
    assert (folder / "index.html").read_bytes() == before


def test_settings_reach_the_checks(check, good):
    assert "[lost-at-training-size]" in check(good, "--short-edge", "2")[1]
    good["annotations"][1]["image_id"] = 1
    good["annotations"][1]["bbox"] = [20, 10, 10, 12.5]
    assert "[more-than-detection-cap]" in check(good, "--detection-cap", "1")[1]


@pytest.mark.parametrize(
    "name",
    [
        "coco_2017_train",
        "coco_2017_val",
        "keypoints_coco_2017_train",
        "keypoints_coco_2017_val",
    ],
)
def test_real_files_have_warnings_at_most(coco_images: Path, capsys, name):
    assert main(["data", "check", name]) == 0
    out = capsys.readouterr().out
    assert ": 0 errors, " in out.splitlines()[-1]
    assert not [line for line in out.splitlines() if line.startswith("error")]
