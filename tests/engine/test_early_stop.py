"""Ending a run early: patience, margin, and restarts that change nothing."""

from __future__ import annotations

import math

import pytest
from test_best import Run

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.best import Metric
from mask_rcnn_ext.engine.early_stop import EarlyStop, check_early_stop_keys
from mask_rcnn_ext.errors import UsageError


def _run(scores, *, mode="max", patience=2, min_delta=0.0, **kwargs):
    def make(**more):
        return EarlyStop(Metric("segm/AP", mode), patience=patience, min_delta=min_delta, **more)

    return Run(scores, make=make, **kwargs)


@pytest.mark.parametrize(
    ("scores", "stops_after"),
    [
        ([1.0, 2.0, 3.0, 4.0, 5.0], None),
        ([3.0, 2.0, 1.0, 4.0, 5.0], 30),
        ([3.0, 2.0, 4.0, 3.0, 3.0], 50),  # the count begins anew
        ([3.0, 3.0, 3.0, 4.0, 5.0], 30),  # as good is no better
        ([math.nan, math.nan, 1.0, 2.0, 3.0], 20),
        ([1.0, math.nan, 2.0, math.nan, 3.0], None),
    ],
)
def test_it_ends_after_so_many_evaluations_that_were_no_better(scores, stops_after):
    run = _run(scores)
    run.steps(0, 55)
    assert [iteration + 1 for iteration, _ in run.ended] == ([stops_after] if stops_after else [])


@pytest.mark.parametrize(("delta", "stops"), [(0.0, False), (0.4, False), (0.5, True), (1.0, True)])
def test_better_means_by_more_than_the_margin(delta, stops):
    run = _run([1.0, 1.5, 2.0], patience=1, min_delta=delta)
    run.steps(0, 35)
    assert bool(run.ended) == stops


def test_small_gains_add_up():
    """The margin counts from the best that reset the patience, not from the last evaluation."""
    run = _run([1.0, 1.3, 1.6, 1.9, 2.2], patience=2, min_delta=0.5)
    run.steps(0, 55)
    assert run.ended == []


def test_the_smallest_is_best_where_that_is_wanted():
    run = _run([3.0, 2.0, 1.0, 2.0, 3.0], mode="min")
    run.steps(0, 55)
    assert [iteration + 1 for iteration, _ in run.ended] == [50]


def test_the_reason_has_figure_and_key():
    run = _run([3.0, 2.0, 1.0])
    run.steps(0, 35)
    ((_, reason),) = run.ended
    assert "segm/AP has not been better than 3.0000" in reason
    assert "2 evaluations in a row (SOLVER.EARLY_STOP_PATIENCE 2)" in reason


def test_the_final_evaluation_ends_nothing():
    run = _run([3.0, 2.0, 1.0], max_iter=30)
    run.steps(0, 30)
    run.iter, run.evaluated_at = 30, 31
    run._last_eval_results = {"segm": {"AP": 1.0}}
    run.hook.after_train()
    assert run.ended == []


@pytest.mark.parametrize("killed_at", [9, 19, 29, 32])
def test_a_run_that_is_killed_and_goes_on_ends_where_an_undisturbed_one_does(killed_at):
    scores = [3.0, 2.0, 3.5, 1.0, 2.0, 9.0]
    undisturbed = _run(scores)
    undisturbed.steps(0, 65)
    first = _run(scores)
    first.steps(0, killed_at)
    state = first.hook.state_dict()
    first.step(killed_at)  # its evaluation, if it has one, is lost
    second = _run(scores)
    second.hook.load_state_dict(state)
    second.steps(killed_at, 65)
    assert second.ended == undisturbed.ended
    assert len(second.ended) == 1
    assert second.hook.state_dict() == undisturbed.hook.state_dict()


def test_an_evaluation_that_is_made_again_after_it_counted_counts_once():
    run = _run([3.0, 2.0, 4.0])
    run.steps(0, 20)
    again = _run([3.0, 2.0, 4.0])
    again.hook.load_state_dict(run.hook.state_dict())  # from behind the evaluation after step 20
    again.steps(19, 25)
    assert again.ended == []


def test_patience_is_at_least_one():
    with pytest.raises(ValueError, match="patience=0"):
        _run([], patience=0)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.EARLY_STOP_PATIENCE", "-1"], "EARLY_STOP_PATIENCE is -1"),
        (["SOLVER.EARLY_STOP_MIN_DELTA", "-0.5"], "EARLY_STOP_MIN_DELTA is -0.5"),
        (["SOLVER.EARLY_STOP_PATIENCE", "3"], "TEST.BEST_METRIC is empty"),
    ],
)
def test_wrong_keys(opts, message):
    with pytest.raises(UsageError, match=message):
        check_early_stop_keys(load_config("", opts))


def test_right_keys():
    check_early_stop_keys(load_config(""))
    words = ["SOLVER.EARLY_STOP_PATIENCE", "3", "TEST.BEST_METRIC", "segm/AP"]
    words += ["TEST.EVAL_PERIOD", "5", "DATASETS.TEST", "('coco_2017_val',)"]
    check_early_stop_keys(load_config("", words))
