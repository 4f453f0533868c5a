"""YOLO-seg: one text file a picture, one object a line: class x1 y1 x2 y2 ..., normalised.

Kept: polygons, boxes without a mask (class, centre, size), pictures without a label file as empty
ones. Classes: `names` of data.yaml or the lines of classes.txt, in their order.
"""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ...errors import DataError, UsageError
from .base import CocoImport, check_options
from .builder import CocoBuilder
from .notes import Notes
from .pictures import Pictures
from .reading import files_below, number, read_text, tracked

OPTIONS: Mapping[str, str] = {
    "split": "train, val, test, ... of data.yaml (default: the only one)",
}
_NOT_SPLITS = frozenset(("path", "names", "nc", "download", "yaml_file", "roboflow", "kpt_shape"))
# Of pixels. Undoes the rounding of normalised text: whole pixels come back as whole pixels.
_DECIMALS = 3
_YAML = ("data.yaml", "data.yml", "dataset.yaml")


@dataclasses.dataclass
class _Layout:
    declaration: Path  # data.yaml or classes.txt
    names: list[str]
    images: Path
    labels: Path


def read(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> CocoImport:
    layout = _layout(annotations, images, options)
    notes = Notes()
    builder = CocoBuilder(Pictures(layout.images), notes)
    labels = {
        path.relative_to(layout.labels).as_posix()[: -len(".txt")]: path
        for path in _label_files(layout)
    }
    read_files = [layout.declaration, *labels.values()]
    for file_name in tracked(builder.pictures.all(), "yolo-seg"):
        label = labels.pop(posixpath.splitext(file_name)[0], None)
        image = builder.add_image(file_name, str(label or layout.images / file_name))
        if label is None:
            notes.add("picture without a label file: kept as one without objects", file_name)
        else:
            _read_labels(label, image, layout, builder)
    for stem, path in labels.items():
        if stem not in ("classes", "labels"):
            raise DataError(f"{path} has no picture {stem}.* below {layout.images}")
    return builder.finish(layout.names, read_files)


def sources(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> list[Path]:
    layout = _layout(annotations, images, options)
    return sorted([layout.declaration, *_label_files(layout)])


def _label_files(layout: _Layout) -> list[Path]:
    return [path for path in files_below(layout.labels, ".txt") if path != layout.declaration]


def _layout(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> _Layout:
    check_options("yolo-seg", options, OPTIONS)
    if annotations.is_file():
        declaration = annotations
    else:
        found = [annotations / name for name in (*_YAML, "classes.txt", "labels/classes.txt")]
        existing = [path for path in found if path.is_file()]
        if not existing:
            raise UsageError(f"{annotations} holds neither data.yaml nor classes.txt")
        declaration = existing[0]
    if declaration.suffix in (".yaml", ".yml"):
        return _from_yaml(declaration, images, options)
    folder = declaration.parent
    labels = folder / "labels" if (folder / "labels").is_dir() else folder
    names = [line.strip() for line in read_text(declaration).splitlines()]
    while names and not names[-1]:
        names.pop()
    return _Layout(declaration, _checked(names, declaration), images or folder / "images", labels)


def _from_yaml(path: Path, images: Path | None, options: Mapping[str, Any]) -> _Layout:
    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise DataError(f"{path} is not YAML ({error})") from error
    names = data.get("names") if isinstance(data, dict) else None
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise DataError(f"{path}: names has the keys {list(names)}, expected 0, 1, 2, ...")
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list):
        raise DataError(f"{path} has no names: a list, or a map from 0, 1, ... to the class")
    folder = images or _picture_folder(data, path, options)
    parts = folder.parts
    if "images" not in parts:
        raise DataError(
            f"{path}: the labels of {folder} cannot be found: the path has no folder 'images' "
            "whose place 'labels' could take"
        )
    last = len(parts) - 1 - parts[::-1].index("images")
    labels = Path(*parts[:last], "labels", *parts[last + 1 :])
    return _Layout(path, _checked(names, path), folder, labels)


def _checked(names: list[Any], path: Path) -> list[str]:
    texts = [str(name) for name in names]
    if not all(texts) or len(set(texts)) < len(texts):
        raise DataError(f"{path}: class names are empty or repeated: {', '.join(texts)}")
    return texts


def _picture_folder(data: dict[str, Any], path: Path, options: Mapping[str, Any]) -> Path:
    splits = [key for key, value in data.items() if key not in _NOT_SPLITS and value is not None]
    splits = [key for key in splits if isinstance(data[key], str | list)]
    wanted = options.get("split")
    if wanted is None and len(splits) != 1:
        raise UsageError(f"{path} has the splits {', '.join(splits) or 'none'}: choose, --split S")
    split = splits[0] if wanted is None else str(wanted)
    if split not in splits:
        raise UsageError(f"{path} has no split {split!r}; it has: {', '.join(splits)}")
    value = data[split]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or value.endswith(".txt"):
        raise DataError(
            f"{path}: split {split!r} is {value!r}, expected one folder of pictures; "
            "lists of files or folders are not read: give each folder with --images"
        )
    base = path.parent / str(data.get("path") or "")
    # Roboflow writes ../train/images for a folder that lies beside the file.
    candidates = [base / value, path.parent / value, path.parent / value.removeprefix("../")]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise DataError(f"{path}: split {split!r}: no folder {' or '.join(map(str, candidates))}")


def _read_labels(path: Path, image: dict[str, Any], layout: _Layout, builder: CocoBuilder) -> None:
    for index, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        who = f"{path}:{index}"
        name = _class_name(words[0], layout, who)
        values = [number(word, who, "a coordinate") for word in words[1:]]
        place = f"{image['file_name']} line {index}"
        if any(not -0.01 <= v <= 1.01 for v in values):
            raise DataError(f"{who}: coordinates are not within 0..1; are they pixels?")
        sides = (image["width"], image["height"])
        pixels = [round(v * sides[k % 2], _DECIMALS) for k, v in enumerate(values)]
        if len(pixels) == 4:
            x, y, width, height = pixels
            builder.add_box(image, name, (x - width / 2, y - height / 2, width, height))
            builder.notes.add("line with a box only: kept, without a mask", place)
        elif len(pixels) % 2:
            raise DataError(f"{who} has {len(pixels)} coordinates, expected pairs of x and y")
        else:
            builder.add_object(image, name, [pixels], place)


def _class_name(word: str, layout: _Layout, who: str) -> str:
    value = number(word, who, "the class")
    if value != int(value) or not 0 <= value < len(layout.names):
        raise DataError(
            f"{who}: class {word} is not one of 0..{len(layout.names) - 1} ({layout.declaration})"
        )
    return layout.names[int(value)]
