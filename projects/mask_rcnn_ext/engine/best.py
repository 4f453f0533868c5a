"""The figure that decides which checkpoint is the best one, and the hook that keeps it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils import comm

from ..errors import UsageError
from .record import flatten_results


def check_best_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: TEST.BEST_METRIC without evaluations, or of losses that are not computed; a
            TEST.BEST_MODE that is none
    """
    metric, mode = cfg.TEST.BEST_METRIC, cfg.TEST.BEST_MODE
    if mode not in ("max", "min"):
        raise UsageError(f"TEST.BEST_MODE is {mode!r}, expected 'max' or 'min'")
    if not metric:
        return
    if cfg.TEST.EVAL_PERIOD <= 0 or not cfg.DATASETS.TEST:
        raise UsageError(
            f"TEST.BEST_METRIC is {metric!r}, but TEST.EVAL_PERIOD is {cfg.TEST.EVAL_PERIOD} and "
            f"DATASETS.TEST {tuple(cfg.DATASETS.TEST)}: the best checkpoint is chosen among "
            "evaluations; set TEST.EVAL_PERIOD to their distance in steps"
        )
    if metric.startswith("validation/") and not cfg.TEST.VALIDATION_LOSS:
        raise UsageError(
            f"TEST.BEST_METRIC is {metric!r}; add TEST.VALIDATION_LOSS True, which computes it"
        )


@dataclass(frozen=True)
class Metric:
    """
    Attributes:
        name: as in results.json: "segm/AP", with several test sets "coco_2017_val/segm/AP"
        mode: whether "max" or "min" is best
    """

    name: str
    mode: str = "max"

    def better(self, value: float, than: float | None, margin: float = 0.0) -> bool:
        """Whether it beats the other one by more than the margin; NaN and infinity never do."""
        if not math.isfinite(value):
            return False
        if than is None:
            return True
        return value > than + margin if self.mode == "max" else value < than - margin

    def value_in(self, figures: Mapping[str, float | None]) -> float:
        """
        Args:
            figures: all of an evaluation; None for one that does not exist
        Returns:
            NaN for None
        Raises:
            UsageError: none of that name; tells the names that there are
        """
        if self.name in figures:
            value = figures[self.name]
            return math.nan if value is None else value
        known = ", ".join(sorted(figures)) or "none at all; is DATASETS.TEST empty?"
        raise UsageError(
            f"TEST.BEST_METRIC is {self.name!r}, but the evaluation has no such figure. It has: "
            f"{known}"
        )


class MetricHook(HookBase):
    """Looks at the metric after each evaluation, once, in all processes alike.

    It goes behind the hook that evaluates, and reads `trainer._last_eval_results`. Its state is
    that of before an evaluation until it has looked, so that a step which is finished again after
    a restart counts once.
    """

    def __init__(self, metric: Metric, *, evaluated_at: Callable[[], int | None]):
        """
        Args:
            metric: what to look at
            evaluated_at: tells the steps done when the last evaluation ran; None before the first
        """
        self._metric = metric
        self._evaluated_at = evaluated_at
        self._seen = -1  # evaluated_at of the last one that counted

    def after_step(self) -> None:
        self._look()

    def after_train(self) -> None:
        self._look()

    def _look(self) -> None:
        at = self._evaluated_at()
        if at is None or at <= self._seen:
            return
        self._seen = at  # before anything that raises: after_train would raise it again
        # The main process has all figures, others have none; all must come to the same end.
        figures = comm.all_gather(flatten_results(self.trainer._last_eval_results))[0]
        self.judge(self._metric.value_in(figures))

    def judge(self, value: float) -> None:
        """Act on the metric of an evaluation that has just been made."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        return {"metric": asdict(self._metric), "seen": self._seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """A state of another metric is left out, and said so."""
        if state["metric"] != asdict(self._metric):
            logging.getLogger(__name__).warning(
                "%s starts anew: the run before went by %s (%s), this one by %s (%s)",
                type(self).__name__,
                state["metric"]["name"],
                state["metric"]["mode"],
                self._metric.name,
                self._metric.mode,
            )
            return
        self._restore(state)

    def _restore(self, state: dict[str, Any]) -> None:
        self._seen = state["seen"]


class KeepBest(MetricHook):
    """Saves the checkpoint whose metric is the best so far; of equals, the first."""

    def __init__(self, metric: Metric, *, evaluated_at: Callable[[], int | None]):
        super().__init__(metric, evaluated_at=evaluated_at)
        self.value: float | None = None
        self.iteration: int | None = None  # counted from 0, as in names of checkpoints

    def judge(self, value: float) -> None:
        if not self._metric.better(value, self.value):
            return
        before, self.value = self.value, value
        self.iteration = min(self.trainer.iter, self.trainer.max_iter - 1)
        logging.getLogger(__name__).info(
            "Best checkpoint so far: %s %.4f after %d steps%s",
            self._metric.name,
            value,
            self.iteration + 1,
            "" if before is None else f" (before: {before:.4f})",
        )
        with self.trainer.averaged():  # they are what was evaluated
            self.trainer.checkpointer.save_best(
                metric=self._metric.name, value=value, iteration=self.iteration
            )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"value": self.value, "iteration": self.iteration}

    def _restore(self, state: dict[str, Any]) -> None:
        super()._restore(state)
        self.value, self.iteration = state["value"], state["iteration"]
