"""From the exact pixels of an object to the polygon that an annotator would have drawn.

Points are the centres of boundary pixels in whole pixels. Pillow's fill draws the boundary, so the
polygon gives the pixels back; where it does not (corners of one pixel, parts that hang on by a
corner), the polygon is the truth and the picture is off by those pixels.
"""

from __future__ import annotations

import cv2
import numpy as np

Points = tuple[tuple[int, int], ...]


def outline(mask: np.ndarray, x: int = 0, y: int = 0) -> Points:
    """The outer boundary of the largest connected part; holes are not in it.

    Args:
        mask: (h, w) bool with at least one pixel
        x, y: added to all points, in pixels
    Returns:
        corners in a fixed order; two or more, twice the same for a single pixel
    """
    mask = max(parts(mask, 1), key=np.count_nonzero)  # of equal ones the first
    found = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = _corners(found[-2][0].reshape(-1, 2).astype(np.int64))
    return tuple((px + x, py + y) for px, py in _canonical(points))


def parts(mask: np.ndarray, least: int) -> list[np.ndarray]:
    """The connected parts of a mask with at least `least` pixels: (h, w) bool, in raster order.

    Pixels that touch at a corner are connected.
    """
    return _components(mask, least, connectivity=8)


def holes(mask: np.ndarray, least: int) -> list[np.ndarray]:
    """The enclosed gaps of a mask, otherwise as `parts`.

    Gaps that touch at a corner only are different ones.
    """
    around = np.pad(~mask, 1, constant_values=True)
    gaps = _components(around, least, connectivity=4)
    return [gap[1:-1, 1:-1] for gap in gaps if not gap[0, 0]]


def _components(mask: np.ndarray, least: int, connectivity: int) -> list[np.ndarray]:
    count, names = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    sizes = np.bincount(names.ravel(), minlength=count)
    found = [names == name for name in range(1, count) if sizes[name] >= least]
    # Which part gets which name is not promised by any version of OpenCV.
    return sorted(found, key=lambda part: int(np.argmax(part)))


def _corners(points: np.ndarray) -> list[tuple[int, int]]:
    """The points where a closed line of single steps turns."""
    if len(points) > 2:
        before = points - np.roll(points, 1, axis=0)
        after = np.roll(points, -1, axis=0) - points
        points = points[np.any(before != after, axis=1)]
    corners = [(int(px), int(py)) for px, py in points]
    return corners if len(corners) > 1 else corners * 2  # a polygon needs two points


def _canonical(points: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same closed line from its smallest point in the smaller of both directions.

    Where a tracer begins and which way it goes is not promised by any version of OpenCV.
    """
    smallest = min(points)
    ways = []
    for line in (points, points[::-1]):
        ways += [line[i:] + line[:i] for i, point in enumerate(line) if point == smallest]
    return min(ways)
