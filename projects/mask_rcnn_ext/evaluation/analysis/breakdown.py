"""AP of parts of a set: by objects in the image, by occlusion, by area.

Letters: D detections, G objects, T thresholds, I images.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from .average_precision import PrecisionCurves, average_precision
from .comparison import Comparison
from .matching import Records, match_detections

COUNT_STARTS = (0, 1, 2, 5, 10, 20)
OCCLUSION_ENDS = (0.0, 0.1, 0.25, 0.5, 1.0)
# Sides in pixels: COCO's 32 and 96 are among them.
AREA_EDGES = tuple(float(side**2) for side in (0, 16, 32, 64, 96, 160, 288)) + (1e10,)


@dataclass(frozen=True)
class Part:
    """One bin.

    Attributes:
        lowest, highest: of the count, share or area; the functions say which end belongs to it
        images: with at least one of its objects; for counts, images of the bin
        objects: to be found
        ap, ap50, ap75: 0 to 1, over the categories with objects in the bin; NaN without objects.
            ap50 and ap75 are NaN where the matching had no such threshold
    """

    lowest: float
    highest: float
    images: int
    objects: int
    ap: float
    ap50: float
    ap75: float


def by_count(records: Records, starts: Sequence[int] = COUNT_STARTS) -> list[Part]:
    """By the number of objects in the image, crowd regions not counted.

    A bin takes its images with all their detections, as if they were a set of their own.

    Args:
        records: of the set
        starts: rising; a bin goes from its start to before the next, the last one has no end
    """
    counts = np.bincount(records.counted_image, minlength=records.num_images)
    curves = PrecisionCurves(records)
    parts = []
    for low, high in pairwise([*starts, math.inf]):
        images = np.flatnonzero((counts >= low) & (counts < high))
        precision = curves.precision(images)
        objects = int(counts[images].sum())
        highest = high - 1 if math.isfinite(high) else high
        parts.append(_part(low, highest, len(images), objects, precision, records.thresholds))
    return parts


def by_area(comparison: Comparison, edges: Sequence[float] = AREA_EDGES) -> list[Part]:
    """By the annotation's area in pixels, as COCO's small, medium and large.

    Objects outside the bin need not be found; detections outside it (by the area of their own mask)
    are ignored if they find nothing. As in COCOeval both ends belong to a bin.

    Args:
        comparison: of the set
        edges: rising, pixels
    """
    parts = []
    own, found = comparison.objects.area, comparison.detections.area
    for low, high in pairwise(edges):
        parts.append(
            _bin(comparison, low, high, (own < low) | (own > high), (found < low) | (found > high))
        )
    return parts


def by_occlusion(comparison: Comparison, ends: Sequence[float] = OCCLUSION_ENDS) -> list[Part]:
    """By the share of an object's box that other objects cover; see `object_occlusion`.

    Objects outside the bin need not be found; a detection that finds nothing counts in the bin of
    its own box, covered by all objects but the one that it overlaps most.

    Args:
        comparison: of the set
        ends: rising; the first bin is the share ends[0] (and below), the others go from above
            their lower end to their upper one
    """
    own, found = object_occlusion(comparison), detection_occlusion(comparison)
    parts = []
    for low, high in pairwise([-math.inf, *ends]):
        outside = [(share <= low) | (share > high) for share in (own, found)]
        parts.append(_bin(comparison, max(low, 0.0), high, *outside))
    return parts


def object_occlusion(comparison: Comparison) -> np.ndarray:
    """(G,) float64, 0 to 1: share of an object's box that other objects' masks cover.

    Boxes are drawn as COCO draws them. Others are all other annotations of the image, crowd regions
    too; what lies in front of what is not known. For bbox their boxes take the masks' place.
    """
    share = np.zeros(len(comparison.objects))
    for image in range(comparison.num_images):
        things = comparison.objects_of(image)
        cover = _Cover(comparison, image)
        for place, box in enumerate(comparison.objects.box[things]):
            share[things.start + place] = cover.share(box, place)
    return share


def detection_occlusion(comparison: Comparison) -> np.ndarray:
    """(D,) the same of detections: covered by all objects but the one with the highest IoU."""
    share = np.zeros(len(comparison.detections))
    for image, iou in enumerate(comparison.iou):
        found = comparison.detections_of(image)
        cover = _Cover(comparison, image)
        for place, box in enumerate(comparison.detections.box[found] if iou.size else ()):
            nearest = int(np.argmax(iou[place]))
            without = nearest if iou[place, nearest] > 0 else None
            share[found.start + place] = cover.share(box, without)
    return share


class _Cover:
    """The objects of an image, and how much of a box they cover."""

    def __init__(self, comparison: Comparison, image: int):
        things = comparison.objects_of(image)
        self._height, self._width = comparison.image_sizes[image].tolist()
        if comparison.iou_type == "segm":
            self._masks = comparison.object_masks[things]
        else:
            self._masks = [self._draw(box) for box in comparison.objects.box[things]]
        boxes = coco_mask.toBbox(self._masks) if self._masks else np.zeros((0, 4))
        self._low, self._high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]

    def share(self, box: np.ndarray, without: int | None) -> float:
        """Of the box, by all objects but this one."""
        # Only those that can: a box is drawn to whole pixels.
        near = (self._low < box[:2] + box[2:] + 1) & (self._high > box[:2] - 1)
        others = [self._masks[i] for i in np.flatnonzero(near.all(axis=1)) if i != without]
        if not others:
            return 0.0
        own = self._draw(box)
        area = int(coco_mask.area(own))
        if not area:
            return 0.0
        both = coco_mask.merge([own, coco_mask.merge(others)], intersect=True)
        return int(coco_mask.area(both)) / area

    def _draw(self, box: np.ndarray) -> Any:
        return coco_mask.frPyObjects(box[None], self._height, self._width)[0]


def _bin(
    comparison: Comparison, low: float, high: float, left_out: np.ndarray, outside: np.ndarray
) -> Part:
    records = match_detections(comparison, left_out=left_out, outside=outside)
    images, objects = len(np.unique(records.counted_image)), len(records.counted_image)
    precision = PrecisionCurves(records).precision()
    return _part(low, high, images, objects, precision, records.thresholds)


def _part(
    low: float,
    high: float,
    images: int,
    objects: int,
    precision: np.ndarray,
    thresholds: np.ndarray,
) -> Part:
    at50, at75 = (np.isclose(thresholds, threshold) for threshold in (0.5, 0.75))
    ap, ap50, ap75 = map(average_precision, (precision, precision[at50], precision[at75]))
    return Part(float(low), float(high), images, objects, ap, ap50, ap75)
