"""Mask targets from polygons: the part of each RoI that its object covers, as M x M cells.

Shape shorthand: R RoIs, P polygons of all of them, E polygon edges, M mask side, X crossings. A
target lives in its RoI: row 0 is the RoI's top, column 0 its left edge.

What a target is: COCO's rasteriser, applied to the polygons after the RoI has been stretched to
M x M (paper section 3.1: "the intersection between an RoI and its associated ground-truth mask").
That rasteriser draws the outline on a grid 5 times as fine. A column of cells is cut along the
line between its third and fourth fine column; where the outline crosses that line, inside and
outside swap, from the cell whose middle is at the crossing or next below it. Instead of drawing
every fine point, this file computes for each edge the one point at which it crosses a column's
line: an edge costs the columns that it crosses, however long it is.

Every rounding is repeated as COCO's C code does it in double precision, so results are the same
bits on every device. They hold for coordinates whose stretched value fits C's int (2^31 / 5).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch

FINE = 5  # fine points a cell in COCO's rasteriser
# Pairs of edge and column of one step, 8 bytes each in a few arrays.
PAIRS_AT_ONCE = 2**22  # where all pairs are tried: bounds the memory
PAIRS_IN_CACHE = 2**14  # where only crossings are: a CPU's caches hold them
_NOTHING = np.zeros(6)  # a polygon without extent covers no cell
# Detectron2 divides a Python int by a float32 scalar. NumPy 2 gives float32, NumPy 1 float64.
_DIVIDES_IN_DOUBLE = (1 / np.float32(3)).dtype == np.float64


class _Edges(NamedTuple):
    """Edges on the fine grid, each turned so that its longer extent grows.

    All are of one shape and float64, whole numbers except `slope`. "Major" is the axis of the
    longer extent, "minor" the other.
    """

    along_x: torch.Tensor  # bool, the major axis is x
    major: torch.Tensor  # start on the major axis
    minor: torch.Tensor  # start on the minor axis
    slope: torch.Tensor  # minor steps a major step, NaN for an edge without extent
    rising: torch.Tensor  # bool, the minor value grows
    polygon: torch.Tensor  # int64, of P
    first: torch.Tensor  # first column whose line the edge crosses
    last: torch.Tensor  # last such column, below `first` if there is none


def polygon_targets(
    polygons: Sequence[Sequence[np.ndarray]],
    boxes: torch.Tensor,
    side: int,
    *,
    every_column: bool | None = None,
) -> torch.Tensor:
    """What each RoI's object covers of it, bit by bit what Detectron2's `PolygonMasks` gives.

    The same as `detectron2.structures.masks.rasterize_polygons_within_box` for each RoI, all of
    them together, on the device of `boxes`. Vertices travel there once, in one array.

    Args:
        polygons: R objects, each a list of polygons whose union it is; a polygon is (2 V,) float,
            (x0, y0, x1, y1, ...), V >= 3, in pixels of the network input. An object may have none
        boxes: (R, 4) float, (x0, y0, x1, y1), in the same frame; of any size and place
        side: M >= 1
        every_column: True tries each edge with each column, which needs no word from the device
            to the host; False only with the columns that it crosses; None chooses by device
    Returns:
        (R, M, M) bool, on the device of `boxes`
    Raises:
        ValueError: R differs, boxes or a polygon of another shape, side below 1
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4 or len(boxes) != len(polygons):
        raise ValueError(
            f"polygon_targets got {len(polygons)} objects and boxes of shape "
            f"{tuple(boxes.shape)}, expected one (x0, y0, x1, y1) for each object"
        )
    if side < 1:
        raise ValueError(f"polygon_targets got side={side}, expected 1 or more")
    device = boxes.device
    if not polygons:
        return torch.zeros(0, side, side, dtype=torch.bool, device=device)
    # The first polygon of each object, then all others: most objects are done with their first.
    parts = [one[0] if len(one) else _NOTHING for one in polygons]
    parts += [part for one in polygons for part in one[1:]]
    owners = [*range(len(polygons)), *(i for i, one in enumerate(polygons) for _ in one[1:])]
    corners, following, polygon, owner = _to_device(parts, owners, device)
    edges = _edges(_fine_points(corners, boxes, owner[polygon], side), following, polygon, side)
    if every_column is None:
        every_column = device.type != "cpu"
    # Row M collects what is below the RoI, and pairs that do not cross. A byte may overflow: it is
    # its lowest bit that counts.
    crossings = torch.zeros((side + 1) * len(parts) * side, dtype=torch.uint8, device=device)
    pairs = _every_pair(edges, side) if every_column else _crossing_pairs(edges)
    for some, columns in pairs:
        _count_crossings(crossings, some, columns, side)
    inside = _odd_above(crossings.view(side + 1, len(parts), side)[:side])
    if max(len(one) for one in polygons) > 255:
        inside = inside.int()  # a byte could overflow to 0
    first, others = inside[: len(boxes)], inside[len(boxes) :]
    return first.index_add_(0, owner[len(boxes) :], others).bool()


def _to_device(
    parts: list[np.ndarray], owners: list[int], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Vertices and where they belong, packed into one array for one transfer.

    Args:
        parts: P polygons
        owners: P ints, their RoIs
    Returns:
        corners (2, E) float64, x and y; following (E,) int64, each vertex's successor in its
        polygon; the polygon of each vertex, (E,) int64; owner (P,) int64
    """
    lengths = np.array([len(part) for part in parts])
    wrong = lengths[(lengths < 6) | (lengths % 2 == 1)]
    if len(wrong):
        raise ValueError(
            f"polygon_targets got a polygon of {wrong[0]} numbers, expected x0, y0, x1, y1, ... of "
            "three or more points"
        )
    sizes = lengths // 2
    ends = np.cumsum(sizes)
    total, count = int(ends[-1]), len(parts)
    packed = np.empty((5, total))
    packed[:2] = np.concatenate(parts).reshape(-1, 2).T
    packed[2] = np.arange(1, total + 1)
    packed[2, ends - 1] = ends - sizes  # the last vertex's successor is the first
    packed[3] = np.repeat(np.arange(count), sizes)
    packed[4, :count] = owners  # there are more vertices than polygons
    host = torch.from_numpy(packed)
    if device.type == "cuda":
        host = host.pin_memory()  # lets the copy wait for the GPU instead of the program
    there = host.to(device, non_blocking=True)
    following, polygon, owner = there[2:].long()
    return there[:2], following, polygon, owner[:count]


def _fine_points(
    corners: torch.Tensor, boxes: torch.Tensor, roi: torch.Tensor, side: int
) -> torch.Tensor:
    """Vertices (2, E) in the frame of their RoIs, on the fine grid, whole numbers as float64."""
    # Detectron2 subtracts and divides in the boxes' own precision, and multiplies in double.
    extent = boxes[:, 2:] - boxes[:, :2]  # (R, 2)
    numerator = torch.full_like(extent, side)  # a number would become a product with a reciprocal
    ratio = numerator / extent
    if _DIVIDES_IN_DOUBLE:
        ratio = numerator.double() / extent.double()
    ratio = torch.where(extent < 0.1, side / 0.1, ratio.double())
    start = boxes[:, :2].double()
    stretched = (corners - start.T[:, roi]) * ratio.T[:, roi]
    return (stretched * FINE + 0.5).trunc_()


def _edges(
    points: torch.Tensor, following: torch.Tensor, polygon: torch.Tensor, side: int
) -> _Edges:
    """Edges from each vertex to its successor, and the columns that they cross."""
    x0, y0 = points
    x1, y1 = points[:, following]
    wide, high = (x1 - x0).abs_(), (y1 - y0).abs_()
    along_x = wide >= high
    turned = torch.where(along_x, x0 > x1, y0 > y1)
    left, right = torch.minimum(x0, x1), torch.maximum(x0, x1)
    xs, xe = torch.where(turned, x1, x0), torch.where(turned, x0, x1)
    ys, ye = torch.where(turned, y1, y0), torch.where(turned, y0, y1)
    slope = torch.where(along_x, ye - ys, xe - xs) / torch.maximum(wide, high)
    return _Edges(
        along_x=along_x,
        major=torch.where(along_x, xs, ys),
        minor=torch.where(along_x, ys, xs),
        slope=slope,
        rising=slope > 0,
        polygon=polygon,
        first=_columns_up_to(left - 3).add_(1).clamp_(min=0),
        last=_columns_up_to(right - 3).clamp_(max=side - 1),
    )


def _columns_up_to(x: torch.Tensor) -> torch.Tensor:
    """floor(x / 5) of whole numbers, whatever the device makes of a division."""
    return ((x + 0.5) / FINE).floor_()


def _crossing_pairs(edges: _Edges) -> Iterator[tuple[_Edges, torch.Tensor]]:
    """Edges (X,), once for each column that they cross, and the columns (X,), few at a time."""
    counts = (edges.last - edges.first).add_(1).long().clamp_(min=0)
    index = torch.repeat_interleave(counts)
    number = torch.arange(len(index), device=index.device)
    number -= (counts.cumsum(0) - counts).index_select(0, index)  # of this edge's crossings
    for some, n in zip(index.split(PAIRS_IN_CACHE), number.split(PAIRS_IN_CACHE), strict=True):
        chosen = _Edges(*(field.index_select(0, some) for field in edges))
        yield chosen, n + chosen.first


def _every_pair(edges: _Edges, side: int) -> Iterator[tuple[_Edges, torch.Tensor]]:
    """Edges (e, 1) beside all columns (M,), many at a time."""
    columns = torch.arange(side, dtype=torch.float64, device=edges.first.device)
    step = max(PAIRS_AT_ONCE // side, 1)
    for start in range(0, len(edges.first), step):
        yield _Edges(*(field[start : start + step, None] for field in edges)), columns


def _odd_above(crossings: torch.Tensor) -> torch.Tensor:
    """Whether the number of crossings in this row and all above it is odd.

    Args:
        crossings: (M, P, M) uint8, by row, polygon, column
    Returns:
        (P, M, M) uint8, 0 or 1
    """
    reach = 1  # rows that each row has in it, itself included; doubled until it is all of them
    other = torch.empty_like(crossings)
    while reach < len(crossings):
        other[:reach] = crossings[:reach]
        torch.bitwise_xor(crossings[reach:], crossings[:-reach], out=other[reach:])
        crossings, other = other, crossings
        reach *= 2
    return crossings.transpose(0, 1).bitwise_and(1).contiguous()


def _count_crossings(
    crossings: torch.Tensor, edges: _Edges, columns: torch.Tensor, side: int
) -> None:
    """Add 1 at the cell from which on inside and outside are swapped.

    Args:
        crossings: ((M + 1) * P * M,) uint8, added to; by row, polygon, column
        edges, columns: shapes that broadcast; pairs that do not cross count in row M
    """
    line = columns * FINE + 3  # first fine column behind the line
    # Steps along the edge, just before and behind the crossing. Where the edge is steep its
    # position is an estimate, right up to one step; the rounded points themselves decide.
    step = torch.where(
        edges.along_x,
        line - 1 - edges.major,
        ((line - 0.5 - edges.minor) / edges.slope).floor_(),
    )
    near = (edges.minor + edges.slope * step).add_(0.5).trunc_()
    far = (edges.minor + edges.slope * (step + 1)).add_(0.5).trunc_()
    missed = ((near >= line) != edges.rising).double() + ((far >= line) != edges.rising)
    y = torch.where(
        edges.along_x, torch.minimum(near, far), edges.major + (step + missed).sub_(1)
    )  # of the upper one of the two fine points
    row = _columns_up_to(y + 2).long().clamp_(0, side)
    row = row.where((columns >= edges.first) & (columns <= edges.last), side)
    cells_of_row = len(crossings) // (side + 1)
    cell = (row * cells_of_row + edges.polygon * side + columns.long()).flatten()
    crossings.scatter_add_(0, cell, torch.ones_like(cell, dtype=torch.uint8))
