"""What the segmentations of a file cover, all of them at once, and which cannot be used.

Letters: A annotations, P polygons, N points. Frame: pixels of the image, continuous.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from detectron2.data import transforms as T

from ..coco_table import POLYGONS, RLE, RLE_LIST, CocoTable
from ..mask_windows import Window, WindowMaker
from .runs import expand_runs, measure_runs

# Bits of `Segmentations.flags`.
ODD, SHORT, NOT_FINITE, MALFORMED, RLE_MALFORMED, RLE_SUM, RLE_SIZE = (1 << i for i in range(7))
_FEWEST_NUMBERS = 6  # of a polygon: three points
_CHUNK = 8192  # annotations at once: bounds the memory
_LARGEST_SIDE = 2**20
_LARGEST = 1e6  # of a coordinate; the mappers refuse more


class _Rle(msgspec.Struct, gc=False):
    size: tuple[int, int]
    counts: str | list[int]


class Segmentations:
    """Columns over the annotations of a file.

    Attributes:
        looked_at: (A,) bool, rows that were analysed; the others are as if they had no mask
        flags: (A,) int16, bits ODD (a polygon of an odd number of coordinates), SHORT (one of less
            than three points), NOT_FINITE (NaN, Infinity, text that stands for them, or a number
            beyond a million), MALFORMED
            (something else than numbers), RLE_MALFORMED (size or counts), RLE_SUM (runs that do
            not add up to the size), RLE_SIZE (not the image's)
        usable: (A,) int32, polygons without a fault; 1 for RLE without a fault
        boxes: (A, 4) float64 x0, y0, x1, y1 of what is usable; NaN if nothing is
        areas: (A,) float64 pixels; polygons' by the shoelace formula, summed; NaN if none is usable
        rle_sizes: (A, 2) int64 height, width; -1 for polygons
    """

    def __init__(self, count: int) -> None:
        self.looked_at = np.zeros(count, bool)
        self.flags = np.zeros(count, np.int16)
        self.usable = np.zeros(count, np.int32)
        self.boxes = np.full((count, 4), np.nan)
        self.areas = np.full(count, np.nan)
        self.rle_sizes = np.full((count, 2), -1, np.int64)

    def has(self, flag: int) -> np.ndarray:
        """(A,) bool."""
        return (self.flags & flag) != 0


def window_of(segmentation: Any, size: tuple[int, int]) -> Window | None:
    """The pixels that a segmentation covers, broken polygons left out; None if none can be used.

    Args:
        segmentation: as in the file
        size: height and width of the image
    """
    if isinstance(segmentation, list):
        segmentation = [part for part in segmentation if is_polygon(part)]
    try:
        return WindowMaker(T.TransformList([]), size, size)(segmentation)
    except (ValueError, TypeError, KeyError, OverflowError):
        return None


def is_polygon(part: Any) -> bool:
    """Whether it is an even number, six or more, of finite coordinates."""
    if not isinstance(part, list) or len(part) < _FEWEST_NUMBERS or len(part) % 2:
        return False
    return all(type(value) in (int, float) and abs(value) <= _LARGEST for value in part)


def measure_segmentations(
    table: CocoTable, rows: np.ndarray, progress: Callable[[int, int], None] | None = None
) -> Segmentations:
    """
    Args:
        table: the file
        rows: annotations to look at
        progress: called with (annotations done, of how many)
    """
    result = Segmentations(table.num_annotations)
    result.looked_at[rows] = True
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        kinds = table.segmentation_kind[chunk]
        _polygons(result, table, chunk[kinds == POLYGONS])
        _rles(result, table, chunk[(kinds == RLE) | (kinds == RLE_LIST)])
        if progress:
            progress(min(start + _CHUNK, len(rows)), len(rows))
    return result


def _polygons(result: Segmentations, table: CocoTable, rows: np.ndarray) -> None:
    if not len(rows):
        return
    texts = [table.segmentation_text(row) for row in rows.tolist()]
    parsed: list[list[list[float]]]
    try:
        parsed = msgspec.json.decode(b"[" + b",".join(texts) + b"]", type=list[list[list[float]]])
    except (msgspec.DecodeError, RecursionError):
        parsed = []
        for row, text in zip(rows.tolist(), texts, strict=True):
            polygons, flags = _tolerant(text)
            parsed.append(polygons)
            result.flags[row] |= flags
    _measure_polygons(result, rows, parsed)


def _tolerant(text: bytes) -> tuple[list[list[float]], int]:
    """The polygons of one annotation in which something is no number, and what is wrong."""
    try:
        return msgspec.json.decode(text, type=list[list[float]]), 0
    except (msgspec.DecodeError, RecursionError):
        pass
    try:
        parts = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return [], MALFORMED
    polygons, flags = [], 0
    for part in parts if isinstance(parts, list) else []:
        if not isinstance(part, list):
            flags |= MALFORMED
            continue
        values = [_number(value) for value in part]
        if any(value is None for value in values):
            flags |= MALFORMED
            continue
        polygons.append([value for value in values if value is not None])
    return polygons, flags


def _number(value: Any) -> float | None:
    """NaN for what stands for one; None for what is no number."""
    if type(value) in (int, float):
        try:
            return float(value)
        except OverflowError:  # an int of hundreds of digits
            return math.inf
    return math.nan if value in ("nan", "inf", "-inf") else None


def _measure_polygons(
    result: Segmentations, rows: np.ndarray, parsed: Sequence[Sequence[Sequence[float]]]
) -> None:
    owner = np.repeat(rows, [len(polygons) for polygons in parsed])  # (P,)
    flat = list(itertools.chain.from_iterable(parsed))
    lengths = np.array([len(polygon) for polygon in flat], np.int64)
    values = np.fromiter(itertools.chain.from_iterable(flat), np.float64, int(lengths.sum()))

    odd, short = lengths % 2 == 1, lengths < _FEWEST_NUMBERS
    broken = np.zeros(len(lengths), bool)
    broken[np.repeat(np.arange(len(lengths)), lengths)[~(np.abs(values) <= _LARGEST)]] = True
    for fault, flag in ((odd, ODD), (short, SHORT), (broken, NOT_FINITE)):
        np.bitwise_or.at(result.flags, owner[fault], np.int16(flag))
    good = ~(odd | short | broken)
    points = values[np.repeat(good, lengths)]
    owner, counts = owner[good], lengths[good] // 2
    if not len(owner):
        return
    x, y = points[0::2], points[1::2]  # (N,)
    ends = np.cumsum(counts)
    starts = ends - counts
    following = np.arange(1, len(x) + 1)
    following[ends - 1] = starts
    with np.errstate(over="ignore", invalid="ignore"):
        areas = np.abs(np.add.reduceat(x * y[following] - x[following] * y, starts)) / 2  # (P,)

    first = np.flatnonzero(np.diff(owner, prepend=-1))  # where an annotation's polygons start
    mine = owner[first]
    result.usable[mine] = np.diff(first, append=len(owner))
    with np.errstate(over="ignore", invalid="ignore"):
        result.areas[mine] = np.add.reduceat(areas, first)
    for column, (smallest, axis) in enumerate(
        ((np.minimum, x), (np.minimum, y), (np.maximum, x), (np.maximum, y))
    ):
        result.boxes[mine, column] = smallest.reduceat(smallest.reduceat(axis, starts), first)


def _rles(result: Segmentations, table: CocoTable, rows: np.ndarray) -> None:
    if not len(rows):
        return
    texts = [table.segmentation_text(row) for row in rows.tolist()]
    parsed: list[_Rle | None]
    try:
        parsed = msgspec.json.decode(b"[" + b",".join(texts) + b"]", type=list[_Rle | None])
    except (msgspec.DecodeError, RecursionError):
        parsed = [_rle_or_none(text) for text in texts]
    sane = [rle is not None and _is_size(rle.size) for rle in parsed]
    result.flags[rows[~np.array(sane)]] |= RLE_MALFORMED
    rows = rows[sane]
    rles = [rle for rle, ok in zip(parsed, sane, strict=True) if ok and rle is not None]
    if not rles:
        return
    result.rle_sizes[rows] = [rle.size for rle in rles]
    _measure_rles(result, rows, rles)
    # Row -1, an unknown image, finds the last: no size.
    size = np.concatenate([table.image_sizes, [[-1, -1]]])[table.image_of[rows]]
    differs = (size > 0).all(axis=1) & (size != result.rle_sizes[rows]).any(axis=1)
    # A mask of another size is in another frame: what it covers says nothing about its box.
    wrong = rows[differs]
    result.flags[wrong] |= RLE_SIZE
    result.usable[wrong], result.boxes[wrong], result.areas[wrong] = 0, np.nan, np.nan


def _measure_rles(result: Segmentations, rows: np.ndarray, rles: Sequence[_Rle]) -> None:
    plain = np.array([isinstance(rle.counts, list) for rle in rles])
    for chosen, is_list in ((np.flatnonzero(plain), True), (np.flatnonzero(~plain), False)):
        if not len(chosen):
            continue
        counts = [rles[i].counts for i in chosen.tolist()]
        well_formed = np.ones(len(chosen), bool)
        if is_list:
            lists = [[_run(run) for run in runs] for runs in counts]
            runs = np.fromiter(itertools.chain.from_iterable(lists), np.int64)
            ends = np.cumsum([len(one) for one in lists])
        else:
            texts = [str(text).encode("utf-8", "replace") for text in counts]
            runs, ends, well_formed = expand_runs(texts)
        mine = rows[chosen]
        height, width = result.rle_sizes[mine].T
        adds_up, area, box = measure_runs(runs, ends, height, width)
        result.flags[mine[~well_formed]] |= RLE_MALFORMED
        result.flags[mine[well_formed & ~adds_up]] |= RLE_SUM
        good = well_formed & adds_up
        result.usable[mine[good]] = 1
        result.areas[mine[good]] = area[good]
        result.boxes[mine[good]] = box[good]


def _rle_or_none(text: bytes) -> _Rle | None:
    try:
        return msgspec.json.decode(text, type=_Rle)
    except (msgspec.DecodeError, RecursionError):
        return None


def _is_size(size: tuple[int, int]) -> bool:
    return all(0 < side <= _LARGEST_SIDE for side in size)


def _run(value: Any) -> int:
    return value if 0 <= value < 2**62 else -1
