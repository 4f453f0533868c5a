"""`weights convert` from the command line: report, exit codes, and what it refuses to overwrite."""

from __future__ import annotations

import argparse
import errno
import json
import os
import pickle

import pytest
import torch
import torchvision

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.checkpoint import Checkpointer
from mask_rcnn_ext.engine.weights import build_on_cpu
from mask_rcnn_ext.tools import weights

R18 = "configs/COCO-InstanceSegmentation/mask_rcnn_R_18_FPN_1x.yaml"


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    weights.add_arguments(parser)
    return parser.parse_args(words)


def _convert(*words: object) -> int:
    return weights.run(_parse(["convert", *map(str, words)]))


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    path = tmp_path_factory.mktemp("published") / "resnet18.pth"
    torch.manual_seed(1)
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), path)
    return path


@pytest.fixture
def call(resnet18, tmp_path):
    return ["--config-file", R18, "--weights", resnet18, "--output", tmp_path / "o.pth"]


def test_convert_and_load(call, resnet18, tmp_path, capsys):
    report = tmp_path / "report.json"
    assert _convert(*call, "--json", report) == 0
    out, err = capsys.readouterr()
    assert err == ""
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["backbone.stem"] == ["6", "0", "0", "0"]
    assert rows["roi_heads.box_head"] == ["0", "0", "0", "4"]
    assert "missing, the model's start stays (" in out
    assert "left over in the file (2):\n  fc.weight\n  fc.bias\n" in out
    assert "INPUT.FORMAT         RGB  (as configured)" in out
    assert out.endswith(f"wrote {tmp_path / 'o.pth'}: 120 tensors\n")

    said = json.loads(report.read_text())
    assert said["kind"] == "torchvision"
    assert said["weights"] == str(resnet18)
    assert len(said["matched"]) == 120
    assert said["left_over"] == ["fc.weight", "fc.bias"]
    assert {"model": "backbone.bottom_up.stem.conv1.weight", "file": "conv1.weight",
            "shape": [64, 3, 7, 7]} in said["matched"]  # fmt: skip
    assert said["warnings"] == []
    assert said["skipped"] == []

    model = build_on_cpu(load_config(R18))
    Checkpointer(model).load(str(tmp_path / "o.pth"))
    theirs = torch.load(resnet18)["layer4.1.bn2.running_var"]
    assert torch.equal(model.backbone.bottom_up.res5[1].conv2.norm.running_var, theirs)


def test_config_overrides_and_warnings(call, capsys):
    assert _convert(*call, "INPUT.FORMAT", "BGR", "MODEL.ROI_HEADS.NUM_CLASSES", "3") == 0
    out, err = capsys.readouterr()
    assert "warning: INPUT.FORMAT is BGR, these weights need RGB" in err
    assert "INPUT.FORMAT         RGB  (CONFIGURED: BGR)" in out


def test_strict_writes_nothing_if_something_lacks(call, tmp_path, capsys):
    assert _convert(*call, "--strict") == 1
    assert "--strict: " in capsys.readouterr().err
    assert not (tmp_path / "o.pth").exists()


def test_strict_is_content_with_a_whole_checkpoint(tmp_path, capsys):
    whole = build_on_cpu(load_config(R18))
    torch.save({"model": whole.state_dict()}, tmp_path / "w.pth")
    call = ["--config-file", R18, "--weights", tmp_path / "w.pth", "--output", tmp_path / "o.pth"]
    assert _convert(*call, "--strict") == 0
    assert "are not recorded in this file" in capsys.readouterr().out


def test_nothing_matches_is_1(call, tmp_path, capsys):
    (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": torch.ones(2).numpy()}))
    call[3] = tmp_path / "w.pkl"
    assert _convert(*call) == 1
    assert "nothing in" in capsys.readouterr().err
    assert not (tmp_path / "o.pth").exists()


def test_an_existing_file_stays_unless_forced(call, tmp_path, capsys):
    (tmp_path / "o.pth").write_text("mine")
    assert _convert(*call) == 2
    assert "exists already; add --force" in capsys.readouterr().err
    assert (tmp_path / "o.pth").read_text() == "mine"
    assert _convert(*call, "--force") == 0
    assert len(torch.load(tmp_path / "o.pth")["model"]) == 120


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (1, "configs/nowhere.yaml", "configs/nowhere.yaml does not exist"),
        (3, "nowhere.pth", "weights file nowhere.pth does not exist"),
        (5, "o.pkl", "expected a name that ends in .pth"),
        (5, "nowhere/o.pth", "there is no folder nowhere"),
    ],
)
def test_wrong_usage_is_2(call, capsys, index, value, message):
    call[index] = value
    assert _convert(*call) == 2
    assert message in capsys.readouterr().err


def test_the_weights_are_not_their_own_output(call, resnet18, capsys):
    before = resnet18.read_bytes()
    call[5] = resnet18
    assert _convert(*call, "--force") == 2
    assert "the weights themselves" in capsys.readouterr().err
    assert resnet18.read_bytes() == before


def test_unknown_keys_and_options_after_them(call, capsys):
    assert _convert(*call, "MODEL.RESNETS.DEPHT", "18") == 2
    assert "MODEL.RESNETS.DEPTH" in capsys.readouterr().err
    assert _convert(*call, "MODEL.RESNETS.DEPTH", "18", "--strict", "1") == 2
    assert "options go before them" in capsys.readouterr().err


def test_a_full_disk_leaves_nothing_behind(call, tmp_path, capsys, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert _convert(*call) == 1
    assert "o.pth: No space left on device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_action_is_asked_for(capsys):
    with pytest.raises(SystemExit) as caught:
        _parse([])
    assert caught.value.code == 2
    with pytest.raises(SystemExit) as caught:
        _parse(["convert", "--help"])
    assert caught.value.code == 0
    assert "--config-file" in capsys.readouterr().out
