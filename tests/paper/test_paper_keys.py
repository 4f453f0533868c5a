"""The content hash of a stage: each thing that a result depends on changes it, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.paper import Data, Keys, NoFingerprint, Paper, Stage, UnknownStage, load_paper

RPN = """
_BASE_: base.yaml
MODEL: {WEIGHTS: detectron2://R-50.pkl}
DATASETS: {TRAIN: [real_train], TEST: "('real_val',)"}
"""
MASK = """
_BASE_: base.yaml
MODEL: {MASK_ON: true, WEIGHTS: detectron2://R-50.pkl}
DATASETS: {TRAIN: [real_train], TEST: [real_val]}
"""
FILES = {"base.yaml": "SOLVER: {BASE_LR: 0.02}\nSEED: 7\n", "rpn.yaml": RPN, "mask.yaml": MASK}
MADE = [{"folder": "scenes", "images": 20, "val_images": 4, "size": "64", "seed": 1}]
DATA = {
    "real": {"sets": ["real_train", "real_val", "real_test"]},
    "made": {"sets": ["made_train"], "make": MADE},
}
STAGES: dict[str, dict[str, Any]] = {
    "rpn": {"kind": "train", "config": "rpn.yaml"},
    "dump": {"kind": "proposals", "config": "rpn.yaml", "model": "rpn"},
    "mask": {"kind": "train", "config": "mask.yaml", "proposals": "dump"},
    "views": {"kind": "evaluate", "config": "mask.yaml", "model": "mask"},
    "labels": {"kind": "distill", "config": "mask.yaml", "model": "mask"},
    "student": {"kind": "train", "config": "mask.yaml", "labels": "labels"},
    "small": {"kind": "train", "config": "mask.yaml", "data": ["made"]},
    "time": {"kind": "time", "config": "mask.yaml", "data": []},
}
# Of all their keys with seed 1. A change of it makes users run again what they have run.
DIGEST = "d04827a72a01f671dbd14313b348dd2b0a9d41ec6b4ddb29bf2b5bfab1453c0d"


@pytest.fixture
def configs(tmp_path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def _paper(stages: dict[str, dict[str, Any]] = STAGES, data: dict[str, Any] = DATA) -> Paper:
    common = {"scale": "coco", "data": ["real"], "hours": 1, "hours_from": "x", "hardware": "y"}
    about = {"images": 1, "gigabytes": 1, "address": "z"}
    return Paper(
        tables={},
        comparisons={},
        stages={n: msgspec.convert({**common, "id": n, **s}, Stage) for n, s in stages.items()},
        data={name: msgspec.convert({**about, **one}, Data) for name, one in data.items()},
        weights={},
        footnotes={},
    )


def _keys(configs: Path, paper: Paper | None = None, **given: Any) -> dict[str, str]:
    """Of all stages, with seed 1."""
    given = {"code": "c", "fingerprint": lambda name: f"of {name}", **given}
    keys = Keys(paper or _paper(), configs=configs, **given)
    return {name: keys.key_of(name, 1) for name in STAGES}


def _changed(configs: Path, paper: Paper | None = None, **given: Any) -> set[str]:
    """Stages whose keys are not what they are without the change."""
    for name, text in FILES.items():
        (configs.parent / name).write_text(text)
    before, after = _keys(configs.parent), _keys(configs, paper, **given)
    return {name for name in STAGES if before[name] != after[name]}


@pytest.fixture
def edited(configs) -> Path:
    """Configs to edit, beside those that stay."""
    (configs / "edited").mkdir()
    for name, text in FILES.items():
        (configs / "edited" / name).write_text(text)
    return configs / "edited"


def _with(stage: str, **given: Any) -> Paper:
    return _paper({**STAGES, stage: {**STAGES[stage], **given}})


ALL = set(STAGES)
FROM_MASK = {"mask", "views", "labels", "student"}
FROM_RPN = {"rpn", "dump", *FROM_MASK}


def test_keys_stay_what_they_are(configs):
    keys = _keys(configs)
    assert len(set(keys.values())) == len(STAGES)
    assert hashlib.sha256("".join(keys.values()).encode()).hexdigest() == DIGEST


def test_nothing_has_changed(edited):
    assert _changed(edited) == set()


@pytest.mark.parametrize(
    ("file", "old", "new", "stages"),
    [
        ("base.yaml", "0.02", "0.01", ALL),
        ("mask.yaml", "MASK_ON: true", "MASK_ON: false", FROM_MASK | {"small", "time"}),
        ("rpn.yaml", "real_val", "real_test", FROM_RPN),
        # Only a stage without a model starts from there.
        ("rpn.yaml", "R-50", "R-101", FROM_RPN),
        ("mask.yaml", "R-50", "R-101", FROM_MASK | {"small", "time"}),
    ],
)
def test_config_and_all_that_needs_the_stage(edited, file, old, new, stages):
    text = (edited / file).read_text()
    assert old in text
    (edited / file).write_text(text.replace(old, new))
    assert _changed(edited) == stages


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("mask.yaml", f"# Table 1\n{MASK}  # the end"),
        ("mask.yaml", MASK.replace("[real_train]", "\"('real_train',)\"")),
        ("base.yaml", "SEED: 7\nSOLVER:\n  BASE_LR: 2e-2"),
    ],
)
def test_how_a_config_is_written_does_not_count(edited, file, text):
    (edited / file).write_text(text)
    assert _changed(edited) == set()


def test_an_override_that_says_what_the_config_says_does_not_count(edited):
    assert _changed(edited, _with("small", overrides={"MODEL.MASK_ON": True})) == set()
    assert _changed(edited, _with("small", overrides={"MODEL.MASK_ON": False})) == {"small"}


@pytest.mark.parametrize("key", ["OUTPUT_DIR", "SEED", "MODEL.DEVICE"])
def test_what_whoever_runs_it_sets_does_not_count(edited, key):
    assert _changed(edited, _with("rpn", overrides={key: "elsewhere"})) == set()


def test_places_of_what_comes_from_another_stage_do_not_count(edited):
    assert _changed(edited, _with("views", overrides={"MODEL.WEIGHTS": "x.pth"})) == set()
    files = {f"DATASETS.PROPOSAL_FILES_{split}": ["x.pkl"] for split in ("TRAIN", "TEST")}
    assert _changed(edited, _with("mask", overrides=files)) == set()
    # Where they do not come from a stage, they do.
    assert _changed(edited, _with("small", overrides=files)) == {"small"}
    assert _changed(edited, _with("small", overrides={"MODEL.WEIGHTS": "x.pth"})) == {"small"}


@pytest.mark.parametrize(
    "given",
    [
        {"hours": 2, "hours_from": "measured", "hardware": "1 GPU"},
        {"footnotes": ["x"], "weights": "R-50"},
    ],
)
def test_what_is_said_about_a_stage_does_not_count(edited, given):
    assert _changed(edited, _with("rpn", **given)) == set()


def test_kind_counts(edited):
    assert _changed(edited, _with("views", kind="proposals")) == {"views"}


def test_it_counts_what_a_needed_stage_is_needed_for(configs):
    stages = {**STAGES, "views": {**STAGES["views"], "model": None, "labels": "mask"}}
    other = {**STAGES["views"], "overrides": {"MODEL.WEIGHTS": ""}, "model": None}
    first = _keys(configs, _paper(stages))["views"]
    second = _keys(configs, _paper({**STAGES, "views": {**other, "proposals": "mask"}}))["views"]
    assert first != second


def test_seed_counts_below_too(configs):
    keys = Keys(_paper(), code="c", fingerprint=str, configs=configs)
    found = {keys.key_of(stage, seed) for stage in STAGES for seed in (0, 1, 2)}
    assert len(found) == 3 * len(STAGES)


def test_a_stage_with_one_seed_serves_all(configs):
    stages = {name: {**STAGES[name], "seeds": "one"} for name in ("rpn", "dump")}
    keys = Keys(_paper({**STAGES, **stages}), code="c", fingerprint=str, configs=configs)
    assert keys.key_of("dump", 2) == keys.key_of("dump", 1)
    assert keys.key_of("mask", 2) != keys.key_of("mask", 1)
    # The same as with seed 1 where each has its own.
    plain = Keys(_paper(), code="c", fingerprint=str, configs=configs)
    assert keys.key_of("mask", 1) == plain.key_of("mask", 1)
    assert keys.key_of("mask", 2) != plain.key_of("mask", 2)


def test_code_counts(edited):
    assert _changed(edited, code="d") == ALL


def test_smoke_counts(edited):
    assert _changed(edited, smoke={"images": 100}) == ALL
    assert _keys(edited, smoke={"a": 1, "b": 2}) == _keys(edited, smoke={"b": 2, "a": 1})
    assert _keys(edited, smoke={"a": 1}) != _keys(edited, smoke={"a": 2})


@pytest.mark.parametrize(
    ("name", "stages"),
    [
        ("real_train", FROM_RPN),
        ("real_val", FROM_RPN),
        ("real_test", set()),  # no config reads it
    ],
)
def test_real_data_count_by_their_fingerprints(edited, name, stages):
    def fingerprint(one: str) -> str:
        return "another" if one == name else f"of {one}"

    assert _changed(edited, fingerprint=fingerprint) == stages


def test_an_evaluation_reads_the_test_sets_alone(configs):
    asked: list[str] = []

    def fingerprint(name: str) -> str:
        asked.append(name)
        return name

    stages = {"one": {"kind": "evaluate", "config": "mask.yaml"}}
    keys = Keys(_paper(stages), code="c", fingerprint=fingerprint, configs=configs)
    keys.key_of("one", 1)
    assert asked == ["real_val"]
    keys.key_of("one", 2)
    assert asked == ["real_val"]  # each stage asks once


def _not_there(name: str) -> str:
    raise NoFingerprint(name)


def test_nobody_asks_for_generated_data_nor_in_smoke_runs(configs):
    keys = Keys(_paper(), code="c", fingerprint=_not_there, configs=configs)
    keys.key_of("small", 1)
    keys.key_of("time", 1)
    for stage in FROM_RPN:
        with pytest.raises(NoFingerprint):
            keys.key_of(stage, 1)
    smoke = Keys(_paper(), code="c", fingerprint=_not_there, smoke=1, configs=configs)
    smoke.key_of("student", 1)


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 2},
        {"images": 21},
        {"val_images": 5},
        {"size": "96"},
        {"folder": "others"},
        {"layout": "cityscapes"},
    ],
)
def test_generated_data_count_by_how_they_are_made(edited, changed):
    made = {**DATA["made"], "make": [{**MADE[0], **changed}]}
    assert _changed(edited, _paper(data={**DATA, "made": made})) == {"small"}


def test_wrong_stage_and_wrong_config(configs):
    keys = Keys(_paper(), code="c", fingerprint=str, configs=configs)
    with pytest.raises(UnknownStage, match="no stage 'msk'; did you mean mask"):
        keys.key_of("msk", 1)
    (configs / "base.yaml").unlink()
    with pytest.raises(UsageError, match=r"base\.yaml cannot be read"):
        keys.key_of("mask", 1)


def test_every_stage_of_the_paper_has_a_key_of_its_own():
    paper = load_paper()
    keys = Keys(paper, code="c", fingerprint=str)
    assert len({keys.key_of(stage, 1) for stage in paper.stages}) == len(paper.stages)
