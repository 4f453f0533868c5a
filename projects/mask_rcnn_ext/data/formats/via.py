"""VGG Image Annotator, versions 1 and 2: its annotation JSON or its project file.

Kept: polygon, rect, circle and ellipse regions, all attributes, images without regions. Classes
come from one region attribute: the options of a dropdown, radio or checkbox attribute in their
order, else the values found, sorted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import DataError, UsageError
from .base import CocoImport, check_options
from .builder import CocoBuilder
from .notes import Notes
from .pictures import Pictures
from .reading import number, read_json, tracked
from .shapes import Polygon, ellipse, rectangle

OPTIONS: Mapping[str, str] = {
    "class_attribute": "region attribute that holds the class (default: the only one)",
    "class_name": "class of regions without one",
}
DEFAULT_CLASS = "object"  # of a file without any region attribute
_NO_AREA = ("polyline", "point")
Entry = dict[str, Any]


def read(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> CocoImport:
    check_options("via", options, OPTIONS)
    data = read_json(annotations)
    entries = dict(_entries(data, annotations))
    regions = {key: _regions(entry, f"{annotations}: {key}") for key, entry in entries.items()}
    attribute = _class_attribute(data, regions, options, annotations)
    declared, aliases = _declared(data, attribute)

    notes = Notes()
    builder = CocoBuilder(Pictures(images or annotations.parent), notes)
    for key, entry in tracked(entries.items(), "via"):
        who = f"{annotations}: {key}"
        name = entry.get("filename")
        if not isinstance(name, str) or not name:
            raise DataError(f"{who} has no filename")
        file_name = builder.pictures.find(name, who, annotations.parent)
        image = builder.add_image(file_name, who, _attributes(entry.get("file_attributes"), who))
        _note_other_picture(entry, builder.pictures.root / file_name, notes)
        for index, region in regions[key]:
            place = f"{file_name} region {index}"
            attributes = dict(_attributes(region.get("region_attributes"), f"{who}, {index}"))
            polygon = _polygon(region, f"{who}, region {index}", notes, place)
            if polygon is None:
                continue
            class_name = _class_of(attributes, attribute, aliases, options, notes, place)
            if class_name is not None:
                attributes.pop(attribute or "", None)
                builder.add_object(image, class_name, [polygon], place, attributes)
    return builder.finish(declared, [annotations])


def sources(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> list[Path]:
    check_options("via", options, OPTIONS)
    return [annotations]


def _entries(data: Any, path: Path) -> Iterator[tuple[str, Entry]]:
    """(key, entry) of each image, in the project's order."""
    if isinstance(data, dict) and isinstance(data.get("_via_img_metadata"), dict):
        metadata = data["_via_img_metadata"]
        listed = data.get("_via_image_id_list")
        order = (
            [key for key in listed if isinstance(key, str) and key in metadata]
            if isinstance(listed, list)
            else []
        )
        data = {key: metadata[key] for key in [*order, *metadata]}
    if not isinstance(data, dict) or not data:
        raise DataError(f"{path} is no VIA file: expected an object with one entry an image")
    for key, entry in data.items():
        if not isinstance(entry, dict) or "regions" not in entry:
            raise DataError(
                f"{path}: {key!r} is no VIA image entry (filename, size, regions, ...); "
                "VIA's CSV and VIA 3's projects are not read: export as JSON from VIA 2"
            )
        yield key, entry


def _regions(entry: Entry, who: str) -> list[tuple[str, Entry]]:
    """(index, region) of each; VIA 1 has an object with numbers as keys, VIA 2 a list."""
    regions = entry["regions"]
    if isinstance(regions, list):
        pairs = [(str(index), region) for index, region in enumerate(regions)]
    elif isinstance(regions, dict):
        pairs = list(regions.items())
    else:
        raise DataError(f"{who}: regions is a {type(regions).__name__}, expected a list")
    for index, region in pairs:
        if not isinstance(region, dict) or not isinstance(region.get("shape_attributes"), dict):
            raise DataError(f"{who}, region {index} has no shape_attributes")
    return pairs


def _attributes(value: Any, who: str) -> dict[str, Any]:
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise DataError(f"{who}: attributes are {value!r}, expected an object")
    return value


def _class_attribute(
    data: Any,
    regions: dict[str, list[tuple[str, Entry]]],
    options: Mapping[str, Any],
    path: Path,
) -> str | None:
    """The attribute that holds the class; None where regions have no attribute at all."""
    found: dict[str, None] = dict.fromkeys(_described(data))
    for key, pairs in regions.items():
        for index, region in pairs:
            attributes = _attributes(region.get("region_attributes"), f"{path}: {key}, {index}")
            found.update(dict.fromkeys(attributes))
    wanted = options.get("class_attribute")
    names = ", ".join(found) or "none"
    if wanted is not None:
        if wanted not in found:
            raise UsageError(f"{path} has no region attribute {wanted!r}; it has: {names}")
        return str(wanted)
    if len(found) > 1:
        raise UsageError(
            f"{path} has several region attributes: {names}; "
            "say which one holds the class: --class-attribute NAME (class_attribute in a YAML)"
        )
    return next(iter(found), None)


def _described(data: Any) -> dict[str, Any]:
    """A project's description of its region attributes."""
    attributes = data.get("_via_attributes") if isinstance(data, dict) else None
    described = attributes.get("region") if isinstance(attributes, dict) else None
    return described if isinstance(described, dict) else {}


def _declared(data: Any, attribute: str | None) -> tuple[list[str], dict[str, str]]:
    """Class names in the options' order, and option -> class name.

    A choice has an identifier and a text. Regions hold the identifier; it is the class unless all
    are mere numbers and have texts, as VIA makes them by itself.
    """
    described = _described(data).get(attribute or "")
    choices = described.get("options") if isinstance(described, dict) else None
    if not isinstance(choices, dict) or not choices:
        return [], {}
    texts = [text for text in choices.values() if isinstance(text, str) and text]
    by_text = all(key.isdigit() for key in choices) and len(set(texts)) == len(choices)
    names = {key: text if by_text else key for key, text in choices.items()}
    return list(names.values()), names


def _class_of(
    attributes: Entry,
    attribute: str | None,
    aliases: dict[str, str],
    options: Mapping[str, Any],
    notes: Notes,
    place: str,
) -> str | None:
    fallback = options.get("class_name")
    if attribute is None:
        if fallback is None:
            notes.add(f"region without any attribute: class {DEFAULT_CLASS!r}", place)
        return str(fallback or DEFAULT_CLASS)
    value = attributes.get(attribute)
    if isinstance(value, dict):  # a checkbox: option -> whether it is ticked
        ticked = [str(key) for key, on in value.items() if on]
        if len(ticked) > 1:
            notes.add("region with several classes ticked: left out", place)
            return None
        value = ticked[0] if ticked else None
    name = "" if value is None else str(value).strip()
    if name and name != "undefined":  # VIA's word for a choice not made
        return aliases.get(name, name)
    if fallback is None:
        notes.add("region without a class: left out (--class-name gives it one)", place)
    return None if fallback is None else str(fallback)


def _polygon(region: Entry, who: str, notes: Notes, place: str) -> Polygon | None:
    shape = region["shape_attributes"]
    kind = shape.get("name")

    def value(key: str) -> float:
        return number(shape.get(key), who, f"{kind}'s {key}")

    if kind == "polygon":
        xs, ys = shape.get("all_points_x"), shape.get("all_points_y")
        if not isinstance(xs, list) or not isinstance(ys, list) or len(xs) != len(ys):
            raise DataError(f"{who}: all_points_x and all_points_y are not lists of one length")
        return [number(v, who, "a point") for pair in zip(xs, ys, strict=True) for v in pair]
    if kind == "rect":
        x, y = value("x"), value("y")
        return rectangle(x, y, x + value("width"), y + value("height"))
    if kind == "circle":
        return ellipse(value("cx"), value("cy"), value("r"), value("r"))
    if kind == "ellipse":
        theta = value("theta") if "theta" in shape else 0.0
        return ellipse(value("cx"), value("cy"), value("rx"), value("ry"), theta)
    if kind in _NO_AREA:
        notes.add(f"{kind}, not an area: left out", place)
    else:
        notes.add(f"region of unknown shape {kind!r}: left out", place)
    return None


def _note_other_picture(entry: Entry, path: Path, notes: Notes) -> None:
    """VIA keeps the size of the file in bytes: another one may be another picture."""
    size = entry.get("size")
    if isinstance(size, int) and size > 0 and size != path.stat().st_size:
        notes.add("picture of another size in bytes than when it was annotated: kept", path.name)
