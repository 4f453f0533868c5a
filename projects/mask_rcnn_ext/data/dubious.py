"""What is left out of a run's data: said aloud now and then, and case by case in a file.

The file, skipped.jsonl, has a line for each filter that left images out, and one for each case that
a data-loader worker came upon; it is there only if there was something to write.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.utils import comm

_logger = logging.getLogger(__name__)
_MOST_CASES = 1000  # of a kind in the file, a process; epochs bring the same cases again
_FIRST_IDS = 10  # of what a filter leaves out

_file: Path | None = None


def log_to(file: str | os.PathLike[str] | None) -> None:
    """Where this process, and what it makes from now on, writes the cases; None: nowhere."""
    global _file
    _file = None if file is None else Path(file)


class Dubious:
    """Counts events of one process; the 1st, 2nd, 4th, 8th, ... of each kind is logged."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self._cases: dict[str, set[str]] = {}
        self._file = _file  # goes along to workers, however they are started

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
        cases = self._cases.setdefault(kind, set())
        if where not in cases and len(cases) < _MOST_CASES:
            cases.add(where)
            _append(self._file, {"what": kind, "case": where})


def left_out(dataset: str, reason: str, ids: Sequence[Any], total: int) -> None:
    """Say that a filter leaves images of a data set out; nothing if it leaves out none.

    Args:
        dataset: its registered name
        reason: "have ..." or "are ..."
        ids: of all these images
        total: images before the filter
    """
    if not len(ids) or not comm.is_main_process():
        return
    first = [one if isinstance(one, int | str) else str(one) for one in ids[:_FIRST_IDS]]
    _logger.info(
        "%s: %d of %d images %s and are left out (image ids %s%s)",
        dataset,
        len(ids),
        total,
        reason,
        ", ".join(map(str, first)),
        ", ..." if len(ids) > len(first) else "",
    )
    line = {"dataset": dataset, "what": reason, "images": len(ids), "of": total, "first": first}
    if _file is not None and line not in _lines(_file):  # a resumed run filters again
        _append(_file, line)


class LeftOut:
    """Counts of the cases in the file so far, of all processes; read when the file has grown."""

    def __init__(self, file: str | os.PathLike[str]):
        self._file = Path(file)
        self._size = 0
        self._counts: dict[str, int] = {}

    def __call__(self) -> dict[str, int]:
        """What happened -> in how many different cases."""
        size = self._file.stat().st_size if self._file.exists() else 0
        if size != self._size:
            self._size = size
            cases: dict[str, set[str]] = {}
            for line in _lines(self._file):
                if "case" in line:
                    cases.setdefault(line["what"], set()).add(line["case"])
            self._counts = {kind: len(found) for kind, found in cases.items()}
        return self._counts

    def total(self) -> dict[str, int]:
        """For the line of progress: all of them as one."""
        return {"data left out": sum(self().values())}

    def report(self) -> None:
        """A line of the log for each kind, at the end of a run."""
        for kind, count in self().items():
            most = " or more" if count >= _MOST_CASES else ""
            _logger.warning("In %d%s cases: %s (%s)", count, most, kind, self._file)


def _append(file: Path | None, line: dict[str, Any]) -> None:
    if file is None:
        return
    try:
        # One write of a whole line: lines of several processes do not mix.
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        _logger.warning("Cannot write to %s (%s)", file, error.strerror)


def _lines(file: Path) -> list[dict[str, Any]]:
    found = []
    try:
        text = file.read_text()
    except OSError:
        return []
    for line in text.splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:  # a process was killed in the middle of it
            continue
    return found
