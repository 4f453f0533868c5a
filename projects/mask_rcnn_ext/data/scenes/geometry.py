"""Exact plane geometry in integers: discs, polygons and what is built from them.

Coordinates are integers in 1/SUB of a pixel, x to the right, y down, the picture's top left corner
at (0, 0). Pixel (column, row) has its centre at (column + 1/2, row + 1/2) pixels and belongs to a
figure exactly if that centre is inside; no rounding takes part in the decision. A disc includes its
circle. A polygon (even-odd) includes its left and upper boundary and excludes the right and lower,
so polygons that share an edge share no pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt

import numpy as np

SUB = 256  # sub-pixel units in a pixel
TURN = 4096  # angle units in a full turn
TRIG_SHIFT = 15  # sines are integers in 1 / 2**15

Point = tuple[int, int]
Bounds = tuple[int, int, int, int]  # x0, y0, x1, y1


@lru_cache(maxsize=1)
def _sines() -> tuple[int, ...]:
    """sin for the first quarter turn, both ends included, scaled by 2**TRIG_SHIFT.

    A Taylor series in 64-bit fixed point: libm's sine may differ in the last place between systems.
    """
    one = 1 << 64
    half_pi = 314159265358979323846264338327950288 * one // (2 * 10**35)
    table = []
    for step in range(TURN // 4 + 1):
        angle = half_pi * step * 4 // TURN
        term, total, order = angle, 0, 1
        while term:
            total += term
            term = -(term * angle // one * angle // one) // ((order + 1) * (order + 2))
            if term == -1:  # floor division of a small negative number never reaches 0
                break
            order += 2
        table.append((total + (1 << (63 - TRIG_SHIFT))) >> (64 - TRIG_SHIFT))
    return tuple(table)


def sine(angle: int) -> int:
    """sin(angle) * 2**15 for an angle in 1/TURN of a turn."""
    quadrant, step = divmod(angle % TURN, TURN // 4)
    table = _sines()
    value = table[step] if quadrant % 2 == 0 else table[TURN // 4 - step]
    return value if quadrant < 2 else -value


def cosine(angle: int) -> int:
    """cos(angle) * 2**15 for an angle in 1/TURN of a turn."""
    return sine(angle + TURN // 4)


def polar(radius: int, angle: int) -> Point:
    """The point at `radius` from the origin in direction `angle`, 0 to the right, then down."""
    half = 1 << (TRIG_SHIFT - 1)
    x = (radius * cosine(angle) + half) >> TRIG_SHIFT
    y = (radius * sine(angle) + half) >> TRIG_SHIFT
    return x, y


def rotate(point: Point, angle: int) -> Point:
    """`point` turned about the origin, clockwise on the screen."""
    c, s, half = cosine(angle), sine(angle), 1 << (TRIG_SHIFT - 1)
    x, y = point
    return (x * c - y * s + half) >> TRIG_SHIFT, (x * s + y * c + half) >> TRIG_SHIFT


@dataclass(frozen=True)
class Transform:
    """p -> (p - origin) * numerator / denominator + target, rounded to the nearest unit."""

    numerator: int
    denominator: int
    origin: Point = (0, 0)
    target: Point = (0, 0)

    def length(self, value: int) -> int:
        return (2 * value * self.numerator + self.denominator) // (2 * self.denominator)

    def point(self, point: Point) -> Point:
        return (
            self.length(point[0] - self.origin[0]) + self.target[0],
            self.length(point[1] - self.origin[1]) + self.target[1],
        )


@dataclass(frozen=True)
class Disc:
    """All points at most `radius` from `centre`."""

    centre: Point
    radius: int

    def bounds(self) -> Bounds:
        (x, y), r = self.centre, self.radius
        return x - r, y - r, x + r, y + r

    def moved(self, transform: Transform) -> Disc:
        return Disc(transform.point(self.centre), transform.length(self.radius))

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which of the points are inside; x: (1, W) int64, y: (H, 1) int64 -> (H, W) bool."""
        dx, dy = x - self.centre[0], y - self.centre[1]
        return dx * dx + dy * dy <= self.radius * self.radius


@dataclass(frozen=True)
class Polygon:
    """The inside of a closed line, even-odd."""

    points: tuple[Point, ...]

    def bounds(self) -> Bounds:
        xs = [p[0] for p in self.points]
        ys = [p[1] for p in self.points]
        return min(xs), min(ys), max(xs), max(ys)

    def moved(self, transform: Transform) -> Polygon:
        return Polygon(tuple(transform.point(p) for p in self.points))

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which of the points are inside; x: (1, W) int64, y: (H, 1) int64 -> (H, W) bool."""
        inside = np.zeros((y.shape[0], x.shape[1]), dtype=bool)
        for (ax, ay), (bx, by) in zip(self.points, self.points[1:] + self.points[:1], strict=True):
            low, high = (ay, by) if ay < by else (by, ay)
            # Rows whose ray to the right may cross this edge: low <= y < high. y is sorted.
            first, last = np.searchsorted(y[:, 0], [low, high], side="left")
            if first == last:
                continue
            side = (bx - ax) * (y[first:last] - ay) - (x - ax) * (by - ay)
            inside[first:last] ^= side > 0 if by > ay else side < 0
        return inside


@dataclass(frozen=True)
class Part:
    """A primitive that adds to a figure, or cuts a hole into the parts before it.

    Attributes:
        primitive: disc or polygon
        tint: which colour of the object's palette it is painted with
        hole: whether it removes instead of adding
    """

    primitive: Disc | Polygon
    tint: int = 0
    hole: bool = False


@dataclass(frozen=True)
class Figure:
    """Parts in painting order, with the named points that move with them (a person's joints)."""

    parts: tuple[Part, ...]
    points: tuple[Point, ...] = ()

    def bounds(self) -> Bounds:
        """Of what the parts add; holes can only make the true bounds smaller."""
        boxes = [part.primitive.bounds() for part in self.parts if not part.hole]
        x0, y0, x1, y1 = zip(*boxes, strict=True)
        return min(x0), min(y0), max(x1), max(y1)

    def moved(self, transform: Transform) -> Figure:
        parts = tuple(Part(p.primitive.moved(transform), p.tint, p.hole) for p in self.parts)
        return Figure(parts, tuple(transform.point(p) for p in self.points))

    def fitted(self, size: int) -> Figure:
        """Scaled so that the longer side of its bounds is `size`, and centred on the origin."""
        x0, y0, x1, y1 = self.bounds()
        centre = ((x0 + x1) // 2, (y0 + y1) // 2)
        return self.moved(Transform(size, max(x1 - x0, y1 - y0), origin=centre))

    def shifted(self, dx: int, dy: int) -> Figure:
        return self.moved(Transform(1, 1, target=(dx, dy)))


def capsule(a: Point, b: Point, radius_a: int, radius_b: int, tint: int = 0) -> list[Part]:
    """A limb: discs at both ends and the quadrilateral between them."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    length = max(1, isqrt(dx * dx + dy * dy))
    ax, ay = -dy * radius_a // length, dx * radius_a // length
    bx, by = -dy * radius_b // length, dx * radius_b // length
    quad = (
        (a[0] + ax, a[1] + ay),
        (b[0] + bx, b[1] + by),
        (b[0] - bx, b[1] - by),
        (a[0] - ax, a[1] - ay),
    )
    return [
        Part(Disc(a, radius_a), tint),
        Part(Disc(b, radius_b), tint),
        Part(Polygon(quad), tint),
    ]


@dataclass(frozen=True)
class Patch:
    """A rasterised figure in its own window, which may reach beyond the picture.

    Attributes:
        x, y: picture coordinates of the window's first column and row, in pixels
        mask: (h, w) bool, the pixels that belong to the figure
        tints: (h, w) int16, palette entry of each pixel, 0 where mask is False
    """

    x: int
    y: int
    mask: np.ndarray
    tints: np.ndarray

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.mask))

    def clip(self, height: int, width: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Index pairs (of the picture, of the patch) for the part inside the picture."""
        h, w = self.mask.shape
        y0, y1 = max(0, self.y), max(0, min(height, self.y + h))
        x0, x1 = max(0, self.x), max(0, min(width, self.x + w))
        y0, x0 = min(y0, y1), min(x0, x1)
        picture = (slice(y0, y1), slice(x0, x1))
        own = (slice(y0 - self.y, y1 - self.y), slice(x0 - self.x, x1 - self.x))
        return picture, own


def pixel_range(low: int, high: int) -> tuple[int, int]:
    """First and one-past-last pixel whose centre may lie in [low, high] (sub-pixel units)."""
    half = SUB // 2
    return -((half - low) // SUB), (high - half) // SUB + 1


def rasterise(figures: Sequence[Figure], tint_step: int = 0) -> Patch:
    """Figures drawn over each other in one window.

    Args:
        figures: drawn in this order, later ones on top
        tint_step: added to the tints once more for each further figure
    """
    boxes = list(zip(*(figure.bounds() for figure in figures), strict=True))
    x0, x1 = pixel_range(min(boxes[0]), max(boxes[2]))
    y0, y1 = pixel_range(min(boxes[1]), max(boxes[3]))
    mask = np.zeros((max(0, y1 - y0), max(0, x1 - x0)), dtype=bool)
    tints = np.zeros(mask.shape, dtype=np.int16)
    for number, figure in enumerate(figures):
        own = np.zeros_like(mask) if len(figures) > 1 else mask
        for part in figure.parts:
            _draw(part, own, tints, (x0, y0), number * tint_step)
        if own is not mask:
            mask |= own
    tints[~mask] = 0
    return Patch(x0, y0, mask, tints)


def _draw(part: Part, mask: np.ndarray, tints: np.ndarray, corner: Point, tint: int) -> None:
    """Add or remove one part in place, touching only the primitive's own window."""
    bx0, by0, bx1, by1 = part.primitive.bounds()
    (px0, px1), (py0, py1) = pixel_range(bx0, bx1), pixel_range(by0, by1)
    h, w = mask.shape
    c0, c1 = max(0, px0 - corner[0]), min(w, px1 - corner[0])
    r0, r1 = max(0, py0 - corner[1]), min(h, py1 - corner[1])
    if c0 >= c1 or r0 >= r1:
        return
    x = np.arange(c0 + corner[0], c1 + corner[0], dtype=np.int64)[None, :] * SUB + SUB // 2
    y = np.arange(r0 + corner[1], r1 + corner[1], dtype=np.int64)[:, None] * SUB + SUB // 2
    inside = part.primitive.contains(x, y)
    window = (slice(r0, r1), slice(c0, c1))
    if part.hole:
        mask[window] &= ~inside
    else:
        mask[window] |= inside
        tints[window][inside] = tint + part.tint
