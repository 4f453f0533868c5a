"""Shapes of annotation tools as flat polygons [x1, y1, x2, y2, ...], continuous pixels."""

from __future__ import annotations

import math

DEVIATION = 0.05  # pixels; a circle's or ellipse's polygon stays as near as this to the curve
_LARGEST = 10_000.0  # radius in pixels up to which that holds
Polygon = list[float]


def rectangle(x0: float, y0: float, x1: float, y1: float, degrees: float = 0.0) -> Polygon:
    """The corners of a box, turned clockwise (as seen, y down) about its centre."""
    corners = [x0, y0, x1, y0, x1, y1, x0, y1]
    if not degrees:
        return corners
    return turned(corners, (x0 + x1) / 2, (y0 + y1) / 2, math.radians(degrees))


def ellipse(cx: float, cy: float, rx: float, ry: float, radians: float = 0.0) -> Polygon:
    """A polygon inscribed in an ellipse (radii > 0), no further than DEVIATION from the curve."""
    # The chord of an arc of angle a leaves the circle of radius r by r * (1 - cos(a / 2)).
    longest = min(max(rx, ry, 2 * DEVIATION), _LARGEST)
    sides = max(12, math.ceil(math.pi / math.acos(1 - DEVIATION / longest)))
    angles = [2 * math.pi * k / sides for k in range(sides)]
    flat = [v for a in angles for v in (cx + rx * math.cos(a), cy + ry * math.sin(a))]
    return turned(flat, cx, cy, radians) if radians else flat


def turned(flat: Polygon, cx: float, cy: float, radians: float) -> Polygon:
    """The polygon turned clockwise (as seen, y down) about (cx, cy)."""
    cos, sin = math.cos(radians), math.sin(radians)
    points = zip(flat[::2], flat[1::2], strict=True)
    return [
        v
        for x, y in points
        for v in (cx + (x - cx) * cos - (y - cy) * sin, cy + (x - cx) * sin + (y - cy) * cos)
    ]
