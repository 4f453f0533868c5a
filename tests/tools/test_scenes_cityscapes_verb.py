"""`mask-rcnn-ext scenes --layout cityscapes`."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from mask_rcnn_ext.tools.cli import main


def command(*words: object) -> int:
    return main(["scenes", *map(str, words), "--workers", "1"])


def test_writes_both_splits(tmp_path, capsys):
    out = tmp_path / "cs"
    words = ["--layout", "cityscapes", "--out", out, "--images", 12, "--size", "32x64"]
    assert command(*words) == 0
    captured = capsys.readouterr()
    assert f"{out}/leftImg8bit/train: 12 images, " in captured.out
    assert f"{out}/leftImg8bit/val: 1 images, " in captured.out
    assert "scenes train: 12 of 12" in captured.err
    assert len(list(out.glob("leftImg8bit/train/*/*.png"))) == 12
    assert len(list(out.glob("gtFine/val/camelot/*"))) == 4
    with Image.open(next(out.glob("leftImg8bit/val/*/*.png"))) as image:
        assert image.size == (64, 32)
    assert command(*words, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out.count("already there, nothing done") == 2
    assert not captured.err


def test_one_split_and_force(tmp_path, capsys):
    words = ["--layout", "cityscapes", "--out", tmp_path, "--size", 32, "--split", "val", "--quiet"]
    assert command(*words, "--images", 9, "--val-images", 3) == 0
    assert not (tmp_path / "leftImg8bit/train").exists()
    assert command(*words, "--images", 9, "--val-images", 2) == 2
    message = capsys.readouterr().err
    assert "made with --layout cityscapes --images 3 --size 32x32" in message
    assert "--force" in message
    assert command(*words, "--images", 9, "--val-images", 2, "--force") == 0
    assert len(list(tmp_path.glob("leftImg8bit/val/*/*.png"))) == 2


def test_coco_is_the_default(tmp_path):
    words = ["--images", 2, "--size", 32, "--quiet"]
    assert command("--out", tmp_path / "a", *words) == 0
    assert command("--out", tmp_path / "b", "--layout", "coco", *words) == 0
    one, other = (
        {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
        for out in (tmp_path / "a", tmp_path / "b")
    )
    assert one == other
    manifest = json.loads((tmp_path / "a/scenes.json").read_text())
    assert "layout" not in manifest["splits"]["train"]["parameters"]


def test_wrong_calls(tmp_path, capsys):
    assert command("--out", tmp_path / "a", "--images", 0, "--layout", "cityscapes") == 2
    assert "must be at least 1, got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        command("--out", tmp_path / "a", "--images", 2, "--layout", "voc")
    assert caught.value.code == 2
    assert command("--out", tmp_path / "a", "--images", 2, "--size", 32, "--quiet") == 0
    layout = ["--layout", "cityscapes"]
    assert command("--out", tmp_path / "a", "--images", 2, "--size", 32, *layout) == 2
    assert "another layout" in capsys.readouterr().err
