"""Detectron2's dataset dicts made when they are asked for, from the columns of a COCO file.

A data set as a list of dicts is gigabytes of small Python objects, which each worker process
copies page by page as their reference counts change. Here it stays a few arrays.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools import mask as coco_mask

from ..errors import DataError, UsageError
from ..memory import trim_heap
from .coco_table import NO_SEGMENTATION, POLYGONS, RLE_LIST, CocoTable, read_coco_table

Record = dict[str, Any]
_FEWEST_NUMBERS = 6  # of a polygon: three points
_SECONDS_WORTH_SAYING = 1.0


class CocoRecords(Sequence[Record]):
    """The images of one annotation file in Detectron2's standard form, in the order of their ids.

    Equal to what Detectron2's `load_coco_json` returns, and each annotation has its "id" besides,
    for messages. An annotation of an unknown category is an error there; here `data.checks` has
    found it before, and it is a DataError when its image is asked for.
    """

    def __init__(self, table: CocoTable, image_root: str, rows: np.ndarray | None = None):
        """
        Args:
            table: the annotation file
            image_root: folder that its file names are relative to
            rows: (N,) images to take, rows of `table`; all, sorted by id, if None
        """
        self.table = table
        self.image_root = image_root
        self.rows = _sorted_rows(table.image_ids) if rows is None else rows
        self._contiguous = _contiguous_ids(table.categories)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> CocoRecords: ...
    def __getitem__(self, index: int | slice) -> Record | CocoRecords:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        return self._record(int(self.rows[index]))

    def __iter__(self) -> Iterator[Record]:
        return (self._record(row) for row in self.rows.tolist())

    def take(self, indices: np.ndarray) -> CocoRecords:
        """Some of these images, as (n,) positions or an (N,) mask; shares the table."""
        return CocoRecords(self.table, self.image_root, self.rows[indices])

    def ids_of(self, chosen: np.ndarray) -> list[int | str]:
        """
        Args:
            chosen: (N,) bool, some of these images
        """
        return [_plain(self.table.image_ids[row]) for row in self.rows[chosen]]

    @functools.cached_property
    def has_instances(self) -> np.ndarray:
        """(N,) bool, which images have an annotation that is no crowd."""
        counts = np.zeros(self.table.num_images, np.int64)
        owners = self.table.image_of[(self.table.crowd == 0) & (self.table.image_of >= 0)]
        np.add.at(counts, owners, 1)
        return counts[self.rows] > 0

    def class_histogram(self, num_classes: int) -> np.ndarray:
        """(num_classes,) int64, instances of each class; crowds do not count."""
        mine = np.zeros(self.table.num_images, bool)
        mine[self.rows] = True
        of_class = np.full(len(self.table.categories) + 1, -1)
        for row, category in enumerate(self.table.categories):
            of_class[row] = self._contiguous[category["id"]]
        wanted = (self.table.crowd == 0) & (self.table.image_of >= 0)
        wanted &= mine[self.table.image_of]
        classes = of_class[self.table.category_of[wanted]]
        return np.bincount(classes[classes >= 0], minlength=num_classes)

    def visible_keypoints(self) -> np.ndarray:
        """(N,) int64, keypoints with a visibility above 0 in each image."""
        counts = np.zeros(self.table.num_images, np.int64)
        for annotation in range(self.table.num_annotations):
            keypoints = self.table.keypoints(annotation) or []
            counts[self.table.image_of[annotation]] += sum(v > 0 for v in keypoints[2::3])
        return counts[self.rows]

    def aspect_is_wide(self) -> np.ndarray:
        """(N,) bool, width above height, by which Detectron2 groups batches."""
        sizes = self.table.image_sizes[self.rows]
        return sizes[:, 1] > sizes[:, 0]

    def _record(self, image: int) -> Record:
        table = self.table
        height, width = table.image_sizes[image].tolist()
        annotations = (self._annotation(row, image) for row in table.annotations_of(image).tolist())
        return {
            "file_name": os.path.join(self.image_root, table.file_name(image)),
            "height": height,
            "width": width,
            "image_id": _plain(table.image_ids[image]),
            "annotations": [one for one in annotations if one is not None],
        }

    def _annotation(self, row: int, image: int) -> Record | None:
        table = self.table
        category_id = _plain(table.annotation_category_ids[row])
        where = f"{table.path}: annotation {_plain(table.annotation_ids[row])}"
        if category_id not in self._contiguous:
            raise DataError(f"{where} has category_id {category_id!r}, which no category has")
        annotation: Record = {
            "id": _plain(table.annotation_ids[row]),
            "iscrowd": int(table.crowd[row]),
            "bbox": table.boxes[row].tolist(),
            "bbox_mode": BoxMode.XYWH_ABS,
            "category_id": self._contiguous[category_id],
        }
        kind = table.segmentation_kind[row]
        if kind != NO_SEGMENTATION:
            segmentation = table.segmentation(row)
            if kind == POLYGONS:
                # As Detectron2: a polygon of fewer than three points covers nothing, and an object
                # of which nothing is left is none.
                segmentation = [p for p in segmentation if _is_polygon(p)]
                if not segmentation:
                    return None
            elif kind == RLE_LIST:
                segmentation = _compressed(segmentation, where)
            annotation["segmentation"] = segmentation
        keypoints = table.keypoints(row)
        if keypoints:
            # COCO's keypoints are pixel indices; everything else is continuous (docs/pixels.md).
            annotation["keypoints"] = [
                value if place % 3 == 2 else value + 0.5 for place, value in enumerate(keypoints)
            ]
        return annotation


class JoinedRecords(Sequence[Record]):
    """Several data sets one after the other."""

    def __init__(self, parts: Sequence[Sequence[Record]]):
        self.parts = parts
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self.parts) else 0

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        part = int(np.searchsorted(self._ends, position, side="right"))
        return self.parts[part][position - (int(self._ends[part - 1]) if part else 0)]


def load_coco_records(json_file: str, image_root: str, name: str | None = None) -> CocoRecords:
    """Read an annotation file; with a name, set its classes in Detectron2's MetadataCatalog.

    Args:
        json_file: annotations in COCO's format
        image_root: folder that its file names are relative to
        name: of the data set; its metadata get thing_classes, in the order of the category ids,
            and thing_dataset_id_to_contiguous_id
    Raises:
        DataError: no such file, or no annotation file
    """
    start = time.perf_counter()
    records = CocoRecords(_table_of(json_file), image_root)
    logger = logging.getLogger(__name__)
    seconds = time.perf_counter() - start
    if seconds > _SECONDS_WORTH_SAYING:
        logger.info("Read %s: %d images in %.1f s", json_file, len(records), seconds)
    if name is not None:
        set_classes(name, records.table)
    return records


def set_classes(name: str, table: CocoTable) -> None:
    """Tell Detectron2's catalog the classes of a file, as its own loader does.

    Raises:
        UsageError: the catalog has other classes for this name already
    """
    ids = _contiguous_ids(table.categories)
    names = {category.get("id"): category.get("name") for category in table.categories}
    metadata = MetadataCatalog.get(name)
    for key, value in {
        "thing_classes": [names[key] for key in ids],
        "thing_dataset_id_to_contiguous_id": ids,
    }.items():
        known = metadata.get(key)
        if known is not None and known != value:
            raise UsageError(
                f"data set {name!r}: {table.path} has {key} {value}, but {known} is registered "
                "under this name. Class names and their order come from the annotation file: "
                "register without them, or under another name."
            )
        metadata.set(**{key: value})


def _table_of(json_file: str) -> CocoTable:
    path = Path(json_file)
    try:
        state = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {json_file}: {error.strerror}") from error
    return _cached_table(str(path), state.st_mtime_ns, state.st_size)


# A run's check, its loader and its evaluator ask for the same file in a row.
@functools.lru_cache(maxsize=2)
def _cached_table(path: str, _mtime_ns: int, _size: int) -> CocoTable:
    table = read_coco_table(path)
    trim_heap()
    return table


def table_of(json_file: str | Path) -> CocoTable:
    """The table of a file, read again only when the file has changed."""
    return _table_of(str(json_file))


def _contiguous_ids(categories: list[Record]) -> dict[Any, int]:
    ids = [category["id"] for category in categories if _is_id(category.get("id"))]
    return {key: place for place, key in enumerate(sorted(ids, key=_sort_key))}


def _is_id(value: Any) -> bool:
    return isinstance(value, int | str) and not isinstance(value, bool)


def _sort_key(value: Any) -> tuple[bool, Any]:
    return isinstance(value, str), value


def _sorted_rows(ids: np.ndarray) -> np.ndarray:
    if ids.dtype != object:
        return np.argsort(ids, kind="stable")
    return np.array(sorted(range(len(ids)), key=lambda i: (str(type(ids[i])), str(ids[i]))), int)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _is_polygon(polygon: Any) -> bool:
    return isinstance(polygon, list) and len(polygon) % 2 == 0 and len(polygon) >= _FEWEST_NUMBERS


def _compressed(segmentation: Any, where: str) -> Record:
    try:
        height, width = segmentation["size"]
        return coco_mask.frPyObjects(segmentation, height, width)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DataError(
            f"{where}: its RLE cannot be used ({type(error).__name__}: {error}); expected "
            '{"size": [height, width], "counts": [...]}'
        ) from error
