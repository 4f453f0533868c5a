"""Ctrl-C during training: finish the step, save, say how to go on."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

from ..errors import Interrupted


class StopOnCtrlC(HookBase):
    """Once between the first and the last step, Ctrl-C stops the run after the step in hand.

    A second Ctrl-C, or one outside the steps (loading, evaluating), stops at once. Install it
    before the data loader starts its workers: they inherit the handler, which in them does nothing,
    so that the step in hand still gets its data.
    """

    def __init__(self) -> None:
        self._requested = False
        self._stepping = False
        self._main_pid = os.getpid()
        self._previous: Any = None

    def install(self) -> StopOnCtrlC:
        self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def uninstall(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def before_train(self) -> None:
        self._stepping = True

    def after_step(self) -> None:
        # The last step is followed by the final checkpoint and evaluation, out of our hands.
        last_step = self.trainer.iter + 1 >= self.trainer.max_iter
        if last_step:
            self._stepping = False
        if not self._requested:
            return
        if not last_step and comm.is_main_process():
            self.trainer.checkpointer.save(
                f"model_{self.trainer.iter:07d}", iteration=self.trainer.iter
            )
        raise Interrupted(
            f"stopped by Ctrl-C after iteration {self.trainer.iter + 1} of "
            f"{self.trainer.max_iter}; the checkpoint is in {self.trainer.cfg.OUTPUT_DIR}. "
            "To go on, run the same command with --resume."
        )

    def after_train(self) -> None:
        self._stepping = False

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._main_pid:
            return
        if not self._stepping or self._requested:
            raise KeyboardInterrupt
        self._requested = True
        print("Ctrl-C: finishing this step, then saving; once more to stop now", file=sys.stderr)
