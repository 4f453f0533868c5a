"""Pascal VOC's segmentation: SegmentationObject beside SegmentationClass, palette PNGs.

Kept: the pixels of each object. Value 255, the void border, belongs to no object. Classes: those of
labelmap.txt where there is one, else Pascal VOC's twenty, in their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DataError, UsageError
from .base import CocoImport, check_options
from .builder import CocoBuilder
from .label_maps import Labels, check_same_size, read_labels
from .notes import Notes
from .pictures import Pictures
from .reading import files_below, read_text, tracked

OPTIONS: Mapping[str, str] = {
    "split": "name of a list in ImageSets/Segmentation, or a file with one picture a line "
    "(default: every PNG of SegmentationObject)",
}
VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
VOID = 255


def read(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> CocoImport:
    read_files = sources(annotations, images, options)
    names = _class_names(annotations)
    notes = Notes()
    pictures = Pictures(images or annotations / "JPEGImages")
    by_stem = {name.rpartition(".")[0]: name for name in pictures.all()}
    builder = CocoBuilder(pictures, notes)
    for stem in tracked(_stems(annotations, options), "voc-masks"):
        objects = _object_map(annotations, stem)
        if stem not in by_stem:
            raise DataError(f"{objects}: no picture {stem}.* below {pictures.root}")
        image = builder.add_image(by_stem[stem], str(objects))
        labels = read_labels(objects)
        check_same_size(objects, labels, image)
        class_path = annotations / "SegmentationClass" / f"{stem}.png"
        class_map = read_labels(class_path)
        check_same_size(class_path, class_map, image)
        if (labels == VOID).any():
            notes.add("picture with void pixels (255): they belong to no object", f"{stem}.png")
        _add_objects(labels, class_map, class_path, names, image, builder)
    return builder.finish(names[1:], read_files)


def sources(annotations: Path, images: Path | None, options: Mapping[str, Any]) -> list[Path]:
    check_options("voc-masks", options, OPTIONS)
    stems = _stems(annotations, options)
    found = [_object_map(annotations, stem) for stem in stems]
    found += [annotations / "SegmentationClass" / f"{stem}.png" for stem in stems]
    listed = _split_file(annotations, options)
    label_map = annotations / "labelmap.txt"
    found += [path for path in (listed, label_map) if path is not None and path.is_file()]
    return sorted(found)


def _object_map(folder: Path, stem: str) -> Path:
    return folder / "SegmentationObject" / f"{stem}.png"


def _split_file(folder: Path, options: Mapping[str, Any]) -> Path | None:
    split = options.get("split")
    if split is None:
        return None
    lists = folder / "ImageSets" / "Segmentation"
    for path in (lists / f"{split}.txt", Path(str(split)).expanduser()):
        if path.is_file():
            return path
    known = sorted(path.stem for path in lists.glob("*.txt"))
    raise UsageError(f"{folder} has no split {split!r}; it has: {', '.join(known) or 'none'}")


def _stems(folder: Path, options: Mapping[str, Any]) -> list[str]:
    listed = _split_file(folder, options)
    if listed is None:
        root = folder / "SegmentationObject"
        found = [p.relative_to(root).with_suffix("").as_posix() for p in files_below(root, ".png")]
    else:
        found = [line.split()[0] for line in read_text(listed).splitlines() if line.strip()]
    if not found:
        raise DataError(f"{listed or folder / 'SegmentationObject'} names no picture")
    return found


def _class_names(folder: Path) -> list[str]:
    """Class of each value in SegmentationClass; 0 is the background."""
    label_map = folder / "labelmap.txt"
    if not label_map.is_file():
        return ["background", *VOC_CLASSES]
    lines = [line.strip() for line in read_text(label_map).splitlines()]
    names = [line.split(":")[0] for line in lines if line and not line.startswith("#")]
    if names[:1] != ["background"]:
        raise DataError(f"{label_map}: the first label is {names[:1]}, expected background")
    return names


def _add_objects(
    labels: Labels,
    class_map: Labels,
    class_path: Path,
    names: list[str],
    image: dict[str, Any],
    builder: CocoBuilder,
) -> None:
    for value in np.unique(labels).tolist():
        if value in (0, VOID):
            continue
        mask = labels == value
        place = f"{class_path.name} object {value}"
        classes, counts = np.unique(class_map[mask], return_counts=True)
        real = (classes != 0) & (classes != VOID)
        if not real.any():
            builder.notes.add("object without a class in SegmentationClass: left out", place)
            continue
        if real.sum() > 1:
            builder.notes.add("object of several classes: took that of most pixels", place)
        number = int(classes[real][counts[real].argmax()])
        if number >= len(names):
            raise DataError(
                f"{class_path}: value {number} (object {value}) is no class; there are "
                f"{len(names)} with the background; a labelmap.txt beside can name more"
            )
        builder.add_object(image, names[number], [mask], place)
