"""Instance maps: one PNG a picture, whose values are objects; 0 is the background.

Three encodings: `instance` (a value is an object), `class-instance` (value = class * divisor +
object, as Cityscapes; smaller values belong to no object) and `colour` (an RGB colour is an object,
number R + 256 G + 65536 B, as COCO panoptic). Classes come from a JSON or YAML file: value -> class
for all pictures, or PNG name -> value -> class; with `class-instance` class number -> class.
Without one, everything is of one class.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...errors import DataError, UsageError
from .base import CocoImport, check_options
from .builder import CocoBuilder
from .label_maps import check_same_size, read_labels
from .notes import Notes
from .pictures import Pictures
from .reading import files_below, number, option_path, read_text, tracked

OPTIONS: Mapping[str, str] = {
    "classes": "JSON or YAML: value -> class, or PNG -> value -> class (default: one class)",
    "class_name": "the one class without a file (default: object)",
    "encoding": "instance, class-instance or colour (default: instance)",
    "divisor": "of class-instance: value = class * divisor + object (default: 1000)",
    "suffix": "end of the PNGs' stems which the pictures' names lack, as _instanceIds",
}
_ENCODINGS = ("instance", "class-instance", "colour")
Classes = dict[str, Any]


def read(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> CocoImport:
    read_files = sources(annotations, images, options)
    encoding = str(options.get("encoding", "instance"))
    if encoding not in _ENCODINGS:
        raise UsageError(f"encoding is {encoding!r}, expected one of {', '.join(_ENCODINGS)}")
    if images is None:
        raise UsageError("PNG instance maps need the folder of the pictures: --images DIR")
    classes = _read_classes(options)
    builder = CocoBuilder(Pictures(images), Notes())
    by_stem: dict[str, list[str]] = {}
    for file_name in builder.pictures.all():
        by_stem.setdefault(posixpath.splitext(file_name)[0], []).append(file_name)
    for path in tracked(_maps(annotations), "png"):
        stem = path.relative_to(annotations).with_suffix("").as_posix()
        found = by_stem.get(stem.removesuffix(str(options.get("suffix", ""))), [])
        if len(found) != 1:
            which = f"{len(found)} pictures" if found else "no picture"
            raise DataError(f"{path}: {which} of its name below {images} (option suffix?)")
        image = builder.add_image(found[0], str(path))
        labels = read_labels(path, colours=encoding == "colour")
        check_same_size(path, labels, image)
        here = classes if classes is None else _classes_of(classes, path)
        for value in np.unique(labels).tolist():
            if value:
                name = _class_name(value, here, path, options, builder.notes)
                if name is not None:
                    builder.add_object(image, name, [labels == value], f"{path.name} {value}")
    builder.note_unused_pictures()
    return builder.finish(_declared(classes, options), read_files)


def sources(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> list[Path]:
    check_options("png", options, OPTIONS)
    classes = option_path(options, "classes")
    return sorted([*_maps(annotations), *([classes] if classes else [])])


def _maps(folder: Path) -> list[Path]:
    paths = files_below(folder, ".png")
    if not paths:
        raise UsageError(f"{folder} holds no PNG")
    return paths


def _read_classes(options: Mapping[str, Any]) -> Classes | None:
    path = option_path(options, "classes")
    if path is None:
        return None
    try:
        data = yaml.safe_load(read_text(path))  # JSON is YAML too
    except yaml.YAMLError as error:
        raise DataError(f"{path} is neither JSON nor YAML ({error})") from error
    if not isinstance(data, dict) or not data:
        raise DataError(f"{path} holds no map from values to classes")
    return {
        str(key): {str(k): str(v) for k, v in value.items()}
        if isinstance(value, dict)
        else str(value)
        for key, value in data.items()
    }


def _classes_of(classes: Classes, path: Path) -> dict[str, str]:
    """value -> class for one PNG; a file may speak of all, or of each by name."""
    if not any(isinstance(value, dict) for value in classes.values()):
        return classes
    found = classes.get(path.name, classes.get(path.stem))
    if not isinstance(found, dict):
        raise DataError(f"the file of classes has no map for {path.name}")
    return found


def _class_name(
    value: int,
    classes: dict[str, str] | None,
    path: Path,
    options: Mapping[str, Any],
    notes: Notes,
) -> str | None:
    key = value
    if options.get("encoding") == "class-instance":
        divisor = int(number(options.get("divisor", 1000), "png", "divisor"))
        if divisor < 2:
            raise UsageError(f"divisor is {divisor}, expected at least 2")
        key = value // divisor
        if not key:
            notes.add(f"value below {divisor}, no object: left out", f"{path.name} {value}")
            return None
    if classes is None:
        if options.get("encoding") == "class-instance" and "class_name" not in options:
            return f"class {key}"
        return str(options.get("class_name", "object"))
    if str(key) not in classes:
        text = "value without a class in the file of classes: left out"
        notes.add(text, f"{path.name} {value}")
        return None
    return classes[str(key)]


def _declared(classes: Classes | None, options: Mapping[str, Any]) -> list[str]:
    if classes is None or any(isinstance(value, dict) for value in classes.values()):
        return []
    return list(dict.fromkeys(classes.values()))
