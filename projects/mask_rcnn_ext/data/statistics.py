"""What a data set holds, in figures: classes, sizes at training scale, masks, aspects, crowds.

Letters: I images, A annotations, C classes (rows of the file's categories). *Instances* are
annotations of known images and classes that are no crowds. An instance's size is the square root
of its mask's area, in pixels of the file's images, or *at training scale*: after Detectron2's
`ResizeShortestEdge`. Broken annotations are left out and counted; `data.checks` names them.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .coco_table import FLAT, NO_SEGMENTATION, OTHER, CocoTable
from .figures import Histogram, plain, quantiles
from .mask_windows import polygons_of, rasterise, run_lengths

DETECTION_CAP = 100  # detections an image: TEST.DETECTIONS_PER_IMAGE, and COCO's AP
STRIDES = (4, 8, 16, 32, 64)  # P2..P6, pixels of the network's input a cell
SMALL, MEDIUM = 32.0, 96.0  # COCO's limits of a size, pixels
SIZE_EDGES = (0.0, *(2.0 ** (k / 2) for k in range(2, 22)), np.inf)  # 2 .. 1448 pixels
ASPECT_EDGES = (0.0, *(2.0 ** (k / 4) for k in range(-14, 15)), np.inf)  # 1/11 .. 11
FILL_EDGES = (*(k / 20 for k in range(21)), np.inf)
COUNT_EDGES = (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 75, 101, 151, 201, 501)
COMMON_SIZES = 200


@dataclass(frozen=True)
class ClassCount:
    """One class: its row in the file, and how many instances, images with one, and crowds."""

    name: str
    row: int
    instances: int
    images: int
    crowds: int


@dataclass(frozen=True)
class KeypointCount:
    """One keypoint of a class: how many instances have it labelled, how many of them visible."""

    class_name: str
    name: str
    labelled: int
    visible: int


@dataclass(frozen=True)
class Statistics:
    """All figures of one annotation file.

    Attributes:
        short_edge, max_size: of the resize that "training scale" means, pixels
        skipped: reason -> annotations that no other figure counts
        classes: in the file's order
        empty_images: images without an instance; they may have crowds
        beyond_cap: instances beyond DETECTION_CAP of their image, of `images_beyond_cap` images
        area_from: where an instance's area is from: "area", "mask", "box", or "unknown"
        coco_sizes, coco_sizes_training: instances of COCO's bins small, medium and large
        below_stride: (stride, instances of a smaller size at training scale)
        sizes, sizes_training: quantiles, pixels
        image_share: quantiles of an instance's area over its image's
        box_fill: quantiles of an instance's area over its box's
        aspects: quantiles of box width over height
        different_sizes: how many sizes the images have
        common_sizes: (height, width, images), the most frequent ones, COMMON_SIZES at most
        image_aspects: images by shape: landscape, square, portrait
    """

    path: str
    short_edge: int
    max_size: int
    images: int
    empty_images: int
    images_without_size: int
    annotations: int
    instances: int
    crowds: int
    skipped: dict[str, int]
    classes: tuple[ClassCount, ...]
    per_image: dict[str, float]
    per_image_histogram: Histogram
    classes_per_image: dict[str, float]
    images_beyond_cap: int
    beyond_cap: int
    area_from: dict[str, int]
    coco_sizes: dict[str, int]
    coco_sizes_training: dict[str, int]
    below_stride: tuple[tuple[int, int], ...]
    sizes: dict[str, float]
    sizes_training: dict[str, float]
    sizes_histogram: Histogram
    sizes_training_histogram: Histogram
    image_share: dict[str, float]
    box_fill: dict[str, float]
    box_fill_histogram: Histogram
    aspects: dict[str, float]
    aspects_histogram: Histogram
    image_heights: dict[str, float]
    image_widths: dict[str, float]
    different_sizes: int
    common_sizes: tuple[tuple[int, int, int], ...]
    image_aspects: dict[str, int]
    keypoints: tuple[KeypointCount, ...]

    @property
    def classes_without_instance(self) -> list[str]:
        return [each.name for each in self.classes if not each.instances]

    def as_json(self) -> dict[str, Any]:
        """Plain values; an infinite edge is null."""
        return plain({**asdict(self), "classes_without_instance": self.classes_without_instance})


def data_statistics(table: CocoTable, short_edge: int = 800, max_size: int = 1333) -> Statistics:
    """Count.

    Args:
        table: the annotation file
        short_edge: what an image's shorter side becomes in training, pixels
        max_size: limit of its longer side, pixels; the shorter becomes less where need be
    """
    known = (table.image_of >= 0) & (table.category_of >= 0)
    crowd = known & (table.crowd == 1)
    rows = np.flatnonzero(known & ~crowd)
    images, classes = table.image_of[rows], table.category_of[rows]
    per_image = np.bincount(images, minlength=table.num_images)
    sized = (table.image_sizes > 0).all(axis=1)

    areas, area_from = instance_areas(table, rows)
    size = np.sqrt(areas)  # NaN where unknown
    scale = np.full(table.num_images, np.nan)
    scale[sized] = training_scale(table.image_sizes[sized], short_edge, max_size)
    trained = size * scale[images]
    pixels = np.where(sized, table.image_sizes.prod(axis=1), np.nan)[images]
    width, height = table.boxes[rows, 2], table.boxes[rows, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        aspect = np.where((width > 0) & (height > 0), width / height, np.nan)
        fill = np.where((width > 0) & (height > 0), areas / (width * height), np.nan)

    kinds = np.unique(images * max(len(table.categories), 1) + classes)
    kinds_per_image = np.bincount(
        kinds // max(len(table.categories), 1), minlength=table.num_images
    )
    heights, widths = table.image_sizes[sized].T
    return Statistics(
        path=table.path,
        short_edge=short_edge,
        max_size=max_size,
        images=table.num_images,
        empty_images=int((per_image == 0).sum()),
        images_without_size=int((~sized).sum()),
        annotations=table.num_annotations,
        instances=len(rows),
        crowds=int(crowd.sum()),
        skipped={
            "of an unknown image": int((table.image_of < 0).sum()),
            "of an unknown class": int(((table.image_of >= 0) & (table.category_of < 0)).sum()),
        },
        classes=_classes(table, rows, crowd),
        per_image=quantiles(per_image),
        per_image_histogram=Histogram.of(per_image, (*COUNT_EDGES, np.inf)),
        classes_per_image=quantiles(kinds_per_image),
        images_beyond_cap=int((per_image > DETECTION_CAP).sum()),
        beyond_cap=int(np.maximum(per_image - DETECTION_CAP, 0).sum()),
        area_from=area_from,
        coco_sizes=_coco_sizes(size),
        coco_sizes_training=_coco_sizes(trained),
        below_stride=tuple((stride, int((trained < stride).sum())) for stride in STRIDES),
        sizes=quantiles(size),
        sizes_training=quantiles(trained),
        sizes_histogram=Histogram.of(size, SIZE_EDGES),
        sizes_training_histogram=Histogram.of(trained, SIZE_EDGES),
        image_share=quantiles(areas / pixels),
        box_fill=quantiles(fill),
        box_fill_histogram=Histogram.of(fill, FILL_EDGES),
        aspects=quantiles(aspect),
        aspects_histogram=Histogram.of(aspect, ASPECT_EDGES),
        image_heights=quantiles(heights),
        image_widths=quantiles(widths),
        different_sizes=len(np.unique(table.image_sizes[sized], axis=0)),
        common_sizes=_common_sizes(table.image_sizes[sized]),
        image_aspects={
            "landscape": int((widths > heights).sum()),
            "square": int((widths == heights).sum()),
            "portrait": int((widths < heights).sum()),
        },
        keypoints=_keypoints(table, rows),
    )


def training_scale(sizes: np.ndarray, short_edge: int, max_size: int) -> np.ndarray:
    """By how much Detectron2's ResizeShortestEdge enlarges images, the mean of both axes.

    Args:
        sizes: (N, 2) of height and width in pixels, all positive
    Returns:
        (N,) float64; a result's sides are whole pixels, so that the axes differ by a trifle
    """
    sides = sizes.astype(np.float64)
    scale = short_edge / sides.min(axis=1, initial=np.inf)
    scale = np.minimum(scale, max_size / sides.max(axis=1, initial=0))
    new = np.floor(sides * scale[:, None] + 0.5)
    return np.sqrt(new.prod(axis=1) / sides.prod(axis=1))


def class_name(table: CocoTable, row: int) -> str:
    """The class's name in the file, or a stand-in where it has none."""
    name = table.categories[row].get("name")
    return name if isinstance(name, str) and name else f"class {table.categories[row].get('id')}"


def instance_areas(table: CocoTable, rows: np.ndarray) -> tuple[np.ndarray, dict[str, int]]:
    """Areas of annotations of known images: the file's, or else their masks', or else their boxes'.

    Args:
        table: the annotation file
        rows: (N,) of it
    Returns:
        (N,) float64 in pixels, NaN where none of the three can be used; and how many are from
        "area", "mask", "box", or "unknown"
    """
    areas = table.areas[rows].copy()
    given = areas > 0
    areas[~given] = np.nan
    kinds = table.segmentation_kind[rows]
    drawn = ~given & (kinds != NO_SEGMENTATION) & (kinds != OTHER)
    for place in np.flatnonzero(drawn).tolist():
        areas[place] = _mask_area(table, int(rows[place]))
    drawn &= areas > 0
    left = ~given & ~drawn
    width, height = table.boxes[rows, 2], table.boxes[rows, 3]
    boxed = left & (width > 0) & (height > 0)
    areas[left] = np.where(boxed, width * height, np.nan)[left]
    counts = {"area": given, "mask": drawn, "box": boxed, "unknown": left & ~boxed}
    return areas, {name: int(where.sum()) for name, where in counts.items()}


def _mask_area(table: CocoTable, row: int) -> float:
    height, width = table.image_sizes[table.image_of[row]].tolist()
    segmentation = table.segmentation(row)
    try:
        if isinstance(segmentation, dict):
            return float(run_lengths(segmentation, (height, width))[1::2].sum())
        flat = table.segmentation_kind[row] == FLAT
        polygons = polygons_of([segmentation] if flat else segmentation)
        return float(rasterise(polygons, height, width).bits.sum())
    except (ValueError, TypeError, KeyError, OverflowError):
        return math.nan


def _classes(table: CocoTable, rows: np.ndarray, crowd: np.ndarray) -> tuple[ClassCount, ...]:
    number = len(table.categories)
    classes = table.category_of[rows]
    # Each pair of image and class once.
    pairs = np.unique(table.image_of[rows] * max(number, 1) + classes)
    columns = (
        np.bincount(classes, minlength=number),
        np.bincount(pairs % max(number, 1), minlength=number),
        np.bincount(table.category_of[crowd], minlength=number),
    )
    return tuple(
        ClassCount(class_name(table, row), row, *(int(column[row]) for column in columns))
        for row in range(number)
    )


def _coco_sizes(size: np.ndarray) -> dict[str, int]:
    return {
        "small": int((size < SMALL).sum()),
        "medium": int(((size >= SMALL) & (size < MEDIUM)).sum()),
        "large": int((size >= MEDIUM).sum()),
    }


def _common_sizes(sizes: np.ndarray) -> tuple[tuple[int, int, int], ...]:
    found, times = np.unique(sizes, axis=0, return_counts=True)
    order = np.argsort(-times, kind="stable")[:COMMON_SIZES]
    rows = np.column_stack([found, times])[order].tolist()
    return tuple((height, width, number) for height, width, number in rows)


def _keypoints(table: CocoTable, rows: np.ndarray) -> tuple[KeypointCount, ...]:
    """Per class and point; a list of another length than the class's first one is left out."""
    by_class: dict[int, list[list[float]]] = {}
    for row in rows[table.num_keypoints[rows] > 0].tolist():
        values = table.keypoints(row)
        group = by_class.setdefault(int(table.category_of[row]), [])
        if isinstance(values, list) and values and len(values) % 3 == 0:
            group.append(values[2::3])
    counts = []
    for number, group in sorted(by_class.items()):
        names = table.categories[number].get("keypoints")
        same = [visibilities for visibilities in group if len(visibilities) == len(group[0])]
        for point, column in enumerate(zip(*same, strict=True)):
            named = isinstance(names, list) and point < len(names)
            counts.append(
                KeypointCount(
                    class_name(table, number),
                    str(names[point]) if named and names else f"point {point}",
                    sum(value in (1, 2) for value in column),
                    sum(value == 2 for value in column),
                )
            )
    return tuple(counts)
