"""COCO's run-length encoding, written from the places where a mask changes.

Shape letters: R masks, T changes, H, W the image's height and width in pixels. Pixels are counted
down the columns: pixel (row y, column x) has the number x * H + y. A *change* is a number at which
the value differs from that of the pixel before; before pixel 0 lies a 0. The changes of several
masks are kept in one array of *keys*: key = r * (H * W + 1) + number, r the mask's index.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.int64]

_DIGIT = 5  # bits in a character of the compressed form; one more says that another follows
_FIRST = ord("0")


class RLE(TypedDict):
    """A mask as COCO's tools write it: size [H, W], and the runs' lengths, compressed."""

    size: list[int]
    counts: bytes


def key_stride(height: int, width: int) -> int:
    """The step of the keys from one mask to the next; number H * W, the end, is still a mask's."""
    return height * width + 1


def changes_in_columns(bits: NDArray[np.bool_]) -> tuple[Keys, Keys]:
    """Where the values change down each column, with 0 above and below it.

    Args:
        bits: (w, h), a column of the image in each row
    Returns:
        (T,) columns 0..w-1 and (T,) rows 0..h, ordered by column, then row
    """
    padded = np.zeros((bits.shape[0], bits.shape[1] + 2), dtype=bool)
    padded[:, 1:-1] = bits
    columns, rows = np.nonzero(padded[:, 1:] != padded[:, :-1])
    return columns, rows


def settle(keys: Keys) -> Keys:
    """Sort the keys and let equal ones cancel in pairs: two changes at one place are none."""
    keys = np.sort(keys, kind="stable")  # mostly sorted already, which this kind makes use of
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    times = np.diff(starts, append=len(keys))
    return keys[starts[times % 2 == 1]]


def encode_changes(keys: Keys, count: int, height: int, width: int) -> list[RLE]:
    """COCO's RLE of each mask, byte for byte that of pycocotools.

    Args:
        keys: (T,) settled, see the module's text
        count: R
        height: H
        width: W
    Returns:
        R of them; a mask without changes is all zeros
    """
    pixels, stride = height * width, key_stride(height, width)
    keys = keys[keys % stride != pixels]  # ones up to the last pixel: no run of zeros follows
    starts = np.arange(count, dtype=np.int64) * stride
    bounds = np.sort(np.concatenate([starts, keys, starts + pixels]), kind="stable")
    runs_of = np.bincount(keys // stride, minlength=count) + 1  # (R,)
    ends = np.cumsum(runs_of)
    steps = np.diff(bounds)
    # From a mask's end to the start of the next is no run.
    runs = np.delete(steps, (ends + np.arange(count))[:-1])
    size = [height, width]
    return [{"size": list(size), "counts": text} for text in compress_runs(runs, ends)]


def compress_runs(runs: Keys, ends: Keys) -> list[bytes]:
    """COCO's compressed text of lists of run lengths.

    From its fourth run on, a list holds the difference to the run before the last one. A number is
    cut into groups of 5 bits in two's complement, lowest first, until the sign is all that is left;
    a group is a character from "0" on, plus 32 if another group follows.

    Args:
        runs: (T,) all lists in one; zeros first, then ones, in turns
        ends: (R,) where each list ends in `runs`
    """
    if not len(runs):
        return [b""] * len(ends)
    lengths = np.diff(ends, prepend=0)
    place = np.arange(len(runs)) - np.repeat(ends - lengths, lengths)
    later = np.flatnonzero(place > 2)
    numbers = runs.copy()
    numbers[later] -= runs[later - 2]

    # A number needs one group more for each 5 bits beyond the first 4 and the sign.
    magnitude = np.where(numbers < 0, ~numbers, numbers)
    groups = np.ones(len(numbers), dtype=np.int64)
    most = int(magnitude.max())
    bits = _DIGIT - 1
    while most >> bits:
        groups += magnitude >> bits != 0
        bits += _DIGIT
    index = np.arange(int(groups.max()))
    digits = numbers[:, None] >> (_DIGIT * index) & 31  # (T, groups)
    digits += np.where(index < groups[:, None] - 1, 32, 0)
    text = (digits[index < groups[:, None]] + _FIRST).astype(np.uint8).tobytes()
    stops = np.cumsum(groups)[ends - 1].tolist()
    return [text[a:b] for a, b in zip([0, *stops[:-1]], stops, strict=True)]
