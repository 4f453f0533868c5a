"""Boxes, masks and keypoints of a record after transforms, as Detectron2's `Instances`.

Letters: N annotations that are no crowd, K keypoints, H, W height and width after the transforms.
Boxes are x0, y0, x1, y1 in pixels of that frame. Errors of the data are `AnnotationError`s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode, Keypoints, PolygonMasks

from ..mask_windows import Window, polygons_of

Annotation = dict[str, Any]


class AnnotationError(ValueError):
    """One annotation cannot be used; the message begins with its id."""


def name_of(annotation: Annotation, number: int) -> str:
    """ "annotation id 7", or its place in the record where it has no id."""
    if "id" in annotation:
        return f"annotation id {annotation['id']}"
    return f"annotation number {number} of the image, counted from 0"


def source_boxes(annotations: Sequence[Annotation]) -> np.ndarray:
    """(N, 4) float64 in the frame of the source image, rounded as Detectron2 does."""
    boxes = np.zeros((len(annotations), 4))
    for number, annotation in enumerate(annotations):
        box = annotation.get("bbox")
        try:
            # Detectron2 takes a list through float32 here, and an array through its own type.
            dtype = np.float64 if isinstance(box, np.ndarray) else np.float32
            plain: np.ndarray[Any, np.dtype[Any]] = np.array(box, dtype=dtype)
            if plain.shape == (4,) and annotation["bbox_mode"] == BoxMode.XYWH_ABS:
                boxes[number, :2], boxes[number, 2:] = plain[:2], plain[:2] + plain[2:]
            elif plain.shape == (4,) and annotation["bbox_mode"] == BoxMode.XYXY_ABS:
                boxes[number] = plain
            else:
                boxes[number] = BoxMode.convert(box, annotation["bbox_mode"], BoxMode.XYXY_ABS)
        except (
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            AssertionError,
            NotImplementedError,
        ) as error:
            raise AnnotationError(
                f"{name_of(annotation, number)}: its box {box} with mode "
                f"{annotation.get('bbox_mode')} cannot be used ({type(error).__name__}: {error}); "
                "expected four numbers"
            ) from error
        if not np.isfinite(boxes[number]).all():
            raise AnnotationError(
                f"{name_of(annotation, number)}: its box is {box}, expected finite numbers"
            )
    return boxes


def transformed_boxes(
    boxes: np.ndarray, transforms: T.TransformList, size: tuple[int, int]
) -> np.ndarray:
    """(N, 4) boxes after the transforms, cut off at the frame of size (H, W)."""
    if not len(boxes):
        return boxes
    moved = np.asarray(transforms.apply_box(boxes)).clip(min=0)
    return np.minimum(moved, [size[1], size[0], size[1], size[0]])


def classes_of(annotations: Sequence[Annotation]) -> torch.Tensor:
    """(N,) int64."""
    classes = []
    for number, annotation in enumerate(annotations):
        try:
            classes.append(int(annotation["category_id"]))
        except (KeyError, ValueError, TypeError) as error:
            raise AnnotationError(
                f"{name_of(annotation, number)}: its category_id is "
                f"{annotation.get('category_id')!r}, expected a whole number"
            ) from error
    return torch.tensor(classes, dtype=torch.int64)


def windows_of(annotations: Sequence[Annotation], maker: Callable[[Any], Window]) -> list[Window]:
    """The window of each annotation's mask, see `WindowMaker`."""
    return _each(annotations, maker)


def polygon_masks_of(
    annotations: Sequence[Annotation], transforms: T.TransformList
) -> PolygonMasks:
    """Detectron2's polygons; clipped by crops as Detectron2 does."""

    def polygons(segmentation: Any) -> list[np.ndarray]:
        if isinstance(segmentation, dict):
            raise ValueError(
                "its segmentation is RLE, which INPUT.MASK_FORMAT 'polygon' cannot hold; set "
                "INPUT.MASK_FORMAT bitmask, which takes polygons and RLE"
            )
        moved = transforms.apply_polygons([one.copy() for one in polygons_of(segmentation)])
        return [points.reshape(-1) for points in moved]

    return PolygonMasks(_each(annotations, polygons))


def _each(annotations: Sequence[Annotation], work: Callable[[Any], Any]) -> list[Any]:
    results = []
    for number, annotation in enumerate(annotations):
        if "segmentation" not in annotation:
            raise AnnotationError(
                f"{name_of(annotation, number)} has no segmentation, and MODEL.MASK_ON is True; "
                "add one, take the annotation out, or set MODEL.MASK_ON False"
            )
        try:
            results.append(work(annotation["segmentation"]))
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise AnnotationError(f"{name_of(annotation, number)}: {error}") from error
    return results


def keypoints_of(
    annotations: Sequence[Annotation],
    transforms: T.TransformList,
    size: tuple[int, int],
    flip_indices: Sequence[int] | None,
    *,
    swap_if_vertical: bool = False,
) -> Keypoints:
    """(N, K, 3) x, y, visibility; an annotation without keypoints has K unlabelled ones.

    Args:
        annotations: "keypoints" x0, y0, v0, x1, ... where they have some
        transforms: what the image went through
        size: (H, W)
        flip_indices: (K,) which keypoint takes the place of each in a mirrored image; None if
            nothing flips
        swap_if_vertical: whether a vertical flip mirrors, too; Detectron2's answer is no
    """
    points = [annotation.get("keypoints") for annotation in annotations]
    labelled = next((len(one) // 3 for one in points if one is not None and len(one)), 0)
    count = len(flip_indices) if flip_indices is not None else labelled
    mirrored = swap_if_vertical and _flips(transforms, T.VFlipTransform)
    rows = np.zeros((len(annotations), count, 3))
    for number, (annotation, one) in enumerate(zip(annotations, points, strict=True)):
        if one is None or not len(one):
            continue
        try:
            flat = np.asarray(one, dtype=np.float64)
            if flat.ndim != 1 or len(flat) != 3 * count or not np.isfinite(flat).all():
                raise ValueError(
                    f"its keypoints are {flat.size} numbers, expected {3 * count} finite ones: "
                    f"x, y, visibility of each of the {count} keypoints of the schema"
                )
            moved = utils.transform_keypoint_annotations(flat, transforms, size, flip_indices)
            rows[number] = moved[np.asarray(flip_indices)] if mirrored else moved
        except (ValueError, TypeError) as error:
            raise AnnotationError(f"{name_of(annotation, number)}: {error}") from error
    return Keypoints(rows)


def _flips(transforms: T.TransformList, kind: type) -> bool:
    return sum(isinstance(one, kind) for one in transforms.transforms) % 2 == 1
