"""Several COCO dicts as one: classes by name, pictures by their place on disk."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import DataError, UsageError
from .formats.base import CocoImport
from .formats.notes import Notes
from .rearrange import check_links

Coco = dict[str, Any]
Entry = dict[str, Any]
_SECTIONS = ("images", "annotations", "categories", "licenses")


def merge(parts: Sequence[CocoImport]) -> CocoImport:
    """All parts as one set; keys that are unknown here are kept.

    Classes of the same name are one. Ids stay as they are unless parts share some; then all of that
    kind are counted anew from 1. A picture that several parts have, the same file on disk, becomes
    one image with the annotations of all. File names become relative to the nearest folder that
    holds all image folders. The inputs are not changed.

    Args:
        parts: at least one
    Returns:
        the whole; its notes say what was renumbered, joined, or in conflict
    Raises:
        DataError: parts that disagree about a picture's size or a class's keypoints; entries that
            `check_links` refuses
        UsageError: image folders without a common one
    """
    for part in parts:
        try:
            check_links(part.coco)
        except DataError as error:
            raise DataError(f"{_name(part)}: {error}") from error
    notes = Notes()
    root = _common_root(parts)
    categories, category_ids = _categories(parts, notes)
    licenses, license_ids = _licenses(parts)
    images, image_ids = _images(parts, root, license_ids, notes)
    annotations = _annotations(parts, image_ids, category_ids, notes)
    merged = {**_other_keys(parts, notes), "images": images, "annotations": annotations}
    merged["categories"] = categories
    if licenses:
        merged["licenses"] = licenses
    lines = [note for part in parts for note in part.notes] + notes.lines()
    sources = sorted({source for part in parts for source in part.sources})
    return CocoImport(merged, lines, sources, root)


def _name(part: CocoImport) -> str:
    return str(part.sources[0]) if part.sources else str(part.image_root)


def _common_root(parts: Sequence[CocoImport]) -> Path:
    roots = [os.path.abspath(part.image_root) for part in parts]
    try:
        return Path(os.path.commonpath(roots))
    except ValueError as error:  # two drives
        raise UsageError(f"the image folders have no common folder: {', '.join(roots)}") from error


def _categories(
    parts: Sequence[CocoImport], notes: Notes
) -> tuple[list[Entry], list[dict[Any, int]]]:
    """The joined list, and old -> new id of each part."""
    joined: dict[str, Entry] = {}
    maps = []
    for part in parts:
        ids: dict[Any, int] = {}
        for category in part.coco["categories"]:
            name = str(category.get("name"))
            if name not in joined:
                taken = {entry["id"] for entry in joined.values()}
                free = isinstance(category["id"], int) and category["id"] not in taken
                whole = [i for i in taken if isinstance(i, int)]
                number = category["id"] if free else max(whole, default=0) + 1
                alike = [other for other in joined if other.casefold() == name.casefold()]
                if alike:
                    notes.add(f"class {name!r} beside {alike[0]!r}: kept apart", _name(part))
                joined[name] = {**category, "id": number}
            elif _kind(category) != _kind(joined[name]):
                if {"keypoints", "skeleton"} & {*category, *joined[name]}:
                    raise DataError(
                        f"class {name!r} has other keypoints in {_name(part)} than before; "
                        "rename one of the two classes"
                    )
                notes.add(f"class {name!r} described in two ways: first one kept", _name(part))
            ids[category["id"]] = joined[name]["id"]
        maps.append(ids)
    return list(joined.values()), maps


def _kind(category: Entry) -> Entry:
    return {key: value for key, value in category.items() if key != "id"}


def _licenses(parts: Sequence[CocoImport]) -> tuple[list[Entry], list[dict[Any, Any]]]:
    """Licences of all parts, the same ones joined; old -> new id of each part."""
    joined: list[Entry] = []
    maps = []
    for part in parts:
        ids: dict[Any, Any] = {}
        listed = part.coco.get("licenses")
        for entry in listed if isinstance(listed, list) else []:
            if not isinstance(entry, dict):
                continue
            same = [known for known in joined if _kind(known) == _kind(entry)]
            if not same:
                taken = [known.get("id") for known in joined]
                whole = [i for i in taken if isinstance(i, int)]
                free = entry.get("id") not in taken
                same = [{**entry, "id": entry.get("id") if free else max(whole, default=0) + 1}]
                joined += same
            ids[entry.get("id")] = same[0]["id"]
        maps.append(ids)
    return joined, maps


def _images(
    parts: Sequence[CocoImport], root: Path, license_ids: list[dict[Any, Any]], notes: Notes
) -> tuple[list[Entry], list[dict[Any, Any]]]:
    number = _numbering(parts, "images", notes)
    joined: dict[str, Entry] = {}
    maps = []
    for part, licenses in zip(parts, license_ids, strict=True):
        prefix = Path(os.path.relpath(os.path.abspath(part.image_root), root)).as_posix()
        ids: dict[Any, Any] = {}
        own: set[str] = set()
        for image in part.coco["images"]:
            name = str(image.get("file_name"))
            path = name if prefix == "." else f"{prefix}/{name}"
            known = joined.get(path)
            if known is None or path in own:
                # Twice in one part is not ours to mend: both are kept, `data check` tells.
                entry = {**image, "id": number(image["id"], len(joined)), "file_name": path}
                if entry.get("license") in licenses:
                    entry["license"] = licenses[entry["license"]]
                joined[path if known is None else f"{path}\0{len(joined)}"] = entry
                known = entry
            else:
                _check_same(known, image, path, part)
                notes.add("picture in several parts: one image with all annotations", path)
            own.add(path)
            ids[image["id"]] = known["id"]
        maps.append(ids)
    return list(joined.values()), maps


def _check_same(known: Entry, image: Entry, path: str, part: CocoImport) -> None:
    for side in ("height", "width"):
        if known.get(side) != image.get(side):
            raise DataError(
                f"picture {path} has {side} {image.get(side)} in {_name(part)}, "
                f"{known.get(side)} in a part before it"
            )


def _annotations(
    parts: Sequence[CocoImport],
    image_ids: list[dict[Any, Any]],
    category_ids: list[dict[Any, int]],
    notes: Notes,
) -> list[Entry]:
    number = _numbering(parts, "annotations", notes)
    joined: list[Entry] = []
    seen: dict[tuple[Any, ...], int] = {}
    for index, (part, images, categories) in enumerate(
        zip(parts, image_ids, category_ids, strict=True)
    ):
        for annotation in part.coco.get("annotations", []):
            links = {
                "id": number(annotation.get("id"), len(joined)),
                "image_id": images[annotation["image_id"]],
                "category_id": categories[annotation["category_id"]],
            }
            key = (links["image_id"], links["category_id"], str(annotation.get("bbox")))
            if seen.setdefault(key, index) != index:
                place = f"{_name(part)} annotation {annotation.get('id')}"
                notes.add("object with the class and box of another part's: both kept", place)
            joined.append({**annotation, **links})
    return joined


def _numbering(
    parts: Sequence[CocoImport], section: str, notes: Notes
) -> Callable[[Any, int], Any]:
    """(old id, how many before it) -> new id."""
    seen: set[Any] = set()
    for part in parts:
        ids = [entry.get("id") for entry in part.coco.get(section, [])]
        own = {i for i in ids if isinstance(i, int | str)}
        shared = seen & own
        if shared or len(own) < len(ids):
            why = f"ids of {section} shared by parts or repeated: all counted anew from 1"
            notes.add(why, _name(part), max(1, len(shared)))
            return lambda _, before: before + 1
        seen |= own
    return lambda old, _: old


def _other_keys(parts: Sequence[CocoImport], notes: Notes) -> Coco:
    """Top-level keys beside the sections; of those in conflict the first part's."""
    kept: Coco = {}
    for part in parts:
        for key, value in part.coco.items():
            if key in _SECTIONS:
                continue
            if kept.setdefault(key, value) != value:
                notes.add(f"key {key!r} with another value: the first part's kept", _name(part))
    return kept
