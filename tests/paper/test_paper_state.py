"""Which records count, and what is said of a row that has them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.paper import (
    Kept,
    NoFingerprint,
    Paper,
    Record,
    Sorted,
    UnknownStage,
    load_paper,
    sort_records,
    state_of,
)

CODE = "today"
MASK = "mask_R_50_C4"
CHAIN = ("rpn_R_50_C4", "proposals_R_50_C4", MASK)
PLAIN = Record(
    format=1,
    scale="coco",
    smoke=False,
    stage=MASK,
    kind="train",
    seed=1,
    key="",
    code=CODE,
    state="finished",
    config="a.yaml",
    overrides=[],
    results={},
    hours=1.0,
    device="cpu",
    machine="m",
    commit=None,
    versions={},
    datasets={},
    started="2026",
)


@pytest.fixture(scope="module")
def paper() -> Paper:
    return load_paper()


def _key(stage: str, seed: int) -> str:
    if stage == "gone":
        raise UnknownStage(stage)
    if stage == "far":
        raise NoFingerprint(stage)
    return f"{stage} {seed}"


def _kept(stage: str = MASK, seed: int = 1, **changed: object) -> Kept:
    given = {"stage": stage, "seed": seed, "key": f"{stage} {seed}", **changed}
    return Kept(msgspec.structs.replace(PLAIN, **given), Path("x"))


def _sorted(*found: Kept | UserError) -> Sorted:
    return sort_records(found, _key, CODE)


@pytest.mark.parametrize(
    ("record", "group"),
    [
        (_kept(), "current"),
        (_kept(state="failed", reason="no memory"), "failed"),
        (_kept(code="yesterday"), "stale"),
        (_kept(code="yesterday", key="x"), "stale"),
        (_kept(code="yesterday", state="failed"), "stale"),
        (_kept(key="x"), "other"),
        (_kept(key="x", state="failed"), "other"),
        (_kept("gone"), "other"),
        (_kept("gone", code="yesterday"), "stale"),
        # Data that nobody has: the code alone decides.
        (_kept("far", key="x"), "current"),
        (_kept("far", key="x", code="yesterday"), "stale"),
    ],
)
def test_each_record_is_in_one_group(record, group):
    result = _sorted(record)
    expected = {record.record.stage: {1: record}}
    for name in ("current", "failed", "stale", "other"):
        assert getattr(result, name) == (expected if name == group else {}), name
    assert result.broken == []


def test_what_cannot_be_read_is_handed_on():
    error = UserError("half")
    result = _sorted(error, _kept(seed=2))
    assert result.broken == [error]
    assert list(result.current[MASK]) == [2]


def test_a_config_that_cannot_be_read_is_no_reason_to_drop_a_record():
    def key(stage: str, seed: int) -> str:
        raise UserError("base.yaml cannot be read")

    with pytest.raises(UserError, match=r"base\.yaml"):
        sort_records([_kept()], key, CODE)


def _text(paper: Paper, *records: Kept) -> str:
    row = next(row for row in paper.tables["2c"].rows if row.stage == MASK)
    return state_of(paper, row, "coco", _sorted(*records)).text


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([], "not run"),
        ([_kept()], "1 seed"),
        ([_kept(seed=seed) for seed in (3, 1, 2)], "3 seeds"),
        ([_kept(), _kept(seed=2, state="failed")], "1 seed, 1 failed"),
        ([_kept(), _kept("rpn_R_50_C4", seed=2, state="failed")], "1 seed, 1 failed"),
        ([_kept(), _kept("rpn_R_50_C4", state="failed")], "1 seed"),  # it was run once more
        ([_kept(), _kept(seed=2, code="yesterday")], "1 seed"),
        ([_kept(state="failed")], "failed"),
        ([_kept("rpn_R_50_C4", state="failed")], "failed"),
        ([_kept(state="failed"), _kept(seed=2, code="yesterday")], "failed"),
        ([_kept(code="yesterday")], "stale"),
        ([_kept(code="yesterday"), _kept(seed=2, key="x")], "stale"),
        ([_kept(key="x")], "other config"),
        ([_kept("rpn_R_50_C4")], "1 of 3 stages"),
        ([_kept(stage) for stage in CHAIN[:2]], "2 of 3 stages"),
        ([_kept("rpn_R_50_C4", code="yesterday")], "not run"),
        ([_kept("mask_R_50_C5")], "not run"),
    ],
)
def test_the_state_of_a_row(paper, records, text):
    assert _text(paper, *records) == text


def test_seeds_are_those_that_all_figures_have(paper):
    one = paper.comparisons["class_specific_vs_agnostic"]
    assert set(one.stages) == {MASK, f"{MASK}_agnostic"}
    records = [_kept(seed=seed) for seed in (1, 2)]
    records += [_kept(f"{MASK}_agnostic", seed=seed) for seed in (2, 3)]
    state = state_of(paper, one, "coco", _sorted(*records))
    assert (state.text, state.seeds, state.is_measured) == ("1 seed", (2,), True)
    assert state_of(paper, one, "coco", _sorted(*records[:3])).seeds == (2,)
    half = state_of(paper, one, "coco", _sorted(*records[:2]))
    assert (half.text, half.seeds, half.is_measured) == ("1 of 4 stages", (), False)


def test_references_and_rows_without_recipe(paper):
    assert [state_of(paper, row).text for row in paper.tables["4"].rows] == [
        *["reference"] * 2,
        *["not run"] * 2,
    ]
    assert state_of(paper, paper.comparisons["timing"]).text == "not run"
    scenes = msgspec.structs.replace(
        paper, stages={name: one for name, one in paper.stages.items() if one.scale == "coco"}
    )
    row = paper.tables["2c"].rows[0]
    assert state_of(scenes, row, "scenes", Sorted()).text == "no recipe"


def test_a_stage_is_told_seed_by_seed():
    records = _sorted(
        _kept(),
        _kept(seed=2, code="x"),
        _kept(seed=3, key="x"),
        _kept(seed=4, state="failed", reason="r"),
    )
    assert records.told(MASK) == [
        "seed 1: finished",
        "seed 2: stale",
        "seed 3: other config",
        "seed 4: failed: r",
    ]
    assert records.told("mask_R_50_C5") == []
