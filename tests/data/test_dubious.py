"""What is left out of the data: words in the log, cases in a file, counts of all processes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import pickle

import pytest

from mask_rcnn_ext.data import dubious as module
from mask_rcnn_ext.data.dubious import Dubious, LeftOut, left_out, log_to


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "skipped.jsonl"
    log_to(path)
    yield path
    log_to(None)


def _rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_case_is_in_the_file_once(file, caplog):
    noted = Dubious()
    for _ in range(3):
        for image in ("a.png", "b.png"):
            noted.note("too small", image)
    assert noted.counts == {"too small": 6}
    assert _rows(file) == [{"what": "too small", "case": name} for name in ("a.png", "b.png")]
    assert [r.args[-1] for r in caplog.records] == [1, 2, 4]


def test_without_a_file_there_is_only_the_log(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Dubious().note("too small", "a.png")
    left_out("cells", "are empty", [1], 2)
    assert not list(tmp_path.iterdir())


def test_where_nothing_is_left_out_there_is_no_file(file):
    left_out("cells", "are empty", [], 5)
    LeftOut(file).report()
    assert LeftOut(file)() == {}
    assert not file.exists()


def test_the_file_stays_small(file, monkeypatch):
    monkeypatch.setattr(module, "_MOST_CASES", 3)
    noted = Dubious()
    for number in range(10):
        noted.note("too small", str(number))
        noted.note("refused", "one")
    assert [row["case"] for row in _rows(file)] == ["0", "one", "1", "2"]


def _in_a_worker(pickled: bytes) -> None:
    for name in ("a.png", "worker.png"):
        pickle.loads(pickled).note("too small", name)


def test_workers_write_to_the_same_file(file):
    noted = Dubious()
    noted.note("too small", "a.png")
    noted.note("refused", "a.png")
    process = multiprocessing.get_context("fork").Process(
        target=_in_a_worker, args=(pickle.dumps(noted),)
    )
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert LeftOut(file)() == {"too small": 2, "refused": 1}
    assert LeftOut(file).total() == {"data left out": 3}


def test_the_file_goes_along_to_a_process_that_was_not_told(file):
    """As to a worker that is spawned: all that it knows is in what it unpickles."""
    pickled = pickle.dumps(Dubious())
    log_to(None)
    _in_a_worker(pickled)
    assert LeftOut(file)() == {"too small": 2}


def test_counts_follow_the_file(file):
    counts = LeftOut(file)
    assert counts.total() == {"data left out": 0}
    Dubious().note("too small", "a.png")
    assert counts.total() == {"data left out": 1}
    Dubious().note("too small", "b.png")
    assert counts.total() == {"data left out": 2}
    with file.open("a") as out:
        out.write('{"what": "too sm')  # a process was killed
    assert counts.total() == {"data left out": 2}


def test_a_filter_tells_how_many_and_the_first_ids(file, caplog):
    with caplog.at_level(logging.INFO):
        left_out("cells_train", "have no annotation that is not a crowd", range(40, 60), 100)
    assert (
        "cells_train: 20 of 100 images have no annotation that is not a crowd and are left out "
        "(image ids 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, ...)"
    ) in caplog.text
    assert _rows(file) == [
        {
            "dataset": "cells_train",
            "what": "have no annotation that is not a crowd",
            "images": 20,
            "of": 100,
            "first": list(range(40, 50)),
        }
    ]
    left_out("cells_train", "have no annotation that is not a crowd", range(40, 60), 100)
    assert len(_rows(file)) == 1, "a run that goes on filters the same again"
    left_out("cells_train", "have too few keypoints", ["x"], 80)
    assert _rows(file)[1]["first"] == ["x"]
    assert LeftOut(file)() == {}, "a filter is no case"


def test_one_process_speaks_for_all(file, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    left_out("cells", "are empty", [1], 2)
    assert not file.exists()


def test_the_end_of_a_run_has_a_line_a_kind(file, caplog):
    noted = Dubious()
    noted.note("refused", "a.png")
    noted.note("too small", "a.png")
    noted.note("too small", "b.png")
    caplog.clear()
    LeftOut(file).report()
    assert [r.getMessage() for r in caplog.records] == [
        f"In 1 cases: refused ({file})",
        f"In 2 cases: too small ({file})",
    ]


def test_a_file_that_cannot_be_written_does_not_end_a_run(tmp_path, caplog):
    log_to(tmp_path / "gone" / "skipped.jsonl")
    try:
        Dubious().note("too small", "a.png")
    finally:
        log_to(None)
    assert "Cannot write to" in caplog.text
