"""run.json tells how a run was made, restarts included; results.json is flat, strict JSON."""

from __future__ import annotations

import argparse
import json
import re
import sys

import pytest
import torch

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine import record as record_module
from mask_rcnn_ext.engine.provenance import config_hash
from mask_rcnn_ext.engine.record import RunRecord, flatten_results, write_results


def test_nested_results_become_one_level():
    results = {"bbox": {"AP": 12.5, "AP-cat": float("nan")}, "segm": {"AP": 3}}
    assert flatten_results(results) == {"bbox/AP": 12.5, "bbox/AP-cat": None, "segm/AP": 3.0}


def test_several_sets_keep_their_names(tmp_path):
    write_results(str(tmp_path), {"val": {"bbox": {"AP": 1.0}}, "test": {"bbox": {"AP": 2.0}}})
    assert json.loads((tmp_path / "results.json").read_text()) == {
        "val/bbox/AP": 1.0,
        "test/bbox/AP": 2.0,
    }


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Begin a record in a folder; (cfg, read) -> start(...)."""
    cfg = load_config(None, ["OUTPUT_DIR", str(tmp_path), "SEED", "3", "MODEL.DEVICE", "cpu"])
    clock = [0.0]
    monkeypatch.setattr(record_module.time, "monotonic", lambda: clock[0])

    def begin(seconds_later=0.0, *, resume=False, eval_only=False, resumed_from=None):
        clock[0] += seconds_later
        args = argparse.Namespace(
            config_file="f.yaml", opts=["SEED", "3"], resume=resume, eval_only=eval_only
        )
        return RunRecord(cfg, args, {"coco": "1234"}, resumed_from)

    begin.cfg, begin.clock, begin.file = cfg, clock, tmp_path / "run.json"
    begin.read = lambda: json.loads(begin.file.read_text())
    return begin


def test_what_a_record_holds(start, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train_net.py", "--x", "a b"])
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("DETECTRON2_DATASETS", "/data")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    start()
    found = start.read()
    assert found["state"] == "running"
    assert found["command"] == "train_net.py --x 'a b'"
    assert found["argv"] == ["train_net.py", "--x", "a b"]
    assert found["config_file"] == "f.yaml"
    assert found["overrides"] == ["SEED", "3"]
    assert found["resumed"] is False
    assert found["config_hash"] == config_hash(start.cfg)
    assert "OUTPUT_DIR" in found["config_hash_leaves_out"]
    assert found["seed"] == 3
    assert found["device"].startswith("cpu (")
    assert found["threads"] == torch.get_num_threads()
    assert (found["processes"], found["machines"]) == (1, 1)
    assert found["precision"] == {"training": "float32", "test": "float32"}
    assert found["deterministic"] is False
    assert found["datasets"] == {"coco": "1234"}
    assert found["environment"]["OMP_NUM_THREADS"] == "5"
    assert found["environment"]["DETECTRON2_DATASETS"] == "/data"
    assert "PYTHONHASHSEED" not in found["environment"]
    assert "hidden" not in start.file.read_text()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", found["started"])
    assert {"commit", "changes", "versions"} <= set(found)


def test_the_end_of_a_run(start):
    record = start()
    start.clock[0] += 12.34
    record.finish("finished")
    found = start.read()
    assert found["state"] == "finished"
    assert found["wall_seconds"] == 12.3
    assert found["peak_memory_mb"] > 50
    (only,) = found["starts"]
    assert (only["kind"], only["iteration"], only["state"]) == ("training", 0, "finished")
    assert only["command"] == found["command"]
    assert "reason" not in only


def test_restarts_are_listed_and_add_up(start):
    first = start()
    first.reach(40)
    start.clock[0] += 10
    first.finish("stopped", "SIGTERM")
    second = start(1000, resume=True)
    second.resume(40)
    start.clock[0] += 5
    second.reach(60)  # and then it is killed
    third = start(1000, resume=True, resumed_from=60)
    start.clock[0] += 2
    third.finish("finished")
    found = start.read()
    assert found["state"] == "finished"
    assert found["resumed"] is True
    assert found["wall_seconds"] == 17
    one, two, three = found["starts"]
    assert (one["state"], one["reason"], one["reached"]) == ("stopped", "SIGTERM", 40)
    assert (two["state"], two["iteration"], two["reached"]) == ("killed", 40, 60)
    assert two["wall_seconds"] == 5
    assert (three["state"], three["iteration"]) == ("finished", 60)


def test_peak_memory_is_the_largest_of_all_starts(start):
    start().finish("stopped")
    found = start.read()
    found["starts"][0]["peak_memory_mb"] = 10**6
    found["starts"][0]["peak_gpu_memory_mb"] = 77.0
    start.file.write_text(json.dumps(found))
    start(resume=True).finish("finished")
    assert start.read()["peak_memory_mb"] == 10**6
    assert start.read()["peak_gpu_memory_mb"] == 77.0


def test_a_new_run_in_the_folder_begins_anew(start):
    start().finish("stopped")
    start()
    assert len(start.read()["starts"]) == 1


def test_an_evaluation_is_one_more_start(start):
    start().finish("finished")
    start(eval_only=True).finish("finished")
    assert [one["kind"] for one in start.read()["starts"]] == ["training", "evaluation"]


def test_a_record_of_before_there_was_a_list(start):
    old = {"state": "stopped", "command": "c", "commit": "a", "wall_seconds": 8.0, "device": "cpu"}
    start.file.write_text(json.dumps(old))
    start(resume=True).finish("finished")
    found = start.read()
    assert found["starts"][0] == {"kind": "training", **old}
    assert found["wall_seconds"] == 8.0


@pytest.mark.parametrize("text", ["", '{"state": "run', "[1, 2]", '{"starts": [3]}'])
def test_a_broken_record_is_set_aside(start, text, caplog):
    start.file.write_text(text)
    start(resume=True).finish("finished")
    assert (start.file.parent / "run.broken.json").read_text() == text
    assert len(start.read()["starts"]) == 1
    assert "cannot be read" in caplog.text


def test_precision_and_machines(start, monkeypatch):
    start.cfg.defrost()
    start.cfg.SOLVER.AMP.ENABLED = True
    start.cfg.SOLVER.AMP.PRECISION = "bfloat16"
    monkeypatch.setattr(record_module.comm, "get_world_size", lambda: 8)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    start()
    found = start.read()
    assert found["precision"]["training"] == "mixed, bfloat16"
    assert (found["processes"], found["machines"]) == (8, 2)
