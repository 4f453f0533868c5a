"""A stage's config as plain values is what `load_config` makes of the same words."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import msgspec
import pytest

from mask_rcnn_ext import load_config
from mask_rcnn_ext.config import flatten
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.paper import Stage, load_paper
from mask_rcnn_ext.paper.configs import config_of
from mask_rcnn_ext.resources import configs_dir

STAGES = load_paper().stages
TRAIN = STAGES["mask_R_50_C4"]


@functools.cache
def _defaults() -> dict[str, str]:
    return _as_json(dict(flatten(load_config(None))))


def _as_json(config: dict) -> dict[str, str]:
    """Tells 1 from 1.0 and from true, takes tuples for lists."""
    return {key: json.dumps(value) for key, value in config.items()}


@pytest.mark.parametrize("stage", STAGES.values(), ids=lambda stage: stage.id)
def test_values_are_those_of_the_run(stage):
    ours = _as_json(config_of(stage, configs_dir()))
    theirs = _as_json(dict(flatten(load_config(configs_dir() / stage.config, stage.words))))
    assert {key: theirs[key] for key in ours} == ours
    # What nobody names is Detectron2's default or ours.
    rest = theirs.keys() - ours.keys()
    assert {key: theirs[key] for key in rest} == {key: _defaults()[key] for key in rest}


@pytest.fixture
def configs(tmp_path) -> Path:
    for name, text in {
        "base.yaml": "MODEL: {MASK_ON: true, WEIGHTS: w, FPN: {NORM: GN}}\nSOLVER: {GAMMA: 1e-1}",
        "COCO/one.yaml": "_BASE_: ../base.yaml\nMODEL: {MASK_ON: false}\nSEED: 3",
        "COCO/two.yaml": "_BASE_: [../base.yaml, more.yaml]\nDATASETS: {TRAIN: \"('a', 'b')\"}",
        "COCO/more.yaml": "MODEL: {FPN: {NORM: BN}}\nSEED: 4",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def _stage(config: str, **overrides: object) -> Stage:
    overrides = {key.replace("__", "."): value for key, value in overrides.items()}
    return msgspec.structs.replace(TRAIN, config=config, overrides=overrides)


def test_a_base_is_merged_key_by_key(configs):
    assert config_of(_stage("COCO/one.yaml"), configs) == {
        "MODEL.MASK_ON": False,
        "MODEL.WEIGHTS": "w",
        "MODEL.FPN.NORM": "GN",
        "SOLVER.GAMMA": 0.1,
        "SEED": 3,
    }


def test_of_several_bases_the_last_counts_and_strings_are_literals(configs):
    assert config_of(_stage("COCO/two.yaml"), configs) == {
        "MODEL.MASK_ON": True,
        "MODEL.WEIGHTS": "w",
        "MODEL.FPN.NORM": "BN",
        "SOLVER.GAMMA": 0.1,
        "SEED": 4,
        "DATASETS.TRAIN": ["a", "b"],
    }


def test_overrides_are_read_as_words_are(configs):
    stage = _stage("COCO/one.yaml", SEED=5, MODEL__WEIGHTS="", SOLVER__STEPS="(1, (2,))", X="a b")
    found = config_of(stage, configs)
    assert found["SEED"] == 5
    assert found["MODEL.WEIGHTS"] == ""
    assert found["SOLVER.STEPS"] == [1, [2]]
    assert found["X"] == "a b"


def test_a_base_may_be_given_with_its_whole_path(configs, monkeypatch):
    monkeypatch.setenv("HOME", str(configs))
    for base in (configs / "base.yaml", "~/base.yaml"):
        (configs / "COCO/one.yaml").write_text(f"_BASE_: {base}\nSEED: 3")
        assert config_of(_stage("COCO/one.yaml"), configs)["MODEL.WEIGHTS"] == "w"


def test_an_empty_section_says_nothing(configs):
    (configs / "COCO/one.yaml").write_text("_BASE_: ../base.yaml\nMODEL: {FPN: {}}\nINPUT: {}")
    assert config_of(_stage("COCO/one.yaml"), configs) == config_of(_stage("base.yaml"), configs)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: none.yaml", r"config .*COCO/none.yaml cannot be read: No such file"),
        ("_BASE_: one.yaml", r"COCO/one.yaml is its own _BASE_"),
        ("_BASE_: [up.yaml]", r"COCO/one.yaml is its own _BASE_"),
        ("- SEED", r"config .*COCO/one.yaml: expected keys and values, got \['SEED'\]"),
        ("SEED: [", r"config .*COCO/one.yaml cannot be read"),
        ("SEED: !!python/name:os.system ", r"config .*COCO/one.yaml cannot be read"),
        ("_BASE_: 3", r"config .*COCO/one.yaml: _BASE_ is 3, expected a path"),
        ("_BASE_: [3]", r"config .*COCO/one.yaml: _BASE_ is \[3\], expected a path"),
    ],
)
def test_a_wrong_file_is_named(configs, text, message):
    (configs / "COCO/one.yaml").write_text(text)
    (configs / "COCO/up.yaml").write_text("_BASE_: ../COCO/one.yaml")
    with pytest.raises(UsageError, match=message):
        config_of(_stage("COCO/one.yaml"), configs)
