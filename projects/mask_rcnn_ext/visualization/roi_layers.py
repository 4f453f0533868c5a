"""One picture of what the RoI layers look at and what comes out of them (docs/pixels.md).

Shape shorthand: P bins of an axis, L cells of the feature map on it, H x W pixels of the input.
Frame: input pixels, continuous, x to the right, y down; cell k of a level of stride s covers
[k s, (k + 1) s]. Where a layer works in other units, `axis_view` brings it back here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..files import atomic_write
from ..ops.geometry import LAYERS
from ..ops.reference import axis_extent, pool_bins, roi_layer_reference

Interval = tuple[float, float]
Colour = tuple[int, int, int]

STRIDE = 16
LEVEL = (10, 12)  # rows, columns of the drawn feature map
ROI = (38.0, 27.0, 134.0, 109.0)  # x0, y0, x1, y1: the tight box of the drawn object
MASK_BINS = 14


@dataclass(frozen=True)
class AxisView:
    """One axis of a RoI as a layer sees it, in input pixels.

    covered: what the layer takes the RoI for, from edge to edge
    bins: the P intervals; RoIPool's are whole cells and may overlap
    samples: of each bin, the positions it reads: bilinear samples, or RoIPool's cell centres
    """

    covered: Interval
    bins: tuple[Interval, ...]
    samples: tuple[tuple[float, ...], ...]

    def shift(self, low: float, high: float) -> Interval:
        """How far the covered interval's two edges are from the RoI's own; positive is right."""
        return self.covered[0] - low, self.covered[1] - high


def axis_view(
    layer: str, low: float, high: float, stride: float, bins: int, cells: int, ratio: int = 0
) -> AxisView:
    """
    Args:
        layer: RoIPool, RoIWarp, RoIAlign or RoIAlignV2
        low, high: the RoI on this axis, input pixels
        stride: input pixels a cell
        bins: P
        cells: L; RoIPool clips its bins to them
        ratio: samples a bin, 0 is adaptive
    """
    if layer not in LAYERS:
        raise ValueError(f"layer is {layer!r}, expected one of {', '.join(LAYERS)}")
    # RoIPool quantises the RoI as RoIWarp does; they part ways at the bins.
    start, size = axis_extent(low, high, 1 / stride, "RoIWarp" if layer == "RoIPool" else layer)
    start += 0.5  # a cell's value sits at its centre
    covered = (start * stride, (start + size) * stride)
    if layer == "RoIPool":
        ranges = pool_bins(low, high, 1 / stride, bins, cells)
        return AxisView(
            covered,
            tuple((r.start * stride, r.stop * stride) for r in ranges),
            tuple(tuple((k + 0.5) * stride for k in r) for r in ranges),
        )
    edges = [(start + p * size / bins) * stride for p in range(bins + 1)]
    n = ratio if ratio > 0 else max(math.ceil(size / bins), 0)
    pairs = tuple(zip(edges[:-1], edges[1:], strict=True))
    samples = tuple(tuple(a + (i + 0.5) * (b - a) / n for i in range(n)) for a, b in pairs)
    return AxisView(covered, pairs, samples)


def edge_shift(layer: str, roi: Sequence[float], stride: float) -> float:
    """The largest distance, input pixels, between an edge of the RoI and where the layer puts it.

    Args:
        layer: as for `axis_view`
        roi: x0, y0, x1, y1
        stride: input pixels a cell
    """
    x0, y0, x1, y1 = roi
    axes = ((x0, x1), (y0, y1))
    return max(abs(d) for a, b in axes for d in axis_view(layer, a, b, stride, 1, 1).shift(a, b))


# ---------------------------------------------------------------------------------------------
# The object: a disc with a handle, known exactly.


def _object(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether points lie in the object, whose tight box is ROI; any shape, bool."""
    disc = (x - 70) ** 2 + (y - 77) ** 2 <= 32**2
    ax, ay, bx, by = 80.0, 70.0, 127.0, 34.0  # the handle's axis; its radius is 7
    t = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / ((bx - ax) ** 2 + (by - ay) ** 2)
    t = np.clip(t, 0, 1)
    handle = (x - ax - t * (bx - ax)) ** 2 + (y - ay - t * (by - ay)) ** 2 <= 7**2
    return disc | handle


def _coverage(box: Sequence[float], rows: int, columns: int, fine: int = 16) -> np.ndarray:
    """(rows, columns) float in 0..1: the object's share of each cell of a grid over `box`."""
    x0, y0, x1, y1 = box
    xs = x0 + (np.arange(columns * fine) + 0.5) * (x1 - x0) / (columns * fine)
    ys = y0 + (np.arange(rows * fine) + 0.5) * (y1 - y0) / (rows * fine)
    inside = _object(xs[None, :], ys[:, None])
    return inside.reshape(rows, fine, columns, fine).mean(axis=(1, 3))


def feature_map() -> np.ndarray:
    """LEVEL float in 0..1: what an ideal backbone would see, the object's share of each cell."""
    rows, columns = LEVEL
    return _coverage((0, 0, columns * STRIDE, rows * STRIDE), rows, columns)


def exact_crop(bins: int = MASK_BINS) -> np.ndarray:
    """(bins, bins) float in 0..1: the object's share of each cell of a grid over the true RoI."""
    return _coverage(ROI, bins, bins)


def layer_output(layer: str, bins: int = MASK_BINS) -> np.ndarray:
    """(bins, bins) float: the layer's RoI feature of `feature_map`, in its usual aggregation."""
    features = torch.from_numpy(feature_map())[None, None]
    rois = torch.tensor([(0.0, *ROI)], dtype=torch.float64)
    aggregation = "max" if layer == "RoIPool" else "ave"
    out, _ = roi_layer_reference(features, rois, (bins, bins), 1 / STRIDE, 0, layer, aggregation)
    return out[0, 0].numpy()


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """IoU of two maps in 0..1, each cut at a half."""
    a, b = a >= 0.5, b >= 0.5
    return float((a & b).sum() / max((a | b).sum(), 1))


# ---------------------------------------------------------------------------------------------
# Drawing. Everything is drawn twice as large and shrunk, which smooths lines of any slope.

_FINE = 2
_SCALE = 1.72  # drawn pixels an input pixel, upper row
_GAP, _LEFT = 20, 24
_INK, _GREY, _PAPER = (33, 37, 41), (134, 142, 150), (255, 255, 255)
_TRUE, _COVERED, _EXACT = (214, 40, 57), (25, 95, 190), (25, 135, 84)
_BINS = ((120, 180, 245), (250, 200, 110))
_LOW, _HIGH = np.array([248, 249, 250]), np.array([46, 78, 110])


class _Canvas:
    """A white sheet; all arguments in its final pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
        self.draw = ImageDraw.Draw(self.image, "RGBA")

    def text(self, x: float, y: float, text: str, size: int, colour: Colour = _INK) -> float:
        """Write with the upper left corner at (x, y); return where the text ends."""
        font = ImageFont.load_default(size * _FINE)
        self.draw.text((x * _FINE, y * _FINE), text, fill=colour, font=font)
        return x + self.draw.textlength(text, font=font) / _FINE

    def line(self, points: Sequence[Interval], colour: Colour, width: float = 1) -> None:
        fine = [(x * _FINE, y * _FINE) for x, y in points]
        self.draw.line(fine, fill=colour, width=round(width * _FINE), joint="curve")

    def rectangle(
        self, box: Sequence[float], colour: Colour, width: float, dash: float = 0
    ) -> None:
        x0, y0, x1, y1 = box
        corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
        if not dash:
            self.line([*corners, corners[1]], colour, width)
            return
        for (ax, ay), (bx, by) in zip(corners[:-1], corners[1:], strict=True):
            length = math.hypot(bx - ax, by - ay)
            for begin in np.arange(0, length, 2 * dash):
                a, b = begin / length, min(begin + dash, length) / length
                ends = [(ax + t * (bx - ax), ay + t * (by - ay)) for t in (a, b)]
                self.line(ends, colour, width)

    def fill(self, box: Sequence[float], colour: Colour, alpha: int) -> None:
        x0, y0, x1, y1 = (v * _FINE for v in box)
        self.draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill=(*colour, alpha))

    def dot(self, x: float, y: float, radius: float, colour: Colour) -> None:
        box = [(v + d * radius) * _FINE for d in (-1, 1) for v in (x, y)]
        self.draw.ellipse(box, fill=colour)

    def pixels(self, values: np.ndarray, x: float, y: float, width: float, height: float) -> None:
        """Values in 0..1 as blocks of grey-blue."""
        rgb = _LOW + (_HIGH - _LOW) * np.clip(values, 0, 1)[..., None]
        size = (round(width * _FINE), round(height * _FINE))
        blocks = Image.fromarray(rgb.round().astype(np.uint8)).resize(
            size, Image.Resampling.NEAREST
        )
        self.image.paste(blocks, (round(x * _FINE), round(y * _FINE)))

    def finished(self) -> Image.Image:
        width, height = self.image.size
        return self.image.resize((width // _FINE, height // _FINE), Image.Resampling.BOX)


def draw_roi_layers(target: str | Path, bins: int = 3) -> Path:
    """Draw the layers side by side into a PNG: where they look, and what they return.

    Args:
        target: the PNG; its folder must exist
        bins: P of the upper row; the lower row has MASK_BINS
    Returns:
        `target`
    """
    target = Path(target)
    tile_w, tile_h = LEVEL[1] * STRIDE * _SCALE, LEVEL[0] * STRIDE * _SCALE
    lower_w = tile_w
    lower_h = lower_w * (ROI[3] - ROI[1]) / (ROI[2] - ROI[0])
    top, lower_top = 144, round(144 + tile_h + 112)
    width = round(2 * _LEFT + 5 * tile_w + 4 * _GAP)
    canvas = _Canvas(width, round(lower_top + lower_h + 24))
    _legend(canvas, bins)

    contours = _contours()
    for column, layer in enumerate(("", *LAYERS)):
        left = _LEFT + column * (tile_w + _GAP)
        place = _placer(left, top)
        if layer:
            shift = edge_shift(layer, ROI, STRIDE)
            canvas.text(left, top - 62, layer, 26)
            note = f"edges off by up to {shift:.0f} px" if shift else "edges exact"
            canvas.text(left, top - 29, note, 20, _TRUE if shift else _EXACT)
            _grid(canvas, left, top)
            _layer(canvas, layer, bins, place)
        else:
            canvas.text(left, top - 62, "object and RoI", 26)
            canvas.text(left, top - 29, f"in cells of {STRIDE} x {STRIDE} px", 20, _GREY)
            canvas.pixels(feature_map(), left, top, tile_w, tile_h)
            _grid(canvas, left, top)
            for contour in contours:
                canvas.line([place(x, y) for x, y in contour], _INK, 2)
        canvas.rectangle([*place(*ROI[:2]), *place(*ROI[2:])], _TRUE, 3)

        values = layer_output(layer) if layer else exact_crop()
        canvas.pixels(values, left, lower_top, lower_w, lower_h)
        canvas.rectangle((left, lower_top, left + lower_w, lower_top + lower_h), _TRUE, 3)
        zoom = lower_w / (ROI[2] - ROI[0])
        for contour in contours:
            points = [
                (left + (x - ROI[0]) * zoom, lower_top + (y - ROI[1]) * zoom) for x, y in contour
            ]
            canvas.line(points, _TRUE, 2)
        if layer:
            name = f"{layer}, {'max' if layer == 'RoIPool' else 'ave'}"
            note = f"IoU with the exact crop {mask_iou(values, exact_crop()):.2f}"
        else:
            name, note = "exact crop", f"{MASK_BINS} x {MASK_BINS}; red: the object"
        canvas.text(left, lower_top - 62, name, 26)
        canvas.text(left, lower_top - 29, note, 20, _GREY)
    with atomic_write(target) as file:
        canvas.finished().save(file, "PNG", optimize=True)
    return target


def _placer(left: float, top: float) -> Callable[[float, float], Interval]:
    return lambda x, y: (left + x * _SCALE, top + y * _SCALE)


def _legend(canvas: _Canvas, bins: int) -> None:
    x, y = float(_LEFT), 22
    canvas.rectangle((x, y + 2, x + 34, y + 24), _TRUE, 3)
    x = canvas.text(x + 44, y, "true RoI", 22) + 34
    canvas.rectangle((x, y + 2, x + 34, y + 24), _COVERED, 3, dash=7)
    x = canvas.text(x + 44, y, "what the layer takes it for", 22) + 34
    for i, colour in enumerate(_BINS):
        canvas.fill((x + 17 * i, y + 2, x + 17 * (i + 1), y + 24), colour, 120)
    x = canvas.text(x + 44, y, f"{bins} x {bins} bins, darker where they overlap", 22) + 34
    for i in (0, 1):
        canvas.dot(x + 6 + 16 * i, y + 14, 3.4, _INK)
    canvas.text(x + 38, y, "what a bin reads: whole cells (RoIPool), bilinear samples (others)", 22)


def _grid(canvas: _Canvas, left: float, top: float) -> None:
    rows, columns = LEVEL
    cell = STRIDE * _SCALE
    for c in range(columns + 1):
        canvas.line([(left + c * cell, top), (left + c * cell, top + rows * cell)], (206, 212, 218))
    for r in range(rows + 1):
        canvas.line(
            [(left, top + r * cell), (left + columns * cell, top + r * cell)], (206, 212, 218)
        )


def _layer(
    canvas: _Canvas, layer: str, bins: int, place: Callable[[float, float], Interval]
) -> None:
    """Bins, samples and the covered rectangle of one layer."""
    x0, y0, x1, y1 = ROI
    along_x = axis_view(layer, x0, x1, STRIDE, bins, LEVEL[1])
    along_y = axis_view(layer, y0, y1, STRIDE, bins, LEVEL[0])
    for row, (top, bottom) in enumerate(along_y.bins):
        for column, (left, right) in enumerate(along_x.bins):
            box = [*place(left, top), *place(right, bottom)]
            canvas.fill(box, _BINS[(row + column) % 2], 120)
            canvas.rectangle(box, _GREY, 1)
    for y in {y for ys in along_y.samples for y in ys}:
        for x in {x for xs in along_x.samples for x in xs}:
            canvas.dot(*place(x, y), 3.0, _INK)
    covered = [*place(along_x.covered[0], along_y.covered[0])]
    covered += place(along_x.covered[1], along_y.covered[1])
    canvas.rectangle(covered, _COVERED, 3, dash=9)


def _contours(fine: int = 8) -> list[list[Interval]]:
    """Closed outlines of the object, points (x, y) in input pixels."""
    rows, columns = (side * STRIDE * fine for side in LEVEL)
    inside = _object(
        (np.arange(columns)[None] + 0.5) / fine, (np.arange(rows)[:, None] + 0.5) / fine
    )
    found, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outlines = [(contour[:, 0, :] + 0.5) / fine for contour in found]
    return [[(float(x), float(y)) for x, y in [*points, points[0]]] for points in outlines]
