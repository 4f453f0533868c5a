"""labelme: one JSON a picture.

Kept: polygon, rectangle, circle, mask and oriented rectangle shapes; flags and descriptions. Shapes
of one label and one `group_id` in a picture are one object. Masks keep their holes. Classes: the
lines of a `labels` file in their order, else the labels found, sorted.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import DataError, UsageError
from .base import CocoImport, check_options
from .builder import CocoBuilder, Mask, Part
from .notes import Notes
from .pictures import Pictures
from .reading import files_below, number, option_path, read_json, read_text, tracked
from .shapes import ellipse, rectangle

OPTIONS: Mapping[str, str] = {"labels": "text file with one class a line, in the order wanted"}
_NOT_CLASSES = ("__ignore__", "_background_")  # labelme's own words in a labels file
_NO_AREA = ("line", "linestrip", "point", "points")
Shape = dict[str, Any]
Points = list[tuple[float, float]]


def read(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> CocoImport:
    paths = _files(annotations)
    read_files = sources(annotations, images, options)
    folder = annotations if annotations.is_dir() else annotations.parent
    notes = Notes()
    builder = CocoBuilder(Pictures(images or folder), notes)
    for path in tracked(paths, "labelme"):
        _read_picture(path, builder, notes)
    if annotations.is_dir():
        builder.note_unused_pictures()
    return builder.finish(_declared(options), read_files)


def sources(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> list[Path]:
    check_options("labelme", options, OPTIONS)
    labels = option_path(options, "labels")
    return sorted([*_files(annotations), *([labels] if labels else [])])


def _files(annotations: Path) -> list[Path]:
    if annotations.is_file():
        return [annotations]
    paths = files_below(annotations, ".json")
    if not paths:
        raise UsageError(f"{annotations} holds no .json file of labelme")
    return paths


def _declared(options: Mapping[str, Any]) -> list[str]:
    labels = option_path(options, "labels")
    lines = read_text(labels).splitlines() if labels else []
    names = [line.strip() for line in lines]
    return [name for name in names if name and name not in _NOT_CLASSES]


def _read_picture(path: Path, builder: CocoBuilder, notes: Notes) -> None:
    data = read_json(path)
    shapes = data.get("shapes") if isinstance(data, dict) else None
    name = data.get("imagePath") if isinstance(data, dict) else None
    if not isinstance(shapes, list) or not isinstance(name, str):
        raise DataError(f"{path} is no labelme file: expected an object with shapes and imagePath")
    file_name = builder.pictures.find(name, str(path), path.parent)
    flags = data.get("flags")
    image = builder.add_image(file_name, str(path), flags if isinstance(flags, dict) else None)
    _check_size(data, image, path)

    objects: dict[tuple[str, Any], list[tuple[int, Shape]]] = {}
    for index, shape in enumerate(shapes):
        if not isinstance(shape, dict) or not isinstance(shape.get("label"), str):
            raise DataError(f"{path}: shape {index} has no label")
        group = shape.get("group_id")
        key = ("alone", index) if group is None else ("group", repr(group))
        objects.setdefault((shape["label"], key), []).append((index, shape))
    for (label, _), members in objects.items():
        parts, attributes = [], {}
        for index, shape in members:
            place = f"{path.name} shape {index}"
            part = _part(shape, image, f"{path}: shape {index} ({label!r})", notes, place)
            if part is not None:
                parts.append(part)
                attributes.update(_attributes(shape))
        if parts:
            place = f"{path.name} shape {members[0][0]}"
            builder.add_object(image, label, parts, place, attributes)


def _check_size(data: dict[str, Any], image: dict[str, Any], path: Path) -> None:
    said = (data.get("imageHeight"), data.get("imageWidth"))
    found = (image["height"], image["width"])
    if None not in said and said != found:
        raise DataError(
            f"{path} was made for a picture of {said[1]}x{said[0]} pixels, but "
            f"{image['file_name']} has {found[1]}x{found[0]}; give the picture that was annotated"
        )


def _attributes(shape: Shape) -> dict[str, Any]:
    flags = shape.get("flags")
    attributes = dict(flags) if isinstance(flags, dict) else {}
    if shape.get("description"):
        attributes["description"] = shape["description"]
    return attributes


def _part(shape: Shape, image: dict[str, Any], who: str, notes: Notes, place: str) -> Part | None:
    kind = shape.get("shape_type") or "polygon"  # versions before 3 had polygons only
    if kind in _NO_AREA:
        notes.add(f"{kind}, not an area: left out", place)
        return None
    points = _points(shape.get("points"), who)
    if kind in ("polygon", "oriented_rectangle") or (kind == "rectangle" and len(points) == 4):
        return [v for point in points for v in point]
    if kind not in ("rectangle", "circle", "mask"):
        notes.add(f"shape of unknown type {kind!r}: left out", place)
        return None
    if len(points) != 2:
        raise DataError(f"{who}: a {kind} has {len(points)} points, expected 2")
    (ax, ay), (bx, by) = points
    if kind == "circle":
        radius = math.hypot(bx - ax, by - ay)
        return ellipse(ax, ay, radius, radius)
    if kind == "mask":
        return _mask(shape, (ax, ay, bx, by), image, who)
    return rectangle(min(ax, bx), min(ay, by), max(ax, bx), max(ay, by))


def _points(value: Any, who: str) -> Points:
    if not isinstance(value, list) or not all(isinstance(p, list) and len(p) == 2 for p in value):
        raise DataError(f"{who}: points are not a list of [x, y]")
    return [(number(x, who, "a point"), number(y, who, "a point")) for x, y in value]


def _mask(shape: Shape, box: tuple[float, ...], image: dict[str, Any], who: str) -> Mask:
    """A mask shape: a PNG of the pixels from the first point to the second, both included."""
    x0, y0, x1, y1 = (int(v) for v in box)
    try:
        content = base64.b64decode(shape.get("mask") or "", validate=True)
        with Image.open(io.BytesIO(content)) as picture:
            crop = np.asarray(picture)
    except (binascii.Error, TypeError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{who}: mask is no PNG in base64 ({error})") from error
    if crop.shape != (y1 - y0 + 1, x1 - x0 + 1):
        raise DataError(
            f"{who}: mask has shape {crop.shape}, its points ask for {(y1 - y0 + 1, x1 - x0 + 1)}"
        )
    mask = np.zeros((image["height"], image["width"]), dtype=bool)
    if x0 < 0 or y0 < 0 or x1 >= mask.shape[1] or y1 >= mask.shape[0]:
        raise DataError(f"{who}: mask lies outside of the picture {image['file_name']}")
    mask[y0 : y1 + 1, x0 : x1 + 1] = crop != 0
    return mask
