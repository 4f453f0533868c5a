"""Masks and instance images as runs of pixels, and how many pixels they share.

Letters: R masks, T runs, V different ids, H, W the image's height and width. Pixels are counted
down the columns, as COCO's run lengths are: pixel (row y, column x) has the number x * H + y. The
work goes with the number of runs; no image-sized array a mask is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.mask_windows import run_lengths
from ...errors import DataError


@dataclass(frozen=True)
class Runs:
    """Runs of ones of several masks, in order of their masks.

    owners: (T,) int64, index of the mask, 0 to count - 1
    starts, ends: (T,) int64, number of the first pixel and of the one after the last
    count: R
    """

    owners: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    count: int

    def areas(self) -> np.ndarray:
        """(R,) int64, pixels of each mask."""
        weights = self.ends - self.starts
        return np.bincount(self.owners, weights, self.count).astype(np.int64)


def runs_of_bitmaps(masks: np.ndarray) -> Runs:
    """From (R, H, W) masks; what is not zero belongs to the mask."""
    changes = [_changes(mask) for mask in masks]
    return _from_changes(changes)


def runs_of_rles(rles: Sequence[Mapping[str, Any]], size: tuple[int, int], where: str) -> Runs:
    """From COCO's run lengths.

    Args:
        rles: R of them; counts are the compressed text (str or bytes) or a list of lengths
        size: (H, W) that they must have
        where: name of the image, for messages
    Raises:
        DataError: another size, or counts that are damaged
    """
    changes = []
    for index, rle in enumerate(rles):
        try:
            changes.append(np.cumsum(run_lengths(dict(rle), size)))
        except ValueError as error:
            raise DataError(f"{where}, mask {index}: {error}") from error
    return _from_changes(changes)


def count_shared(runs: Runs, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many pixels each mask has of each id.

    Args:
        runs: of R masks
        ids: (H, W) integers
    Returns:
        (V,) the ids in the image, sorted; (V,) int64, their pixels; (R, V) int64, those of them
        in each mask
    """
    flat = ids.ravel(order="F")
    cuts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    values, column = np.unique(flat[cuts], return_inverse=True)
    ends = np.append(cuts[1:], flat.size)
    pixels = np.bincount(column, ends - cuts, len(values)).astype(np.int64)

    # Each run is cut where the id changes: piece by piece, all runs at once.
    first = np.searchsorted(cuts, runs.starts, side="right") - 1
    pieces = np.searchsorted(cuts, runs.ends, side="left") - first  # (T,)
    run = np.repeat(np.arange(len(first)), pieces)
    offset = np.arange(len(run)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    cut = first[run] + offset
    lengths = np.minimum(ends[cut], runs.ends[run]) - np.maximum(cuts[cut], runs.starts[run])
    place = runs.owners[run] * len(values) + column[cut]
    shared = np.bincount(place, lengths, runs.count * len(values)).astype(np.int64)
    return values, pixels, shared.reshape(runs.count, len(values))


def _changes(mask: np.ndarray) -> np.ndarray:
    """Where runs of zeros and of ones end, zeros first, as the sums of COCO's run lengths are."""
    flat = np.concatenate([[False], mask.astype(bool).ravel(order="F")])
    return np.append(np.flatnonzero(flat[1:] != flat[:-1]), mask.size)


def _from_changes(changes: list[np.ndarray]) -> Runs:
    starts = [bounds[: len(bounds) // 2 * 2 : 2] for bounds in changes]
    ends = [bounds[1::2] for bounds in changes]
    owners = np.repeat(np.arange(len(changes)), [len(part) for part in starts])
    nothing = np.zeros(0, np.int64)
    runs = np.concatenate([nothing, *starts]), np.concatenate([nothing, *ends])
    return Runs(owners, *runs, count=len(changes))
