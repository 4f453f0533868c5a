"""Run lengths of many RLE masks at once, broken ones told from good ones.

pycocotools decodes counts that are too short into memory that nobody has written to, and says
nothing; so a mask is only worth a look after its runs were found to add up.

Letters: R masks, T runs of all of them. Pixels are counted down the columns, zeros come first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_FIRST = ord("0")  # character of the group 0
_MOST_GROUPS = 12  # of 5 bits; more than any picture needs, and still below 64 bits


def expand_runs(texts: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The inverse of `ops.rle.compress_runs`, for texts that may be anything.

    Args:
        texts: R compressed counts
    Returns:
        (T,) int64 run lengths of all masks; (R,) where each mask's end in it; (R,) bool, whether
        the text was well formed (a mask that was not has no runs)
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    codes = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - _FIRST
    owner = np.repeat(np.arange(len(texts)), lengths)
    good = np.ones(len(texts), bool)
    good[owner[(codes < 0) | (codes > 63)]] = False
    last = (codes & 32) == 0  # a group after which the number ends
    ends = np.cumsum(lengths)
    full = lengths > 0
    good[np.flatnonzero(full)[~last[ends[full] - 1]]] = False

    # Texts that broke off would run into the next one: leave the broken ones out.
    keep = good[owner]
    codes, owner, last = codes[keep], owner[keep], last[keep]
    stops = np.flatnonzero(last)
    starts = np.concatenate([[0], stops[:-1] + 1])[: len(stops)]
    groups = stops - starts + 1
    place = np.minimum(np.arange(len(codes)) - np.repeat(starts, groups), _MOST_GROUPS)
    values = np.add.reduceat((codes & 31) << (5 * place), starts) if len(starts) else starts
    shift = 5 * np.minimum(groups, _MOST_GROUPS)
    values = np.where((codes[stops] & 16) != 0, values - (1 << shift), values)

    good[owner[stops[groups > _MOST_GROUPS]]] = False
    keep = good[owner[stops]]
    values = values[keep]
    counts = np.bincount(owner[stops[keep]], minlength=len(texts))
    run_ends = np.cumsum(counts)
    return _undo_differences(values, run_ends, counts), run_ends, good


def _undo_differences(values: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """From its fourth on, a number is the difference to the run before the last one."""
    place = np.arange(len(values)) - np.repeat(ends - counts, counts)
    runs = values.copy()
    for parity in (0, 1):  # places 1, 3, 5, ... and 2, 4, 6, ...: each a sum of its own
        chain = np.flatnonzero((place > 0) & (place % 2 == parity))
        sums = np.cumsum(values[chain])
        first = np.flatnonzero(place[chain] <= 2)  # each mask's start in the chain
        before = np.where(first > 0, sums[first - 1], 0)
        sizes = np.diff(first, append=len(chain))
        runs[chain] = sums - np.repeat(before, sizes)
    return runs


def measure_runs(
    runs: np.ndarray, ends: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Args:
        runs: (T,) int64
        ends: (R,) where each mask's end
        heights, widths: (R,) pixels, at least 1
    Returns:
        (R,) bool, whether the runs are no negative numbers that add up to the size; (R,) int64
        area in pixels; (R, 4) float64 x0, y0, x1, y1, NaN where the mask is empty or broken
    """
    counts = np.diff(ends, prepend=0)
    owner = np.repeat(np.arange(len(ends)), counts)
    place = np.arange(len(runs)) - np.repeat(ends - counts, counts)
    sane = np.ones(len(ends), bool)
    sane[owner[(runs < 0) | (runs > (heights * widths)[owner])]] = False
    runs = np.where(sane[owner], runs, 0)
    totals = np.bincount(owner, runs, minlength=len(ends))
    good = sane & (totals == heights * widths)

    passed = np.concatenate([[0], np.cumsum(runs)])  # pixels before each run
    begin = passed[:-1] - np.repeat(passed[ends - counts], counts)
    ones = (place % 2 == 1) & (runs > 0) & good[owner]
    owner, begin, runs = owner[ones], begin[ones], runs[ones]
    area = np.bincount(owner, runs, minlength=len(ends)).astype(np.int64)
    box = np.full((len(ends), 4), np.nan)
    if len(owner):
        height = heights[owner]
        end = begin + runs - 1
        left, right = begin // height, end // height
        # A run that goes on in the next column touches the top and the bottom.
        wraps = left != right
        top = np.where(wraps, 0, begin % height)
        bottom = np.where(wraps, height - 1, end % height)
        starts = np.flatnonzero(np.diff(owner, prepend=-1))
        some = owner[starts]
        box[some, 0] = np.minimum.reduceat(left, starts)
        box[some, 1] = np.minimum.reduceat(top, starts)
        box[some, 2] = np.maximum.reduceat(right, starts) + 1
        box[some, 3] = np.maximum.reduceat(bottom, starts) + 1
    return good, area, box
