"""The hooks of a run that can be interrupted anywhere: saving, evaluating, precise batch norms.

Order matters. A checkpoint is written at one place of a step only, by `Checkpoints`; the hooks
behind it finish the step once more when a run goes on from there (see `Trainer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase
from detectron2.engine.hooks import EvalHook
from detectron2.engine.hooks import PreciseBN as Detectron2PreciseBN

from ..data.loader import TrainLoader, resume_at
from .interrupt import StopRequest
from .rng import rng_state, set_rng_state


class Checkpoints(HookBase):
    """Saves every `period` steps, before each evaluation, at the end, and on request."""

    def __init__(self, period: int, eval_period: int, stop: StopRequest):
        """
        Args:
            period, eval_period: steps; eval_period 0 has no evaluation on the way
            stop: asked after each step
        """
        self._period = period
        self._eval_period = eval_period
        self._stop = stop

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        stop = self._stop.agreed()
        final = done >= self.trainer.max_iter
        evaluates = self._eval_period > 0 and done % self._eval_period == 0
        if final or stop or evaluates or done % self._period == 0:
            self.trainer.save("model_final" if final else None)
        if stop or self._stop.agreed():
            raise self._stop.interruption(f" after iteration {done} of {self.trainer.max_iter}")


class Evaluation(EvalHook):
    """Detectron2's, without a trace in the random numbers; `Trainer` calls `run` at the end."""

    def __init__(self, eval_period: int, eval_function: Callable[[], dict[str, Any]]):
        super().__init__(eval_period, eval_function)
        self.evaluated_at: int | None = None  # steps done when it last ran

    def run(self) -> None:
        state = rng_state()
        try:
            self._do_eval()
        finally:
            set_rng_state(state)
        self.evaluated_at = self.trainer.iter + 1

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if self._period > 0 and done % self._period == 0 and done < self.trainer.max_iter:
            self.run()

    def after_train(self) -> None:
        """Nothing: `Trainer` evaluates at the end, if the end was reached."""


class PreciseBN(Detectron2PreciseBN):
    """Detectron2's, on images that follow from the iteration, so that a restart sees the same."""

    _data_loader: TrainLoader

    def update_stats(self) -> None:
        if not self._disabled:
            # As many batches are read each time; those of the next time follow on these.
            resume_at(self._data_loader, (self.trainer.iter + 1) * self._num_iter)
            self._data_iter = None
        state = rng_state()
        super().update_stats()
        set_rng_state(state)
