"""From a seed and a number to a street picture and Cityscapes' annotations of it.

The things are those of the other scenes, each shape in the part of a Cityscapes class. The polygons
are the truth of the annotation: label images are drawn from them, with Pillow as the benchmark
does. They are traced from the exact pixels of the things, so that labels and picture agree on these
but for single pixels at sharp corners; along slanted edges of the street they may be a pixel apart.
Gaps in a group, and holes through which another thing shows, belong to the object, as the
benchmark's rules have it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..cityscapes.labels import BY_ID, BY_NAME, GROUP_SUFFIX, Label
from ..cityscapes.polygons import DrawnObject
from .cityscapes_outline import holes, outline, parts
from .cityscapes_street import covered, paint, plan_background, plan_foreground
from .layout import CLUSTER_PER_MILLE, Thing, draw_crowd, draw_objects, remove_hidden
from .render import develop, paint_thing
from .rng import Stream
from .shapes import CLASSES

# Any change of what a seed gives must raise this number; GENERATOR_VERSION covers the things.
CITYSCAPES_VERSION = 1

# Which shape plays which class. A caravan has instances, but the benchmark does not judge them.
CAST = {
    "person": "person",
    "triangle": "rider",
    "disk": "car",
    "square": "truck",
    "cross": "bus",
    "bar": "train",
    "star": "motorcycle",
    "ring": "bicycle",
    "crescent": "caravan",
}

# Shares in 1/1000 of the pictures.
EMPTY_PER_MILLE = 60  # without things
GROUP_PER_MILLE = 250  # with a group region
# Share in 1/1000 of the cars, trucks and buses.
PLATE_PER_MILLE = 300  # with a license plate, which has no id and is never drawn

_LEAST_HOLE = _LEAST_PART = 9  # pixels; an annotator would not see a smaller one
_MOTORS = ("car", "truck", "bus")


@dataclass(frozen=True)
class CityscapesScene:
    """A picture, (H, W, 3) uint8 RGB, and its polygons in drawing order."""

    image: np.ndarray
    objects: tuple[DrawnObject, ...]


def render_cityscapes_scene(
    seed: int, index: int, size: tuple[int, int], split: str
) -> CityscapesScene:
    """Render one scene; it depends on these four arguments alone.

    Args:
        seed: of the data set
        index: of the image, from 0
        size: (height, width)
        split: name of the stream of images
    """
    height, width = size
    name = _name(seed, index, size, split)
    things = plan_things(seed, index, size, split)
    background = plan_background(Stream(*name, "background"), height, width)
    foreground = plan_foreground(Stream(*name, "foreground"), things, height, width)
    middle = _annotate(Stream(*name, "annotate"), things, background, size)

    canvas = np.zeros((height, width, 3), dtype=np.int32)
    _paint_street(name, canvas, [DrawnObject(BY_NAME["unlabeled"], _frame(size)), *background])
    for thing in things:
        paint_thing(Stream(*name, "thing", thing.name), canvas, thing)
    _paint_street((*name, "front"), canvas, foreground)
    image = develop(Stream(*name, "camera"), canvas)
    return CityscapesScene(image, (*background, *middle, *foreground))


def object_name(drawn: DrawnObject) -> str:
    """The label as a polygon file has it, e.g. car or cargroup."""
    return drawn.label.name + (GROUP_SUFFIX if drawn.group else "")


def label_of(thing: Thing) -> Label:
    return BY_NAME[CAST[CLASSES[thing.category][0]]]


def _name(seed: int, index: int, size: tuple[int, int], split: str) -> tuple[int | str, ...]:
    return ("cityscapes", seed, split, index, *size)


def plan_things(seed: int, index: int, size: tuple[int, int], split: str) -> list[Thing]:
    """The things of `render_cityscapes_scene` with the same arguments, back to front."""
    stream = Stream(*_name(seed, index, size, split), "plan")
    height, width = size
    if stream.chance(EMPTY_PER_MILLE):
        return []
    group = stream.chance(GROUP_PER_MILLE)
    heaped = stream.chance(CLUSTER_PER_MILLE) and not group
    things = [draw_crowd(stream, height, width)] if group else []
    things += draw_objects(stream, height, width, heaped, few=False)
    return remove_hidden(things, height, width)


def _annotate(
    stream: Stream, things: list[Thing], background: list[DrawnObject], size: tuple[int, int]
) -> list[DrawnObject]:
    """The things' polygons, back to front, and those of the ground that shows through holes."""
    street = np.zeros(size, dtype=np.int64)  # label ids, as the background draws them
    for ground in background:
        street[covered(ground.points, *size)] = ground.label.id
    taken = np.zeros(size, dtype=bool)  # pixels of the things so far
    drawn = []
    for thing in things:
        patch, label = thing.patch, label_of(thing)
        picture, own = patch.clip(*size)
        if thing.crowd:
            drawn += _group(thing, label)
        else:
            drawn.append(DrawnObject(label, outline(patch.mask, patch.x, patch.y)))
            # An object with a hole has its polygon's whole inside, as Cityscapes' rules say, unless
            # the ground that shows there is drawn over it. A thing that shows there is not.
            for hole in holes(patch.mask, _LEAST_HOLE):
                seen = hole[own]
                if seen.any() and not taken[picture][seen].any():
                    below = int(np.bincount(street[picture][seen]).argmax())
                    filling = BY_ID[below] if below else BY_NAME["static"]
                    drawn.append(DrawnObject(filling, outline(hole, patch.x, patch.y)))
        if label.name in _MOTORS and not thing.crowd and stream.chance(PLATE_PER_MILLE):
            drawn.append(_plate(thing))
        taken[picture] |= patch.mask[own]
    return drawn


def _group(thing: Thing, label: Label) -> list[DrawnObject]:
    """A polygon for each connected part of a crowd; its gaps are part of it."""
    patch = thing.patch
    return [
        DrawnObject(label, outline(part, patch.x, patch.y), group=True)
        for part in parts(patch.mask, _LEAST_PART)
    ]


def _plate(thing: Thing) -> DrawnObject:
    patch = thing.patch
    height, width = patch.mask.shape
    x0, y0 = patch.x + width * 2 // 5, patch.y + height * 3 // 5
    x1, y1 = x0 + width // 5, y0 + height // 10
    return DrawnObject(BY_NAME["license plate"], ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))


def _frame(size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    height, width = size
    return (0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)


def _paint_street(
    name: tuple[int | str, ...], canvas: np.ndarray, objects: list[DrawnObject]
) -> None:
    """Paint what the polygons cover, in place, each with a texture of its own."""
    for number, drawn in enumerate(objects):
        mask = covered(drawn.points, *canvas.shape[:2])
        paint(Stream(*name, "street", number), canvas, mask, drawn.label.name)
