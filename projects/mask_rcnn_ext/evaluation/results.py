"""Detections as COCO results: from a model's output, from a file, to a file; checked.

A result is {"image_id", "category_id" (the annotation file's), "bbox" [x, y, width, height] in
pixels of the original image, "score" in 0..1, "segmentation" {"size": [height, width], "counts":
text}, "keypoints" [x, y, score, ...]}; the last two only where the model predicts them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from detectron2.structures import Instances
from pycocotools import mask as coco_mask

from ..errors import DataError
from ..files import atomic_write
from ..ops import paste_masks_to_rle
from .coco_truth import MASK_TASKS, GroundTruth, wrong_run_lengths

Json = dict[str, Any]

_HALF_PIXEL = 0.5
_IDS = {int, str}
_NUMBERS = {int, float}
_NEEDED = {
    "bbox": "bbox",
    "segm": "segmentation",
    "boundary": "segmentation",
    "keypoints": "keypoints",
}


def to_coco_results(
    instances: Instances, image_id: Any, category_ids: Mapping[int, Any] | None = None
) -> list[Json]:
    """
    Args:
        instances: R detections in the original image. pred_boxes (xyxy), scores, pred_classes, and
            for masks one of pred_mask_rles (R COCO RLEs, counts text or bytes), pred_masks of
            shape (R, H, W), bool, the image's size, or of shape (R, 1, m, m), float in 0..1, to be
            pasted into the boxes; pred_keypoints (R, k, 3) x, y, score
        image_id: goes into the results
        category_ids: of the model's classes 0, 1, ...; None leaves them as they are
    Raises:
        DataError: a class that `category_ids` does not have
    """
    if not len(instances):
        return []
    corners = instances.pred_boxes.tensor.detach().cpu().numpy()
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1).tolist()
    classes = instances.pred_classes.tolist()
    if category_ids is not None:
        unknown = sorted(set(classes) - set(category_ids))
        if unknown:
            raise DataError(
                f"image {image_id!r}: the model found the class {unknown[0]}, the data set has "
                f"{len(category_ids)} (0 to {len(category_ids) - 1}); MODEL.ROI_HEADS.NUM_CLASSES "
                "and the data set do not go together"
            )
        classes = [category_ids[one] for one in classes]
    results: list[Json] = [
        {"image_id": image_id, "category_id": category, "bbox": box, "score": score}
        for category, box, score in zip(classes, boxes, instances.scores.tolist(), strict=True)
    ]
    for result, rle in zip(results, _masks(instances), strict=False):
        counts = rle["counts"]
        result["segmentation"] = {
            "size": [int(side) for side in rle["size"]],
            "counts": counts.decode("utf-8") if isinstance(counts, bytes) else counts,
        }
    if instances.has("pred_keypoints"):
        points = instances.pred_keypoints.detach().cpu().clone()
        # A model's keypoints are continuous, COCO's are indices of pixels.
        points[:, :, :2] -= _HALF_PIXEL
        for result, row in zip(results, points.flatten(1).tolist(), strict=True):
            result["keypoints"] = row
    return results


def _masks(instances: Instances) -> Sequence[Json]:
    """R RLEs, none if the model predicts no masks."""
    if instances.has("pred_mask_rles"):
        rles: Sequence[Json] = instances.pred_mask_rles
        return rles
    if not instances.has("pred_masks"):
        return []
    masks = instances.pred_masks.detach().cpu()
    if masks.dim() == 4:
        return paste_masks_to_rle(masks, instances.pred_boxes.tensor, instances.image_size)  # type: ignore[return-value]
    # One at a time: all of them in another layout would double the memory.
    return [coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8))) for mask in masks]


def write_results(path: str | Path, results: Sequence[Json]) -> None:
    """Write a results file, atomically, on one line as COCO's server takes it.

    Raises:
        ValueError: a number that JSON does not have
        OSError: see `files.atomic_write`
    """
    text = json.dumps(list(results), allow_nan=False)
    with atomic_write(path, "w") as file:
        file.write(text)


def read_results(
    path: str | Path, truth: GroundTruth | None = None, tasks: Sequence[str] = ()
) -> list[Json]:
    """
    Args:
        path: a results file; a list without entries is one
        truth: what the results are about; None leaves ids and mask sizes unchecked
        tasks: what they are going to be evaluated for
    Raises:
        DataError: no such file, no results file, or an entry that is not right; names both
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if not content.strip():
        raise DataError(
            f"{path} is empty; a results file without detections holds []. "
            "Was the program that wrote it stopped?"
        )
    try:
        results = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        results = _decode_with_nan(content, path)
    if isinstance(results, dict):
        kind = "an annotation file" if "annotations" in results else "a JSON object"
        raise DataError(f"{path} is {kind}, expected COCO results: a list of detections")
    if not isinstance(results, list):
        raise DataError(f"{path} holds a JSON {type(results).__name__}, expected a list")
    check_results(results, truth, tasks, str(path))
    return results


def _decode_with_nan(content: bytes, path: str | Path) -> Any:
    """Python's parser takes NaN, which then is a fault of its entry and not of the file."""
    try:
        return json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is not JSON ({error}); it has {len(content)} bytes. "
            "A file that was cut off looks like this: write or fetch it again."
        ) from error


def check_results(
    results: Sequence[Any],
    truth: GroundTruth | None,
    tasks: Sequence[str] = (),
    name: str = "results",
) -> None:
    """Refuse the first entry that COCO's code would take for something else, or fail on.

    Args:
        results: detections
        truth: what they are about; None leaves ids and mask sizes unchecked
        tasks: what is going to be evaluated
        name: their file, for messages
    Raises:
        DataError: names the file, the entry (counted from 0) and its image
    """
    needed = sorted({_NEEDED[task] for task in tasks})
    keys = ("image_id", "category_id", "score", *needed)
    with_masks, with_points = "segmentation" in needed, "keypoints" in needed
    masks: list[int] = []
    points = -1
    for place, result in enumerate(results):
        problem = _problem(result, truth, keys)
        if problem is None and with_masks:
            problem = _mask_problem(result, truth)
            masks.append(place)
        if problem is None and with_points:
            count = len(result["keypoints"]) // 3
            if points not in (-1, count):
                problem = f"has {count} keypoints, those before it {points}"
            points = count
        if problem is not None:
            raise DataError(f"{name}: entry {place}{_image_of(result)} {problem}")
    for index in wrong_run_lengths([results[place]["segmentation"] for place in masks]):
        place = masks[index]
        height, width = results[place]["segmentation"]["size"]
        raise DataError(
            f"{name}: entry {place}{_image_of(results[place])} has an RLE that does not add up to "
            f"{height} x {width} pixels; it is damaged or of another image"
        )


def _image_of(result: Any) -> str:
    if not isinstance(result, dict) or "image_id" not in result:
        return ""
    return f" (image {result['image_id']!r})"


def _problem(result: Any, truth: GroundTruth | None, needed: Sequence[str]) -> str | None:
    """What is wrong with one entry, as the end of a sentence."""
    if not isinstance(result, dict):
        return f"is a {type(result).__name__}, expected an object"
    for key in needed:
        if result.get(key) is None:
            known = ", ".join(sorted(result)) or "nothing"
            return f"lacks {key!r}; it has {known}"
    if truth is not None:
        for key, rows in (("image_id", truth.image_rows), ("category_id", truth.category_rows)):
            value = result[key]
            if type(value) not in _IDS or value not in rows:
                return f"has the {key} {value!r}, which is not in {truth.name}{_known(rows)}"
    score = result["score"]
    if type(score) not in _NUMBERS or not 0 <= score <= 1:
        return f"has the score {score!r}, expected a number from 0 to 1"
    box = result.get("bbox")
    if box is not None and not (_numbers(box) and len(box) == 4 and min(box[2:]) >= 0):
        return f"has the bbox {box!r}, expected four numbers x, y, width, height"
    points = result.get("keypoints")
    if points is not None and not (_numbers(points) and points and len(points) % 3 == 0):
        return "has keypoints that are not triples of numbers x, y, score"
    return None


def _known(rows: Mapping[Any, int]) -> str:
    first = list(rows)[:3]
    more = f", ... ({len(rows)})" if len(rows) > len(first) else ""
    return f" (it has {', '.join(map(repr, first))}{more})" if first else " (it has none)"


def _mask_problem(result: Json, truth: GroundTruth | None) -> str | None:
    shape = result["segmentation"]
    if not isinstance(shape, dict) or not {"size", "counts"} <= set(shape):
        return "has a segmentation that is no RLE, {'size': [height, width], 'counts': text}"
    size = shape["size"]
    if not isinstance(size, list) or [type(side) for side in size] != [int, int] or min(size) < 1:
        return f"has an RLE of the size {size!r}, expected [height, width]"
    if truth is not None:
        expected = list(truth.sizes[truth.image_rows[result["image_id"]]])
        if min(expected) > 0 and size != expected:
            turned = "; height comes first" if size == expected[::-1] else ""
            return f"has an RLE of the size {size}, its image is {expected} (height, width){turned}"
    return None


def _numbers(values: Any) -> bool:
    # No booleans, which Python takes for numbers. Called for each detection, so in C throughout.
    return isinstance(values, list) and (
        _NUMBERS.issuperset(map(type, values)) and all(map(math.isfinite, values))
    )


def for_backend(results: Sequence[Json], truth: GroundTruth, task: str) -> list[Json]:
    """Only what a task reads, with the ids of `GroundTruth.annotations`; others are left out.

    Masks go without their boxes: a box would give a mask its area, and with it another size class
    (Detectron2 does the same).
    """
    with_boxes = task == "bbox" or (
        task == "keypoints" and all(result.get("bbox") is not None for result in results)
    )
    keys = ["score"] + (["bbox"] if with_boxes else [])
    keys += [_NEEDED[task]] if task != "bbox" else []
    answer = []
    for result in results:
        image = truth.image_rows.get(result["image_id"])
        category = truth.category_rows.get(result["category_id"])
        if image is None or category is None:
            continue
        one = {key: result[key] for key in keys}
        if task in MASK_TASKS and isinstance(one["segmentation"]["counts"], list):
            one["segmentation"] = coco_mask.frPyObjects(
                one["segmentation"], *one["segmentation"]["size"]
            )
        one["image_id"], one["category_id"] = image + 1, category + 1
        answer.append(one)
    return answer
