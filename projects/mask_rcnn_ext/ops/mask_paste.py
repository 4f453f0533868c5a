"""Paste m x m masks into their boxes and write them as RLE, without an image-sized bitmap.

Shape letters: R masks, m their side, H, W the image's height and width, P pixels. Boxes are (x0,
y0, x1, y1) in continuous pixels; pixel k's centre lies at k + 0.5. The mask's cells tile its box,
values sit at their centres, and outside the cells the mask is 0.

The result is that of Detectron2's `paste_masks_in_image` on a CPU, to the last pixel: sample the
mask bilinearly at each pixel centre of the box's window, compare with the threshold. But most
pixels are never sampled. Down a column of the image the sampled function is linear between the m
cell rows, so it crosses the threshold at most m + 1 times, at places that a division gives: the
work goes with width * m, not with the area. Only pixels whose value is so near to the threshold
that rounding could decide are sampled, by the same float operations as Detectron2's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from .rle import RLE, Keys, changes_in_columns, encode_changes, key_stride, settle

Floats = NDArray[np.float64]

_GROUP = 1 << 18  # numbers of the profiles (columns x cell rows) worked on at once
_STRIPE = 1 << 17  # pixels sampled at once
_MOST_UNSURE = 1 << 13  # pixels of one box; with more, sampling all of them costs no more
_THIN = 1e-2  # pixels; boxes thinner than this are sampled, their windows are thin as well
_TINY = 1e-30  # thresholds below are too near to where float32 loses its relative precision
_HUGE = 1e30
# How far a sampled value can be from ours, in units of the mask's largest value and (m + 4): the
# sampling position errs by at most 10 (m + 1) 2^-24 cells a axis (box, division, scaling to -1..1
# and back), the value by twice the largest value for each cell: 2.4e-6 (m + 1), and its own
# rounding is below 1e-6.
_DOUBT = 4e-6


@dataclass(frozen=True)
class _Work:
    """What is to be pasted, on the CPU.

    masks: (R, m, m) float32 or float64
    peaks: (R,) each mask's largest absolute value
    boxes: (R, 4) float32 or float64; Detectron2's arithmetic depends on the dtype
    extent: (R, 2) widths and heights, in the boxes' dtype
    low, high: (R, 2) int64, the windows' first pixel and the one after the last, (x, y)
    """

    masks: torch.Tensor
    peaks: Floats
    boxes: torch.Tensor
    extent: torch.Tensor
    low: NDArray[np.int64]
    high: NDArray[np.int64]
    height: int
    width: int
    threshold: float

    @property
    def doubt(self) -> Floats:
        """(R,) how near to the threshold a mask's value must be for rounding to decide."""
        return _DOUBT * (self.masks.shape[-1] + 4) * self.peaks

    def keys(self, index: Keys | int, columns: Keys, rows: Keys) -> Keys:
        return index * key_stride(self.height, self.width) + columns * self.height + rows


def paste_masks_to_rle(
    masks: torch.Tensor | NDArray[np.floating],
    boxes: torch.Tensor | NDArray[np.floating],
    image_size: Sequence[int],
    threshold: float = 0.5,
) -> list[RLE]:
    """Detectron2's `paste_masks_in_image` and pycocotools' `encode` in one, bit for bit.

    Memory beyond the inputs goes with the widest box and the runs of the answer, not with H * W.
    Inputs other than float64 are taken as float32, half-precision masks too (Detectron2 would round
    their sampling places to half precision). A box that misses the image, or whose window is empty
    because it is inverted, gives a mask of zeros (Detectron2 fails on many of them).

    Args:
        masks: (R, m, m) or (R, 1, m, m), probabilities of the object, any dtype and device
        boxes: (R, 4) (x0, y0, x1, y1), pixels of the image; may reach beyond it
        image_size: (H, W)
        threshold: a pixel is 1 if its value is at least this; 0 or more
    Returns:
        R RLEs, {"size": [H, W], "counts": compressed bytes}
    Raises:
        ValueError: wrong shapes, a box or mask with NaN or infinity, a negative threshold
    """
    work = _checked(masks, boxes, image_size, threshold)
    answer: list[RLE] = []
    crossed = _is_crossed(work)
    for begin, end in _groups(work, crossed):
        members = np.arange(begin, end)
        keys = _cross(work, members[crossed[begin:end]]) + [
            _sample_window(work, r) for r in members[~crossed[begin:end]].tolist()
        ]
        flat = settle(np.concatenate([*keys, np.empty(0, np.int64)]))
        flat -= begin * key_stride(work.height, work.width)
        answer += encode_changes(flat, end - begin, work.height, work.width)
    return answer


def _checked(
    masks: torch.Tensor | NDArray[np.floating],
    boxes: torch.Tensor | NDArray[np.floating],
    image_size: Sequence[int],
    threshold: float,
) -> _Work:
    """Refuse what has no answer; bring the rest to the CPU and find the windows."""
    values, corners = _on_cpu(masks), _on_cpu(boxes)
    came = tuple(values.shape)
    if values.dim() == 4 and values.shape[1] == 1:
        values = values[:, 0]
    if values.dim() != 3 or values.shape[1] != values.shape[2] or not values.shape[2]:
        raise ValueError(
            f"masks have shape {came}, expected (R, m, m) or (R, 1, m, m), m at least 1"
        )
    if tuple(corners.shape) != (len(values), 4):
        raise ValueError(f"boxes have shape {tuple(corners.shape)}, expected ({len(values)}, 4)")
    height, width = (int(side) for side in image_size)
    if height < 1 or width < 1:
        raise ValueError(f"image_size is {(height, width)}, expected (H, W) of at least 1")
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold is {threshold}, expected 0 or more; soft masks have no RLE")
    for name, tensor in (("boxes", corners), ("masks", values)):
        broken = (~torch.isfinite(tensor)).flatten(1).any(dim=1).nonzero().flatten().tolist()
        if broken:
            raise ValueError(f"{name}[{broken[0]}] holds NaN or infinity")
    size = torch.tensor([width, height])
    zero = torch.zeros_like(size)
    low = torch.minimum((corners[:, :2].floor() - 1).double().clamp(min=0), size)
    high = torch.minimum((corners[:, 2:].ceil() + 1).double(), size)
    high = torch.maximum(torch.maximum(high, zero), low)
    return _Work(
        values.contiguous(),
        values.flatten(1).abs().amax(dim=1).double().numpy(),
        corners,
        corners[:, 2:] - corners[:, :2],
        low.long().numpy(),
        high.long().numpy(),
        height,
        width,
        float(threshold),
    )


def _on_cpu(values: torch.Tensor | NDArray[np.floating]) -> torch.Tensor:
    """float64 as it is, everything else as float32."""
    if not isinstance(values, torch.Tensor):
        # A copy: torch takes no arrays with negative strides and warns of read-only ones.
        values = torch.from_numpy(np.array(values, order="C"))
    values = values.detach().cpu()
    return values if values.dtype == torch.float64 else values.float()


def _is_crossed(work: _Work) -> NDArray[np.bool_]:
    """(R,) whether crossings can be computed; other boxes are sampled.

    Not for boxes without a sound width and height, nor if the 0 around a mask is itself near to the
    threshold.
    """
    extent = work.extent.double().numpy()
    sound = np.isfinite(extent).all(axis=1) & (extent > _THIN).all(axis=1)
    apart = work.threshold > np.maximum(work.doubt, _TINY)
    return sound & apart & (work.peaks < _HUGE)


def _groups(work: _Work, crossed: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Ranges of boxes that together have at most _GROUP numbers; a box is never cut.

    A number is one of a profile, or a pixel of a window that is sampled.
    """
    columns, rows = (work.high - work.low).T
    numbers = np.cumsum(columns * np.where(crossed, work.masks.shape[-1] + 2, rows))
    begin, before = 0, 0
    while begin < len(numbers):
        end = max(begin + 1, int(np.searchsorted(numbers, before + _GROUP, side="right")))
        yield begin, end
        begin, before = end, int(numbers[end - 1])


def _cross(work: _Work, members: Keys) -> list[Keys]:
    """Keys of the changes of some masks, from where the threshold is crossed.

    Args:
        members: (N,) indices of masks, ascending
    """
    low, high = work.low[members], work.high[members]
    side = work.masks.shape[-1]
    extent = work.extent.double().numpy()[members]
    origin = work.boxes[:, :2].double().numpy()[members]
    doubt = work.doubt[members]

    # The columns of all windows, one after the other.
    widths = high[:, 0] - low[:, 0]
    owner = np.repeat(np.arange(len(members)), widths)  # (columns,) index into members
    first = np.cumsum(widths) - widths
    column = np.arange(len(owner)) - (first - low[:, 0])[owner]

    # The mask along each column: its cell rows and a row of zeros at both ends.
    place = (column + 0.5 - origin[owner, 0]) / extent[owner, 0] * side - 0.5  # in cells
    cell = np.clip(np.floor(place).astype(np.int64), -1, side - 1)
    share = np.clip(place - cell, 0, 1).astype(np.float32)[:, None]
    padded = np.zeros((len(members), side + 2, side + 2), dtype=np.float32)  # (N, x, y)
    chosen = work.masks.numpy() if len(members) == len(work.masks) else work.masks.numpy()[members]
    padded[:, 1:-1, 1:-1] = chosen.transpose(0, 2, 1)
    lines = padded.reshape(-1, side + 2)
    at = owner * (side + 2) + cell + 1
    profile = lines[at]
    step = lines[at + 1]
    step -= profile
    step *= share
    profile += step  # (columns, m + 2)
    profile -= np.float32(work.threshold)

    above = profile >= 0
    crosses = above[:, 1:] != above[:, :-1]  # (columns, m + 1)
    near = np.abs(profile) <= doubt.astype(np.float32)[owner, None]
    unsure = crosses | near[:, 1:] | near[:, :-1]
    which, piece = np.nonzero(unsure)
    whose = owner[which]
    start = profile[which, piece].astype(np.float64)
    rise = profile[which, piece + 1] - start
    length = extent[whose, 1] / side  # of a cell, in pixel rows
    top = (piece - 0.5) * length + origin[whose, 1] - 0.5
    top_row, end_row = low[whose, 1], high[whose, 1]

    is_change = crosses[which, piece]
    with np.errstate(divide="ignore", invalid="ignore"):
        row = np.ceil(top - start / rise * length)[is_change]
        sides = (np.array([[-1.0], [1.0]]) * doubt[whose] - start) / rise
    rows = np.clip(row, top_row[is_change], end_row[is_change]).astype(np.int64)
    keys = work.keys(members[whose[is_change]], column[which[is_change]], rows)

    # Rows of each piece with a value in doubt. Where the mask is flat all are (0 / 0 would be
    # possible there); 1e-6 is far above what the places err by.
    sides = np.clip(np.where(rise == 0, [[0.0], [1.0]], np.sort(sides, axis=0)), 0, 1)
    begin = np.maximum(np.ceil(top + sides[0] * length - 1e-6), top_row).astype(np.int64)
    stop = np.minimum(np.floor(top + sides[1] * length + 1e-6) + 1, end_row).astype(np.int64)
    some = np.flatnonzero(stop > begin)
    if not len(some):
        return [keys]
    return _decide(
        work, settle(keys), members[whose[some]], column[which[some]], begin[some], stop[some]
    )


def _decide(
    work: _Work, keys: Keys, index: Keys, column: Keys, begin: Keys, stop: Keys
) -> list[Keys]:
    """Sample the pixels in doubt and mend the changes where they were on the wrong side.

    Args:
        keys: settled
        index: (P',) mask of each stretch of pixels; ascending
        column, begin, stop: its column, first row, row after the last
    """
    stride = key_stride(work.height, work.width)
    many = np.bincount(index, weights=stop - begin) > _MOST_UNSURE
    whole = np.flatnonzero(many).tolist()
    if whole:
        keys = keys[~np.isin(keys // stride, whole)]
        few = ~many[index]
        index, column, begin, stop = index[few], column[few], begin[few], stop[few]
    heights = stop - begin
    ends = np.cumsum(heights)
    stretch = np.repeat(np.arange(len(heights)), heights)
    row = np.arange(len(stretch)) - (ends - heights - begin)[stretch]
    # A pixel on the border of two pieces is in both.
    pixels = np.unique(work.keys(index[stretch], column[stretch], row))
    found = np.searchsorted(keys, pixels, side="right") % 2 == 1
    wrong = pixels[found != _sample_pixels(work, pixels)]
    return [keys, wrong, wrong + 1, *(_sample_window(work, r) for r in whole)]


def _sample_pixels(work: _Work, pixels: Keys) -> NDArray[np.bool_]:
    """(P,) whether the pixels of these keys, ascending, reach the threshold."""
    stride = key_stride(work.height, work.width)
    index, number = np.divmod(pixels, stride)
    column, row = np.divmod(number, work.height)
    which = torch.from_numpy(index)
    grid = torch.stack(
        [
            _sampling_place(work, which, axis, torch.from_numpy(place))
            for axis, place in enumerate((column, row))
        ],
        dim=1,
    )  # (P, 2)
    bits = np.empty(len(pixels), dtype=bool)
    bounds = [*np.flatnonzero(np.diff(index, prepend=-1)).tolist(), len(pixels)]
    for a, b in itertools.pairwise(bounds):
        bits[a:b] = _sample(work, int(index[a]), grid[None, a:b])[0]
    return bits


def _sample_window(work: _Work, index: int) -> Keys:
    """Keys of one mask's changes, with every pixel of its window sampled, stripe by stripe."""
    (left, top), (right, bottom) = work.low[index].tolist(), work.high[index].tolist()
    if bottom <= top:
        return np.empty(0, dtype=np.int64)
    y = _sampling_place(work, index, 1, torch.arange(top, bottom))
    keys = [np.empty(0, dtype=np.int64)]
    step = max(1, _STRIPE // (bottom - top))
    for begin in range(left, right, step):
        x = _sampling_place(work, index, 0, torch.arange(begin, min(begin + step, right)))
        grid = torch.stack(torch.broadcast_tensors(x[:, None], y[None]), dim=2)  # (w, h, 2)
        columns, rows = changes_in_columns(_sample(work, index, grid))
        keys.append(work.keys(index, begin + columns, top + rows))
    return np.concatenate(keys)


# -- Detectron2's arithmetic: each operation, its order and its dtype decide the last bit ---------


def _sampling_place(
    work: _Work, index: torch.Tensor | int, axis: int, pixel: torch.Tensor
) -> torch.Tensor:
    """Pixels' centres in their boxes' coordinates, -1 to 1, in the masks' dtype.

    Args:
        index: the pixels' mask, or (P,) masks
        axis: 0 for x, 1 for y
        pixel: (P,) columns or rows
    """
    start, extent = work.boxes[index, axis], work.extent[index, axis]
    if isinstance(index, int):
        # A number without dimensions would not take part in choosing the dtype.
        start, extent = start[None], extent[None]
    centre = pixel.to(torch.float32) + 0.5
    return ((centre - start) / extent * 2 - 1).to(work.masks.dtype)


def _sample(work: _Work, index: int, grid: torch.Tensor) -> NDArray[np.bool_]:
    """(a, b) whether one mask reaches the threshold at the places (a, b, 2)."""
    values = F.grid_sample(work.masks[index, None, None], grid[None], align_corners=False)[0, 0]
    return (values >= work.threshold).numpy()
