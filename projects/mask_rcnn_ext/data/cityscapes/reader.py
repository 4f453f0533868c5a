"""Cityscapes' instances as COCO annotations, from the polygons or from the instance images.

Both give the same: later polygons hide earlier ones, what is drawn over an object's middle is a
hole in it, and each class's group regions are one annotation with iscrowd 1, since the benchmark
ignores what is found there. The pixels are those of the label images, see `polygons`.

Detectron2 v0.6's loader from the instance images agrees, but that its boxes leave the last row and
column out and that objects one pixel wide or high are missing. Its loader from the polygons does
not: holes are lost, outlines are fattened by half a pixel as an approximation, an object with
`"deleted": 0` is left out, and each group polygon is a crowd of its own.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import DataError, UsageError, UserError
from ..formats.base import CocoImport
from ..scenes.pool import available_cpus, collect_jobs
from .instances import annotations_from_ids, read_instance_ids
from .labels import BY_ID, INSTANCE_STEP, THINGS
from .polygons import draw_instance_ids, instance_numbers, read_polygon_file
from .tree import CityscapesImage, find_images

_SHOWN = 3
_IMAGES_A_WORKER = 16  # fewer are read sooner than a process starts

# What a reader of one image leaves out: key -> sentence after the count.
_LEFT_OUT = {
    "ignored": "objects of classes that the benchmark does not judge (caravan, trailer) have no "
    "annotation; they hide what is behind them",
    "hidden": "objects are wholly hidden by later polygons and have no annotation",
    "deleted": "objects are marked as deleted and were left out",
    "degenerate": "polygons have fewer than two points and were left out",
}


@dataclass
class _ImageResult:
    """What one image gives; `left_out` counts by the keys of _LEFT_OUT."""

    height: int
    width: int
    annotations: list[dict[str, Any]]
    left_out: dict[str, int] = field(default_factory=dict)


def read_cityscapes(
    root: str | Path,
    split: str,
    source: str = "polygons",
    workers: int | None = None,
    progress: bool = False,
) -> CocoImport:
    """Read a split.

    Args:
        root: the folder that holds leftImg8bit/ and gtFine/
        split: train, val or test; test may come without annotations, as from the benchmark
        source: "polygons" or "instanceIds"
        workers: processes, by default one a CPU; has no influence on the result
        progress: whether to show it on stderr
    Returns:
        images in the order of cities and names, ids from 1, with `cityscapes_name`; annotations
        with `instance_id`, the value in the instance image; category ids are the label ids
    Raises:
        UsageError: an unknown source, no such folder
        DataError: the tree is not whole, or files are broken; names them
    """
    if workers is not None and workers < 1:
        raise UsageError(f"the number of workers must be at least 1, got {workers}")
    found = find_images(root, split, source)
    results = _read_all(found, source, workers, progress, f"Cityscapes {split}")
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (place, result) in enumerate(zip(found, results, strict=True), start=1):
        images.append(
            {
                "id": number,
                "file_name": place.image.relative_to(root).as_posix(),
                "height": result.height,
                "width": result.width,
                "cityscapes_name": place.name,
            }
        )
        for annotation in result.annotations:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **annotation})
    coco = {
        "info": {"description": f"Cityscapes fine annotations, {split}, from {source}"},
        "images": images,
        "annotations": annotations,
        "categories": [
            {"id": label.id, "name": label.name, "supercategory": label.category}
            for label in THINGS
        ],
    }
    notes = _notes(found, results, split)
    return CocoImport(coco, notes, _sources(found), Path(root))


def cityscapes_sources(root: str | Path, split: str, source: str = "polygons") -> list[Path]:
    """The annotation files that `read_cityscapes` would read, sorted; no file is opened.

    For a test split without annotations the pictures. Errors as those of `read_cityscapes` for a
    tree that is not whole.
    """
    return _sources(find_images(root, split, source))


def _sources(found: list[CityscapesImage]) -> list[Path]:
    return sorted(place.annotation or place.image for place in found)


def _read_all(
    found: list[CityscapesImage], source: str, workers: int | None, progress: bool, label: str
) -> list[_ImageResult]:
    """All results in order; broken files are collected, so that one run names them all."""
    workers = min(workers or available_cpus(), 1 + len(found) // _IMAGES_A_WORKER)
    if multiprocessing.current_process().daemon:  # a data-loader worker must not have children
        workers = 1
    results = collect_jobs(_ReadJob(found, source), len(found), workers, label, progress)
    broken = [result for result in results if isinstance(result, str)]
    if len(broken) == 1:
        raise DataError(broken[0])
    if broken:
        more = f"\n  and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
        shown = "\n  ".join(broken[:_SHOWN])
        raise DataError(f"{len(broken)} of {len(found)} images are broken:\n  {shown}{more}")
    return results


@dataclass(frozen=True)
class _ReadJob:
    """Reads one image's annotations; a message instead where that fails."""

    found: Sequence[CityscapesImage]
    source: str

    def __call__(self, index: int) -> _ImageResult | str:
        place = self.found[index]
        read = _READERS[self.source] if place.annotation is not None else _read_nothing
        try:
            return read(place)
        except UserError as error:
            return str(error)


def _read_polygons(place: CityscapesImage) -> _ImageResult:
    path = _annotation(place)
    content = read_polygon_file(path)
    _check_size(place, content.height, content.width)
    ids = draw_instance_ids(content.objects, content.height, content.width, str(path))
    annotations = annotations_from_ids(ids, str(path))
    seen = {annotation["instance_id"] for annotation in annotations}
    numbers = [n for n in instance_numbers(content.objects) if n >= INSTANCE_STEP]
    labels = [BY_ID[number // INSTANCE_STEP] for number in numbers]
    ignored = sum(label.ignore_in_eval for label in labels)
    hidden = sum(
        number not in seen
        for number, label in zip(numbers, labels, strict=True)
        if not label.ignore_in_eval
    )
    left_out = {
        "ignored": ignored,
        "hidden": hidden,
        "deleted": content.deleted,
        "degenerate": content.degenerate,
    }
    return _ImageResult(content.height, content.width, annotations, left_out)


def _read_instance_image(place: CityscapesImage) -> _ImageResult:
    path = _annotation(place)
    ids = read_instance_ids(path)
    height, width = ids.shape
    _check_size(place, height, width)
    annotations = annotations_from_ids(ids, str(path))
    ignored = sum(
        BY_ID[value // INSTANCE_STEP].ignore_in_eval
        for value in set(ids[ids >= INSTANCE_STEP].tolist())
    )
    return _ImageResult(height, width, annotations, {"ignored": ignored})


_READERS: dict[str, Callable[[CityscapesImage], _ImageResult]] = {
    "polygons": _read_polygons,
    "instanceIds": _read_instance_image,
}


def _read_nothing(place: CityscapesImage) -> _ImageResult:
    height, width = _picture_size(place.image)
    return _ImageResult(height, width, [])


def _annotation(place: CityscapesImage) -> Path:
    assert place.annotation is not None, place.name
    return place.annotation


def _picture_size(path: Path) -> tuple[int, int]:
    """Height and width, from the file's head."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot read {path}: {error}; unpack it again from the downloaded archive"
        ) from error


def _check_size(place: CityscapesImage, height: int, width: int) -> None:
    picture = _picture_size(place.image)
    if picture != (height, width):
        raise DataError(
            f"{place.annotation} is for an image of {height}x{width} (height x width), but "
            f"{place.image} has {picture[0]}x{picture[1]}: one of them was resized"
        )


def _notes(found: list[CityscapesImage], results: list[_ImageResult], split: str) -> list[str]:
    notes = []
    for key, sentence in _LEFT_OUT.items():
        counts = [result.left_out.get(key, 0) for result in results]
        if any(counts):
            places = [place.name for place, count in zip(found, counts, strict=True) if count]
            more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
            notes.append(f"{sum(counts)} {sentence} ({', '.join(places[:_SHOWN])}{more})")
    if split == "test" and not any(result.annotations for result in results):
        notes.append(
            f"the {len(found)} images of the test split have no annotated object: the benchmark "
            "keeps them to itself"
        )
    return notes
