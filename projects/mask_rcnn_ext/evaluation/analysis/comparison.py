"""Ground truth and predictions of a set side by side: in columns, with the IoU of all pairs.

Letters: I images, K categories, D detections, G objects; those of one image are D_i and G_i,
M pairs. Boxes are (x, y, width, height) in pixels of the image, as in COCO's files.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ...data.coco_table import CocoTable
from ...errors import DataError, UsageError
from .columns import Detections, Objects, read_detections, read_objects

IOU_TYPES = ("segm", "bbox")


@dataclass(frozen=True)
class Pairs:
    """Ordered by detection, then object: indices, (M,) int64, and their IoU, (M,) float64 > 0."""

    detection: np.ndarray
    object: np.ndarray
    iou: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """What all analyses start from; made once by `compare`.

    Attributes:
        iou_type: segm or bbox, what `iou` compares
        image_ids: I ids, sorted
        image_sizes: (I, 2) int64, height and width in pixels
        category_ids: K ids, sorted
        category_names: K of them
        detections, objects: see their classes
        detection_masks, object_masks: D and G of COCO's run lengths; empty for bbox
        detection_starts, object_starts: (I + 1,) where each image's begin
        iou: I arrays (D_i, G_i) float64, over all categories; with a crowd region the share of the
            detection that lies in it
    """

    iou_type: str
    image_ids: list[Any]
    image_sizes: np.ndarray
    category_ids: list[Any]
    category_names: list[str]
    detections: Detections
    objects: Objects
    detection_masks: list[Any]
    object_masks: list[Any]
    detection_starts: np.ndarray
    object_starts: np.ndarray
    iou: list[np.ndarray]

    @property
    def num_images(self) -> int:
        return len(self.image_ids)

    @property
    def num_categories(self) -> int:
        return len(self.category_ids)

    @functools.cached_property
    def pairs(self) -> Pairs:
        """All pairs of one category that overlap."""
        rows, columns, values = [], [], []
        for image, iou in enumerate(self.iou):
            found, things = self.detections_of(image), self.objects_of(image)
            own = self.detections.category[found][:, None] == self.objects.category[things]
            d, g = np.nonzero(own & (iou > 0))
            rows.append(found.start + d)
            columns.append(things.start + g)
            values.append(iou[d, g])
        nothing = np.zeros(0, np.int64)
        return Pairs(
            np.concatenate([nothing, *rows]),
            np.concatenate([nothing, *columns]),
            np.concatenate([np.zeros(0), *values]),
        )

    def detections_of(self, image: int) -> slice:
        return slice(int(self.detection_starts[image]), int(self.detection_starts[image + 1]))

    def objects_of(self, image: int) -> slice:
        return slice(int(self.object_starts[image]), int(self.object_starts[image + 1]))

    def box_iou(self, image: int) -> np.ndarray:
        """(D_i, G_i) float64, IoU of the boxes; crowd regions as in `iou`."""
        if self.iou_type == "bbox":
            return self.iou[image]
        found, things = self.detections_of(image), self.objects_of(image)
        return _iou(
            list(self.detections.box[found]),
            list(self.objects.box[things]),
            self.objects.crowd[things],
        )


def compare(
    table: CocoTable,
    results: Sequence[Mapping[str, Any]],
    iou_type: str = "segm",
    max_dets: int = 100,
) -> Comparison:
    """Bring ground truth and predictions together, as pycocotools' COCOeval does.

    Args:
        table: the ground truth, see `data.coco_table.read_coco_table`
        results: in COCO's results format, with "segmentation" for segm and "bbox" for bbox
        iou_type: segm compares masks, bbox boxes
        max_dets: best detections kept of each category in each image
    Raises:
        UsageError: another iou_type, max_dets below 1
        DataError: a result of an unknown image or category, or without mask or box; an annotation
            whose mask cannot be read
    """
    if iou_type not in IOU_TYPES or max_dets < 1:
        raise UsageError(
            f"got iou_type={iou_type!r}, max_dets={max_dets}; expected {' or '.join(IOU_TYPES)}, "
            "and at least one detection"
        )
    rows = _first_rows(table.image_ids.tolist())
    image_ids = _sorted(rows, table)
    sizes = table.image_sizes[[rows[key] for key in image_ids]].reshape(-1, 2)
    categories = {one.get("id"): one.get("name") for one in table.categories}
    category_ids = _sorted(categories, table)
    image_index = {key: index for index, key in enumerate(image_ids)}
    category_index = {key: index for index, key in enumerate(category_ids)}

    objects, object_masks = read_objects(table, image_index, category_index, iou_type)
    detections, masks = read_detections(results, image_index, category_index, sizes, iou_type)
    keep = _best(detections, max_dets)
    detections = _take(detections, keep)
    masks = [masks[index] for index in keep] if masks else []
    bounds = np.arange(len(image_ids) + 1)
    comparison = Comparison(
        iou_type=iou_type,
        image_ids=image_ids,
        image_sizes=sizes,
        category_ids=category_ids,
        category_names=[str(categories[key]) for key in category_ids],
        detections=detections,
        objects=objects,
        detection_masks=masks,
        object_masks=object_masks,
        detection_starts=np.searchsorted(detections.image, bounds),
        object_starts=np.searchsorted(objects.image, bounds),
        iou=[],
    )
    return replace(comparison, iou=[_image_iou(comparison, i) for i in range(len(image_ids))])


def _image_iou(comparison: Comparison, image: int) -> np.ndarray:
    found, things = comparison.detections_of(image), comparison.objects_of(image)
    crowd = comparison.objects.crowd[things]
    if comparison.iou_type == "bbox":
        boxes, object_boxes = comparison.detections.box[found], comparison.objects.box[things]
        return _iou(list(boxes), list(object_boxes), crowd)
    return _iou(comparison.detection_masks[found], comparison.object_masks[things], crowd)


def _iou(detections: list[Any], objects: list[Any], crowd: np.ndarray) -> np.ndarray:
    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    return coco_mask.iou(detections, objects, crowd.astype(np.uint8).tolist())


def _best(detections: Detections, most: int) -> np.ndarray:
    """Indices by image, category, falling score, at most so many of an image's category."""
    order = np.lexsort([-detections.score, detections.category, detections.image])
    image, category = detections.image[order], detections.category[order]
    first = np.flatnonzero((np.diff(image, prepend=-1) != 0) | (np.diff(category, prepend=-1) != 0))
    sizes = np.diff(first, append=len(order))
    place = np.arange(len(order)) - np.repeat(first, sizes)
    return order[place < most]


def _take(detections: Detections, rows: np.ndarray) -> Detections:
    return Detections(**{name: column[rows] for name, column in vars(detections).items()})


def _sorted(ids: Iterable[Any], table: CocoTable) -> list[Any]:
    try:
        return sorted(ids)
    except TypeError as error:
        raise DataError(
            f"{table.path} mixes kinds of ids ({error}); ids of images and of categories are whole "
            "numbers"
        ) from error


def _first_rows(keys: list[Any]) -> dict[Any, int]:
    rows: dict[Any, int] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, row)
    return rows
