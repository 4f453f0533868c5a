"""CVAT's XML 1.1 for images; tracks of a video where its frames are there as pictures.

Kept: polygon, box, ellipse and mask shapes, occluded, z_order, group_id and all attributes. Masks
keep their holes. Classes: the labels of the task, job or project in their order, others found
behind them, sorted.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from ...errors import DataError
from .base import CocoImport, check_options
from .builder import CocoBuilder, Mask, Part
from .cvat_xml import LINE, read_tree
from .notes import Notes
from .pictures import Pictures
from .reading import number, tracked
from .shapes import ellipse, rectangle

OPTIONS: Mapping[str, str] = {
    "join_groups": "true: shapes of one label and group_id in a picture are one object",
}
_AREAS = ("polygon", "box", "ellipse", "mask")
_NO_AREA = ("polyline", "points", "cuboid", "skeleton", "tag")
Image = dict[str, Any]


def read(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> CocoImport:
    check_options("cvat", options, OPTIONS)
    join = str(options.get("join_groups", False)).lower() in ("true", "yes", "1")
    root = read_tree(annotations)
    if root.tag != "annotations":
        raise DataError(f"{annotations} is no CVAT file: its root is <{root.tag}>")
    notes = Notes()
    builder = CocoBuilder(Pictures(images or annotations.parent), notes)
    for element in tracked(list(root.iter("image")), "cvat"):
        who = f"{annotations}:{element.get(LINE)}"
        name = element.get("name") or ""
        image = builder.add_image(builder.pictures.find(name, who, annotations.parent), who)
        _check_size(element, image, who)
        _add_shapes(list(element), image, annotations, builder, join)
    _read_tracks(root, annotations, builder, join)
    labels = [label.findtext("name") or "" for label in root.iterfind("meta//labels/label")]
    return builder.finish([name for name in labels if name], [annotations])


def sources(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> list[Path]:
    check_options("cvat", options, OPTIONS)
    return [annotations]


def _check_size(element: Element, image: Image, who: str) -> None:
    said = tuple(number(element.get(side), who, f"image's {side}") for side in ("width", "height"))
    if said != (image["width"], image["height"]):
        raise DataError(
            f"{who}: the picture was annotated at {said[0]:g}x{said[1]:g} pixels, but "
            f"{image['file_name']} has {image['width']}x{image['height']}"
        )


def _add_shapes(
    shapes: list[Element], image: Image, path: Path, builder: CocoBuilder, join: bool
) -> None:
    notes, objects = builder.notes, dict[tuple[str, str], list[Element]]()
    for shape in shapes:
        place = f"{image['file_name']}, line {shape.get(LINE)}"
        if shape.tag not in _AREAS:
            known = "not an area" if shape.tag in _NO_AREA else "unknown"
            notes.add(f"{shape.tag}, {known}: left out", place)
            continue
        if not shape.get("label"):
            raise DataError(f"{path}:{shape.get(LINE)}: {shape.tag} has no label")
        group = shape.get("group_id") or "0"
        if group != "0" and not join:
            notes.add("shape with a group_id: an object of its own (see join_groups)", place)
        key = f"group {group}" if group != "0" and join else f"line {len(objects)}"
        objects.setdefault((shape.get("label", ""), key), []).append(shape)
    for (label, _), members in objects.items():
        parts = [_part(shape, image, f"{path}:{shape.get(LINE)}") for shape in members]
        attributes: dict[str, Any] = {}
        for shape in members:
            attributes.update(_attributes(shape))
        place = f"{image['file_name']}, line {members[0].get(LINE)}"
        builder.add_object(image, label, parts, place, attributes)


def _attributes(shape: Element) -> dict[str, Any]:
    attributes: dict[str, Any] = {"occluded": shape.get("occluded", "0") == "1"}
    for key in ("z_order", "group_id"):
        value = shape.get(key)
        if value is not None and value.lstrip("-").isdigit():
            attributes[key] = int(value)
    for child in shape.iterfind("attribute"):
        attributes[child.get("name") or ""] = child.text or ""
    return attributes


def _part(shape: Element, image: Image, who: str) -> Part:
    def value(key: str, default: str | None = None) -> float:
        return number(shape.get(key, default), who, f"{shape.tag}'s {key}")

    if shape.tag == "polygon":
        return list(_points(shape.get("points") or "", who))
    if shape.tag == "box":
        corners = (value("xtl"), value("ytl"), value("xbr"), value("ybr"))
        return rectangle(*corners, value("rotation", "0"))
    if shape.tag == "ellipse":
        angle = math.radians(value("rotation", "0"))
        return ellipse(value("cx"), value("cy"), value("rx"), value("ry"), angle)
    return _mask(shape, image, who)


def _points(text: str, who: str) -> Iterator[float]:
    for point in text.split(";"):
        pair = point.split(",")
        if len(pair) != 2:
            raise DataError(f"{who}: point {point!r} is not x,y")
        yield from (number(v, who, "a point") for v in pair)


def _mask(shape: Element, image: Image, who: str) -> Mask:
    """Run lengths of the rows of a crop, zeros first."""
    try:
        runs = [int(v) for v in (shape.get("rle") or "").split(",")]
        left, top, width, height = (
            int(float(shape.get(key) or "")) for key in ("left", "top", "width", "height")
        )
    except ValueError as error:
        raise DataError(f"{who}: mask needs whole numbers in rle, left, top, width, height") from (
            error
        )
    mask = np.zeros((image["height"], image["width"]), dtype=bool)
    inside = left + width <= mask.shape[1] and top + height <= mask.shape[0]
    if not inside or min(left, top) < 0 or min(width, height) < 1:
        raise DataError(f"{who}: mask lies outside of picture {image['file_name']}")
    if min(runs) < 0 or sum(runs) != width * height:
        raise DataError(
            f"{who}: mask's runs cover {sum(runs)} pixels, its box has {width * height}"
        )
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    mask[top : top + height, left : left + width] = bits.reshape(height, width)
    return mask


def _read_tracks(root: Element, path: Path, builder: CocoBuilder, join: bool) -> None:
    """A track's shapes by frame; CVAT names the frames it exports frame_000000 and so on."""
    frames: dict[int, list[Element]] = {}
    for track in root.iter("track"):
        for shape in track:
            shape.set("label", track.get("label") or "")
            frame = int(number(shape.get("frame"), f"{path}:{shape.get(LINE)}", "a shape's frame"))
            place = f"{path.name}, track {track.get('id')}, frame {frame}"
            if shape.get("outside") == "1":
                builder.notes.add("shape of a track marked outside, not seen: left out", place)
            else:
                frames.setdefault(frame, []).append(shape)
    if not frames:
        return
    stems = {Path(name).stem: name for name in builder.pictures.all()}
    for stem in sorted(stems):
        if re.fullmatch(r"frame_\d{6}", stem) and int(stem[6:]) not in frames:
            builder.notes.add("frame of a video without a shape: not taken", stems[stem])
    for frame, shapes in sorted(frames.items()):
        file_name = stems.get(f"frame_{frame:06d}")
        if file_name is None:
            text = "shape of a video's track, its frame is no picture here: left out"
            builder.notes.add(text, f"frame {frame}", len(shapes))
            continue
        who = f"{path}: frame {frame}"
        _add_shapes(shapes, builder.add_image(file_name, who), path, builder, join)
