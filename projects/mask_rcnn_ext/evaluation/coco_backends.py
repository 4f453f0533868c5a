"""COCO's matching and accumulation, by one of several libraries: the same arrays from each.

Letters: T = 10 thresholds of IoU, R = 101 of recall, K classes, A area ranges, M caps on
detections.

hotcoco gives pycocotools' arrays to the last bit and is by far the fastest; pycocotools is the
referee. Boundary IoU is a few lines on top of pycocotools.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import UsageError

BACKENDS = ("auto", "hotcoco", "pycocotools")

BOUNDARY_WIDTH = 0.02  # of the image's diagonal; the boundary IoU paper's

Json = dict[str, Any]


@dataclass(frozen=True)
class Problem:
    """What a backend gets, in COCO's own form.

    images, categories, annotations: of the ground truth, with new ids (`coco_truth`)
    detections: with the same ids
    task: bbox, segm, keypoints, or boundary
    max_dets: detections an image and class, ascending; the last one is the cap of AP
    sigmas: (k,) of the keypoints, None for the person's
    """

    images: list[Json]
    categories: list[Json]
    annotations: list[Json]
    detections: list[Json]
    task: str
    max_dets: tuple[int, ...]
    sigmas: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Arrays:
    """COCO's own: precision and scores (T, R, K, A, M), recall (T, K, A, M), float64.

    -1 where a class has no ground truth in an area range.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray


def choose_backend(wish: str, task: str) -> str:
    """The library for "auto", or the one that was asked for.

    Raises:
        UsageError: unknown, not installed, or unable to do the task
    """
    if wish not in BACKENDS:
        raise UsageError(f"backend {wish!r}: expected one of {', '.join(BACKENDS)}")
    if wish == "hotcoco" and task == "boundary":
        raise UsageError("hotcoco has no boundary figures; use the backend auto or pycocotools")
    if task == "boundary" or wish == "pycocotools":
        return "pycocotools"
    if importlib.util.find_spec("hotcoco") is not None:
        return "hotcoco"
    if wish == "hotcoco":
        raise UsageError("hotcoco is not installed: pip install hotcoco, or use pycocotools")
    logging.getLogger(__name__).warning(
        "hotcoco is not installed: pycocotools gives the same figures, many times slower "
        "(pip install hotcoco)"
    )
    return "pycocotools"


def solve(problem: Problem, backend: str) -> Arrays:
    """
    Args:
        problem: its annotations and detections may be changed
        backend: an answer of `choose_backend`
    """
    result = _SOLVERS[backend](problem)
    return Arrays(*(np.asarray(result[key]) for key in ("precision", "recall", "scores")))


def _hotcoco(problem: Problem) -> Json:
    import hotcoco

    truth = hotcoco.COCO(_document(problem, problem.annotations))
    evaluation = hotcoco.COCOeval(truth, truth.loadRes(problem.detections), problem.task)
    _set_parameters(evaluation.params, problem)
    evaluation.evaluate()
    evaluation.accumulate()
    arrays: Json | None = evaluation.eval
    assert arrays is not None, "accumulate() fills it"
    return arrays


def _pycocotools(problem: Problem) -> Json:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = _indexed(_document(problem, problem.annotations))
        if problem.detections:
            found = truth.loadRes(problem.detections)
        else:  # loadRes fails on an empty list
            found = _indexed(_document(problem, []))
        if problem.task == "boundary":
            evaluation = _BoundaryEval(truth, found, "segm")
        else:
            evaluation = COCOeval(truth, found, problem.task)
        _set_parameters(evaluation.params, problem)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval


_SOLVERS: dict[str, Callable[[Problem], Json]] = {"hotcoco": _hotcoco, "pycocotools": _pycocotools}


def _document(problem: Problem, annotations: list[Json]) -> Json:
    return {
        "info": {},
        "images": problem.images,
        "categories": problem.categories,
        "annotations": annotations,
    }


def _indexed(document: Json) -> COCO:
    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco


def _set_parameters(parameters: Any, problem: Problem) -> None:
    parameters.maxDets = list(problem.max_dets)
    if problem.sigmas is not None:
        parameters.kpt_oks_sigmas = np.array(problem.sigmas)


class _BoundaryEval(COCOeval):
    """Mask and boundary must both fit: the smaller of the two IoUs counts, but for crowds.

    Cheng et al., Boundary IoU, CVPR 2021.
    """

    def computeIoU(self, imgId: Any, catId: Any) -> Any:
        ious = super().computeIoU(imgId, catId)
        if not len(ious):
            return ious
        truth, found = self._gts[imgId, catId], self._dts[imgId, catId]
        order = np.argsort([-one["score"] for one in found], kind="mergesort")
        found = [found[i] for i in order[: self.params.maxDets[-1]]]
        crowd = np.array([bool(one["iscrowd"]) for one in truth])
        # Pairs below the lowest threshold stay below it.
        pairs = (ious >= self.params.iouThrs[0]) & ~crowd
        rows, columns = np.flatnonzero(pairs.any(axis=1)), np.flatnonzero(pairs.any(axis=0))
        if not len(rows):
            return ious
        narrow = coco_mask.iou(
            [_boundary(found[i]) for i in rows],
            [_boundary(truth[i]) for i in columns],
            [0] * len(columns),
        )
        block = np.ix_(rows, columns)
        ious[block] = np.minimum(ious[block], narrow)
        return ious


def _boundary(annotation: Json) -> Json:
    """RLE of the mask's pixels that are near its outline; kept in the annotation."""
    if "boundary" not in annotation:
        annotation["boundary"] = mask_boundary(annotation["segmentation"])
    return annotation["boundary"]


def mask_boundary(rle: Json, width: float = BOUNDARY_WIDTH) -> Json:
    """
    Args:
        rle: a mask
        width: share of the image's diagonal; at least one pixel is taken
    Returns:
        RLE of the mask's pixels from which a pixel outside the mask or the image is at most so
        far away, along rows or columns or both (a square neighbourhood)
    """
    mask = coco_mask.decode(rle)
    pixels = max(1, round(width * float(np.hypot(*mask.shape))))
    left, top, wide, high = (int(side) for side in coco_mask.toBbox(rle))
    part = mask[top : top + high, left : left + wide]
    if part.size:
        part = np.pad(part, 1)  # what lies outside of the image is outside of the mask
        inner = cv2.erode(part, np.ones((3, 3), np.uint8), iterations=pixels)[1:-1, 1:-1]
        mask[top : top + high, left : left + wide] -= inner
    return coco_mask.encode(np.asfortranarray(mask))


def keypoint_count(entries: Sequence[Json]) -> set[int]:
    """How many keypoints the entries have."""
    return {len(entry["keypoints"]) // 3 for entry in entries}
