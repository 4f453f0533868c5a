"""Which detections of a run are right at which threshold, by pycocotools itself."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ...evaluation.coco_metrics import KEYPOINT_CAPS
from ...evaluation.coco_truth import GroundTruth
from ...evaluation.results import for_backend
from ...paper.matches_file import SCORES, Matches, bits_of

Json = dict[str, Any]


@dataclass(frozen=True)
class EvaluatedSet:
    """What a run was evaluated on.

    Attributes:
        name: in Detectron2's catalog
        json_file, image_root: in COCO's format
        truth: of the file, with the classes that the evaluation had
    """

    name: str
    json_file: str
    image_root: str
    truth: GroundTruth


def match_results(
    truth: GroundTruth,
    results: Sequence[Json],
    task: str,
    *,
    cap: int,
    sigmas: Sequence[float] | None = None,
) -> Matches:
    """
    Args:
        truth: the set
        results: detections in COCO's results format, checked
        task: bbox, segm or keypoints
        cap: detections an image and category that count; of keypoints always COCO's 20
        sigmas: of the keypoints; the person's for None
    Raises:
        DataError: an annotation that lacks something
    """
    # Ids of images, categories and annotations are 1, 2, ...: one of 0 would count as unmatched.
    images = [
        {"id": row + 1, "height": height, "width": width}
        for row, (height, width) in enumerate(truth.sizes)
    ]
    categories = [{"id": row + 1} for row in range(len(truth.category_names))]
    document = {"info": {}, "images": images, "categories": categories}
    found = for_backend(results, truth, task)
    with contextlib.redirect_stdout(io.StringIO()):
        objects = _indexed({**document, "annotations": truth.annotations(task)})
        # loadRes fails on an empty list
        detections = objects.loadRes(found) if found else _indexed({**document, "annotations": []})
        evaluation = COCOeval(objects, detections, task)
        parameters = evaluation.params
        parameters.maxDets = list(KEYPOINT_CAPS) if task == "keypoints" else [cap]
        parameters.areaRng, parameters.areaRngLbl = parameters.areaRng[:1], ["all"]
        if sigmas is not None:
            parameters.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
    return _compact(evaluation.evalImgs, truth, task)


def _indexed(document: Json) -> COCO:
    coco = COCO()
    coco.dataset = document
    coco.createIndex()
    return coco


def _compact(cells: Sequence[Json | None], truth: GroundTruth, task: str) -> Matches:
    """
    Args:
        cells: COCOeval's, one a category and image, images innermost; None for an empty one
    """
    images, categories = len(truth.sizes), len(truth.category_names)
    parts: dict[str, list[np.ndarray]] = {
        "image": [np.zeros(0, np.int64)],
        "score": [np.zeros(0)],
        "tied": [np.zeros(0, bool)],
        "right": [np.zeros(0, np.uint16)],
        "ignored": [np.zeros(0, np.uint16)],
    }
    counts = np.zeros((categories, images), np.int64)
    starts = np.zeros(categories + 1, np.int64)
    for k in range(categories):
        there = [
            (i, cell)
            for i, cell in enumerate(cells[k * images : (k + 1) * images])
            if cell is not None
        ]
        scores = np.array([score for _, cell in there for score in cell["dtScores"]], np.float64)
        order = np.argsort(-scores, kind="stable")  # as COCOeval's accumulate()
        image = np.array([i for i, cell in there for _ in cell["dtScores"]], np.int64)
        parts["image"].append(image[order])
        parts["score"].append(scores[order])
        parts["tied"].append(np.diff(scores[order], prepend=np.nan) == 0)
        starts[k + 1] = starts[k] + len(order)
        for i, cell in there:
            counts[k, i] = np.count_nonzero(np.asarray(cell["gtIgnore"]) == 0)
        if there:
            ignored = np.concatenate([cell["dtIgnore"] for _, cell in there], axis=1).astype(bool)
            matched = np.concatenate([cell["dtMatches"] for _, cell in there], axis=1) > 0
            parts["right"].append(bits_of(matched & ~ignored)[order])
            parts["ignored"].append(bits_of(ignored)[order])
    category, object_image = np.nonzero(counts)
    scores = np.concatenate(parts.pop("score"))
    return Matches(
        ground_truth=_fingerprint(truth, task, counts),
        num_images=images,
        starts=starts,
        score=np.clip(np.floor(scores * SCORES), 0, SCORES - 1).astype(np.uint8),
        object_starts=np.searchsorted(category, np.arange(categories + 1)),
        object_image=object_image,
        object_count=counts[category, object_image],
        **{name: np.concatenate(arrays) for name, arrays in parts.items()},
    )


def _fingerprint(truth: GroundTruth, task: str, counts: np.ndarray) -> str:
    ids = json.dumps([task, list(truth.image_rows), list(truth.category_rows)])
    return hashlib.sha256(ids.encode() + counts.astype("<i8").tobytes()).hexdigest()[:16]
