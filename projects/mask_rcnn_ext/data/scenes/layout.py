"""What a scene holds and where: classes, sizes, places and who hides whom.

All lengths in 1/SUB pixel unless a name says `pixels`. Objects are listed back to front.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .geometry import SUB, Bounds, Figure, Patch, rasterise
from .rng import Stream
from .shapes import CLASSES, PERSON

# Shares in 1/1000 of the images.
EMPTY_PER_MILLE = 30  # images without objects
CROWD_PER_MILLE = 40  # images with a crowd region
CLUSTER_PER_MILLE = 200  # images whose objects are heaped up: heavy occlusion

# Shares in 1/1000 of the objects, before hidden ones are taken out.
PERSON_PER_MILLE = 220  # the other classes share the rest evenly
TINY_PER_MILLE = 80  # from 8 px to a sixth of the side
LARGE_PER_MILLE = 120  # from two fifths to half of the side
BORDER_PER_MILLE = 120  # cut by the picture's border

MAX_OBJECTS = 10
SMALLEST_PIXELS = 8
PERSON_PIXELS = 24  # a person any smaller would be a blot

# An object that shows less than this is taken out of the picture, not just left unannotated.
MIN_VISIBLE_PIXELS = 12
MIN_VISIBLE_PER_MILLE = 200  # of its full area, what lies outside the picture included

_PLACE_TRIES = 12
_OVERLAP_PER_CENT = 10  # of the smaller box; more counts as a collision
_CROWD_TINTS = 4  # a crowd member's share of the palette: as many as a person has


@dataclass(frozen=True)
class Thing:
    """One annotated thing: an object, or a crowd of several figures.

    Attributes:
        name: number that names its random streams; does not change when others are removed
        category: key of CLASSES
        figures: one, or the members of a crowd, in sub-pixel picture coordinates
        patch: the figures' pixels
        crowd: whether it is a crowd region
    """

    name: int
    category: int
    figures: tuple[Figure, ...]
    patch: Patch
    crowd: bool = False


def plan_scene(stream: Stream, height: int, width: int) -> list[Thing]:
    """The things of one scene, back to front, each of them sufficiently visible."""
    if stream.chance(EMPTY_PER_MILLE):
        return []
    crowd = stream.chance(CROWD_PER_MILLE)
    heaped = stream.chance(CLUSTER_PER_MILLE) and not crowd
    things = [draw_crowd(stream, height, width)] if crowd else []
    things += draw_objects(stream, height, width, heaped, few=crowd)
    return remove_hidden(things, height, width)


def draw_objects(stream: Stream, height: int, width: int, heaped: bool, few: bool) -> list[Thing]:
    """Single objects, back to front; `heaped` ones around one place, `few` at most three."""
    low, high = (6, MAX_OBJECTS) if heaped else (1, 3 if few else MAX_OBJECTS - 2)
    drafts = [_draw_figure(stream, min(height, width)) for _ in range(stream.between(low, high))]
    # Larger ones tend to be further back, else they would hide the small ones altogether.
    drafts.sort(key=lambda draft: -draft[2] * stream.between(60, 140))
    margin = min(height, width) * SUB // 4
    heart = tuple(stream.between(margin, side * SUB - margin) for side in (width, height))
    boxes: list[Bounds] = []
    things = []
    for name, (category, figure, _) in enumerate(drafts):
        figure = _place(stream, figure, (height, width), boxes, heart if heaped else None)
        boxes.append(figure.bounds())
        things.append(Thing(name, category, (figure,), rasterise((figure,))))
    return things


def _draw_category(stream: Stream) -> int:
    if stream.chance(PERSON_PER_MILLE):
        return PERSON
    return stream.choice([category for category in CLASSES if category != PERSON])


def draw_size(stream: Stream, side_pixels: int) -> int:
    """The longer side of an object's box, mostly between a sixth and two fifths of the picture."""
    low = max(SMALLEST_PIXELS, side_pixels // 6) * SUB
    high = max(low, side_pixels * 2 * SUB // 5)
    pick = stream.below(1000)
    if pick < TINY_PER_MILLE:
        low, high = SMALLEST_PIXELS * SUB, low
    elif pick < TINY_PER_MILLE + LARGE_PER_MILLE:
        low, high = high, side_pixels * SUB // 2
    return stream.between(low, high)


def _draw_figure(stream: Stream, side_pixels: int) -> tuple[int, Figure, int]:
    """A category, its figure centred on the origin, and its size."""
    category = _draw_category(stream)
    size = draw_size(stream, side_pixels)
    if category == PERSON:
        smallest = max(PERSON_PIXELS, side_pixels // 4)
        size = max(size, min(smallest, side_pixels // 2) * SUB)
    return category, build(stream, category, size), size


def build(stream: Stream, category: int, size: int) -> Figure:
    """A figure of a class, centred on the origin, with `size` as the longer side of its box."""
    builder = CLASSES[category][1]
    return builder(stream, max(1, size // SUB)).fitted(size)


def _place(
    stream: Stream,
    figure: Figure,
    shape: tuple[int, int],
    boxes: list[Bounds],
    heart: tuple[int, ...] | None,
) -> Figure:
    """Move a figure to its place: near `heart` if given, else where it collides little."""
    height, width = shape
    x0, y0, x1, y1 = figure.bounds()
    extent = (x1 - x0, y1 - y0)
    cut = max(extent) >= 2 * SMALLEST_PIXELS * SUB and stream.chance(BORDER_PER_MILLE)
    spread = min(height, width) * SUB // 6
    for _ in range(_PLACE_TRIES):
        if heart is not None:
            centre = tuple(c + stream.between(-spread, spread) for c in heart)
        else:
            centre = (stream.below(width * SUB), stream.below(height * SUB))
        x = _keep_inside(centre[0], extent[0], width * SUB)
        y = _keep_inside(centre[1], extent[1], height * SUB)
        if cut:
            x, y = _push_out(stream, (x, y), extent, (height, width))
        moved = figure.shifted(x, y)
        if heart is not None or not _collides(moved.bounds(), boxes):
            break
    return moved


def _keep_inside(centre: int, extent: int, limit: int) -> int:
    """Clamp so that the whole extent, at most half of `limit`, lies in [0, limit]."""
    half = (extent + 1) // 2
    return min(max(centre, half), limit - half)


def _push_out(
    stream: Stream, centre: tuple[int, int], extent: tuple[int, int], shape: tuple[int, int]
) -> tuple[int, int]:
    """Over one of the four borders, with 10 to 45 % of the extent outside."""
    (x, y), (w, h) = centre, extent
    height, width = shape[0] * SUB, shape[1] * SUB
    outside = stream.between(10, 45)
    border = stream.below(4)
    if border == 0:
        return w // 2 - w * outside // 100, y
    if border == 1:
        return width - w // 2 + w * outside // 100, y
    if border == 2:
        return x, h // 2 - h * outside // 100
    return x, height - h // 2 + h * outside // 100


def _collides(box: Bounds, others: list[Bounds]) -> bool:
    area = (box[2] - box[0]) * (box[3] - box[1])
    for other in others:
        w = min(box[2], other[2]) - max(box[0], other[0])
        h = min(box[3], other[3]) - max(box[1], other[1])
        smaller = min(area, (other[2] - other[0]) * (other[3] - other[1]))
        if w > 0 and h > 0 and w * h * 100 > smaller * _OVERLAP_PER_CENT:
            return True
    return False


def draw_crowd(stream: Stream, height: int, width: int) -> Thing:
    """A region packed with small figures of one class, rows jittered, front rows last."""
    side = min(height, width)
    category = PERSON if stream.chance(400) else _draw_category(stream)
    low = max(SMALLEST_PIXELS, side // (9 if category == PERSON else 14)) * SUB
    size = min(stream.between(low, low * 5 // 4), side * SUB // 4)
    region = [stream.between(side * 2 // 5, side * 3 // 5) * SUB for _ in range(2)]
    left = stream.below(width * SUB - region[0] + 1)
    top = stream.below(height * SUB - region[1] + 1)
    pitch = (size * 3 // 4, size * 2 // 3)  # closer than the size: members overlap
    figures = []
    for row in range(max(2, (region[1] - size) // pitch[1] + 1)):
        for column in range(max(2, (region[0] - size) // pitch[0] + 1)):
            x, y = (stream.between(-size // 6, size // 6) for _ in range(2))
            x += left + size // 2 + column * pitch[0]
            y += top + size // 2 + row * pitch[1]
            member = build(stream, category, size * stream.between(85, 115) // 100)
            figures.append(member.shifted(x, y))
    patch = rasterise(figures, tint_step=_CROWD_TINTS)
    return Thing(1000, category, tuple(figures), patch, crowd=True)


def owners(things: list[Thing], height: int, width: int) -> np.ndarray:
    """Which thing each pixel shows: (H, W) int16, index into `things`, -1 for the background."""
    owner = np.full((height, width), -1, dtype=np.int16)
    for number, thing in enumerate(things):
        picture, own = thing.patch.clip(height, width)
        owner[picture][thing.patch.mask[own]] = number
    return owner


def remove_hidden(things: list[Thing], height: int, width: int) -> list[Thing]:
    """Take out what hardly shows, worst first, since each removal uncovers others."""
    things = list(things)
    areas = [thing.patch.area for thing in things]
    while things:
        owner = owners(things, height, width)
        visible = np.bincount(owner[owner >= 0].ravel(), minlength=len(things))
        ratios = []
        for number, area in enumerate(areas):
            seen = int(visible[number])
            shown = 1000 * seen // area if area else 0
            if seen < MIN_VISIBLE_PIXELS or shown < MIN_VISIBLE_PER_MILLE:
                ratios.append((shown, number))
        if not ratios:
            break
        worst = min(ratios)[1]
        del things[worst], areas[worst]
    return things
