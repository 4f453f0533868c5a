"""Figures, logs and random numbers that go on after a restart as if there had been none."""

from __future__ import annotations

import io
import json
import random

import numpy as np
import pytest
import torch
from detectron2.utils.events import EventStorage, JSONWriter

from mask_rcnn_ext.engine.rng import rng_state, set_rng_state
from mask_rcnn_ext.engine.run_state import (
    begin_figures,
    cut_figures,
    figures_written,
    go_on_writing,
    restore_rng,
    restore_storage,
    storage_state,
)


def through_a_file(value):
    """As a checkpoint keeps it, read as checkpoints are read."""
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def draw():
    return random.random(), np.random.rand(3).tolist(), np.random.randn(), torch.rand(3).tolist()


def test_random_numbers_of_every_kind_go_on():
    np.random.randn()  # leaves a second one waiting
    state = through_a_file(rng_state())
    first = draw()
    assert draw() != first
    set_rng_state(state)
    assert draw() == first


def test_random_numbers_of_another_number_of_processes_are_left(caplog):
    state = rng_state()
    caplog.set_level("WARNING")
    torch.rand(1)
    now = torch.get_rng_state()
    restore_rng([state, state])
    assert torch.equal(torch.get_rng_state(), now)
    assert "had 2 processes, this one has 1" in caplog.text
    restore_rng([state])
    assert torch.equal(torch.get_rng_state(), state["torch"])


def steps(storage, first, last):
    for i in range(first, last):
        storage.iter = i
        storage.put_scalar("loss", float(np.sin(i)))
        storage.put_scalar("time", 0.1)
        if i == 5:
            storage.put_scalar("bbox/AP", 7.0, smoothing_hint=False)


def test_smoothed_figures_are_those_of_an_undisturbed_run():
    with EventStorage(0) as whole:
        steps(whole, 0, 150)
    with EventStorage(0) as before:
        steps(before, 0, 130)
    with EventStorage(130) as after:
        restore_storage(after, through_a_file(storage_state(before)))
        steps(after, 130, 150)
    mine, theirs = (s.latest_with_smoothing_hint(20) for s in (after, whole))
    assert mine == theirs
    assert mine["bbox/AP"] == (7.0, 5)
    assert after.history("loss").global_avg() == whole.history("loss").global_avg()


def test_times_are_measured_anew():
    with EventStorage(0) as before:
        steps(before, 0, 9)
    state = storage_state(before)
    assert "time" not in state["latest"]
    assert "time" not in state["histories"]
    assert set(state["latest"]) == {"loss", "bbox/AP"}


def write_lines(file, storage, first, last, last_write=-1):
    writer = JSONWriter(str(file))
    go_on_writing([writer], last_write)
    for i in range(first, last):
        steps(storage, i, i + 1)
        if (i + 1) % 4 == 0:
            writer.write()
    return writer


def test_lines_after_the_checkpoint_are_taken_back_and_written_once(tmp_path):
    with EventStorage(0) as storage:
        write_lines(tmp_path / "whole.json", storage, 0, 20).close()
    file = tmp_path / "metrics.json"
    with EventStorage(0) as storage:
        writer = write_lines(file, storage, 0, 10)
        state = through_a_file([storage_state(storage), figures_written(file, [writer])])
        steps(storage, 10, 15)
        writer.write()
        with file.open("a") as half:
            half.write('{"a line cut by')
    storage_before, written = state
    cut_figures(file, written["bytes"])
    with EventStorage(10) as storage:
        restore_storage(storage, storage_before)
        write_lines(file, storage, 10, 20, written["last_write"]).close()
    assert _lines(file) == _lines(tmp_path / "whole.json")


def _lines(file):
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "time"} for line in lines]


def test_a_lost_or_shorter_file_is_said(tmp_path, caplog):
    caplog.set_level("WARNING")
    cut_figures(tmp_path / "metrics.json", 0)
    assert caplog.text == ""
    cut_figures(tmp_path / "metrics.json", 10)
    assert "is gone" in caplog.text
    (tmp_path / "metrics.json").write_text("12345")
    cut_figures(tmp_path / "metrics.json", 10)
    assert "has 5 bytes, fewer than the 10" in caplog.text
    assert (tmp_path / "metrics.json").read_text() == "12345"


@pytest.mark.parametrize("content", ["", "old\n"])
def test_figures_of_another_run_are_set_aside(tmp_path, content):
    file = tmp_path / "metrics.json"
    for _ in range(2):
        file.write_text(content)
        begin_figures(file, same_run=False)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert kept == (
        ["metrics.earlier.json", "metrics.earlier1.json"] if content else ["metrics.json"]
    )
    file.write_text("lines from before the first checkpoint")
    begin_figures(file, same_run=True)
    assert file.read_text() == ""
