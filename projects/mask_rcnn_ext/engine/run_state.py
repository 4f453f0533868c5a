"""What a run knows beside model and optimizer, for its checkpoints: figures so far, logs, chance.

With it a resumed run writes the lines that an undisturbed one would have written, once.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from detectron2.utils import comm
from detectron2.utils.events import EventStorage, JSONWriter, TensorboardXWriter
from fvcore.common.history_buffer import HistoryBuffer

from .rng import rng_state, set_rng_state

# More than any writer looks back for a figure; estimates of the time left look further, and may.
_KEPT = 100
# Of one start of the program, which measures anew.
_CLOCK = ("time", "eta_seconds")


def storage_state(storage: EventStorage) -> dict[str, Any]:
    """The recent values of each figure, as plain values."""
    return {
        "histories": {
            name: {
                "values": [list(pair) for pair in buffer.values()[-_KEPT:]],
                "count": buffer._count,
                "average": buffer._global_avg,
            }
            for name, buffer in storage.histories().items()
            if name not in _CLOCK
        },
        "latest": {n: list(pair) for n, pair in storage.latest().items() if n not in _CLOCK},
        "smoothing": {n: h for n, h in storage.smoothing_hints().items() if n not in _CLOCK},
    }


def restore_storage(storage: EventStorage, state: dict[str, Any]) -> None:
    """
    Args:
        storage: a new one
        state: of `storage_state`
    """
    for name, kept in state["histories"].items():
        buffer = HistoryBuffer()
        buffer._data = [(value, iteration) for value, iteration in kept["values"]]
        buffer._count = kept["count"]
        buffer._global_avg = kept["average"]
        storage.histories()[name] = buffer
    storage.latest().update({name: tuple(pair) for name, pair in state["latest"].items()})
    storage.smoothing_hints().update(state["smoothing"])


def figures_written(metrics_file: Path, writers: list[Any]) -> dict[str, int]:
    """How far the writers have come: bytes of metrics.json, last iteration written."""
    return {
        "bytes": metrics_file.stat().st_size if metrics_file.exists() else 0,
        "last_write": max((w._last_write for w in _counting(writers)), default=-1),
    }


def go_on_writing(writers: list[Any], last_write: int) -> None:
    """Let writers leave out what is written already. Args: last_write: of `figures_written`."""
    for writer in _counting(writers):
        writer._last_write = last_write


def _counting(writers: list[Any]) -> list[JSONWriter | TensorboardXWriter]:
    return [w for w in writers if isinstance(w, JSONWriter | TensorboardXWriter)]


def cut_figures(metrics_file: Path, length: int) -> None:
    """Take the lines back that a killed run wrote after the checkpoint that is gone on from.

    Args:
        metrics_file: one JSON object a line; may be missing
        length: its size when that checkpoint was written, bytes
    """
    if not metrics_file.exists():
        if length:
            logging.getLogger(__name__).warning(
                "%s is gone: the figures before this start are lost", metrics_file
            )
        return
    size = metrics_file.stat().st_size
    if size < length:
        logging.getLogger(__name__).warning(
            "%s has %d bytes, fewer than the %d of the time of the checkpoint; figures may lack",
            metrics_file,
            size,
            length,
        )
    elif size > length:
        os.truncate(metrics_file, length)


def begin_figures(metrics_file: Path, *, same_run: bool) -> None:
    """Make room for a new run's figures: those of another run are set aside, not mixed in.

    Args:
        same_run: the file's lines are of this run, from before its first checkpoint
    """
    if not metrics_file.exists() or not metrics_file.stat().st_size:
        return
    if same_run:
        os.truncate(metrics_file, 0)
        return
    names = (metrics_file.with_suffix(f".earlier{n or ''}.json") for n in range(1000))
    aside = next(name for name in names if not name.exists())
    os.replace(metrics_file, aside)
    logging.getLogger(__name__).info("Set the figures of an earlier run aside: %s", aside)


def gathered_rng() -> list[dict[str, Any]]:
    """`rng_state` of each process, on the main one; [] elsewhere. All must call it."""
    return comm.gather(rng_state())


def restore_rng(states: list[dict[str, Any]]) -> None:
    """Take this process's part of `gathered_rng`; with another number of processes, leave it.

    The model's random numbers follow from seed, iteration and image, not from this state.
    """
    if len(states) == comm.get_world_size():
        set_rng_state(states[comm.get_rank()])
    else:
        logging.getLogger(__name__).warning(
            "The run before had %d processes, this one has %d: its generators of random numbers "
            "start anew",
            len(states),
            comm.get_world_size(),
        )
