"""The shape classes, told apart by outline alone: colour and texture are drawn at random.

Builders work in units where the figure is about 2 * UNIT across; `Figure.fitted` gives the size.
"""

from __future__ import annotations

from collections.abc import Callable

from .geometry import TURN, Disc, Figure, Part, Point, Polygon, polar, rotate
from .person import build_person
from .rng import Stream

UNIT = 1 << 14

Builder = Callable[[Stream, int], Figure]


def _polygon(points: list[Point], angle: int) -> Figure:
    return Figure((Part(Polygon(tuple(rotate(p, angle) for p in points))),))


def _per_cent(stream: Stream, low: int, high: int) -> int:
    return stream.between(low * UNIT, high * UNIT) // 100


def build_disk(stream: Stream, pixels: int) -> Figure:
    """A full circle."""
    return Figure((Part(Disc((0, 0), UNIT)),))


def build_ring(stream: Stream, pixels: int) -> Figure:
    """A circle with a round hole, through which the background shows."""
    hole = Disc((0, 0), _per_cent(stream, 45, 65))
    return Figure((Part(Disc((0, 0), UNIT)), Part(hole, hole=True)))


def build_bar(stream: Stream, pixels: int) -> Figure:
    """A thin rectangle, 5 to 9 times as long as wide, but at least two pixels wide."""
    half = max(_per_cent(stream, 11, 19), 2 * UNIT // pixels)
    corners = [(-UNIT, -half), (UNIT, -half), (UNIT, half), (-UNIT, half)]
    return _polygon(corners, stream.below(TURN))


def build_star(stream: Stream, pixels: int) -> Figure:
    """Five thin spikes."""
    inner = _per_cent(stream, 32, 42)
    points = [polar(inner if i % 2 else UNIT, i * TURN // 10) for i in range(10)]
    return _polygon(points, stream.below(TURN))


def build_triangle(stream: Stream, pixels: int) -> Figure:
    """Three corners, not far from equilateral."""
    spread = TURN // 24
    turns = [i * TURN // 3 + stream.between(-spread, spread) for i in range(3)]
    return _polygon([polar(UNIT, turn) for turn in turns], stream.below(TURN))


def build_square(stream: Stream, pixels: int) -> Figure:
    """Four equal sides, turned by any angle."""
    corners = [(-UNIT, -UNIT), (UNIT, -UNIT), (UNIT, UNIT), (-UNIT, UNIT)]
    return _polygon(corners, stream.below(TURN))


def build_cross(stream: Stream, pixels: int) -> Figure:
    """Two bars of equal length at right angles."""
    arm, a = UNIT, _per_cent(stream, 18, 28)
    quarter = [(a, -a), (arm, -a), (arm, a)]
    points = [rotate(p, i * TURN // 4) for i in range(4) for p in quarter]
    return _polygon(points, stream.below(TURN))


def build_crescent(stream: Stream, pixels: int) -> Figure:
    """A circle from which another one has bitten: two thin horns."""
    shift, radius = _per_cent(stream, 45, 60), _per_cent(stream, 76, 86)
    bite = Disc(polar(shift, stream.below(TURN)), radius)
    return Figure((Part(Disc((0, 0), UNIT)), Part(bite, hole=True)))


# Category id -> (name, builder). `person` comes first, as in COCO, so that keypoint configs fit.
CLASSES: dict[int, tuple[str, Builder]] = {
    1: ("person", build_person),
    2: ("disk", build_disk),
    3: ("ring", build_ring),
    4: ("bar", build_bar),
    5: ("star", build_star),
    6: ("triangle", build_triangle),
    7: ("square", build_square),
    8: ("cross", build_cross),
    9: ("crescent", build_crescent),
}

PERSON = 1
