"""Ending a run that gets no better."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode

from ..errors import UsageError
from .best import Metric, MetricHook


def check_early_stop_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: a negative SOLVER.EARLY_STOP_PATIENCE or ..._MIN_DELTA; no TEST.BEST_METRIC
    """
    patience, delta = cfg.SOLVER.EARLY_STOP_PATIENCE, cfg.SOLVER.EARLY_STOP_MIN_DELTA
    if patience < 0:
        raise UsageError(f"SOLVER.EARLY_STOP_PATIENCE is {patience}, expected 0 (never) or more")
    if delta < 0:
        raise UsageError(f"SOLVER.EARLY_STOP_MIN_DELTA is {delta}, expected 0 or more")
    if patience and not cfg.TEST.BEST_METRIC:
        raise UsageError(
            f"SOLVER.EARLY_STOP_PATIENCE is {patience}, but TEST.BEST_METRIC is empty: name the "
            "figure that shall get better, TEST.BEST_METRIC segm/AP for example"
        )


class EarlyStop(MetricHook):
    """Ends the training after `patience` evaluations in a row that were no better."""

    def __init__(
        self,
        metric: Metric,
        *,
        patience: int,
        min_delta: float = 0.0,
        evaluated_at: Callable[[], int | None],
    ):
        """
        Args:
            patience: evaluations, at least 1
            min_delta: better means by more than this, in the metric's unit
        """
        super().__init__(metric, evaluated_at=evaluated_at)
        if patience < 1:
            raise ValueError(f"EarlyStop got patience={patience}, expected at least 1")
        self._patience = patience
        self._min_delta = min_delta
        self._best: float | None = None
        self._stale = 0

    def judge(self, value: float) -> None:
        if self._metric.better(value, self._best, self._min_delta):
            self._best, self._stale = value, 0
            return
        self._stale += 1
        if self._stale >= self._patience and self.trainer.iter + 1 < self.trainer.max_iter:
            best = "never was a number" if self._best is None else f"{self._best:.4f}"
            self.trainer.end_training(
                f"{self._metric.name} has not been better than {best} by more than "
                f"{self._min_delta:g} in {self._stale} evaluations in a row "
                f"(SOLVER.EARLY_STOP_PATIENCE {self._patience})"
            )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"best": self._best, "stale": self._stale}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self._best, self._stale = state["best"], state["stale"]
