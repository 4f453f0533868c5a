"""Figures to MLflow (extra `mlflow`); MLFLOW_TRACKING_URI says where they go."""

from __future__ import annotations

import importlib
import os
import re
import time
from typing import Any

from ...errors import UserError
from .tracked_run import TrackerWriter

_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_LONGEST_PARAMETER = 500  # characters that every tracking server takes
_PARAMETERS_AT_ONCE = 100


class MlflowWriter(TrackerWriter):
    """One MLflow run for one OUTPUT_DIR, however often the training is interrupted."""

    def __init__(
        self,
        *,
        output_dir: str | os.PathLike[str],
        project: str,
        run_name: str,
        config: dict[str, Any],
        window_size: int = 20,
    ):
        """
        Args:
            output_dir: where the run's id is kept
            project: MLflow's experiment; made if there is none of that name
            run_name: as shown there
            config: key -> plain value; the run's parameters
            window_size: steps that medians are taken of
        """
        super().__init__(name="mlflow", output_dir=output_dir, window_size=window_size)
        self._tracking = importlib.import_module("mlflow.tracking")
        self._entities = importlib.import_module("mlflow.entities")
        self._project = project
        self._run_name = run_name
        self._config = config
        self._client: Any = None
        self._run_id = ""
        self._pending: list[Any] = []

    def _start(self, run_id: str | None) -> str:
        try:
            self._client = self._tracking.MlflowClient()
            if run_id is None:
                self._run_id = self._new_run()
            else:
                self._run_id = run_id
                self._client.update_run(run_id, status="RUNNING")
        except Exception as error:
            raise UserError(
                f"MLflow cannot start ({type(error).__name__}: {error}). Set MLFLOW_TRACKING_URI "
                "to a server that can be reached, or to a folder, file:///path/to/mlruns with "
                "MLFLOW_ALLOW_FILE_STORE=true"
                + (f", or delete {self._file} for a new run" if run_id else "")
                + ", or leave 'mlflow' out of LOG.WRITERS"
            ) from error
        return self._run_id

    def _new_run(self) -> str:
        experiment = self._client.get_experiment_by_name(self._project)
        place = experiment.experiment_id if experiment else None
        place = place or self._client.create_experiment(self._project)
        run_id = str(self._client.create_run(place, run_name=self._run_name).info.run_id)
        parameters = [
            self._entities.Param(key, str(value)[:_LONGEST_PARAMETER])
            for key, value in self._config.items()
        ]
        for start in range(0, len(parameters), _PARAMETERS_AT_ONCE):
            some = parameters[start : start + _PARAMETERS_AT_ONCE]
            self._client.log_batch(run_id, params=some)
        return run_id

    def _send(self, iteration: int, figures: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(_allowed(key), float(value), now, iteration)
            for key, value in figures.items()
        ]
        # In a thread of MLflow's: a slow server does not hold the training up.
        self._pending.append(
            self._client.log_batch(self._run_id, metrics=metrics, synchronous=False)
        )

    def _finish(self, ending: str) -> None:
        pending, self._pending = self._pending, []
        try:
            for one in pending:
                one.wait()
        finally:
            self._client.set_terminated(self._run_id, _STATUS[ending])


def _allowed(key: str) -> str:
    """MLflow's names have letters, digits, spaces and _-./ only; class names may have others."""
    return re.sub(r"[^\w\-. /]", "_", key, flags=re.ASCII)
