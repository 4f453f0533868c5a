"""What writers for experiment trackers share: which figures are new, and which run they are of."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from detectron2.utils.events import EventWriter, get_event_storage

from ...errors import Interrupted
from ...files import write_json

_FILE = "trackers.json"


class TrackerWriter(EventWriter):
    """Sends each figure once, with the iteration that it is of.

    A tracker that fails on the way is told of in the log and does not end the run.
    """

    def __init__(self, *, name: str, output_dir: str | os.PathLike[str], window_size: int = 20):
        """
        Args:
            name: of the tracker, the key of its run's id in OUTPUT_DIR/trackers.json
            output_dir: of the run
            window_size: steps that medians are taken of
        """
        self.name = name
        self._file = Path(output_dir) / _FILE
        self._window = window_size
        self._last_write = -1  # the last iteration whose figures are sent; set before `open`
        self._opened = False
        self._failures = 0

    def open(self) -> None:
        """Start the tracker's run, or go on with the one of this folder.

        Raises:
            UserError: it cannot be reached or refuses
        """
        self._opened = True
        known = _ids(self._file)
        run_id = self._start(known.get(self.name))
        if known.get(self.name) != run_id:
            write_json(self._file, known | {self.name: run_id})

    def write(self) -> None:
        if not self._opened:
            self.open()
        new: defaultdict[int, dict[str, float]] = defaultdict(dict)
        for key, (value, iteration) in (
            get_event_storage().latest_with_smoothing_hint(self._window).items()
        ):
            if iteration > self._last_write:
                new[iteration][key] = value
        for iteration in sorted(new):
            self._guarded(self._send, iteration, new[iteration])
            self._last_write = iteration

    def close(self) -> None:
        if self._opened:
            self._guarded(self._finish, _ending())

    def _guarded(self, call: Any, *args: Any) -> None:
        try:
            call(*args)
        except Exception as error:
            self._failures += 1
            if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th, ...
                logging.getLogger(__name__).error(
                    "%s did not take the figures: %s: %s (%d times so far). The run goes on; "
                    "metrics.json has all figures",
                    self.name,
                    type(error).__name__,
                    error,
                    self._failures,
                )

    def _start(self, run_id: str | None) -> str:
        """Args: run_id: of the run to go on with; None starts a new one. Returns: its id."""
        raise NotImplementedError

    def _send(self, iteration: int, figures: dict[str, float]) -> None:
        """Hand figures over without waiting for a network."""
        raise NotImplementedError

    def _finish(self, ending: str) -> None:
        """Args: ending: "finished", "stopped" or "failed"."""
        raise NotImplementedError


def forget_runs(output_dir: str | os.PathLike[str]) -> None:
    """Let the next run in this folder be a new one for the trackers, too."""
    with contextlib.suppress(FileNotFoundError):
        (Path(output_dir) / _FILE).unlink()


def _ids(file: Path) -> dict[str, str]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):  # none yet, or not ours: a new run then
        return {}
    return found if isinstance(found, dict) else {}


def _ending() -> str:
    """How the run ends whose hooks are being left: their last part runs in a `finally`."""
    error = sys.exc_info()[0]
    if error is None:
        return "finished"
    return "stopped" if issubclass(error, Interrupted | KeyboardInterrupt) else "failed"
