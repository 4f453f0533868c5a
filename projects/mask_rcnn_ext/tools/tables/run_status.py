"""What `tables run` prints: a line when a stage begins or ends, and how far all of it is."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from ...paper.schedule import End, Running, Task
from .run_stage import StageRun

_TERMINAL_SECONDS = 1.0
_FILE_SECONDS = 60.0


class Status:
    """A `schedule.Watcher` that prints."""

    def __init__(
        self,
        jobs: int,
        count: int,
        *,
        trusts_hours: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """
        Args:
            jobs: at once
            count: tasks in all
            trusts_hours: whether estimates are for this machine, before anything is measured
            stream: stdout where none is given
        """
        self._jobs, self._count, self._clock = jobs, count, clock
        self._stream = stream = sys.stdout if stream is None else stream
        self._trusts_hours = trusts_hours
        self._is_terminal = stream.isatty()
        self._done = 0
        self._shown = ""
        self._next = clock() + self._period
        self._begun: dict[str, float] = {}
        self._tasks: dict[str, Task] = {}
        self._first: dict[str, tuple[float, float]] = {}  # time and share done when first seen
        self._measured = [0.0, 0.0]  # hours that ended ones took, and were said to take

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._shown:
            self._stream.write("\r" + " " * len(self._shown) + "\r")
            self._shown = ""
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def started(self, task: Task, running: Running) -> None:
        self._begun[task.name] = self._clock()
        self._tasks[task.name] = task
        self.say(f"started: {task.name}")

    def ended(self, task: Task, end: End) -> None:
        self._done += 1
        took = ""
        if task.name in self._begun:
            hours = self._elapsed(task.name)
            took = f" after {duration(hours)}"
            if end.is_good and task.hours:
                self._measured[0] += hours
                self._measured[1] += task.hours
        reason = f": {end.reason}" if end.reason else ""
        self.say(f"{end.state}: {task.name}{took}{reason}")

    def looked(self, running: Mapping[str, Running], waiting: Sequence[Task]) -> None:
        if not running or self._clock() < self._next:
            return
        self._next = self._clock() + self._period
        line = self.line(running, waiting)
        if self._is_terminal:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write("\r" + line[:width].ljust(len(self._shown)))
            self._shown = line[:width]
            self._stream.flush()
        else:
            self.say(line)

    def line(self, running: Mapping[str, Running], waiting: Sequence[Task]) -> str:
        """How far all is, in a line."""
        parts = [f"{self._done} of {self._count} done"]
        for name, one in running.items():
            done = one.progress if isinstance(one, StageRun) else None
            parts.append(f"{name} {done[0]}/{done[1]}" if done else name)
        left = self._left(running, waiting)
        if left is not None:
            parts.append(f"about {duration(left)} left")
        return "; ".join(parts)

    @property
    def _period(self) -> float:
        return _TERMINAL_SECONDS if self._is_terminal else _FILE_SECONDS

    def _left(self, running: Mapping[str, Running], waiting: Sequence[Task]) -> float | None:
        """Hours until all is done; None as long as nothing is known."""
        measured, estimated = self._measured
        parts: dict[str, float | None] = {}
        for name, one in running.items():
            parts[name] = seen = self._by_progress(name, one)
            if seen is not None and self._tasks[name].hours:
                measured += self._elapsed(name) + seen
                estimated += self._tasks[name].hours
        if not estimated and not self._trusts_hours:
            return None
        ratio = measured / estimated if estimated else 1.0
        known = [task.hours * ratio for task in waiting]
        for name, seen in parts.items():
            guess = self._tasks[name].hours * ratio - self._elapsed(name)
            known.append(max(0.0, guess) if seen is None else seen)
        return max(sum(known) / self._jobs, *known, 0.0)

    def _elapsed(self, name: str) -> float:
        """Hours since a task began."""
        return (self._clock() - self._begun[name]) / 3600

    def _by_progress(self, name: str, one: Running) -> float | None:
        """Hours that a training still takes at its pace since it was first looked at."""
        progress = one.progress if isinstance(one, StageRun) else None
        if progress is None:
            return None
        share, now = progress[0] / progress[1], self._clock()
        begin, first = self._first.setdefault(name, (now, share))
        if share <= first or now <= begin:
            return None
        return (now - begin) / (share - first) * (1 - share) / 3600


def duration(hours: float) -> str:
    """ "40 s", "12 min", "3.5 h"."""
    if hours < 1.5 / 60:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1.5 else f"{hours:.1f} h"
