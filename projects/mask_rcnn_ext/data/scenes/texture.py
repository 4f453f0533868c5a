"""Textures, colours and light in integer arithmetic, so that every machine paints the same bytes.

Textures are (H, W) int32 in [0, 256]; pictures (H, W, 3) int32 RGB until the last step clips them.
"""

from __future__ import annotations

import numpy as np

from .geometry import TRIG_SHIFT, TURN, cosine, sine
from .rng import Stream, lattice_bits

Colour = tuple[int, int, int]


def _interpolate(length: int, cell: int, offset: int) -> tuple[np.ndarray, np.ndarray]:
    """Cell number and smoothstep weight in [0, 256] of each pixel along one axis, (length,)."""
    position = np.arange(length, dtype=np.int32) + offset
    fraction = (position % cell) * 256 // cell
    weight = fraction * fraction * (768 - 2 * fraction) >> 16
    return position // cell, weight


def value_noise(key: int, shape: tuple[int, int], cell: int) -> np.ndarray:
    """Random values on a lattice of `cell` pixels, smoothly interpolated: (H, W) in [0, 255]."""
    height, width = shape
    rows, wy = _interpolate(height, cell, key % cell)
    columns, wx = _interpolate(width, cell, (key >> 20) % cell)
    lattice = lattice_bits(key, np.arange(rows[-1] + 2), np.arange(columns[-1] + 2))
    values = (lattice >> np.uint64(56)).astype(np.int32)  # (rows + 1, columns + 1)
    across = values[:, columns] * (256 - wx) + values[:, columns + 1] * wx
    wy = wy[:, None]
    return (across[rows] // 256 * (256 - wy) + across[rows + 1] // 256 * wy) // 256


def fractal_noise(stream: Stream, shape: tuple[int, int], cell: int, octaves: int) -> np.ndarray:
    """Value noise at halving cell sizes and weights: (H, W) in [0, 255]."""
    total = np.zeros(shape, dtype=np.int32)
    weights = 0
    for octave in range(octaves):
        weight = 1 << (octaves - 1 - octave)
        total += weight * value_noise(stream.bits(), shape, max(2, cell >> octave))
        weights += weight
    return total // weights


def ramp(shape: tuple[int, int], angle: int) -> np.ndarray:
    """Distance along a direction in 1/16 px, 0 in the middle: (H, W) int32."""
    height, width = shape
    x = (2 * np.arange(width, dtype=np.int64) - width + 1) * cosine(angle)
    y = (2 * np.arange(height, dtype=np.int64) - height + 1) * sine(angle)
    return ((y[:, None] + x[None, :]) >> (TRIG_SHIFT - 3)).astype(np.int32)


def stripes(stream: Stream, shape: tuple[int, int], period: int) -> np.ndarray:
    """Soft-edged parallel stripes, `period` in pixels: (H, W) in [0, 255]."""
    phase = (ramp(shape, stream.below(TURN)) + stream.below(16 * period)) % (16 * period)
    triangle = np.abs(phase * 2 - 16 * period)  # 0 .. 16 * period
    return np.clip(triangle * 768 // (16 * period) - 256, 0, 255)


def checks(stream: Stream, shape: tuple[int, int], period: int) -> np.ndarray:
    """A turned chessboard, `period` in pixels: (H, W), 0 or 255."""
    angle = stream.below(TURN)
    u = (ramp(shape, angle) + stream.below(1 << 12)) // (16 * period)
    v = (ramp(shape, angle + TURN // 4) + stream.below(1 << 12)) // (16 * period)
    return ((u + v) & 1) * 255


def gradient(stream: Stream, shape: tuple[int, int]) -> np.ndarray:
    """From one side of the picture to the other: (H, W) in [0, 255]."""
    slope = ramp(shape, stream.below(TURN))
    return np.clip(128 + slope * 16 // max(shape), 0, 255)


def background_texture(stream: Stream, shape: tuple[int, int]) -> np.ndarray:
    """One of the kinds, with finer noise over it: (H, W) in [0, 255]."""
    side = min(shape)
    kind = stream.below(6)
    if kind <= 1:
        coarse = fractal_noise(stream, shape, stream.between(side // 8, side // 3), 3)
    elif kind == 2:
        coarse = stripes(stream, shape, stream.between(6, max(7, side // 5)))
    elif kind == 3:
        coarse = checks(stream, shape, stream.between(6, max(7, side // 6)))
    else:
        coarse = gradient(stream, shape)
    fine = fractal_noise(stream, shape, stream.between(4, 10), 2)
    share = stream.between(60, 160)
    return (coarse * (256 - share) + fine * share) // 256


def object_texture(stream: Stream, shape: tuple[int, int]) -> np.ndarray:
    """What varies an object's colour: (H, W) in about [-amount, amount], amount at most 36."""
    kind = stream.below(5)
    amount = stream.between(12, 36)
    if kind <= 1:
        pattern = value_noise(stream.bits(), shape, stream.between(3, 12))
    elif kind == 2:
        pattern = stripes(stream, shape, stream.between(4, 10))
    elif kind == 3:
        pattern = checks(stream, shape, stream.between(3, 8))
    else:
        return np.zeros(shape, dtype=np.int32)
    return (pattern - 128) * amount // 128


def random_colour(stream: Stream) -> Colour:
    """Any colour but the extremes, so that light and noise seldom saturate."""
    return stream.between(24, 232), stream.between(24, 232), stream.between(24, 232)


def contrast(a: Colour, b: Colour) -> int:
    """Sum of the channels' differences, 0 to 765."""
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def distinct_colour(stream: Stream, ground: Colour, least: int) -> Colour:
    """A colour at least `least` away from `ground`, or the furthest of twelve draws."""
    best = random_colour(stream)
    for _ in range(11):
        if contrast(best, ground) >= least:
            break
        other = random_colour(stream)
        if contrast(other, ground) > contrast(best, ground):
            best = other
    return best


def paint_background(stream: Stream, shape: tuple[int, int]) -> np.ndarray:
    """Two neighbouring colours mixed by a texture: (H, W, 3) int32."""
    first = random_colour(stream)
    second = [min(245, max(10, c + stream.between(-60, 60))) for c in first]
    texture = background_texture(stream, shape)
    change = np.array(second, dtype=np.int32) - np.array(first, dtype=np.int32)
    return np.array(first, dtype=np.int32) + texture[:, :, None] * change // 256


def light(stream: Stream, picture: np.ndarray) -> np.ndarray:
    """Brighter on one side of the picture than on the other, by up to a quarter."""
    slope = ramp(picture.shape[:2], stream.below(TURN))
    gain = 256 + slope * stream.between(0, 8) // max(picture.shape[:2])
    return picture * (gain + stream.between(-24, 24))[:, :, None] >> 8


def blur(picture: np.ndarray) -> np.ndarray:
    """Binomial 3 x 3 blur, as a lens slightly out of focus."""
    p = np.pad(picture, ((1, 1), (0, 0), (0, 0)), mode="edge")
    p = p[:-2] + 2 * p[1:-1] + p[2:]
    p = np.pad(p, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return (p[:, :-2] + 2 * p[:, 1:-1] + p[:, 2:] + 8) >> 4


def add_noise(stream: Stream, picture: np.ndarray) -> np.ndarray:
    """Independent triangular noise on each value, standard deviation up to about 10 of 255."""
    height, width = picture.shape[:2]
    bits = lattice_bits(stream.bits(), np.arange(height), np.arange(width))
    amount = stream.between(4, 24)
    noise = np.empty_like(picture)
    for channel in range(3):
        byte = [(bits >> np.uint64(16 * channel + s)).astype(np.uint8) for s in (0, 8)]
        noise[:, :, channel] = byte[0].astype(np.int32) + byte[1] - 255
    return picture + (noise * amount >> 8)
