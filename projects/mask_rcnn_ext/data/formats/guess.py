"""Which format a file or folder is in, where that is certain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import UsageError

_XML_HEAD = 4096  # bytes; the root comes behind a declaration and a comment at most


def guess_format(annotations: Path) -> str:
    """The format's name, "coco" included.

    Raises:
        UsageError: nothing there, or nothing that is certain
    """
    if not annotations.exists():
        raise UsageError(f"{annotations} is not there")
    found = _of_folder(annotations) if annotations.is_dir() else _of_file(annotations)
    if found is None:
        raise UsageError(f"cannot tell the format of {annotations}: say it with --from")
    return found


def _of_folder(folder: Path) -> str | None:
    if (folder / "SegmentationObject").is_dir() and (folder / "SegmentationClass").is_dir():
        return "voc-masks"
    if (folder / "data.yaml").is_file() or (folder / "classes.txt").is_file():
        return "yolo-seg"
    first = min(folder.rglob("*.json"), default=None)
    return _of_file(first) if first is not None and _of_file(first) == "labelme" else None


def _of_file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".xml":
        with path.open("rb") as file:
            return "cvat" if b"<annotations" in file.read(_XML_HEAD) else None
    if suffix in (".yaml", ".yml"):
        return "yolo-seg"
    if suffix == ".json":
        try:
            return _of_json(json.loads(path.read_bytes()))
        except (ValueError, RecursionError):
            return None
    return None


def _of_json(data: Any) -> str | None:
    if not isinstance(data, dict):
        return None
    if {"images", "categories"} <= set(data):
        return "coco"
    if {"shapes", "imagePath"} <= set(data):
        return "labelme"
    if "_via_img_metadata" in data:
        return "via"
    entries = list(data.values())
    if entries and all(isinstance(e, dict) and {"filename", "regions"} <= set(e) for e in entries):
        return "via"
    return None
