"""Every number of the analysis page, as plain values: the page shows them, JSON holds them.

AP, precision, recall, F1 and shares are in percent, scores and IoU from 0 to 1; None is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.coco_table import CocoTable
from ..errors import UsageError
from ..evaluation.analysis import (
    Comparison,
    Curve,
    ErrorReport,
    PrecisionCurves,
    Records,
    average_precision,
    bootstrap_ap,
    by_area,
    by_count,
    by_occlusion,
    compare,
    error_report,
    match_detections,
    precision_recall_curves,
)
from ..evaluation.coco_backends import Problem
from ..evaluation.coco_metrics import caps_for
from ..evaluation.coco_notes import notes_on_figures, notes_on_problem
from ..evaluation.coco_truth import GroundTruth
from .analysis_paired import FIGURE_THRESHOLDS, PAIRED_FIGURES, at_thresholds, paired_numbers
from .analysis_sections import (
    FOUND,
    NEAR,
    confusion_numbers,
    curve_numbers,
    error_numbers,
    interval,
    negative_numbers,
    operating_point,
    part_numbers,
    percent,
)

Json = dict[str, Any]
# Called with (draws done, of how many).
Progress = Callable[[int, int], None]

LEVEL = 0.95
_SIZES = {"APs": (0.0, 32.0**2), "APm": (32.0**2, 96.0**2), "APl": (96.0**2, 1e10)}
_COUNTS = (1, 2, 5, 10, 20)
_FALLBACK = 0.5  # least score of a detection that is looked at, where no best one is known
_CURVES = 12  # classes that get a curve of their own


@dataclass(frozen=True)
class Settings:
    """What is asked for.

    Attributes:
        task: segm or bbox
        max_dets: detections an image and class that count
        draws: of images, for the intervals and the paired test
        seed: of these
        classes: names that get a curve of their own; the most frequent ones without any
    """

    task: str = "segm"
    max_dets: int = 100
    draws: int = 300
    seed: int = 0
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Analysis:
    """One task of one run.

    Attributes:
        comparison, records, errors: what the numbers were made of
        score: least score of the detections that are shown and counted as the model's answers
        numbers: see `analyse`
    """

    comparison: Comparison
    records: Records
    errors: ErrorReport
    score: float
    numbers: Json


def analyse(
    truth: GroundTruth,
    results: Sequence[Json],
    settings: Settings,
    *,
    other: Sequence[Json] | None = None,
    names: tuple[str, str] = ("these predictions", "the others"),
    progress: Progress | None = None,
) -> Analysis:
    """
    Args:
        truth: of an annotation file
        results: checked by `read_results` with `truth` and the task
        other: another run's, to be compared with
        names: of the two runs, for sentences
        progress: told after each draw
    Raises:
        DataError: ground truth that cannot be used
        UsageError: a class to be drawn that the ground truth lacks
    """
    table = truth.source
    assert isinstance(table, CocoTable), "an annotation file's columns are needed"
    truth.annotations(settings.task)  # checks them
    comparison = compare(table, results, settings.task, settings.max_dets)
    drawn = _classes_to_draw(comparison, settings.classes)
    records = match_detections(comparison)
    curves = precision_recall_curves(records)
    best = curves.pooled.best()
    score = best.score if math.isfinite(best.score) else _FALLBACK
    steps = len(FIGURE_THRESHOLDS) + len(_SIZES) + (len(PAIRED_FIGURES) if other is not None else 0)
    tell = _Steps(steps * settings.draws, progress)
    figures = _figures(comparison, records, settings, tell)
    per_class = _per_class(comparison, records, curves.categories, score)
    errors = error_report(comparison, FOUND, NEAR)
    rival = None
    if other is not None:
        rival = match_detections(compare(table, other, settings.task, settings.max_dets))
    objects = comparison.objects
    numbers = {
        "task": settings.task,
        "images": comparison.num_images,
        "images_without_objects": int((np.diff(comparison.object_starts) == 0).sum()),
        "objects": int((~objects.crowd).sum()),
        "crowds": int(objects.crowd.sum()),
        "detections": len(results),
        "detections_counted": len(comparison.detections),
        "notes": _notes(truth, results, settings, figures, per_class),
        "figures": figures,
        "operating_point": {"iou": FOUND, **operating_point(best), "least_score": score},
        "per_class": per_class,
        "curves": curve_numbers(records, curves.pooled, curves.categories, drawn, comparison),
        "confusion": confusion_numbers(comparison, score),
        "errors": error_numbers(comparison, errors, settings.task),
        "breakdowns": {
            "objects_in_the_image": [part_numbers(one) for one in by_count(records, _COUNTS)],
            "occlusion": [part_numbers(one) for one in by_occlusion(comparison)],
            "area": [part_numbers(one) for one in by_area(comparison)],
        },
        "negatives": negative_numbers(comparison, score),
        "paired": None
        if rival is None
        else paired_numbers(
            rival, records, comparison, settings.draws, settings.seed, LEVEL, names, tell.next
        ),
    }
    return Analysis(comparison, records, errors, score, numbers)


class _Steps:
    """One progress for several rounds of draws."""

    def __init__(self, total: int, progress: Progress | None):
        self._total, self._progress, self._before = total, progress, 0

    def next(self, done: int, of: int) -> None:
        if self._progress is not None:
            self._progress(self._before + done, self._total)
        self._before += of if done == of else 0


def _figures(
    comparison: Comparison, records: Records, settings: Settings, tell: _Steps
) -> list[Json]:
    cases = {
        name: at_thresholds(records, thresholds) for name, thresholds in FIGURE_THRESHOLDS.items()
    }
    own, found = comparison.objects.area, comparison.detections.area
    for name, (low, high) in _SIZES.items():
        cases[name] = match_detections(
            comparison,
            left_out=(own < low) | (own > high),
            outside=(found < low) | (found > high),
        )
    return [
        {
            "name": name,
            **interval(bootstrap_ap(one, settings.draws, LEVEL, settings.seed, tell.next)),
            "objects": len(one.counted_image),
        }
        for name, one in cases.items()
    ]


def _per_class(
    comparison: Comparison, records: Records, curves: Sequence[Curve], score: float
) -> list[Json]:
    """The lowest AP first; classes without objects, which have none, last."""
    precision = PrecisionCurves(records).precision()
    shown = comparison.detections.category[comparison.detections.score >= score]
    detections = np.bincount(shown, minlength=comparison.num_categories).tolist()
    rows = []
    for k, name in enumerate(comparison.category_names):
        parts = (precision[..., k], *(precision[t, :, k] for t in (0, 5)))
        ap, ap50, ap75 = (percent(average_precision(part)) for part in parts)
        rows.append(
            {
                "name": name,
                "category_id": comparison.category_ids[k],
                "objects": curves[k].total,
                "detections": detections[k],
                "AP": ap,
                "AP50": ap50,
                "AP75": ap75,
                **operating_point(curves[k].best()),
            }
        )
    return sorted(rows, key=lambda row: (row["AP"] is None, row["AP"], -row["objects"]))


def _classes_to_draw(comparison: Comparison, asked: Sequence[str]) -> list[int]:
    names = comparison.category_names
    for name in asked:
        if name not in names:
            raise UsageError(
                f"--classes: there is no class {name!r}; the ground truth has {', '.join(names)}"
            )
    if asked:
        return [names.index(name) for name in dict.fromkeys(asked)]
    objects = comparison.objects.category[~comparison.objects.crowd]
    counts = np.bincount(objects, minlength=len(names))
    order = np.argsort(-counts, kind="stable")[:_CURVES]
    return [int(k) for k in order if counts[k]]


def _notes(
    truth: GroundTruth,
    results: Sequence[Json],
    settings: Settings,
    figures: Sequence[Json],
    per_class: Sequence[Json],
) -> list[str]:
    """What `mask-rcnn-ext eval` would say about these figures."""
    caps = caps_for(settings.max_dets)
    problem = Problem([], [], [], list(results), settings.task, caps)
    stats = {one["name"]: _nan(one["value"]) for one in figures}
    by_class = {one["name"]: _nan(one["AP"]) for one in per_class}
    objects = [one["objects"] for one in per_class]
    name = Path(truth.name).name
    truth = replace(truth, name=name)
    return notes_on_problem(problem, truth, objects) + notes_on_figures(stats, by_class, name)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value
