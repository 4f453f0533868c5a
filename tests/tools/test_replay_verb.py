"""`mask-rcnn-ext replay` prints a step's losses beside those recorded."""

from __future__ import annotations

import argparse
import json
import math

import pytest

from mask_rcnn_ext.engine import replay as engine
from mask_rcnn_ext.engine.replay import Replayed
from mask_rcnn_ext.errors import UsageError, UserError
from mask_rcnn_ext.tools import replay as verb

REPORT = {
    "iteration": 12,
    "kind": "loss",
    "losses": {"loss_cls": 0.25, "loss_mask": "nan"},
    "causes": [{"name": "weights", "text": "a weight is NaN"}],
    "processes": 1,
}


def done(losses=None, **fields) -> Replayed:
    losses = {"loss_cls": 0.25, "loss_mask": math.nan} if losses is None else losses
    report = REPORT | fields.pop("report", {})
    return Replayed(report, "cpu", losses=losses, **fields)


@pytest.mark.parametrize(
    ("losses", "error", "expected"),
    [
        ({"loss_cls": 0.25, "loss_mask": math.nan}, "", "same bits"),
        ({"loss_cls": 0.250001, "loss_mask": math.inf}, "", "same to rounding"),
        ({"loss_cls": 0.3, "loss_mask": math.nan}, "", "different"),
        ({"loss_cls": 0.25, "loss_mask": 1.0}, "", "different"),
        ({"loss_cls": 0.25}, "", "different"),
        ({}, "FloatingPointError: x", "nothing to compare"),
    ],
)
def test_agreement(losses, error, expected):
    assert done(losses, error=error).agreement == expected


def test_a_step_that_had_no_losses_has_nothing_to_compare():
    assert done(report={"losses": {}}).agreement == "nothing to compare"


def test_text_for_people():
    text = verb.as_text(
        done(first="output of backbone", gradient_norms={"a": 1.0, "b": math.nan, "c": 5.0})
    )
    lines = text.splitlines()
    assert lines[0] == "iteration 12, loss, on cpu"
    assert "Likely cause: a weight is NaN" in lines
    assert f"{'loss_mask':24}{'nan':>16}{'nan':>16}" in lines
    assert "Losses: same bits." in lines
    assert "First value that is not finite: output of backbone" in lines
    assert [line.split()[0] for line in lines[-3:]] == ["b", "c", "a"]
    assert "none, all are finite" in verb.as_text(done())


def run(folder="box", json=None):
    args = argparse.Namespace(folder=folder, device=None, anomaly=False, json=json)
    return verb.run(args)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({}, 0),
        ({"losses": {"loss_cls": 9.0, "loss_mask": math.nan}}, 1),
        ({"losses": {"loss_cls": 9.0, "loss_mask": math.nan}, "report": {"processes": 2}}, 0),
    ],
)
def test_exit_code(monkeypatch, capsys, fields, code):
    monkeypatch.setattr(engine, "replay", lambda *args, **kwargs: done(**fields))
    assert run() == code
    shared = "one of 2 processes" in capsys.readouterr().out
    assert shared is ("report" in fields)


def test_the_result_as_json(monkeypatch, tmp_path):
    monkeypatch.setattr(engine, "replay", lambda *args, **kwargs: done(error="E: x"))
    target = tmp_path / "out.json"
    assert run(json=str(target)) == 0
    said = json.loads(target.read_text(), parse_constant=pytest.fail)
    assert said["losses"] == {"loss_cls": 0.25, "loss_mask": "nan"}
    assert said["agreement"] == "same bits"
    assert (said["first_not_finite"], said["error"]) == (None, "E: x")
    with pytest.raises(UserError, match="cannot write"):
        run(json=str(tmp_path / "none" / "out.json"))


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(UsageError, match="no report.json"):
        run(str(tmp_path))


def test_the_verb_takes_what_it_says():
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    args = parser.parse_args(["box", "--device", "cpu", "--anomaly", "--json", "f"])
    assert (args.folder, args.device, args.anomaly, args.json) == ("box", "cpu", True, "f")
