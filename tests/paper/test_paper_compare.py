"""Ours beside the paper's, from records made by hand."""

from __future__ import annotations

import pytest
from made_records import by_seed, current, kept, paper_with
from msgspec.structs import replace

from mask_rcnn_ext.paper.compare import _each_once, measure
from mask_rcnn_ext.paper.state import Sorted

C4, SOFTMAX = "mask_R_50_C4", "mask_R_50_C4_softmax"
SMALL = {"small": [C4], "small_softmax": [SOFTMAX], "small_roipool": ["mask_R_50_C4_roipool"]}


@pytest.fixture(scope="module")
def paper():
    return paper_with()


@pytest.fixture(scope="module")
def small_paper():
    return paper_with(SMALL)


def _masks(stage, seed, ap, **fields):
    return kept(stage, seed, results={"segm/AP": ap, "segm/AP50": 2 * ap}, **fields)


def _row(measured, table, row):
    return next(one for one in measured.tables[table].rows if one.row.id == row)


# ---- cells


def test_means_spread_and_delta_of_several_seeds(paper):
    """(30 + 32 + 34) / 3 = 32 with deviations 2, 0, 2; the paper has 30.3."""
    records = current(_masks(C4, 1, 30.0), _masks(C4, 3, 34.0), _masks(C4, 2, 32.0))
    row = _row(measure(paper, "coco", records), "2b", "sigmoid")
    cell = row.cells["AP"]
    assert (cell.paper, cell.ours, cell.spread, cell.delta) == (30.3, 32.0, 2.0, 1.7)
    assert cell.values == {1: 30.0, 2: 32.0, 3: 34.0}
    assert row.result.seeds == (1, 2, 3)
    assert row.state == "3 seeds"
    # results.json has no AP75
    assert (row.cells["AP75"].ours, row.cells["AP75"].delta) == (None, None)


def test_one_seed_has_no_spread(paper):
    cell = _row(measure(paper, "coco", current(_masks(C4, 1, 30.0))), "2b", "sigmoid").cells["AP"]
    assert (cell.ours, cell.spread) == (30.0, None)


def test_ap_is_rounded_before_anything_is_taken_off(paper):
    records = current(_masks(C4, 1, 30.004), _masks(SOFTMAX, 1, 24.996))
    row = _row(measure(paper, "coco", records), "2b", "sigmoid")
    assert (row.cells["AP"].ours, row.cells["AP"].versus.ours) == (30.0, 5.0)
    assert row.cells["AP"].delta == -0.3


def test_nothing_is_taken_off_the_papers_figures_elsewhere(paper, small_paper):
    smoke = measure(paper, "coco", current(_masks(C4, 1, 30.0)), smoke=True)
    assert _row(smoke, "2b", "sigmoid").cells["AP"].delta is None
    scenes = measure(small_paper, "scenes", current(_masks("small", 1, 30.0)))
    cell = _row(scenes, "2b", "sigmoid").cells["AP"]
    assert (cell.paper, cell.ours, cell.delta) == (30.3, 30.0, None)
    assert scenes.scale == "scenes"


def test_other_systems_and_rows_that_nobody_ran(paper, small_paper):
    measured = measure(paper, "coco", Sorted(stale=by_seed(_masks(SOFTMAX, 1, 30.0))))
    row = _row(measured, "3", "faster+++")
    assert (row.state, row.result) == ("reference", None)
    assert row.cells["AP"].paper == 34.9
    assert all(cell.ours is None and cell.versus is None for cell in row.cells.values())
    row = _row(measured, "2b", "sigmoid")
    assert (row.state, row.result.stage.id, row.result.seeds) == ("not run", C4, ())
    assert row.result.hours is row.cells["AP"].ours is None
    # Records that do not count give a state, but no figure.
    row = _row(measured, "2b", "softmax")
    assert (row.state, row.cells["AP"].ours) == ("stale", None)
    row = _row(measure(small_paper, "scenes", Sorted()), "2d", "roialign")
    assert (row.state, row.result.stage) == ("no recipe", None)


def test_augmented_evaluations_have_figures_of_their_own(paper):
    stage = "mask_X_152_FPN_nonlocal_views"
    results = {"segm/AP": 1.0, "segm_TTA/AP": 2.0}
    row = _row(measure(paper, "coco", current(kept(stage, 1, results=results))), "8", "test-augm")
    assert row.cells["mask_AP"].ours == 2.0


def test_every_row_and_figure_of_the_paper_is_there(paper):
    measured = measure(paper, "coco", Sorted())
    assert list(measured.tables) == list(paper.tables)
    assert list(measured.comparisons) == list(paper.comparisons)
    for name, table in measured.tables.items():
        assert tuple(one.row for one in table.rows) == paper.tables[name].rows
        for one in table.rows:
            assert {k: cell.paper for k, cell in one.cells.items()} == one.row.paper


# ---- differences between rows


def test_rows_are_against_the_first_of_ours(small_paper):
    """Table 2c begins with RoIPool; the paper's 30.3 is 3.4 above its 26.9."""
    records = current(_masks("small", 1, 50.0), _masks("small_roipool", 1, 48.5))
    table = measure(small_paper, "scenes", records).tables["2c"]
    first, last = table.rows[0], table.rows[-1]
    assert table.base["AP"] == "roipool"
    assert first.cells["AP"].versus is None
    versus = last.cells["AP"].versus
    assert (versus.row, versus.paper, versus.ours) == ("roipool", 3.4, 1.5)
    assert last.cells["AP50"].versus.ours == 3.0
    # RoIWarp was not run.
    assert (table.rows[1].cells["AP"].versus.paper, table.rows[1].cells["AP"].versus.ours) == (
        0.3,
        None,
    )


def test_where_the_first_was_not_run_they_are_against_the_next(small_paper):
    table = measure(small_paper, "scenes", current(_masks("small", 1, 50.0))).tables["2c"]
    assert table.base["AP"] == "roialign-ave"
    assert table.base["AP75"] == "roipool"
    assert table.rows[0].cells["AP"].versus.paper == -3.4


def test_a_printed_difference_names_the_row(paper):
    measured = measure(paper, "coco", Sorted())
    assert measured.tables["2d"].base["box_AP"] == "roipool"
    # Table 3: the first four rows are other systems'.
    assert measured.tables["3"].base["AP"] == "faster-align"
    # Table 5: the box-only row has neither masks nor keypoints.
    assert measured.tables["5"].base == {
        "box_AP_person": "faster",
        "mask_AP_person": "mask",
        "kp_AP": "keypoint",
    }


def test_a_printed_difference_is_not_from_the_first_row(paper):
    table = paper.tables["2b"]
    table = replace(table, rows=table.rows[::-1])
    turned = replace(paper, tables={"2b": table})
    assert measure(turned, "coco", Sorted()).tables["2b"].base["AP"] == "softmax"


def test_order(paper):
    """The paper: 26.9, 27.2, 27.1, 30.2, 30.3. Here the two RoIWarps are swapped, and the last two
    rows are equal."""
    stages = [row.stage for row in paper.tables["2c"].rows]
    figures = dict(zip(stages, (10.0, 11.0, 12.0, 20.0, 20.0), strict=True))
    records = current(*(_masks(stage, 1, ap) for stage, ap in figures.items()))
    order = measure(paper, "coco", records).tables["2c"].order["AP"]
    assert (order.pairs, order.agreeing) == (10, 8)
    assert order.others == (("roiwarp-max", "roiwarp-ave"), ("roialign-ave", "roialign-max"))
    assert measure(paper, "coco", records).tables["2c"].main == "AP"
    assert measure(paper, "coco", Sorted()).tables["2c"].order["AP"].pairs == 0


def test_order_needs_figures_that_differ_and_two_stages(paper):
    """Table 2e: both MLPs have 31.5 in the paper."""
    stages = [row.stage for row in paper.tables["2e"].rows]
    records = [_masks(stage, 1, 1.0 + place) for place, stage in enumerate(stages)]
    order = measure(paper, "coco", current(*records)).tables["2e"].order["AP"]
    assert (order.pairs, order.agreeing) == (2, 2)
    both = paper_with({"small": [C4, SOFTMAX]})
    order = measure(both, "scenes", current(_masks("small", 1, 1.0))).tables["2b"].order["AP"]
    assert order.pairs == 0


# ---- stages


def test_what_a_row_cost(paper):
    """The row's own stage, and with the three below it for seeds that have them all."""
    records = [
        kept(C4, 1, hours=1.0, memory_mb=100.0, commit="b", overrides=["KEY", "1"]),
        kept(C4, 2, hours=3.0, memory_mb=300.0, commit="a", gpu_memory_mb=5.0),
        kept("proposals_R_50_C4", 1, hours=0.5),
        kept("rpn_R_50_C4", 1, hours=0.25),
        kept("rpn_R_50_C4", 2, hours=0.25),
    ]
    failed = by_seed(kept(C4, 3, state="failed", reason="no memory", hours=99.0))
    measured = measure(paper, "coco", Sorted(current=by_seed(*records), failed=failed))
    row = _row(measured, "2b", "sigmoid")
    assert [one.id for one in paper.chain(C4)] == ["rpn_R_50_C4", "proposals_R_50_C4", C4]
    result = row.result
    assert (result.hours, result.chain_hours) == (2.0, 1.75)
    assert (result.memory_mb, result.gpu_memory_mb) == (300.0, 5.0)
    assert (result.commits, result.devices, result.machines) == (
        ("a", "b"),
        ("cpu",),
        ("a processor",),
    )
    assert (result.config, result.overrides) == ("some.yaml", ("KEY", "1"))
    assert result.failures == {3: "no memory"}
    assert row.state == "2 seeds, 1 failed"


def test_a_stage_of_one_seed_counts_for_every_seed(paper):
    stages = {**paper.stages, "rpn_R_50_C4": replace(paper.stages["rpn_R_50_C4"], seeds="one")}
    records = [kept("rpn_R_50_C4", 1, hours=0.25), kept(C4, 2, hours=3.0)]
    records += [kept("proposals_R_50_C4", seed, hours=0.5) for seed in (1, 2)]
    row = _row(measure(replace(paper, stages=stages), "coco", current(*records)), "2b", "sigmoid")
    assert row.result.chain_hours == 3.75


def test_words_of_many_records_have_one_order():
    assert _each_once(["d", None, "b", "a", "", "e", "b", "c"]) == ("a", "b", "c", "d", "e")


def test_a_chain_with_a_gap_has_no_hours(paper):
    row = _row(measure(paper, "coco", current(kept(C4, 1))), "2b", "sigmoid")
    assert (row.result.hours, row.result.chain_hours) == (1.0, None)


# ---- figures of the text


def test_differences_of_seeds_that_both_have(paper):
    records = [_masks(C4, 1, 30.0), _masks(C4, 2, 33.0), _masks(C4, 9, 90.0)]
    records += [_masks(SOFTMAX, seed, 25.0) for seed in (1, 2, 3)]
    measured = measure(paper, "coco", current(*records))
    figure = measured.comparisons["sigmoid_over_softmax"].figures["mask_AP_gain"]
    assert figure.cell.values == {1: 5.0, 2: 8.0}
    assert (figure.cell.ours, figure.cell.delta) == (6.5, 1.0)
    assert figure.state == "2 seeds"
    assert [one.stage.id for one in figure.results] == [C4, SOFTMAX]


def test_a_difference_of_two_figures_of_one_stage(paper):
    results = {"segm/AP": 36.0, "bbox/AP": 40.5}
    measured = measure(paper, "coco", current(kept("mask_X_101_FPN", 1, results=results)))
    figures = measured.comparisons["mask_box_gap_x101_fpn_test_dev"].figures
    assert figures["gap"].cell.ours == 4.5
    assert figures["box_AP"].cell.ours == 40.5


def test_percent_more(paper):
    records = [
        kept("time_mask_R_101_FPN", 1, results={"time/ms_per_image": 150.0}),
        kept("time_faster_R_101_FPN", 1, results={"time/ms_per_image": 120.0}),
    ]
    measured = measure(paper, "coco", current(*records))
    figure = measured.comparisons["mask_overhead"].figures["percent"]
    assert (figure.cell.ours, figure.cell.delta) == (25.0, 5.0)


def test_figures_of_the_run_itself(paper):
    record = kept("mask_R_50_FPN", 1, hours=0.12345, seconds_per_iteration=0.5)
    figures = measure(paper, "coco", current(record)).comparisons["timing"].figures
    assert figures["training_hours_r50_fpn"].cell.ours == 0.12345
    assert figures["seconds_per_16_image_batch_r50_fpn"].cell.ours == 0.5


def test_a_figure_that_is_only_quoted(paper):
    figures = measure(paper, "coco", Sorted()).comparisons["table3_gains"].figures
    assert (figures["roialign_box_AP"].state, figures["roialign_box_AP"].cell.ours) == (
        "reference",
        None,
    )
    assert figures["multitask_box_AP"].state == "not run"


def test_each_figure_of_a_comparison_has_a_state_of_its_own(paper):
    records = [
        kept(stage, 1, results={"bbox/AP": ap})
        for stage, ap in (("mask_R_101_FPN", 38.0), ("faster_R_101_FPN", 37.5))
    ]
    figures = measure(paper, "coco", current(*records)).comparisons["table3_gains"].figures
    assert (figures["multitask_box_AP"].state, figures["resnext101_box_AP"].state) == (
        "1 seed",
        "1 of 6 stages",
    )
    assert figures["multitask_box_AP"].cell.ours == 0.5
