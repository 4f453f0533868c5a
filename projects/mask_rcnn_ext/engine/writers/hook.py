"""When figures are written: every so many steps, and a first line soon."""

from __future__ import annotations

from detectron2.engine.hooks import PeriodicWriter
from detectron2.utils.events import EventWriter

from .progress import MetricPrinter

_EARLY = (1, 5)  # finished steps after which the log has a line whatever the period


def has_line(done: int, period: int, max_iter: int) -> bool:
    """Whether the log has a line after so many finished steps, so that losses are needed then."""
    return done % period == 0 or done in _EARLY or done >= max_iter


class Writers(PeriodicWriter):
    """Detectron2's, which opens its writers when the run starts and prints two early lines.

    The early lines are for people only: metrics.json and the trackers keep their period.
    """

    def __init__(self, writers: list[EventWriter], period: int):
        super().__init__(writers, period)

    def before_train(self) -> None:
        for writer in self._writers:
            if hasattr(writer, "open"):
                writer.open()

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        in_period = done % self._period == 0 or done >= self.trainer.max_iter
        if not in_period and has_line(done, self._period, self.trainer.max_iter):
            for writer in self._writers:
                if isinstance(writer, MetricPrinter):
                    writer.write()
            return
        super().after_step()
