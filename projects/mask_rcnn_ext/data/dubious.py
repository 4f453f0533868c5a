"""Counts of what was left out while samples are made, said aloud now and then."""

from __future__ import annotations

import logging

_logger = logging.getLogger(__name__)


class Dubious:
    """Counts events of one process; the 1st, 2nd, 4th, 8th, ... of each kind is logged."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def note(self, kind: str, where: str) -> None:
        """
        Args:
            kind: what happened, in words; the key of `counts`
            where: file and ids of this case
        """
        count = self.counts.get(kind, 0) + 1
        self.counts[kind] = count
        if count & (count - 1) == 0:
            _logger.warning("%s: %s (%d so far in this process)", kind, where, count)
