"""Cityscapes' polygon files, and the label images that the benchmark draws from them.

H, W are the image's height and width. Points are (x, y) in whole pixels, (0, 0) the centre of the
top left pixel; Pillow's polygon fill draws its boundary too. Objects are drawn in the file's order,
so that later ones hide earlier ones: what is drawn over an object's middle is a hole in it.

The published PNGs were drawn by the Pillow of their day, ours are drawn by the Pillow installed: on
real data both may differ along edges. For the pixels that the benchmark judges, read the PNGs.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ...errors import DataError
from .labels import BY_NAME, INSTANCE_STEP, Label, find_label

_FURTHEST = 2**24  # Pillow computes edges in single precision, exact for integers up to here
_LARGEST_SIDE = 2**15


@dataclass(frozen=True)
class DrawnObject:
    """One polygon.

    Attributes:
        label: its class; id -1 is not drawn
        points: (x, y) pairs, see the module's text; they may lie outside of the image
        group: whether it stands for several objects that are not told apart
    """

    label: Label
    points: Sequence[tuple[float, float]]
    group: bool = False


@dataclass(frozen=True)
class PolygonFile:
    """What a *_polygons.json holds.

    Attributes:
        height, width: of the image, in pixels
        objects: in drawing order, without deleted ones and those that are not polygons
        deleted: how many objects were marked as deleted
        degenerate: how many had fewer than two points, which nothing can draw
    """

    height: int
    width: int
    objects: list[DrawnObject] = field(default_factory=list)
    deleted: int = 0
    degenerate: int = 0


def read_polygon_file(path: Path) -> PolygonFile:
    """Read and check one file.

    Raises:
        DataError: names the file and the number of the object, counted from 0
    """
    try:
        data = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({error}); unpack it again from the downloaded archive"
        ) from error
    if not isinstance(data, dict) or not isinstance(data.get("objects"), list):
        raise DataError(
            f"{path} is no Cityscapes polygon file: expected an object with imgHeight, imgWidth "
            "and a list of objects"
        )
    height, width = (_side(data, key, path) for key in ("imgHeight", "imgWidth"))
    objects: list[DrawnObject] = []
    deleted = degenerate = 0
    for number, entry in enumerate(data["objects"]):
        where = f"{path}: object {number}"
        if not isinstance(entry, dict) or not isinstance(entry.get("label"), str):
            raise DataError(f"{where} has no label; expected an object with label and polygon")
        if entry.get("deleted"):  # "deleted": 0 is an object like any other
            deleted += 1
            continue
        found = find_label(entry["label"])
        if found is None:
            raise DataError(f"{where} has the unknown label {entry['label']!r}{_near(entry)}")
        points = _points(entry.get("polygon"), where)
        if len(points) < 2:
            degenerate += 1
        else:
            objects.append(DrawnObject(found[0], points, found[1]))
    return PolygonFile(height, width, objects, deleted, degenerate)


def _side(data: dict[str, Any], key: str, path: Path) -> int:
    side = data.get(key)
    if isinstance(side, bool) or not isinstance(side, int) or not 1 <= side <= _LARGEST_SIDE:
        raise DataError(f"{path}: {key} is {side!r}, expected 1 to {_LARGEST_SIDE} pixels")
    return side


def _near(entry: dict[str, Any]) -> str:
    near = difflib.get_close_matches(entry["label"], BY_NAME, n=1)
    return f"; did you mean {near[0]!r}?" if near else "; the labels are Cityscapes' own"


def _points(polygon: Any, where: str) -> list[tuple[float, float]]:
    if not isinstance(polygon, list):
        raise DataError(f"{where} has no polygon; expected a list of [x, y] in pixels")
    points = []
    for point in polygon:
        if not (isinstance(point, list) and len(point) == 2 and all(map(_is_place, point))):
            raise DataError(
                f"{where} has the point {point!r}; expected [x, y], finite numbers in pixels"
            )
        points.append((point[0], point[1]))
    return points


def _is_place(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return -_FURTHEST <= value <= _FURTHEST  # not NaN


def instance_numbers(objects: Sequence[DrawnObject], where: str = "the scene") -> list[int]:
    """The id that each object is drawn with: label id * 1000 + number, or the label id alone.

    The second is for classes without instances and for groups; -1 is not drawn. The number counts
    the class's single objects in the file's order, hidden ones too, as the benchmark's tool does.

    Raises:
        DataError: over 1000 objects of a class, whose ids would run into the next class
    """
    seen: Counter[int] = Counter()
    ids = []
    for thing in objects:
        number = thing.label.id
        if thing.label.has_instances and not thing.group:
            number = number * INSTANCE_STEP + seen[number]
            seen[thing.label.id] += 1
        ids.append(number)
    for label_id, count in seen.items():
        if count > INSTANCE_STEP:
            raise DataError(
                f"{where} has {count} objects of label id {label_id}; Cityscapes' instance ids "
                f"have room for {INSTANCE_STEP}"
            )
    return ids


def draw_instance_ids(
    objects: Sequence[DrawnObject], height: int, width: int, where: str = "the scene"
) -> np.ndarray:
    """What *_instanceIds.png holds: (H, W) int32, 0 where nothing was drawn."""
    return _draw("I", objects, instance_numbers(objects, where), 0, height, width)


def draw_label_ids(objects: Sequence[DrawnObject], height: int, width: int) -> np.ndarray:
    """What *_labelIds.png holds: (H, W) uint8, 0 where nothing was drawn."""
    return _draw("L", objects, [thing.label.id for thing in objects], 0, height, width)


def draw_colours(objects: Sequence[DrawnObject], height: int, width: int) -> np.ndarray:
    """What *_color.png holds: (H, W, 4) uint8 RGBA, opaque black where nothing was drawn."""
    inks = [(*thing.label.colour, 255) for thing in objects]
    return _draw("RGBA", objects, inks, (0, 0, 0, 255), height, width)


def _draw(
    mode: str,
    objects: Sequence[DrawnObject],
    inks: Sequence[Any],
    ground: Any,
    height: int,
    width: int,
) -> np.ndarray:
    canvas = Image.new(mode, (width, height), ground)
    draw = ImageDraw.Draw(canvas)
    for thing, ink in zip(objects, inks, strict=True):
        if thing.label.id >= 0:
            draw.polygon(thing.points, fill=ink)
    return np.asarray(canvas)
