"""A segmentation of the annotation file as the small window of bits that it covers.

Letters: H, W height and width of the frame that a window lies in, h, w those of the window. Frame:
pixels, row 0 on top; polygon coordinates are continuous, (0, 0) the corner of the first pixel.

All forms become COCO's RLE on the way, drawn or read as pycocotools does: the polygons of one
object are a union, RLE may have holes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from .axis_maps import PADDED, AxisMaps, axis_maps

Bits = NDArray[np.bool_]
Points = NDArray[np.float64]

_FEWEST_NUMBERS = 6  # three points
# pycocotools walks along a polygon's edges in fifths of a pixel, and reads no NaN.
_LARGEST = 1e6
_PER_PIXEL = 5
_MASK_BYTE = 0x1F
_MORE, _SIGN, _SHIFT = 0x20, 0x10, 5


@dataclass(frozen=True)
class Window:
    """What a mask covers: `bits`, (h, w) bool, with its first pixel at (top, left) of the frame."""

    top: int
    left: int
    bits: Bits

    def tight(self) -> Window:
        """Without empty rows and columns at its edges; 0 x 0 at (0, 0) if it covers nothing."""
        rows = np.flatnonzero(self.bits.any(axis=1))
        if not len(rows):
            return Window(0, 0, np.zeros((0, 0), bool))
        columns = np.flatnonzero(self.bits.any(axis=0))
        top, left = int(rows[0]), int(columns[0])
        inner = self.bits[top : int(rows[-1]) + 1, left : int(columns[-1]) + 1]
        return Window(self.top + top, self.left + left, inner)

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x0, y0, x1, y1 in pixels, the bounding box of a tight window."""
        height, width = self.bits.shape
        return self.left, self.top, self.left + width, self.top + height


class WindowMaker:
    """From segmentations of one source image to tight windows in the frame after transforms."""

    def __init__(
        self, transforms: T.TransformList, source: tuple[int, int], output: tuple[int, int]
    ):
        """
        Args:
            transforms: what the image went through
            source, output: (height, width) of the image before and after
        """
        self._transforms = transforms
        self._source, self._output = source, output
        maps = axis_maps(transforms.transforms, *source)
        if maps is not None and (len(maps.rows), len(maps.columns)) != output:
            maps = None
        self._maps: AxisMaps | None = maps

    def __call__(self, segmentation: Any) -> Window:
        """
        Args:
            segmentation: polygons, [[x0, y0, x1, y1, ...], ...], or RLE, {"size": [height, width],
                "counts": text, bytes or list}
        Raises:
            ValueError: it is neither, or cannot be used; says what is wrong with it
        """
        if isinstance(segmentation, dict):
            return self._of_runs(run_lengths(segmentation, self._source)).tight()
        return self._of_polygons(polygons_of(segmentation)).tight()

    def _of_runs(self, runs: NDArray[np.int64]) -> Window:
        left, bits = _columns_of(runs, self._source[0])  # (w, H): a column of the mask in each row
        if self._maps is None:
            whole = np.zeros(self._source, np.uint8)
            whole[:, left : left + len(bits)] = bits.T
            moved = np.asarray(self._transforms.apply_segmentation(whole))
            if moved.shape != self._output:
                raise ValueError(
                    f"the transforms made a mask of {moved.shape} from an image that they made "
                    f"{self._output} (height, width)"
                )
            return Window(0, 0, moved.astype(bool))
        columns = self._maps.columns - left
        wanted = np.flatnonzero((columns >= 0) & (columns < len(bits)))
        used = np.flatnonzero(bits.any(axis=0))
        if not len(used):
            return Window(0, 0, np.zeros((0, 0), bool))
        rows = self._maps.rows
        rows_wanted = np.flatnonzero((rows >= used[0]) & (rows <= used[-1]))
        gathered = bits[columns[wanted]][:, rows[rows_wanted]]
        if not gathered.size:
            return Window(0, 0, np.zeros((0, 0), bool))
        return Window(int(rows_wanted[0]), int(wanted[0]), gathered.T)

    def _of_polygons(self, polygons: list[Points]) -> Window:
        if self._maps is None:
            moved = self._transforms.apply_polygons([points.copy() for points in polygons])
            return rasterise([np.asarray(points) for points in moved], *self._output)
        # A crop only shifts here, and the frame cuts off what is outside. Detectron2 clips the
        # polygon itself, which loses parts of one that crosses itself.
        ends = np.cumsum([len(points) for points in polygons])[:-1]
        points = self._transforms.apply_coords(np.concatenate(polygons))
        window = rasterise(np.split(points, ends), *self._output)
        if self._maps.padded:  # what a crop cut off must not come back in the padding
            height, width = window.bits.shape
            rows = self._maps.rows[window.top : window.top + height] != PADDED
            columns = self._maps.columns[window.left : window.left + width] != PADDED
            window = Window(window.top, window.left, window.bits & rows[:, None] & columns)
        return window


def polygons_of(segmentation: Any) -> list[Points]:
    """(n, 2) float64 x, y of each polygon of a COCO annotation.

    Raises:
        ValueError: not a list of lists of at least three pairs of finite numbers
    """
    if not isinstance(segmentation, list):
        raise ValueError(
            f"its segmentation is {_short(segmentation)}, expected polygons "
            "[[x0, y0, x1, y1, ...], ...] or RLE {'size': [height, width], 'counts': ...}"
        )
    if not segmentation:
        raise ValueError("its segmentation is an empty list, expected at least one polygon")
    polygons = []
    for polygon in segmentation:
        if not isinstance(polygon, list | tuple | np.ndarray):
            raise ValueError(
                "its segmentation is a flat list of numbers, expected a list of polygons: "
                "[[x0, y0, x1, y1, ...]]"
            )
        numbers = np.asarray(polygon, dtype=np.float64)
        if numbers.ndim != 1 or len(numbers) % 2 or len(numbers) < _FEWEST_NUMBERS:
            raise ValueError(
                f"its segmentation has a polygon of {numbers.size} numbers, expected an even "
                f"count of at least {_FEWEST_NUMBERS}: x0, y0, x1, y1, ..."
            )
        if not (np.abs(numbers) <= _LARGEST).all():
            raise ValueError(
                f"its segmentation has a coordinate {_worst(numbers)}, expected finite numbers of "
                f"at most {_LARGEST:.0f} pixels"
            )
        polygons.append(numbers.reshape(-1, 2))
    return polygons


def rasterise(polygons: Sequence[Points], height: int, width: int) -> Window:
    """The union of polygons, bit for bit as pycocotools draws it in a frame of height x width.

    Args:
        polygons: (n, 2) x, y each, pixels; parts outside the frame are cut off
    Returns:
        a window around what they cover inside the frame
    """
    # pycocotools rounds to fifths of a pixel: trunc(5 x + 0.5). Rounded here, they can be shifted
    # to the window without another rounding.
    fifths = [np.trunc(points * _PER_PIXEL + 0.5) for points in polygons if len(points)]
    if not fifths:
        return Window(0, 0, np.zeros((0, 0), bool))
    low = np.min([one.min(axis=0) for one in fifths], axis=0) / _PER_PIXEL
    high = np.max([one.max(axis=0) for one in fifths], axis=0) / _PER_PIXEL
    left, top = np.maximum(np.floor(low) - 1, 0).astype(int).tolist()
    right, bottom = np.minimum(np.ceil(high) + 1, (width, height)).astype(int).tolist()
    if right <= left or bottom <= top:
        return Window(0, 0, np.zeros((0, 0), bool))
    shifted = [one - (left * _PER_PIXEL, top * _PER_PIXEL) for one in fifths]
    # trunc(5 v + 0.5) must give the same fifths again, on either side of zero.
    values = [np.where(one >= 0, one, one - 0.75) / _PER_PIXEL for one in shifted]
    rles = coco_mask.frPyObjects([one.ravel() for one in values], bottom - top, right - left)
    return Window(top, left, coco_mask.decode(coco_mask.merge(rles)).astype(bool))


def run_lengths(rle: dict[str, Any], size: tuple[int, int]) -> NDArray[np.int64]:
    """Lengths of the runs of an RLE, down the columns, zeros first.

    Args:
        rle: "size" and "counts", the latter compressed (text or bytes) or a list
        size: (height, width) of its image
    Raises:
        ValueError: a key is missing, another size, or runs that do not add up to it
    """
    if not {"size", "counts"} <= set(rle):
        raise ValueError(f"its RLE has the keys {sorted(rle)}, expected size and counts")
    own = tuple(rle["size"]) if isinstance(rle["size"], list | tuple) else rle["size"]
    if own != size:
        raise ValueError(
            f"its RLE has the size {_short(rle['size'])}, its image {list(size)} (height, width); "
            "encode the mask at the size of the image"
        )
    counts = rle["counts"]
    if isinstance(counts, str | bytes):
        runs = _decompress(counts.encode() if isinstance(counts, str) else counts)
    else:
        runs = np.asarray(counts)
        if runs.ndim != 1 or (runs.size and runs.dtype.kind not in "iu"):
            raise ValueError(f"its RLE has counts {_short(counts)}, expected text or whole numbers")
        runs = runs.astype(np.int64)
    if (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(
            f"its RLE counts {int(runs.sum())} pixels, its image has {size[0]} x {size[1]} = "
            f"{size[0] * size[1]}; the counts are damaged"
        )
    return runs


def _decompress(counts: bytes) -> NDArray[np.int64]:
    """COCO's text form: 5 bits a character, lowest first; from the 4th on, less the last but one"""
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - ord("0")
    if not len(digits):
        return digits
    if digits.min() < 0 or digits.max() > _MORE + _MASK_BYTE or digits[-1] & _MORE:
        raise ValueError("its RLE has counts that are not COCO's compressed text")
    last = np.flatnonzero((digits & _MORE) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > 12:  # 60 bits
        raise ValueError("its RLE has counts that are not COCO's compressed text")
    place = np.arange(len(digits)) - np.repeat(first, lengths)
    values = np.add.reduceat((digits & _MASK_BYTE) << (_SHIFT * place), first)
    values -= np.where(digits[last] & _SIGN, np.int64(1) << (_SHIFT * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _columns_of(runs: NDArray[np.int64], height: int) -> tuple[int, Bits]:
    """The columns from the first to the last that a mask touches.

    Returns:
        the first one's index and (w, height) bool, a column in each row
    """
    ends = np.cumsum(runs)
    filled = np.flatnonzero(runs[1::2]) * 2 + 1
    if not len(filled):
        return 0, np.zeros((0, height), bool)
    left = int(ends[filled[0] - 1]) // height
    right = (int(ends[filled[-1]]) - 1) // height + 1
    ends = np.clip(ends, left * height, right * height)
    inside = ends - np.concatenate([[left * height], ends[:-1]])
    values = np.arange(len(runs)) % 2 == 1
    return left, np.repeat(values, inside).reshape(right - left, height)


def _worst(numbers: NDArray[np.float64]) -> float:
    wrong = numbers[~(np.abs(numbers) <= _LARGEST)]
    return float(wrong[0])


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
