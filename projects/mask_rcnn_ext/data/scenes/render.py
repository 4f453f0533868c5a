"""From a seed and a number to a picture and its exact annotations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import SUB, Figure
from .layout import Thing, owners, plan_scene
from .person import EYES, SKIN
from .rng import Stream
from .texture import (
    Colour,
    add_noise,
    blur,
    distinct_colour,
    light,
    object_texture,
    paint_background,
    ramp,
)

# Any change of the pictures or annotations that a seed gives must raise this number.
GENERATOR_VERSION = 1

BLUR_PER_MILLE = 500  # share of the pictures that are slightly out of focus
SHADOW_PER_MILLE = 400  # share of the objects that cast a shadow
RIM_PER_MILLE = 500  # share of the objects with a darker rim

_CONTRAST = 150  # least sum of RGB differences between an object and what it is painted on


@dataclass(frozen=True)
class SceneInstance:
    """One annotated instance.

    Attributes:
        category_id: as in the annotation files, 1 is `person`
        mask: (H, W) bool, the pixels where it is visible
        bbox: (x0, y0, width, height) in pixels, tight on `mask`
        area: visible pixels
        full_area: pixels without occlusion and without the picture's border
        iscrowd: whether it stands for a crowd
        keypoints: for a person (17, 3) int32 of (column, row, v) in COCO's order: v is 2 where the
            pixel belongs to `mask`, 1 where something hides it, 0 (with column = row = 0) outside
            the picture; None for other classes and for crowds
        figures: the exact outlines, in 1/SUB pixel
    """

    category_id: int
    mask: np.ndarray
    bbox: tuple[int, int, int, int]
    area: int
    full_area: int
    iscrowd: bool
    keypoints: np.ndarray | None
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Scene:
    """A picture, (H, W, 3) uint8 RGB, and its instances, back to front."""

    image: np.ndarray
    instances: tuple[SceneInstance, ...]


def render_scene(seed: int, index: int, size: int | tuple[int, int], split: str = "train") -> Scene:
    """Render one scene; it depends on these four arguments alone.

    Args:
        seed: of the data set
        index: of the image, from 0
        size: side in pixels, or (height, width)
        split: name of the stream of images
    """
    height, width = (size, size) if isinstance(size, int) else size
    name = (seed, split, index, height, width)
    things = plan_scene(Stream(*name, "plan"), height, width)
    image = _paint(name, things, (height, width))
    owner = owners(things, height, width)
    instances = [_annotate(thing, owner == number) for number, thing in enumerate(things)]
    return Scene(image, tuple(instances))


def _annotate(thing: Thing, mask: np.ndarray) -> SceneInstance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x0, y0 = int(columns[0]), int(rows[0])
    return SceneInstance(
        category_id=thing.category,
        mask=mask,
        bbox=(x0, y0, int(columns[-1]) + 1 - x0, int(rows[-1]) + 1 - y0),
        area=int(np.count_nonzero(mask)),
        full_area=thing.patch.area,
        iscrowd=thing.crowd,
        keypoints=None if thing.crowd else _keypoints(thing.figures[0], mask),
        figures=thing.figures,
    )


def _keypoints(figure: Figure, mask: np.ndarray) -> np.ndarray | None:
    if not figure.points:
        return None
    height, width = mask.shape
    table = np.zeros((len(figure.points), 3), dtype=np.int32)
    for row, (x, y) in zip(table, figure.points, strict=True):
        column, line = x // SUB, y // SUB
        if 0 <= column < width and 0 <= line < height:
            row[:] = column, line, 2 if mask[line, column] else 1
    return table


def _paint(name: tuple[int | str, ...], things: list[Thing], shape: tuple[int, int]) -> np.ndarray:
    """The picture, (H, W, 3) uint8."""
    stream = Stream(*name, "paint")
    canvas = paint_background(stream, shape)
    for thing in things:
        # A stream each, so that nothing changes for one thing when another is removed.
        paint_thing(Stream(*name, "thing", thing.name), canvas, thing)
    return develop(stream, canvas)


def develop(stream: Stream, canvas: np.ndarray) -> np.ndarray:
    """What the camera does: focus, light, noise; (H, W, 3) int32 -> uint8."""
    if stream.chance(BLUR_PER_MILLE):
        canvas = blur(canvas)
    canvas = add_noise(stream, light(stream, canvas))
    return np.clip(canvas, 0, 255).astype(np.uint8)


def paint_thing(stream: Stream, canvas: np.ndarray, thing: Thing) -> None:
    """Draw one thing, and its shadow before it, in place."""
    patch = thing.patch
    height, width = canvas.shape[:2]
    if stream.chance(SHADOW_PER_MILLE):
        _cast_shadow(stream, canvas, thing)
    picture, own = patch.clip(height, width)
    below = canvas[picture]
    palette = _draw_palette(stream, _mean_colour(below), int(patch.tints.max()) + 1)
    colours = np.array(palette, dtype=np.int32)[patch.tints]  # (h, w, 3)
    shade = ramp(patch.mask.shape, stream.below(4096)) * stream.between(0, 5)
    shade = shade // max(patch.mask.shape) + object_texture(stream, patch.mask.shape)
    if stream.chance(RIM_PER_MILLE):
        shade = shade - np.where(_rim(patch.mask), 40, 0)
    colours = colours + shade[:, :, None]
    inside = patch.mask[own]
    below[inside] = np.clip(colours[own][inside], 0, 255)


def _mean_colour(area: np.ndarray) -> Colour:
    """Mean of (h, w, 3), in integers, which add up to the same in any order."""
    total = area.reshape(-1, 3).sum(axis=0, dtype=np.int64)
    count = max(1, area.shape[0] * area.shape[1])
    return int(total[0]) // count, int(total[1]) // count, int(total[2]) // count


def _draw_palette(stream: Stream, ground: Colour, tints: int) -> list[Colour]:
    palette = [distinct_colour(stream, ground, _CONTRAST) for _ in range(tints)]
    for eyes in range(EYES, tints, EYES + 1):
        palette[eyes] = (15, 15, 15) if sum(palette[eyes - EYES + SKIN]) > 300 else (240, 240, 240)
    return palette


def _rim(mask: np.ndarray) -> np.ndarray:
    """Pixels of the mask next to a pixel that is not in it."""
    padded = np.pad(mask, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~core


def _cast_shadow(stream: Stream, canvas: np.ndarray, thing: Thing) -> None:
    """Darken what lies under the thing, moved by a few pixels, with a soft edge."""
    patch = thing.patch
    reach = max(2, max(patch.mask.shape) // 12)
    dx, dy = stream.between(-reach, reach), stream.between(1, reach)
    strength = stream.between(60, 110)
    h, w = patch.mask.shape
    cover = np.zeros((h + 2, w + 2), dtype=np.int32)
    for i in range(3):
        for j in range(3):
            cover[i : i + h, j : j + w] += patch.mask
    height, width = canvas.shape[:2]
    y, x = patch.y + dy - 1, patch.x + dx - 1
    y0, y1 = max(0, y), min(height, y + h + 2)
    x0, x1 = max(0, x), min(width, x + w + 2)
    if y0 >= y1 or x0 >= x1:
        return
    gain = 256 - cover[y0 - y : y1 - y, x0 - x : x1 - x, None] * strength // 9
    canvas[y0:y1, x0:x1] = canvas[y0:y1, x0:x1] * gain >> 8
