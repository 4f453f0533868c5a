"""Which run of a stage a record comes from, and what that does to claims and to the report."""

from __future__ import annotations

from functools import partial

import pytest
from made_records import current, kept, kept_with_matches, levels, made_matches, paper_with
from msgspec.structs import replace

from mask_rcnn_ext.paper import claims
from mask_rcnn_ext.paper.claims import judge
from mask_rcnn_ext.paper.lineage import earlier, unlike
from mask_rcnn_ext.paper.report import make_report
from mask_rcnn_ext.paper.resampling import sample

RPN, DUMP = "rpn_R_50_C4", "proposals_R_50_C4"
SIGMOID, SOFTMAX = "mask_R_50_C4", "mask_R_50_C4_softmax"
CLAIM = "sigmoid_over_softmax/mask_AP_gain"


def _day(number: int) -> dict[str, str]:
    return {"started": f"2026-01-{number:02}T00:00:00Z"}


@pytest.fixture(scope="module")
def paper():
    return paper_with()


def test_a_record_older_than_that_of_a_stage_below_is_of_an_earlier_run(paper):
    stage = paper.stages[SIGMOID]

    def found(rpn: int, dump: int, own: int) -> list[str]:
        runs = (RPN, rpn), (DUMP, dump), (SIGMOID, own)
        return earlier(paper, current(*(kept(one, 1, **_day(day)) for one, day in runs)), stage, 1)

    assert found(3, 1, 2) == [RPN]
    assert found(3, 4, 2) == [RPN, DUMP]
    assert found(1, 2, 3) == found(2, 2, 2) == []


def test_a_record_that_is_gone_or_of_another_seed_tells_nothing(paper):
    stage = paper.stages[SIGMOID]
    assert earlier(paper, current(kept(SIGMOID, 1, **_day(1))), stage, 1) == []
    records = current(kept(RPN, 2, **_day(9)), kept(SIGMOID, 1, **_day(1)))
    assert earlier(paper, records, stage, 1) == []


def test_a_stage_that_runs_with_one_seed_is_looked_up_with_it():
    paper = paper_with({"small": [SIGMOID]})
    shared = replace(paper.stages[RPN], id="small_model", scale="scenes", seeds="one")
    small = replace(paper.stages["small"], model="small_model")
    paper = replace(paper, stages={**paper.stages, "small_model": shared, "small": small})
    records = current(kept("small_model", 1, **_day(5)), kept("small", 3, **_day(4)))
    assert earlier(paper, records, small, 3) == ["small_model"]


def test_two_sides_are_alike_where_both_are_older_or_both_younger(paper):
    first, second = paper.stages[SIGMOID], paper.stages[SOFTMAX]

    def found(of_first: int, of_second: int) -> list[str]:
        records = current(
            kept(RPN, 1, **_day(5)),
            kept(SIGMOID, 1, **_day(of_first)),
            kept(SOFTMAX, 1, **_day(of_second)),
        )
        return unlike(paper, records, first, second, 1)

    assert found(1, 2) == found(6, 7) == []
    assert found(1, 7) == found(7, 1) == [RPN]


def test_what_is_made_of_a_model_that_was_trained_again_is_not_its_match(paper):
    model, views = "mask_X_152_FPN_nonlocal", "mask_X_152_FPN_nonlocal_views"
    records = current(kept(model, 1, **_day(5)), kept(views, 1, **_day(4)))
    assert unlike(paper, records, paper.stages[views], paper.stages[model], 1) == [model]


def test_stages_that_only_one_side_needs_do_not_matter(paper):
    records = current(
        kept(RPN, 1, **_day(9)), kept(SIGMOID, 1, **_day(1)), kept("mask_R_50_C5", 1, **_day(2))
    )
    one, other = paper.stages[SIGMOID], paper.stages["mask_R_50_C5"]
    assert unlike(paper, records, one, other, 1) == []


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Records of sigmoid far better than softmax, with three seeds."""
    monkeypatch.setattr(claims, "sample", partial(sample, draws=79))

    def make(**days: dict[str, str]):
        runs = [
            kept_with_matches(
                tmp_path, stage, seed, {"segm": made_matches(levels(40, mean, seed))},
                **days.get(f"{stage}_{seed}", _day(2)),
            )
            for stage, mean in ((SIGMOID, 8), (SOFTMAX, 2))
            for seed in (1, 2, 3)
        ]  # fmt: skip
        return current(kept(RPN, 1, **_day(5)), kept(DUMP, 1, **_day(1)), *runs)

    return make


def test_a_claim_counts_where_both_sides_are_of_the_run_before(paper, measured):
    by_id = {one.id: one for one in judge(paper, "coco", measured()).text}
    assert by_id[CLAIM].verdict == "confirmed"


def test_a_claim_is_open_where_one_seed_of_one_side_is_of_another_run(paper, measured):
    records = measured(**{f"{SOFTMAX}_1": _day(6)})
    one = {claim.id: claim for claim in judge(paper, "coco", records).text}[CLAIM]
    assert (one.verdict, one.points) == ("open", "with the paper")
    assert one.reason == f"the two sides come from different runs of {RPN}"
    assert one.reading.startswith(f"Open, {one.reason}: ")


def test_the_report_says_which_rows_are_of_an_earlier_run(paper, measured, tmp_path):
    records = measured(**{f"{SOFTMAX}_1": _day(6)})
    report = make_report(paper, "coco", records, folder=tmp_path, tables=["2b"], in_text=False)
    part = report.tables[0]
    notes = {
        row: [part.notes[number - 1] for number in numbers if "earlier" in part.notes[number - 1]]
        for row, numbers in part.notes_of.items()
    }
    assert notes == {"sigmoid": [_note("1")], "softmax": []}


def _note(seeds: str) -> str:
    return (
        f"seed {seeds}: of earlier runs than those recorded of {RPN}; "
        "same config, data and code, but perhaps other weights"
    )
