"""Every number of the analysis page, as plain values: the page shows them, JSON holds them.

AP, precision, recall, F1 and shares are in percent, scores and IoU from 0 to 1; None is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.coco_table import CocoTable
from ..errors import UsageError
from ..evaluation.analysis import (
    IOU_THRESHOLDS,
    Comparison,
    Curve,
    ErrorReport,
    Interval,
    OperatingPoint,
    Part,
    PrecisionCurves,
    Records,
    average_precision,
    bootstrap_ap,
    by_area,
    by_count,
    by_occlusion,
    compare,
    confusion_matrix,
    error_report,
    match_detections,
    negative_images,
    precision_recall_curves,
)
from ..evaluation.coco_backends import Problem
from ..evaluation.coco_metrics import caps_for
from ..evaluation.coco_notes import notes_on_figures, notes_on_problem
from ..evaluation.coco_truth import GroundTruth
from .analysis_paired import FIGURE_THRESHOLDS, PAIRED_FIGURES, at_thresholds, paired_numbers

Json = dict[str, Any]
# Called with (draws done, of how many).
Progress = Callable[[int, int], None]

LEVEL = 0.95
FOUND = 0.5  # IoU of everything that is not an AP over several
_NEAR = 0.1
_SIZES = {"APs": (0.0, 32.0**2), "APm": (32.0**2, 96.0**2), "APl": (96.0**2, 1e10)}
_COUNTS = (1, 2, 5, 10, 20)
_SCORES = (0.05, 0.25, 0.5, 0.75, 0.9)
_FALLBACK = 0.5  # least score of a detection that is looked at, where no best one is known
_CURVES = 12  # classes that get a curve of their own
_POINTS = 160  # of a curve; more could not be seen


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
    errors = error_report(comparison, FOUND, _NEAR)
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
        "curves": _curves(records, curves.pooled, curves.categories, drawn, comparison),
        "confusion": _confusion(comparison, score),
        "errors": _errors(comparison, errors, settings.task),
        "breakdowns": {
            "objects_in_the_image": [_part(one) for one in by_count(records, _COUNTS)],
            "occlusion": [_part(one) for one in by_occlusion(comparison)],
            "area": [_part(one) for one in by_area(comparison)],
        },
        "negatives": _negatives(comparison, score),
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


def percent(value: float) -> float | None:
    return None if math.isnan(value) else 100 * float(value)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def operating_point(point: OperatingPoint) -> Json:
    shares = {"precision": point.precision, "recall": point.recall, "f1": point.f1}
    return {"score": _number(point.score), **{key: percent(v) for key, v in shares.items()}}


def interval(found: Interval) -> Json:
    """In percent; the draws with a value are fewer where a set had no objects."""
    shares = asdict(found)
    draws, level = shares.pop("draws"), shares.pop("level")
    return {**{k: percent(v) for k, v in shares.items()}, "level": level, "draws": draws}


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


def _curves(
    records: Records,
    pooled: Curve,
    categories: Sequence[Curve],
    drawn: Sequence[int],
    comparison: Comparison,
) -> Json:
    precision = PrecisionCurves(records).precision()  # (T, R, K)
    known = precision[..., precision[0, 0] >= 0]
    lines = {"0.50": known[0], "0.75": known[5], "0.50 to 0.95": known.mean(axis=0)}
    mean = {name: (100 * line.mean(axis=1)).tolist() for name, line in lines.items()}
    return {
        "iou": FOUND,
        "thresholds": IOU_THRESHOLDS.tolist(),
        "mean_precision_at_recall": mean if known.size else {},
        "pooled": _curve(pooled),
        "classes": [
            {
                "name": comparison.category_names[k],
                "category_id": comparison.category_ids[k],
                **_curve(categories[k]),
            }
            for k in drawn
        ],
    }


def _curve(curve: Curve) -> Json:
    """Objects, the best point, and as many points as can be seen, falling scores."""
    recall = curve.recall
    points: list[list[float]] = []
    if curve.total and len(recall):
        even = np.linspace(0, len(recall) - 1, _POINTS // 2).round().astype(np.int64)
        levels = np.linspace(0, float(recall[-1]), _POINTS // 2)
        by_recall = np.minimum(np.searchsorted(recall, levels), len(recall) - 1)
        chosen = np.unique(np.concatenate([even, by_recall, [int(np.argmax(curve.f1))]]))
        columns = (curve.score, 100 * recall, 100 * curve.precision, 100 * curve.f1)
        points = np.stack([column[chosen] for column in columns], axis=1).tolist()
    return {
        "objects": curve.total,
        "best": operating_point(curve.best()),
        "columns": ["score", "recall", "precision", "f1"],
        "points": points,
    }


def _confusion(comparison: Comparison, score: float) -> Json:
    """Counts that are not 0; None stands for the background."""
    counts = confusion_matrix(comparison, score, FOUND)
    ids = [*comparison.category_ids, None]
    names = [*comparison.category_names, None]
    totals = counts.sum(axis=1)
    cells = [
        {
            "true": names[t],
            "true_id": ids[t],
            "predicted": names[p],
            "predicted_id": ids[p],
            "count": int(counts[t, p]),
            "share": 100 * int(counts[t, p]) / int(totals[t]),
        }
        for t, p in zip(*map(np.ndarray.tolist, np.nonzero(counts)), strict=True)
    ]
    return {"least_score": score, "least_iou": FOUND, "cells": cells}


def _errors(comparison: Comparison, report: ErrorReport, task: str) -> Json:
    base = percent(report.ap)
    kinds = []
    for name, mended in report.mended_ap.items():
        if name == "mask" and task == "bbox":
            continue
        ap = percent(mended)
        kinds.append(
            {
                "kind": name,
                "count": int(report.counts[name].sum()) if name in report.counts else None,
                "mended_ap": ap,
                "gain": None if ap is None or base is None else ap - base,
            }
        )
    names = [str(one["kind"]) for one in kinds if one["count"] is not None]
    per_class = [
        {"name": name, "category_id": key, **{n: int(report.counts[n][k]) for n in names}}
        for k, (name, key) in enumerate(
            zip(comparison.category_names, comparison.category_ids, strict=True)
        )
    ]
    per_class = [one for one in per_class if any(one[n] for n in names)]
    per_class.sort(key=lambda one: -sum(one[n] for n in names))
    return {"found": FOUND, "near": _NEAR, "AP": base, "kinds": kinds, "per_class": per_class}


def _part(part: Part) -> Json:
    return {
        "lowest": _number(part.lowest),
        "highest": _number(part.highest),
        "images": part.images,
        "objects": part.objects,
        "AP": percent(part.ap),
        "AP50": percent(part.ap50),
        "AP75": percent(part.ap75),
    }


def _negatives(comparison: Comparison, score: float) -> Json:
    found = negative_images(comparison, sorted({*_SCORES, score}))
    own = int(np.flatnonzero(found.scores == score)[0])
    by_class = found.detections[own]
    order = [int(k) for k in np.argsort(-by_class, kind="stable")[:10] if by_class[k]]
    return {
        "images": found.images,
        "rows": [
            {
                "score": float(level),
                "images_with_detections": int(images),
                "detections": int(detections.sum()),
                "per_image": _number(each),
            }
            for level, images, detections, each in zip(
                found.scores, found.with_detections, found.detections, found.per_image, strict=True
            )
        ],
        "score": score,
        "classes": [
            {"name": comparison.category_names[k], "detections": int(by_class[k])} for k in order
        ],
    }


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
