"""Every YAML below configs/ loads, builds its model, says how it is run, and repeats nothing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from mask_rcnn_ext import load_config
from mask_rcnn_ext.config import flatten

REPO = Path(__file__).resolve().parents[2]
CONFIGS = REPO / "configs"
TABLES = CONFIGS / "paper"  # tables of the paper, not configs
ALL = sorted(p for p in CONFIGS.rglob("*.yaml") if TABLES not in p.parents)
EXPERIMENTS = [p for p in ALL if not p.name.startswith("Base-")]
MAX_CHAIN = 3  # files, as Base -> 1x -> 3x


def _name(path: Path) -> str:
    return str(path.relative_to(CONFIGS))


def _bases(path: Path) -> list[Path]:
    base = yaml.safe_load(path.read_text()).get("_BASE_", [])
    return [(path.parent / b).resolve() for b in ([base] if isinstance(base, str) else base)]


def _chain(path: Path) -> int:
    """Files from here to the farthest base."""
    return 1 + max((_chain(base) for base in _bases(path)), default=0)


def _own_keys(path: Path) -> set[str]:
    return set(dict(flatten(yaml.safe_load(path.read_text())))) - {"_BASE_"}


def _resolved(path: Path) -> dict[str, Any]:
    return dict(flatten(load_config(path)))


def _head_comment(path: Path) -> list[str]:
    lines = []
    for line in path.read_text().splitlines():
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    return lines


def _commands(path: Path) -> list[list[str]]:
    """The words of each command with --config-file in the head comment."""
    lines = "\n".join(_head_comment(path)).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if "--config-file" in line]


def test_there_are_configs_to_test():
    assert len(EXPERIMENTS) >= 50


@pytest.mark.parametrize("path", ALL, ids=_name)
def test_config_builds_its_model(path: Path):
    cfg = load_config(path, ["MODEL.DEVICE", "meta", "MODEL.WEIGHTS", ""])
    assert cfg.is_frozen()
    with torch.device("meta"):  # shapes and wiring without the seconds of random numbers
        model = build_model(cfg)
    # An RPN on its own has no heads.
    assert hasattr(getattr(model, "roi_heads", None), "mask_head") == cfg.MODEL.MASK_ON


@pytest.mark.parametrize("path", ALL, ids=_name)
def test_bases_are_near_and_ours(path: Path):
    assert _chain(path) <= MAX_CHAIN
    for base in _bases(path):
        assert base.is_file(), base
        assert base.is_relative_to(CONFIGS), base


@pytest.mark.parametrize("path", EXPERIMENTS, ids=_name)
def test_an_experiment_says_only_what_differs(path: Path):
    bases = _bases(path)
    assert bases, "an experiment config starts from one of our bases"
    before, after = _resolved(bases[-1]), _resolved(path)
    repeated = {key for key in _own_keys(path) if before[key] == after[key]}
    assert not repeated


@pytest.mark.parametrize("path", EXPERIMENTS, ids=_name)
def test_the_head_comment_has_the_command(path: Path):
    commands = _commands(path)
    assert commands, "no command with --config-file in the head comment"
    for words in commands:
        assert (REPO / "train_net.py").is_file()
        assert "train_net.py" in words
        assert (REPO / words[words.index("--config-file") + 1]).resolve() == path


@pytest.mark.parametrize("path", ALL, ids=_name)
def test_no_machine_paths_or_devices(path: Path):
    own = dict(flatten(yaml.safe_load(path.read_text())))
    assert "MODEL.DEVICE" not in own, "the device is the machine's, not the experiment's"
    for key, value in own.items():
        assert not str(value).startswith(("/", "~")), f"{key}: {value}"


@pytest.mark.parametrize("depth", [18, 34])
def test_from_scratch_nothing_random_is_frozen(depth: int):
    """Without weights a frozen layer would stay random, and a FrozenBN without statistics."""
    path = CONFIGS / f"COCO-InstanceSegmentation/mask_rcnn_R_{depth}_FPN_1x.yaml"
    cfg: CfgNode = load_config(path, ["MODEL.DEVICE", "cpu"])
    assert cfg.MODEL.WEIGHTS == ""
    model = build_model(cfg)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(type(m).__name__ == "FrozenBatchNorm2d" for m in model.modules())
