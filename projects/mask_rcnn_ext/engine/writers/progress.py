"""The line of the log that says how far a run has come, how fast it goes and what it costs."""

from __future__ import annotations

import datetime
import logging
import resource
import sys
import time
from collections.abc import Callable

import torch
from detectron2.utils.events import EventStorage, EventWriter, get_event_storage

_logger = logging.getLogger(__name__)


class MetricPrinter(EventWriter):
    """Takes the place of Detectron2's CommonMetricPrinter.

    `iter` counts finished steps, so that the last one is max_iter/max_iter; time, data_time and
    losses are medians of the last `window_size` steps.
    """

    def __init__(
        self,
        *,
        max_iter: int,
        images_per_step: int,
        window_size: int = 20,
        counts: Callable[[], dict[str, int]] = dict,
    ):
        """
        Args:
            max_iter: steps of the whole run
            images_per_step: in all processes together
            window_size: steps that medians are taken of
            counts: what else to say if it is not 0: name -> how often it has happened
        """
        self._max_iter = max_iter
        self._images = images_per_step
        self._window = window_size
        self._counts = counts
        self._started: tuple[int, float] | None = None  # step and time of the first line

    def write(self) -> None:
        storage = get_event_storage()
        step = storage.iter
        # The schedule notes its rate in each step: without one, none was made since the last line.
        if step >= self._max_iter or storage.latest().get("lr", (0.0, step))[1] != step:
            return
        figures = storage.latest_with_smoothing_hint(self._window)
        seconds = self._seconds(storage)
        left = (self._max_iter - step - 1) * seconds if seconds else None
        if left is not None:
            # metrics.json and TensorBoard have it under Detectron2's name
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
        counts = {name: count for name, count in self._counts().items() if count}
        if skipped := int(storage.latest().get("skipped_steps", (0, 0))[0]):
            counts["skipped steps"] = skipped
        parts = [
            f"iter: {step + 1}/{self._max_iter}",
            "" if left is None else f"eta: {datetime.timedelta(seconds=int(left))}",
            *(f"{name}: {value:.4g}" for name, (value, _) in figures.items() if _is_loss(name)),
            f"lr: {figures['lr'][0]:.5g}" if "lr" in figures else "",
            f"images/s: {self._images / seconds:.3g}" if seconds else "",
            f"time: {seconds:.4f}" if seconds else "",
            f"data_time: {figures['data_time'][0]:.4f}" if "data_time" in figures else "",
            _memory(),
            *(f"{name}: {count}" for name, count in counts.items()),
        ]
        _logger.info("  ".join(filter(None, parts)))

    def _seconds(self, storage: EventStorage) -> float | None:
        """Of a step; Detectron2's timer leaves the first three steps out, here they are guessed."""
        step, now = storage.iter, time.perf_counter()
        if "time" in storage.histories():
            return float(storage.history("time").median(self._window)) or None
        if self._started is None:
            self._started = (step, now)
            return None
        steps = step - self._started[0]
        return (now - self._started[1]) / steps if steps > 0 else None


def _is_loss(name: str) -> bool:
    return "loss" in name and "/" not in name  # validation/loss_mask is of another time


def _memory() -> str:
    """The most that was in use so far: of the GPU where there is one, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"max_rss: {peak / (2**20 if sys.platform == 'darwin' else 2**10):.0f}M"
