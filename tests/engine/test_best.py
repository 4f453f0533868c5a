"""Keeping the best checkpoint: which evaluation counts, once, and what is better."""

from __future__ import annotations

import contextlib
import logging
import math
from types import SimpleNamespace

import pytest

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.best import KeepBest, Metric, check_best_keys
from mask_rcnn_ext.errors import UsageError


class Run:
    """As much of a trainer as the hooks see, with an evaluation every `period` steps."""

    def __init__(self, scores, *, period=10, metric="segm/AP", make=None, max_iter=1000):
        self.scores = list(scores)
        self.period = period
        self.evaluated_at = None
        self.saved = []
        self.ended = []
        self.max_iter = max_iter
        self.iter = 0
        self._last_eval_results = {}
        self.checkpointer = SimpleNamespace(save_best=lambda **kwargs: self.saved.append(kwargs))
        self.averaged = contextlib.nullcontext
        make = make or (lambda **kwargs: KeepBest(Metric(metric), **kwargs))
        self.hook = make(evaluated_at=lambda: self.evaluated_at)
        self.hook.trainer = self

    def end_training(self, reason):
        self.ended.append((self.iter, reason))
        self.max_iter = self.iter + 1

    def step(self, iteration):
        self.iter = iteration
        done = iteration + 1
        if done % self.period == 0 and done < self.max_iter:
            self.evaluate()
        self.hook.after_step()

    def evaluate(self):
        score = self.scores[(self.iter + 1) // self.period - 1]
        self._last_eval_results = {"segm": {"AP": score}, "bbox": {"AP": 1.0}}
        self.evaluated_at = self.iter + 1

    def steps(self, first, last):
        for iteration in range(first, last):
            if iteration >= self.max_iter:
                break
            self.step(iteration)


def test_the_best_so_far_is_saved_when_it_is_evaluated():
    run = Run([10.0, 9.0, 10.0, 10.5])
    run.steps(0, 45)
    assert run.saved == [
        {"metric": "segm/AP", "value": 10.0, "iteration": 9},
        {"metric": "segm/AP", "value": 10.5, "iteration": 39},
    ]


def test_the_smallest_is_best_where_that_is_wanted():
    run = Run([3.0, 4.0, 2.0], make=lambda **kwargs: KeepBest(Metric("segm/AP", "min"), **kwargs))
    run.steps(0, 35)
    assert [one["value"] for one in run.saved] == [3.0, 2.0]


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_best(mode, value):
    run = Run([value, 5.0, value], make=lambda **kw: KeepBest(Metric("segm/AP", mode), **kw))
    run.steps(0, 35)
    assert [one["value"] for one in run.saved] == [5.0]


def test_the_final_evaluation_counts_with_the_last_iteration():
    run = Run([1.0, 2.0, 3.0], max_iter=30)
    run.steps(0, 30)
    assert [one["value"] for one in run.saved] == [1.0, 2.0]
    run.iter = 30  # as after the loop
    run._last_eval_results = {"segm": {"AP": 3.0}}
    run.evaluated_at = 31
    run.hook.after_train()
    assert run.saved[-1] == {"metric": "segm/AP", "value": 3.0, "iteration": 29}


def test_a_run_that_fails_after_an_evaluation_counts_it_once_and_no_old_one():
    run = Run([1.0, 2.0])
    run.steps(0, 10)
    run.hook.after_train()  # as in a `finally`
    run.iter = 12
    run._last_eval_results = {"segm": {"AP": 50.0}}
    run.hook.after_train()
    assert len(run.saved) == 1


def test_a_step_that_is_finished_again_after_a_restart_counts_once():
    undisturbed = Run([5.0, 6.0, 5.5, 7.0])
    undisturbed.steps(0, 45)

    killed = Run([5.0, 6.0, 5.5, 7.0])
    killed.steps(0, 19)
    checkpoint = killed.hook.state_dict()  # of iteration 19, before its evaluation
    killed.step(19)
    again = Run([5.0, 6.0, 5.5, 7.0])
    again.hook.load_state_dict(checkpoint)
    again.steps(19, 45)
    assert killed.saved[:1] + again.saved == undisturbed.saved
    assert again.hook.state_dict() == undisturbed.hook.state_dict()


def test_a_checkpoint_from_behind_the_evaluation_does_not_count_it_again():
    """As end_training saves one: what was the best is the best, and not saved again."""
    run = Run([5.0])
    run.steps(0, 10)
    again = Run([5.0])
    again.hook.load_state_dict(run.hook.state_dict())
    again.steps(9, 15)
    assert again.saved == []
    assert (again.hook.value, again.hook.iteration) == (5.0, 9)


def test_the_best_of_another_metric_is_none(caplog):
    before = Run([50.0])
    before.steps(0, 10)
    now = Run([3.0], make=lambda **kwargs: KeepBest(Metric("segm/AP", "min"), **kwargs))
    with caplog.at_level(logging.WARNING):
        now.hook.load_state_dict(before.hook.state_dict())
    assert "KeepBest starts anew: the run before went by segm/AP (max)" in caplog.text
    now.steps(0, 10)
    assert [one["value"] for one in now.saved] == [3.0]


def test_an_unknown_name_is_refused_at_the_first_evaluation_and_once():
    run = Run([1.0], metric="segm/ap")
    run.steps(0, 9)
    with pytest.raises(UsageError, match=r"'segm/ap'.* It has: bbox/AP, segm/AP"):
        run.step(9)
    run.hook.after_train()


def test_several_sets_have_their_names_in_front():
    run = Run([1.0], metric="b/segm/AP")
    run.iter, run.evaluated_at = 9, 10
    run._last_eval_results = {"a": {"segm": {"AP": 1.0}}, "b": {"segm": {"AP": 2.0}}}
    run.hook.after_step()
    assert [one["value"] for one in run.saved] == [2.0]


def test_an_evaluation_without_figures_says_so():
    run = Run([1.0])
    run.iter, run.evaluated_at, run._last_eval_results = 9, 10, {}
    with pytest.raises(UsageError, match=r"none at all; is DATASETS.TEST empty\?"):
        run.hook.after_step()


def test_all_processes_go_by_the_figures_of_the_first(monkeypatch):
    run = Run([1.0])
    run.iter, run.evaluated_at, run._last_eval_results = 9, 10, {}  # as in the second
    monkeypatch.setattr("detectron2.utils.comm.all_gather", lambda mine: [{"segm/AP": 7.0}, mine])
    run.hook.after_step()
    assert [one["value"] for one in run.saved] == [7.0]


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.BEST_MODE", "most"], "expected 'max' or 'min'"),
        (["TEST.BEST_METRIC", "segm/AP", "TEST.EVAL_PERIOD", "0"], "TEST.EVAL_PERIOD is 0"),
        (
            ["TEST.BEST_METRIC", "segm/AP", "TEST.EVAL_PERIOD", "5", "DATASETS.TEST", "()"],
            r"DATASETS.TEST \(\)",
        ),
        (
            ["TEST.BEST_METRIC", "validation/total_loss", "TEST.EVAL_PERIOD", "5"],
            "add TEST.VALIDATION_LOSS True",
        ),
    ],
)
def test_wrong_keys(opts, message):
    with pytest.raises(UsageError, match=message):
        check_best_keys(load_config("Base-RCNN-FPN.yaml", opts))


def test_right_keys():
    check_best_keys(load_config("Base-RCNN-FPN.yaml"))
    words = ["TEST.BEST_METRIC", "segm/AP", "TEST.EVAL_PERIOD", "5"]
    check_best_keys(load_config("Base-RCNN-FPN.yaml", words))
