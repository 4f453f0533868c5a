"""The two sides of a comparison in columns: annotations and results, checked, with their masks.

Letters: D detections, G objects. Boxes are (x, y, width, height) in pixels of the image, as in
COCO's files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ...data.coco_table import CocoTable
from ...errors import DataError


@dataclass(frozen=True)
class Detections:
    """Columns; in a comparison by image, category, falling score, ties as in the results.

    Attributes:
        image, category: (D,) int64, indices into the comparison's ids
        score: (D,) float64
        area: (D,) float64, of the mask or, for bbox, of the box
        box: (D, 4) float64
        row: (D,) int64, place in the list of results
    """

    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    area: np.ndarray
    box: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class Objects:
    """Columns by image, category; ties in the order of the file.

    Attributes:
        image, category: (G,) int64, indices into the comparison's ids
        area: (G,) float64, as in the file
        crowd: (G,) bool
        box: (G, 4) float64, as in the file
        row: (G,) int64, annotation in the table
    """

    image: np.ndarray
    category: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    box: np.ndarray
    row: np.ndarray

    def __len__(self) -> int:
        return len(self.row)


def mask_of(segmentation: Any, size: Sequence[int]) -> dict[str, Any]:
    """COCO's compressed run lengths of a `segmentation`, polygons joined; as pycocotools does.

    Raises:
        ValueError: what it cannot read
    """
    height, width = (int(side) for side in size)
    try:
        if isinstance(segmentation, list):
            return coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(f"its size is {segmentation['size']}, not {[height, width]}")
        if isinstance(segmentation["counts"], list):
            return coco_mask.frPyObjects(segmentation, height, width)
        return {"size": [height, width], "counts": segmentation["counts"]}
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"neither polygons nor run lengths ({error})") from error
    except Exception as error:
        # pycocotools raises bare Exception for a kind of polygon that it does not know.
        if type(error) is Exception:
            raise ValueError(str(error)) from error
        raise


def read_objects(
    table: CocoTable, images: dict[Any, int], categories: dict[Any, int], iou_type: str
) -> tuple[Objects, list[Any]]:
    """The usable annotations, ordered, and their masks' run lengths (none for bbox).

    An annotation whose image or category the file lacks is left out, as pycocotools does.

    Args:
        table: the ground truth
        images, categories: id -> index in the comparison
        iou_type: segm or bbox
    Raises:
        DataError: a mask that cannot be read; names file and annotation
    """
    usable = np.flatnonzero((table.image_of >= 0) & (table.category_of >= 0))
    image_of = np.array([images[key] for key in table.image_ids.tolist()], np.int64)
    category_of = np.array([categories[one.get("id")] for one in table.categories], np.int64)
    image = image_of[table.image_of[usable]] if len(usable) else usable
    category = category_of[table.category_of[usable]] if len(usable) else usable
    order = np.lexsort([category, image])
    rows = usable[order]
    masks = []
    for row in rows if iou_type == "segm" else ():
        try:
            size = table.image_sizes[table.image_of[row]]
            masks.append(mask_of(table.segmentation(int(row)), size))
        except ValueError as error:
            raise DataError(
                f"{table.path}: the mask of annotation {table.annotation_ids[row]} cannot be read: "
                f"{error}"
            ) from error
    area = table.areas[rows].copy()
    bare = np.flatnonzero(np.isnan(area))
    for index in bare:
        box = table.boxes[rows[index]]
        area[index] = coco_mask.area(masks[index]) if masks else box[2] * box[3]
    crowd = table.crowd[rows] == 1
    columns = (image[order], category[order], area, crowd, table.boxes[rows], rows)
    return Objects(*columns), masks


def read_detections(
    results: Sequence[Mapping[str, Any]],
    images: dict[Any, int],
    categories: dict[Any, int],
    sizes: np.ndarray,
    iou_type: str,
) -> tuple[Detections, list[Any]]:
    """The results as they come, and their masks' run lengths (none for bbox).

    Args:
        results: in COCO's results format; the run lengths' text is taken as sound, as
            `results.read_results` leaves it
        images, categories: id -> index in the comparison
        sizes: (I, 2) height and width of the images
        iou_type: segm or bbox
    Raises:
        DataError: a result that cannot be used; names its place, from 0
    """
    count = len(results)
    image, category = np.zeros(count, np.int64), np.zeros(count, np.int64)
    score, box = np.zeros(count), np.full((count, 4), np.nan)
    masks = []
    for row, result in enumerate(results):
        try:
            image[row] = images[result["image_id"]]
            category[row] = categories[result["category_id"]]
            score[row] = result["score"]
            if "bbox" in result:
                box[row] = result["bbox"]
            if iou_type == "segm":
                masks.append(mask_of(result["segmentation"], sizes[image[row]]))
                if "bbox" not in result:
                    box[row] = coco_mask.toBbox(masks[row])
        except (KeyError, TypeError, ValueError) as error:
            reason = _reason(error, result, images, categories)
            raise DataError(f"result {row} cannot be used: {reason}") from error
    missing = np.flatnonzero(np.isnan(box).any(axis=1) | np.isnan(score))
    if len(missing):
        raise DataError(f"result {missing[0]} has no box of four numbers, or no number as score")
    if iou_type == "segm":
        # One by one: with numpy 2, pycocotools cannot give more than 255 areas at once.
        area = np.array([coco_mask.area(mask) for mask in masks], np.float64)
    else:
        area = box[:, 2] * box[:, 3]
    return Detections(image, category, score, area, box, np.arange(count)), masks


def _reason(
    error: Exception,
    result: Mapping[str, Any],
    images: dict[Any, int],
    categories: dict[Any, int],
) -> str:
    if not isinstance(error, KeyError):
        return str(error)
    for name, known in (("image_id", images), ("category_id", categories)):
        if name in result and result[name] not in known:
            return f"{name} {result[name]!r} is not in the ground truth"
    return f"it has no {error.args[0]!r}"
