"""Masks as polygons along the edges of pixels, exact, and several outlines as one polygon.

Letters: H, W the mask's height and width, n corners. Frame: continuous pixels, (x, y); pixel
(row r, column c) is the square from (c, r) to (c + 1, r + 1), so corners are whole numbers. Such a
polygon, drawn by COCO's own rule, gives the mask back bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

_MANY = 6000  # corners; the search for bridges takes their square
Points = NDArray[np.float64]


def outlines(mask: NDArray[np.bool_]) -> list[Points]:
    """Closed lines between the mask and its surroundings, holes included.

    Pixels that touch at a corner belong together. A point is inside of the mask where a ray from it
    crosses the lines an odd number of times.

    Args:
        mask: (H, W) bool
    Returns:
        (n, 2) float64 corners of each line, n >= 4, sorted by the first corner's row, then column,
        which is the line's topmost, then leftmost one
    """
    x, y, right_is_down = _corners(mask)
    if not len(x):
        return []
    # On each row of corners, a horizontal piece of the lines joins the 1st and 2nd, the 3rd and
    # 4th, ...; the same holds for columns. Two corners at one place part as `right_is_down` says.
    along_row = _partners(np.lexsort((right_is_down[0], x, y)))
    along_column = _partners(np.lexsort((right_is_down[1], y, x)))
    points = np.stack([x, y], axis=1).astype(np.float64)
    return [points[loop] for loop in _loops(along_row.tolist(), along_column.tolist())]


def simplified(line: Points, tolerance: float) -> Points:
    """The line with fewer corners, at most `tolerance` pixels off; as it is if too few were left.

    Args:
        line: (n, 2) corners, closed
        tolerance: pixels; 0 keeps all
    """
    if tolerance <= 0:
        return line
    fewer = cv2.approxPolyDP(line.astype(np.float32)[:, None], tolerance, True)[:, 0]
    return fewer.astype(np.float64) if len(fewer) >= 3 else line


def _corners(
    mask: NDArray[np.bool_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[NDArray[np.int8], NDArray[np.int8]]]:
    """Corners of the lines by row, then column; where four pixels cross, two corners at one place.

    Returns:
        x, y: (n,) each
        order: (n,) twice: which of two corners at one place comes first on its row and column
    """
    padded = np.pad(mask, 1).astype(np.int8)
    a, b = padded[:-1, :-1], padded[:-1, 1:]  # above the corner, left and right
    c, d = padded[1:, :-1], padded[1:, 1:]  # below it
    crossing = (a == d) & (b == c) & (a != b)
    single = (a + b + c + d) % 2 == 1
    rows, columns = np.nonzero(single | crossing)
    twice = crossing[rows, columns]
    index = np.repeat(np.arange(len(rows)), np.where(twice, 2, 1))
    second = np.zeros(len(index), dtype=np.int8)
    second[1:] = index[1:] == index[:-1]
    x, y = columns[index], rows[index]
    # The first corner takes the piece to the left, the second that to the right. For pixels a and d
    # to belong together the line left of the corner goes on below it, for b and c above it.
    falling = a[y, x].astype(bool) & twice[index]
    return x, y, (second, np.where(falling, 1 - second, second).astype(np.int8))


def _partners(order: NDArray[np.int64]) -> NDArray[np.int64]:
    partners = np.empty(len(order), dtype=np.int64)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    return partners


def _loops(along_row: list[int], along_column: list[int]) -> list[list[int]]:
    loops, seen = [], [False] * len(along_row)
    for first in range(len(along_row)):
        if seen[first]:
            continue
        loop, corner = [], first
        while not seen[corner]:
            across = along_row[corner]
            seen[corner] = seen[across] = True
            loop += [corner, across]
            corner = along_column[across]
        loops.append(loop)
    return loops


def joined(lines: Sequence[Points]) -> Points:
    """One closed polygon of several: each is reached and left over the same bridge.

    The bridges have no width: by the rule of `outlines` (odd crossings), which COCO's tools follow,
    they change nothing. They are the shortest between corners, the nearest line first; with more
    than _MANY corners (noise, not an object) they go from each line to the next one instead.

    Args:
        lines: (n, 2) corners of each, closed
    Returns:
        (sum of n + 2 * (lines - 1), 2)
    """
    points = np.concatenate(list(lines))
    ends = np.cumsum([len(line) for line in lines])
    starts = ends - [len(line) for line in lines]
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    place = list(range(len(points)))  # node -> row of `points`; bridges add nodes
    chain: list[int] = following.tolist()

    if len(points) > _MANY:
        for k in range(1, len(lines)):
            _bridge(chain, place, int(starts[k - 1]), int(starts[k]))
        return points[_order(chain, place)]
    # Prim's tree over the lines: how far each corner is from those reached, and which is nearest.
    line_of = np.repeat(np.arange(len(lines)), ends - starts)
    distance = np.full(len(points), np.inf)
    nearest = np.zeros(len(points), dtype=np.int64)
    latest = 0
    for _ in range(len(lines) - 1):
        new, which = _distances(points, points[starts[latest] : ends[latest]])
        closer = new < distance
        distance[closer], nearest[closer] = new[closer], which[closer] + starts[latest]
        distance[line_of == latest] = -np.inf  # never closer again
        far = int(np.where(np.isneginf(distance), np.inf, distance).argmin())
        _bridge(chain, place, int(nearest[far]), far)
        latest = int(line_of[far])
    return points[_order(chain, place)]


def _order(chain: list[int], place: list[int]) -> list[int]:
    node, order = 0, []
    for _ in range(len(chain)):
        order.append(place[node])
        node = chain[node]
    return order


def _bridge(chain: list[int], place: list[int], near: int, far: int) -> None:
    """Insert the closed chain of `far` behind `near`, then both of them once more."""
    far_again, near_again = len(chain), len(chain) + 1
    before_far = far
    while chain[before_far] != far:
        before_far = chain[before_far]
    chain += [near_again, chain[near]]
    place += [place[far], place[near]]
    chain[before_far], chain[near] = far_again, far


def _distances(points: Points, line: Points) -> tuple[Points, NDArray[np.int64]]:
    """(n,) squared distance of each point to the line's nearest corner, and that corner's row."""
    best, which = np.full(len(points), np.inf), np.zeros(len(points), dtype=np.int64)
    step = max(1, 500_000 // len(points))  # corners at a time: 8 MB
    for start in range(0, len(line), step):
        offsets = points[:, None] - line[None, start : start + step]  # (n, rows, 2)
        squares = np.einsum("abc,abc->ab", offsets, offsets)
        least = squares.min(axis=1)
        closer = least < best
        best[closer] = least[closer]
        which[closer] = squares.argmin(axis=1)[closer] + start
    return best, which
