"""The line of the log, metrics.json and TensorBoard, alone and behind the hook."""

from __future__ import annotations

import json
import logging
import re
import sys
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage, EventWriter

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.writers import (
    MetricPrinter,
    Writers,
    build_writers,
    check_writer_keys,
    has_line,
)
from mask_rcnn_ext.engine.writers import progress as progress_module
from mask_rcnn_ext.engine.writers.tensorboard import TensorBoardWriter
from mask_rcnn_ext.errors import UsageError


def _steps(storage: EventStorage, hook: Writers, trainer: SimpleNamespace, count: int) -> None:
    """What a training puts there: losses each step; time from the fourth step on, as its timer."""
    for step in range(storage.iter, storage.iter + count):
        trainer.iter = storage.iter = step
        storage.put_scalar("total_loss", 10.0 - step)
        storage.put_scalar("loss_mask", 0.5)
        storage.put_scalar("data_time", 0.25)
        if step >= 3:
            storage.put_scalar("time", 0.5)
        storage.put_scalar("lr", 0.02, smoothing_hint=False)
        hook.after_step()
    storage.iter = trainer.iter + 1


def _hook(writers, *, period=20, max_iter=40):
    hook = Writers(writers, period)
    hook.trainer = SimpleNamespace(iter=0, max_iter=max_iter)
    return hook, hook.trainer


def _lines(caplog) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == progress_module.__name__]


def test_the_line_says_how_far_how_fast_and_what_is_left(caplog):
    printer = MetricPrinter(max_iter=40, images_per_step=4, counts=lambda: {"data left out": 3})
    hook, trainer = _hook([printer])
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        _steps(storage, hook, trainer, 20)
        assert storage.latest()["eta_seconds"] == (10.0, 19)
    line = _lines(caplog)[-1]
    assert line.startswith("iter: 20/40  eta: 0:00:10  ")
    assert "total_loss: 0.5 " in line  # median of 10 ... -9
    assert "lr: 0.02  images/s: 8  time: 0.5000  data_time: 0.2500  max_rss: " in line
    assert line.endswith("data left out: 3")


def test_a_count_of_zero_is_not_worth_a_word_and_skipped_steps_are(caplog):
    printer = MetricPrinter(max_iter=40, images_per_step=4, counts=lambda: {"data left out": 0})
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        storage.put_scalar("lr", 0.1, smoothing_hint=False)
        printer.write()
        storage.put_scalar("skipped_steps", 2, smoothing_hint=False)
        printer.write()
    first, second = _lines(caplog)
    assert "left out" not in first
    assert "skipped" not in first
    assert second.endswith("skipped steps: 2")


def test_memory_is_that_of_this_process(caplog):
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        storage.put_scalar("lr", 0.1, smoothing_hint=False)
        MetricPrinter(max_iter=40, images_per_step=4).write()
    megabytes = int(re.search(r"max_rss: (\d+)M", _lines(caplog)[0])[1])
    assert 100 < megabytes < 20_000  # torch alone has some hundred


def test_there_are_lines_after_the_first_and_the_fifth_step_for_people_only(caplog, tmp_path):
    class Counting(EventWriter):
        written = ()

        def write(self):
            self.written += (trainer.iter + 1,)

    other = Counting()
    hook, trainer = _hook([MetricPrinter(max_iter=40, images_per_step=4), other])
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        _steps(storage, hook, trainer, 40)
    steps = [int(re.match(r"iter: (\d+)/40", line)[1]) for line in _lines(caplog)]
    assert steps == [1, 5, 20, 40]
    assert other.written == (20, 40)
    assert "images/s" not in _lines(caplog)[0]
    assert "images/s: 8 " in _lines(caplog)[1]
    assert [done for done in range(1, 41) if has_line(done, 20, 40)] == steps


@pytest.mark.parametrize("period", [1, 5])
def test_an_early_step_that_is_in_the_period_is_written_once(caplog, period):
    hook, trainer = _hook([MetricPrinter(max_iter=10, images_per_step=4)], period=period)
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        _steps(storage, hook, trainer, 6)
    steps = [int(re.match(r"iter: (\d+)", line)[1]) for line in _lines(caplog)]
    assert steps == {1: [1, 2, 3, 4, 5, 6], 5: [1, 5]}[period]


def test_a_run_of_one_step_has_its_figures_everywhere(caplog):
    writers = []

    class Once(EventWriter):
        def write(self):
            writers.append(trainer.iter)

    hook, trainer = _hook([Once()], max_iter=1)
    with EventStorage() as storage:
        _steps(storage, hook, trainer, 1)
    assert writers == [0]


def test_after_the_end_there_is_no_line_though_figures_come(caplog):
    """Also where the end came early, before max_iter."""
    printer = MetricPrinter(max_iter=40, images_per_step=4)
    hook, trainer = _hook([printer])
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        _steps(storage, hook, trainer, 20)
        storage.put_scalar("segm/AP", 30.0, smoothing_hint=False)  # at iteration 20, the 21st step
        before = len(_lines(caplog))
        hook.after_train()
        assert len(_lines(caplog)) == before
        storage.iter = 40
        storage.put_scalar("lr", 0.0, smoothing_hint=False)
        printer.write()
    assert len(_lines(caplog)) == before


def test_without_a_timer_the_speed_is_guessed(caplog, monkeypatch):
    clock = iter([10.0, 14.0])
    monkeypatch.setattr(progress_module.time, "perf_counter", lambda: next(clock))
    printer = MetricPrinter(max_iter=12, images_per_step=3)
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        printer.write()
        storage.iter = 2
        printer.write()
    first, second = _lines(caplog)
    assert "eta" not in first
    assert "eta: 0:00:18" in second  # 9 steps of 2 seconds
    assert "images/s: 1.5 " in second


def test_losses_of_an_evaluation_are_not_in_the_line(caplog):
    with caplog.at_level(logging.INFO), EventStorage() as storage:
        storage.put_scalar("validation/loss_mask", 3.0)
        storage.put_scalar("loss_mask", 2.0)
        MetricPrinter(max_iter=12, images_per_step=3).write()
    assert "loss_mask: 2 " in _lines(caplog)[0]
    assert "validation" not in _lines(caplog)[0]


def _cfg(tmp_path, *opts):
    return load_config("", ["OUTPUT_DIR", str(tmp_path / "run_7"), *opts])


def _events(folder, name="total_loss"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder))
    accumulator.Reload()
    return [(e.step, e.value) for e in accumulator.Scalars(name)]


def test_the_usual_writers(tmp_path):
    (tmp_path / "run_7").mkdir()
    writers = build_writers(_cfg(tmp_path, "LOG.PERIOD", "2"), max_iter=4, images_per_step=4)
    hook, trainer = _hook(writers, period=2, max_iter=4)
    hook.before_train()
    with EventStorage() as storage:
        _steps(storage, hook, trainer, 4)
        trainer.iter = 4
        storage.put_scalar("segm/AP", 30.0, smoothing_hint=False)
        hook.after_train()
    rows = [json.loads(row) for row in (tmp_path / "run_7/metrics.json").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 3, 4]
    assert rows[1]["total_loss"] == 7.5  # the median of the two steps of a period
    assert rows[2]["segm/AP"] == 30.0
    assert _events(tmp_path / "run_7") == [(1, 9.5), (3, 7.5)]


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    cfg = _cfg(tmp_path, "LOG.WRITERS", "['wandb']")
    assert build_writers(cfg, max_iter=4, images_per_step=4) == []


def test_tensorboard_goes_on_where_the_run_does(tmp_path):
    """A killed run wrote steps 0 to 5; the one that goes on knows of 3 and writes the others."""
    pytest.importorskip("tensorboard")
    for last, steps in ((-1, range(6)), (3, range(4, 8))):
        writer = TensorBoardWriter(str(tmp_path), window_size=1)
        writer._last_write = last
        hook, trainer = _hook([writer], period=1, max_iter=8)
        hook.before_train()
        with EventStorage() as storage:
            if last >= 0:  # as restored from the checkpoint
                storage.iter = last
                storage.put_scalar("segm/AP", 30.0, smoothing_hint=False)
            storage.iter = steps[0]
            _steps(storage, hook, trainer, len(steps))
            writer.close()
        assert writer._last_write == steps[-1]
    assert [step for step, _ in _events(tmp_path)] == list(range(8))
    with pytest.raises(KeyError, match="segm/AP"):  # the killed run had written it
        _events(tmp_path, "segm/AP")


def test_writers_are_opened_when_the_run_starts():
    """A tracker that cannot be reached shall say so then, and not some minutes later."""
    opened = []

    class Opening(EventWriter):
        def open(self):
            opened.append(self)

    hook, _ = _hook([Opening()])
    hook.before_train()
    assert len(opened) == 1


def test_without_tensorboard_there_is_a_line_and_no_crash(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    writer = TensorBoardWriter(str(tmp_path))
    with EventStorage():
        writer.write()
        writer.write()
        writer.close()
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "pip install tensorboard" in caplog.text
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["LOG.PERIOD", "0"], "LOG.PERIOD is 0"),
        (["LOG.WRITERS", "['wandb', 'csv']"], "expected a list of some of wandb, mlflow"),
        (["LOG.WRITERS", "['wandb', 'wandb']"], "each once"),
        (["LOG.WRITERS", "['mlflow']", "LOG.PROJECT", ""], "LOG.PROJECT is empty; mlflow"),
    ],
)
def test_wrong_keys(opts, message):
    with pytest.raises(UsageError, match=message):
        check_writer_keys(load_config("", opts))


def test_right_keys():
    check_writer_keys(load_config("", ["LOG.WRITERS", "['mlflow', 'wandb']"]))
    check_writer_keys(load_config(""))


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_is_not_installed(tmp_path, monkeypatch, name):
    (tmp_path / "run_7").mkdir()
    monkeypatch.setattr("mask_rcnn_ext.engine.writers.build.find_spec", lambda package: None)
    with pytest.raises(UsageError, match=rf"pip install 'mask_rcnn_ext\[{name}\]'"):
        build_writers(_cfg(tmp_path, "LOG.WRITERS", f"['{name}']"), max_iter=4, images_per_step=4)
