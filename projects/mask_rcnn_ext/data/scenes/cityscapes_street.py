"""The street around the things of a scene: ground, houses, trees, poles, and what is not judged.

All of it are polygons in whole pixels with Cityscapes labels, in drawing order. H, W are the
picture's height and width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..cityscapes.labels import BY_NAME
from ..cityscapes.polygons import DrawnObject
from .geometry import SUB, TURN, Figure, Part, Polygon, polar, rasterise
from .layout import Thing
from .rng import Stream
from .texture import Colour, fractal_noise

# Shares in 1/1000 of the pictures.
NO_SKY_PER_MILLE = 100  # left unlabeled, as what annotators forget
POLE_PER_MILLE = 350  # a pole in front of everything, which may cut an object in two
EGO_PER_MILLE = 400  # the bonnet of the car that carries the camera
BORDER_PER_MILLE = 300  # black strips left and right from straightening the picture
ROI_PER_MILLE = 300  # a black strip at the bottom

_COLOURS: dict[str, Colour] = {
    "unlabeled": (120, 120, 120),
    "sky": (150, 190, 225),
    "building": (135, 115, 105),
    "wall": (150, 145, 140),
    "fence": (120, 110, 95),
    "vegetation": (70, 110, 60),
    "terrain": (125, 150, 85),
    "sidewalk": (170, 160, 160),
    "road": (95, 95, 100),
    "static": (110, 100, 110),
    "pole": (60, 62, 66),
    "traffic sign": (215, 195, 60),
    "traffic light": (45, 70, 45),
    "ego vehicle": (35, 35, 45),
    "rectification border": (0, 0, 0),
    "out of roi": (0, 0, 0),
}
_BLACK = ("rectification border", "out of roi")


def _drawn(label: str, *points: tuple[int, int]) -> DrawnObject:
    return DrawnObject(BY_NAME[label], points)


def _block(label: str, x0: int, y0: int, x1: int, y1: int) -> DrawnObject:
    """A rectangle, all four sides included."""
    return _drawn(label, (x0, y0), (x1, y0), (x1, y1), (x0, y1))


def covered(points: Sequence[tuple[float, float]], height: int, width: int) -> np.ndarray:
    """The pixels whose centre lies in a polygon of whole pixels or on its boundary: (H, W) bool.

    In integers, so that pictures and polygons do not depend on Pillow, which draws the label images
    and rounds: along slanted edges it differs by a pixel, and so do its own versions. Of a corner
    sharper than a right angle the last pixel may be missing.
    """
    half = SUB // 2
    corners = [(int(x) * SUB + half, int(y) * SUB + half) for x, y in points]
    # A polygon has its left and upper boundary only; moved by the smallest step it has the others.
    moves = [(dx, dy) for dx in (0, 1) for dy in (0, 1)]
    parts = [Part(Polygon(tuple((x + dx, y + dy) for x, y in corners))) for dx, dy in moves]
    patch = rasterise((Figure(tuple(parts)),))
    mask = np.zeros((height, width), dtype=bool)
    picture, own = patch.clip(height, width)
    mask[picture] = patch.mask[own]
    return mask


def plan_background(stream: Stream, height: int, width: int) -> list[DrawnObject]:
    """What lies behind the things; covers the picture unless the sky is left out."""
    horizon = stream.between(height * 35 // 100, height * 50 // 100)
    right, bottom = width - 1, height - 1
    drawn = []
    if not stream.chance(NO_SKY_PER_MILLE):
        drawn.append(_block("sky", 0, 0, right, horizon))
    x = 0
    while x < width:
        end = x + stream.between(width // 12, width // 4)
        top = stream.between(height // 20, horizon * 4 // 5)
        label = stream.choice(("building", "building", "building", "wall", "fence", ""))
        if label:
            drawn.append(_block(label, x, top, min(end, right), horizon))
        x = end + 1
    for _ in range(stream.below(4)):
        drawn.append(_tree(stream, height, width, horizon))
    drawn.append(_block("sidewalk", 0, horizon, right, bottom))
    if stream.chance(500):
        drawn.append(_drawn("terrain", (0, horizon), (width // 4, horizon), (0, bottom)))
    far = stream.between(width * 35 // 100, width * 65 // 100)
    reach = stream.between(width // 40, width // 12)
    left_end = stream.between(-width // 5, width // 5)
    right_end = stream.between(width * 4 // 5, width * 6 // 5)
    corners = ((far - reach, horizon), (far + reach, horizon), (right_end, bottom))
    drawn.append(_drawn("road", *corners, (left_end, bottom)))
    return drawn


def _tree(stream: Stream, height: int, width: int, horizon: int) -> DrawnObject:
    """A ragged blob that stands on the horizon."""
    size = stream.between(max(4, height // 16), max(5, height // 6))
    centre = stream.below(width), horizon - size // 2
    corners = []
    for number in range(12):
        x, y = polar(size * stream.between(65, 100) // 100, number * TURN // 12)
        corners.append((centre[0] + x, centre[1] + y))
    return _drawn("vegetation", *corners)


def plan_foreground(
    stream: Stream, things: list[Thing], height: int, width: int
) -> list[DrawnObject]:
    """Poles and signs, then what the benchmark leaves out at the picture's edges."""
    right, bottom = width - 1, height - 1
    drawn = []
    if stream.chance(POLE_PER_MILLE):
        drawn += _pole(stream, things, height, width)
    if stream.chance(EGO_PER_MILLE):
        top = bottom - stream.between(height // 16, height // 8)
        a, b = stream.between(width // 8, width // 4), stream.between(width // 8, width // 4)
        corners = ((0, bottom), (a, top), (width - b, top), (right, bottom))
        drawn.append(_drawn("ego vehicle", *corners))
    if stream.chance(BORDER_PER_MILLE):
        strip = stream.between(1, max(1, width // 64))
        drawn.append(_block("rectification border", 0, 0, strip - 1, bottom))
        drawn.append(_block("rectification border", width - strip, 0, right, bottom))
    if stream.chance(ROI_PER_MILLE):
        strip = stream.between(1, max(1, height // 32))
        drawn.append(_block("out of roi", 0, height - strip, right, bottom))
    return drawn


def _pole(stream: Stream, things: list[Thing], height: int, width: int) -> list[DrawnObject]:
    """A pole, through the middle of an object where there is one, with a sign or light on top."""
    x = stream.below(width)
    thick = max(2, width // 128)
    wide = [thing for thing in things if thing.patch.mask.shape[1] >= 6 * thick]
    if wide and stream.chance(800):
        thing = stream.choice(wide)
        x = thing.patch.x + thing.patch.mask.shape[1] * stream.between(40, 60) // 100
    top, foot = stream.below(height // 4), height - 1 - stream.below(height // 4)
    drawn = [_block("pole", x, top, x + thick - 1, foot)]
    label = stream.choice(("traffic sign", "traffic light", ""))
    if label:
        half = 2 * thick
        drawn.append(_block(label, x - half, top, x + half, top + 3 * thick))
    return drawn


def paint(stream: Stream, canvas: np.ndarray, mask: np.ndarray, label: str) -> None:
    """Paint a label's pixels with its colour and some texture, in place.

    Args:
        stream: where the texture comes from
        canvas: (H, W, 3) int32 RGB
        mask: (H, W) bool
        label: decides the colour
    """
    jitter = [stream.between(-25, 25) for _ in range(3)]
    texture = fractal_noise(stream, (canvas.shape[0], canvas.shape[1]), stream.between(4, 32), 3)
    amount = stream.between(20, 60)
    if label in _BLACK:
        canvas[mask] = 0
        return
    colour = np.array(_COLOURS[label], dtype=np.int32) + np.array(jitter, dtype=np.int32)
    shade = (texture[mask] - 128) * amount // 128
    canvas[mask] = np.clip(colour + shade[:, None], 5, 250)
