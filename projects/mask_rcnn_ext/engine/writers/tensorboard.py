"""Detectron2's TensorBoard writer, opened when it is known where the run goes on."""

from __future__ import annotations

import importlib
import logging

from detectron2.utils.events import EventWriter, TensorboardXWriter


class TensorBoardWriter(EventWriter):
    """Events of a killed run that lie after its last checkpoint are taken back, not drawn twice.

    Without the package tensorboard it says so once and writes nothing.
    """

    def __init__(self, log_dir: str, window_size: int = 20):
        """
        Args:
            log_dir: where event files go
            window_size: steps that medians are taken of
        """
        self._log_dir = log_dir
        self._window = window_size
        self._last_write = -1  # the last iteration whose figures are written; set before `open`
        self._inner: TensorboardXWriter | None = None
        self._opened = False

    def open(self) -> None:
        self._opened = True
        try:
            importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            logging.getLogger(__name__).warning(
                "No TensorBoard files (%s); for them: pip install tensorboard", error
            )
            return
        purge = {"purge_step": self._last_write + 1} if self._last_write >= 0 else {}
        self._inner = TensorboardXWriter(self._log_dir, self._window, **purge)
        self._inner._last_write = self._last_write

    def write(self) -> None:
        if not self._opened:
            self.open()
        if self._inner is not None:
            self._inner.write()
            self._last_write = self._inner._last_write

    def close(self) -> None:
        if self._inner is not None:
            self._inner.close()
