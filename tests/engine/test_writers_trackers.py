"""Weights & Biases and MLflow: what they are told, and that they cannot hurt a run.

Stand-ins record the calls; where the real packages are installed, they run offline as well.
"""

from __future__ import annotations

import json
import math
import sys
import types
from types import SimpleNamespace

import pytest
from detectron2.utils.events import EventStorage

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.writers import build_writers, forget_runs
from mask_rcnn_ext.engine.writers.build import TRACKERS
from mask_rcnn_ext.errors import Interrupted, UserError


class FakeWandb(types.ModuleType):
    """As much of wandb as the writer calls; `runs` outlive `finish`, as on a server."""

    def __init__(self):
        super().__init__("wandb")
        self.__spec__ = SimpleNamespace(name="wandb")
        self.runs: dict[str, SimpleNamespace] = {}
        self.inits: list[dict] = []
        self.fails: Exception | None = None

    def Settings(self, **kwargs):
        return kwargs

    def init(self, **kwargs):
        if self.fails:
            raise self.fails
        self.inits.append(kwargs)
        new = SimpleNamespace(rows=[], metrics=[], ended=None)
        run = self.runs.setdefault(kwargs["id"], new)
        run.define_metric = lambda name, step_metric=None: run.metrics.append((name, step_metric))
        run.log = self._log(run)
        run.finish = lambda exit_code: setattr(run, "ended", exit_code)
        return run

    def _log(self, run):
        def log(row):
            if self.fails:
                raise self.fails
            run.rows.append(row)

        return log


@pytest.fixture
def wandb(monkeypatch):
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


class FakeMlflow:
    def __init__(self):
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, SimpleNamespace] = {}
        self.waited = 0
        self.fails: Exception | None = None

    def get_experiment_by_name(self, name):
        if self.fails:
            raise self.fails
        place = self.experiments.get(name)
        return SimpleNamespace(experiment_id=place) if place else None

    def create_experiment(self, name):
        return self.experiments.setdefault(name, f"e{len(self.experiments)}")

    def create_run(self, experiment_id, run_name):
        key = f"r{len(self.runs)}"
        self.runs[key] = SimpleNamespace(
            experiment=experiment_id, name=run_name, params={}, metrics=[], status="RUNNING"
        )
        return SimpleNamespace(info=SimpleNamespace(run_id=key))

    def update_run(self, run_id, status):
        self.runs[run_id].status = status

    def log_batch(self, run_id, metrics=(), params=(), synchronous=True):
        if self.fails:
            raise self.fails
        assert len(params) <= 100
        assert not metrics or not synchronous, "a figure must not wait for a server"
        self.runs[run_id].params |= dict(params)
        self.runs[run_id].metrics += metrics
        return SimpleNamespace(wait=self._wait)

    def _wait(self):
        self.waited += 1

    def set_terminated(self, run_id, status):
        self.runs[run_id].status = status


@pytest.fixture
def mlflow(monkeypatch):
    fake = FakeMlflow()
    modules = {name: types.ModuleType(name) for name in ("mlflow", "mlflow.tracking")}
    modules["mlflow.entities"] = types.ModuleType("mlflow.entities")
    modules["mlflow"].__spec__ = SimpleNamespace(name="mlflow")
    modules["mlflow.tracking"].MlflowClient = lambda: fake
    modules["mlflow.entities"].Param = lambda key, value: (key, value)
    modules["mlflow.entities"].Metric = lambda *fields: fields
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake


def _writer(tmp_path, name, *opts):
    folder = tmp_path / "run_7"
    folder.mkdir(exist_ok=True)
    words = ["OUTPUT_DIR", str(folder), "LOG.WRITERS", f"['{name}']", "LOG.PERIOD", "2", *opts]
    return build_writers(load_config("", words), max_iter=9, images_per_step=4)[-1]


def _train(writer, steps, *, last=-1):
    """Steps of a run whose earlier figures, up to `last`, have been written; then a figure."""
    if last >= 0:
        writer._last_write = last
    writer.open()
    with EventStorage() as storage:
        for step in steps:
            storage.iter = step
            storage.put_scalar("total_loss", float(step))
            if step % 2:
                writer.write()
        storage.iter = steps[-1] + 1
        storage.put_scalar("segm/AP-fire hydrant (old)", 30.0, smoothing_hint=False)
        writer.write()
        writer.write()  # nothing is new
        writer.close()


def test_wandb_has_the_figures_with_their_iterations(tmp_path, wandb):
    _train(_writer(tmp_path, "wandb", "LOG.PROJECT", "cells", "SEED", "5"), range(4))
    (run,) = wandb.runs.values()
    assert run.rows == [
        {"iteration": 1, "total_loss": 0.5},
        {"iteration": 3, "total_loss": 2.5},
        {"iteration": 4, "segm/AP-fire hydrant (old)": 30.0},
    ]
    assert run.metrics == [("iteration", None), ("*", "iteration")]
    assert run.ended == 0
    (said,) = wandb.inits
    assert (said["project"], said["name"], said["resume"]) == ("cells", "run_7", "allow")
    assert said["config"]["SEED"] == 5
    assert said["config"]["DATASETS.TRAIN"] == []
    assert said["dir"] == str(tmp_path / "run_7")


def test_a_run_that_goes_on_is_the_same_for_wandb(tmp_path, wandb):
    _train(_writer(tmp_path, "wandb", "LOG.RUN_NAME", "mine"), range(4))
    _train(_writer(tmp_path, "wandb", "LOG.RUN_NAME", "mine"), range(2, 6), last=1)
    (run,) = wandb.runs.values()
    assert [row["iteration"] for row in run.rows] == [1, 3, 4, 3, 5, 6]
    assert [said["name"] for said in wandb.inits] == ["mine", "mine"]


def test_a_new_run_in_an_old_folder_is_new_for_the_trackers(tmp_path, wandb, mlflow):
    for _ in range(2):
        _train(_writer(tmp_path, "wandb"), range(4))
        _train(_writer(tmp_path, "mlflow"), range(4))
        known = json.loads((tmp_path / "run_7/trackers.json").read_text())
        assert known == {"wandb": list(wandb.runs)[-1], "mlflow": list(mlflow.runs)[-1]}
        forget_runs(tmp_path / "run_7")
        forget_runs(tmp_path / "run_7")  # none is there any more
    assert len(wandb.runs) == len(mlflow.runs) == 2


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_broken_file_of_ids_starts_a_new_run(tmp_path, wandb, content):
    writer = _writer(tmp_path, "wandb")
    (tmp_path / "run_7/trackers.json").write_text(content)
    _train(writer, range(4))
    assert json.loads((tmp_path / "run_7/trackers.json").read_text()) == {
        "wandb": next(iter(wandb.runs))
    }


def test_mlflow_has_parameters_and_figures(tmp_path, mlflow):
    words = ["LOG.PROJECT", "cells", "MODEL.WEIGHTS", "w" * 900]
    _train(_writer(tmp_path, "mlflow", *words), range(4))
    (run,) = mlflow.runs.values()
    assert (run.name, run.experiment) == ("run_7", mlflow.experiments["cells"])
    assert run.params["MODEL.WEIGHTS"] == "w" * 500
    assert len(run.params) > 200
    figures = [(key, value, step) for key, value, _, step in run.metrics]
    assert figures == [
        ("total_loss", 0.5, 1),
        ("total_loss", 2.5, 3),
        ("segm/AP-fire hydrant _old_", 30.0, 4),
    ]
    assert mlflow.waited == 3
    assert run.status == "FINISHED"


def test_a_run_that_goes_on_is_the_same_for_mlflow(tmp_path, mlflow):
    _train(_writer(tmp_path, "mlflow"), range(4))
    _train(_writer(tmp_path, "mlflow"), range(2, 6), last=1)
    (run,) = mlflow.runs.values()
    assert [step for *_, step in run.metrics] == [1, 3, 4, 3, 5, 6]
    assert len(mlflow.experiments) == 1


@pytest.mark.parametrize(
    ("error", "ending", "code"),
    [(Interrupted("stopped"), "KILLED", 1), (ValueError("broken"), "FAILED", 1)],
)
def test_the_trackers_learn_how_the_run_ended(tmp_path, wandb, mlflow, error, ending, code):
    writers = [_writer(tmp_path, name) for name in ("wandb", "mlflow")]
    with pytest.raises(type(error)), EventStorage():
        try:
            for writer in writers:
                writer.write()
            raise error
        finally:
            for writer in writers:
                writer.close()
    assert next(iter(mlflow.runs.values())).status == ending
    assert next(iter(wandb.runs.values())).ended == code


def test_a_tracker_that_fails_on_the_way_does_not_end_the_run(tmp_path, wandb, caplog):
    writer = _writer(tmp_path, "wandb")
    writer.open()
    wandb.fails = ConnectionError("no route to host")
    with EventStorage() as storage:
        for step in range(5):
            storage.iter = step
            storage.put_scalar("total_loss", 1.0)
            writer.write()
        wandb.fails = None
        storage.iter = 5
        storage.put_scalar("total_loss", 1.0)
        writer.write()
        writer.close()
    (run,) = wandb.runs.values()
    assert [row["iteration"] for row in run.rows] == [5]
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    assert len(errors) == 3  # the 1st, 2nd, 4th
    assert "ConnectionError: no route to host (4 times so far)" in errors[-1]


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_tracker_that_cannot_start_says_what_to_do(tmp_path, wandb, mlflow, name):
    wandb.fails = mlflow.fails = RuntimeError("No API key configured")
    writer = _writer(tmp_path, name)
    with pytest.raises(UserError, match="No API key") as caught:
        writer.open()
    assert f"leave '{name}' out of LOG.WRITERS" in str(caught.value)
    assert not (tmp_path / "run_7/trackers.json").exists()


def test_a_tracker_that_was_not_asked_for_is_not_imported(tmp_path, wandb, mlflow, monkeypatch):
    for name in ("wandb", "mlflow", "mlflow.tracking"):
        monkeypatch.setitem(sys.modules, name, None)  # an import would raise
    (tmp_path / "run_7").mkdir()
    cfg = load_config("", ["OUTPUT_DIR", str(tmp_path / "run_7")])
    assert len(build_writers(cfg, max_iter=9, images_per_step=4)) == 3
    assert set(TRACKERS) == {"wandb", "mlflow"}


def test_real_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for steps, last in ((range(4), -1), (range(2, 6), 1)):
        writer = _writer(tmp_path, "wandb", "SEED", "5")
        _train(writer, steps, last=last)
        assert writer._failures == 0
    run_id = json.loads((tmp_path / "run_7/trackers.json").read_text())["wandb"]
    files = list((tmp_path / "run_7/wandb").glob(f"offline-run-*-{run_id}/run-{run_id}.wandb"))
    assert len(files) == 2  # `wandb sync` makes one run of them
    assert all(file.stat().st_size > 0 for file in files)


def test_real_mlflow_in_a_file(tmp_path, monkeypatch):
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    _train(_writer(tmp_path, "mlflow", "SEED", "5"), range(4))
    writer = _writer(tmp_path, "mlflow", "SEED", "5")
    _train(writer, range(2, 6), last=1)
    assert writer._failures == 0
    client = tracking.MlflowClient()
    experiment = client.get_experiment_by_name("mask_rcnn_ext")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["SEED"] == "5"
    history = client.get_metric_history(run.info.run_id, "total_loss")
    assert sorted({(one.step, one.value) for one in history}) == [(1, 0.5), (3, 2.5), (5, 4.5)]
    assert math.isclose(run.data.metrics["segm/AP-fire hydrant _old_"], 30.0)
