"""Exact COCO figures of boxes, masks, keypoints and boundaries.

Letters: T = 10 thresholds of IoU (0.50, 0.55, ..., 0.95), R = 101 of recall (0, 0.01, ..., 1),
K classes, A area ranges, M caps on detections.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.coco_table import CocoTable
from ..errors import DataError, UsageError
from .coco_backends import Problem, choose_backend, keypoint_count, solve
from .coco_notes import OFFICIAL_CAPS, notes_on_figures, notes_on_problem
from .coco_truth import TASKS, GroundTruth
from .results import check_results, for_backend, read_results

KEYPOINT_CAPS = (20,)
PERSON_KEYPOINTS = 17
AREAS = ("all", "small", "medium", "large")
KEYPOINT_AREAS = ("all", "medium", "large")

_PERCENT = 100.0
_HALF, _THREE_QUARTERS = 0, 5  # places of the thresholds 0.50 and 0.75
_LETTERS = {"small": "s", "medium": "m", "large": "l"}

Json = dict[str, Any]


@dataclass(frozen=True)
class ClassFigures:
    """Of one class, in percent, NaN without ground truth.

    objects: that count, without crowds
    """

    name: str
    category_id: Any
    ap: float
    ap50: float
    ap75: float
    objects: int


@dataclass(frozen=True)
class CocoFigures:
    """What one evaluation found.

    Attributes:
        task: bbox, segm, keypoints or boundary
        backend: the library that did it
        max_dets: (M,) detections an image and class
        stats: COCO's summary by name, in percent, NaN where it has -1: AP, AP50, AP75, APs, APm,
            APl, AR1, AR10, AR100 (by `max_dets`), ARs, ARm, ARl; for keypoints AP, AP50, AP75,
            APm, APl, AR, AR50, AR75, ARm, ARl
        per_class: in ascending order of category ids
        precision, scores: (T, R, K, A, M) float64, in 0..1, -1 without ground truth
        recall: (T, K, A, M), in the same way
        areas: (A,) names of the area ranges
        images, objects, detections: how many there were
        notes: what one must know to read the figures, a sentence each
    """

    task: str
    backend: str
    max_dets: tuple[int, ...]
    stats: dict[str, float]
    per_class: tuple[ClassFigures, ...]
    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    areas: tuple[str, ...]
    images: int
    objects: int
    detections: int
    notes: tuple[str, ...]

    def as_json(self) -> Json:
        """Everything but the arrays; NaN is None."""
        return {
            "task": self.task,
            "backend": self.backend,
            "max_dets": list(self.max_dets),
            "figures": {name: _or_none(value) for name, value in self.stats.items()},
            "per_class": [
                {
                    "name": one.name,
                    "category_id": one.category_id,
                    "AP": _or_none(one.ap),
                    "AP50": _or_none(one.ap50),
                    "AP75": _or_none(one.ap75),
                    "objects": one.objects,
                }
                for one in self.per_class
            ],
            "images": self.images,
            "objects": self.objects,
            "detections": self.detections,
            "notes": list(self.notes),
        }


def caps_for(limit: int) -> tuple[int, int, int]:
    """COCO's three caps for a model that keeps `limit` detections an image.

    Detectron2 has 1, 10, limit; COCO's code sorts them, and would take 10 for a limit below it.
    """
    return (1, min(10, limit), limit)


def evaluate_coco(
    ground_truth: GroundTruth | CocoTable | Json | str | Path,
    detections: Sequence[Json] | str | Path,
    task: str,
    *,
    max_dets: Sequence[int] | None = None,
    sigmas: Sequence[float] | None = None,
    backend: str = "auto",
    checked: bool = False,
) -> CocoFigures:
    """
    Args:
        ground_truth: see `GroundTruth.of`
        detections: COCO results or their file; those of images or classes that `ground_truth`
            leaves out do not count
        task: bbox, segm, keypoints or boundary
        max_dets: detections an image and class, ascending; 1, 10, 100 for None. Keypoints always
            have COCO's 20
        sigmas: of the keypoints, one each, in units of the object's size; the person's for None
        backend: auto (the fastest), hotcoco, or pycocotools
        checked: whether `detections` went through `check_results` already
    Raises:
        UsageError: unknown task or backend, caps or sigmas that do not fit
        DataError: ground truth or detections that cannot be used
    """
    if task not in TASKS:
        raise UsageError(f"task {task!r}: expected some of {', '.join(TASKS)}")
    name = choose_backend(backend, task)
    caps = _caps(task, max_dets)
    with _no_collections():
        truth = GroundTruth.of(ground_truth)
        if isinstance(detections, str | Path):
            found: Sequence[Json] = read_results(detections, truth, [task])
        else:
            found = detections
            if not checked:
                # A ground truth that was chosen from may leave some of them out on purpose.
                chosen = isinstance(ground_truth, GroundTruth)
                check_results(found, None if chosen else truth, [task], "detections")
        problem = _problem(truth, found, task, caps, sigmas)
        objects = _count_objects(problem)
        notes = notes_on_problem(problem, truth, objects)
        arrays = solve(problem, name)
    areas = KEYPOINT_AREAS if task == "keypoints" else AREAS
    stats = _summary(arrays.precision, arrays.recall, areas, caps, task)
    per_class = tuple(
        ClassFigures(
            truth.category_names[row],
            category,
            *_class_figures(arrays.precision[:, :, row, 0, -1]),
            objects[row],
        )
        for category, row in truth.category_rows.items()
    )
    notes += notes_on_figures(stats, {one.name: one.ap for one in per_class}, truth.name)
    return CocoFigures(
        task=task,
        backend=name,
        max_dets=caps,
        stats=stats,
        per_class=per_class,
        precision=arrays.precision,
        recall=arrays.recall,
        scores=arrays.scores,
        areas=areas,
        images=len(problem.images),
        objects=sum(objects),
        detections=len(problem.detections),
        notes=tuple(notes),
    )


def _problem(
    truth: GroundTruth,
    found: Sequence[Json],
    task: str,
    caps: tuple[int, ...],
    sigmas: Sequence[float] | None,
) -> Problem:
    problem = Problem(
        images=[
            {"id": row + 1, "height": height, "width": width, "file_name": ""}
            for row, (height, width) in enumerate(truth.sizes)
        ],
        categories=[{"id": row + 1, "name": one} for row, one in enumerate(truth.category_names)],
        annotations=truth.annotations(task),
        detections=for_backend(found, truth, task),
        task=task,
        max_dets=caps,
        sigmas=None if sigmas is None else tuple(float(value) for value in sigmas),
    )
    if task == "keypoints":
        _check_keypoints(problem, truth.name)
    return problem


@contextlib.contextmanager
def _no_collections() -> Iterator[None]:
    """Python's garbage collector off: it would go through millions of small objects, for nothing.

    About a quarter of the time of 36,000 masks.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _caps(task: str, wish: Sequence[int] | None) -> tuple[int, ...]:
    if task == "keypoints":
        return KEYPOINT_CAPS
    caps = tuple(int(cap) for cap in (OFFICIAL_CAPS if wish is None else wish))
    if len(caps) != 3 or caps[0] < 1 or list(caps) != sorted(caps):
        raise UsageError(f"max_dets {caps}: expected three ascending numbers, as {OFFICIAL_CAPS}")
    return caps


def _check_keypoints(problem: Problem, name: str) -> None:
    """Keypoints and sigmas of one number; COCO's code would broadcast, or fail."""
    truth, found = keypoint_count(problem.annotations), keypoint_count(problem.detections)
    counts = truth | found
    expected = PERSON_KEYPOINTS if problem.sigmas is None else len(problem.sigmas)
    if problem.sigmas is not None and not all(0 < value < math.inf for value in problem.sigmas):
        raise UsageError(f"sigmas {problem.sigmas}: expected numbers above 0")
    if len(truth) > 1:
        raise DataError(f"{name} has objects with {_counts(truth)} keypoints, expected one number")
    if counts - {expected}:
        advice = (
            "give a sigma for each keypoint (TEST.KEYPOINT_OKS_SIGMAS, or --sigmas): only the "
            f"person's {PERSON_KEYPOINTS} of COCO have official ones"
        )
        if truth and found and truth != found:
            advice = "the predictions are of another kind of object than the ground truth"
        raise DataError(
            f"{name} has {_counts(truth)} keypoints an object, the detections {_counts(found)}, "
            f"and there are {expected} sigmas: {advice}"
        )


def _counts(counts: set[int]) -> str:
    return " and ".join(map(str, sorted(counts))) or "no"


def _count_objects(problem: Problem) -> list[int]:
    """Of each class, those that can be found: no crowds, and with keypoints if these count."""
    objects = [0] * len(problem.categories)
    for one in problem.annotations:
        if not one["iscrowd"] and not (problem.task == "keypoints" and not one["num_keypoints"]):
            objects[one["category_id"] - 1] += 1
    return objects


def _summary(
    precision: np.ndarray,
    recall: np.ndarray,
    areas: tuple[str, ...],
    caps: tuple[int, ...],
    task: str,
) -> dict[str, float]:
    """COCO's summary, as its code takes the means."""
    stats = {
        "AP": _mean(precision[..., 0, -1]),
        "AP50": _mean(precision[_HALF, ..., 0, -1]),
        "AP75": _mean(precision[_THREE_QUARTERS, ..., 0, -1]),
    }
    for place, area in enumerate(areas[1:], start=1):
        stats[f"AP{_LETTERS[area]}"] = _mean(precision[..., place, -1])
    if task == "keypoints":
        stats["AR"] = _mean(recall[..., 0, -1])
        stats["AR50"] = _mean(recall[_HALF, ..., 0, -1])
        stats["AR75"] = _mean(recall[_THREE_QUARTERS, ..., 0, -1])
    else:
        for place, cap in enumerate(caps):
            stats[f"AR{cap}"] = _mean(recall[..., 0, place])
    for place, area in enumerate(areas[1:], start=1):
        stats[f"AR{_LETTERS[area]}"] = _mean(recall[..., place, -1])
    return stats


def _class_figures(precision: np.ndarray) -> tuple[float, float, float]:
    """AP, AP50, AP75 of one class; precision is (T, R)."""
    return _mean(precision), _mean(precision[_HALF]), _mean(precision[_THREE_QUARTERS])


def _mean(values: np.ndarray) -> float:
    there = values[values > -1]
    return float(np.mean(there) * _PERCENT) if there.size else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
