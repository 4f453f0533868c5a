"""A progress line on stderr: rewritten in place on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time


class Progress:
    """Counts finished items and says how long the rest will take.

    Args:
        label: what is being made
        total: number of items
        enabled: whether to print at all
    """

    def __init__(self, label: str, total: int, enabled: bool = True) -> None:
        self._label, self._total, self._enabled = label, total, enabled
        self._start = self._last = time.monotonic()
        self._live = sys.stderr.isatty()
        self._done = 0

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        finished = self._done == self._total
        if not self._enabled or (now - self._last < (0.2 if self._live else 5.0) and not finished):
            return
        self._last = now
        spent = now - self._start
        left = spent / self._done * (self._total - self._done)
        tail = f"took {spent:.1f} s" if finished else f"{left:.0f} s left"
        text = f"{self._label}: {self._done} of {self._total} ({tail})"
        end = "\n" if finished or not self._live else ""
        print(("\r" + text.ljust(70)) if self._live else text, end=end, file=sys.stderr, flush=True)

    def close(self) -> None:
        """End an unfinished line, so that a message starts on its own."""
        if self._enabled and self._live and 0 < self._done < self._total:
            print(file=sys.stderr, flush=True)
