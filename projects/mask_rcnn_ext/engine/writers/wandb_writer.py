"""Figures to Weights & Biases (extra `wandb`); WANDB_MODE=offline keeps them on disk."""

from __future__ import annotations

import importlib
import os
import uuid
from typing import Any

from ...errors import UserError
from .tracked_run import TrackerWriter


class WandbWriter(TrackerWriter):
    """One W&B run for one OUTPUT_DIR, however often the training is interrupted.

    Its horizontal axis is "iteration". Figures that a killed run sent after its last checkpoint
    are sent again by the one that goes on; being the same, they lie on each other.
    """

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
            output_dir: where W&B keeps its files, too
            project, run_name: as shown there
            config: key -> plain value
            window_size: steps that medians are taken of
        """
        super().__init__(name="wandb", output_dir=output_dir, window_size=window_size)
        self._wandb = importlib.import_module("wandb")
        self._settings = {
            "project": project,
            "name": run_name,
            "config": config,
            "dir": os.fspath(output_dir),
        }
        self._run: Any = None

    def _start(self, run_id: str | None) -> str:
        run_id = run_id or uuid.uuid4().hex[:12]
        try:
            self._run = self._wandb.init(
                **self._settings,
                id=run_id,
                resume="allow",
                # Our log has all that is printed, and W&B shall not stand between it and us.
                settings=self._wandb.Settings(console="off"),
            )
            self._run.define_metric("iteration")
            self._run.define_metric("*", step_metric="iteration")
        except Exception as error:
            raise UserError(
                f"Weights & Biases cannot start ({type(error).__name__}: {error}). Log in with "
                "`wandb login`, or keep the figures on disk: WANDB_MODE=offline, or leave "
                "'wandb' out of LOG.WRITERS"
            ) from error
        return run_id

    def _send(self, iteration: int, figures: dict[str, float]) -> None:
        self._run.log({"iteration": iteration, **figures})

    def _finish(self, ending: str) -> None:
        self._run.finish(exit_code=0 if ending == "finished" else 1)
