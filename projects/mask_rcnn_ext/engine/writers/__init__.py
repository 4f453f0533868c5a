"""Where a run's figures go: the log's line, metrics.json, TensorBoard, and trackers by name."""

from .build import build_writers, check_writer_keys
from .hook import Writers, has_line
from .progress import MetricPrinter
from .tracked_run import forget_runs

__all__ = [
    "MetricPrinter",
    "Writers",
    "build_writers",
    "check_writer_keys",
    "forget_runs",
    "has_line",
]
