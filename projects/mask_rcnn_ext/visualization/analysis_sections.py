"""Parts of the analysis page's numbers: curves, confusion, errors, breakdowns, empty images.

Percent and scores as in `analysis_numbers`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

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
    confusion_matrix,
    negative_images,
)

FOUND = 0.5  # IoU of everything that is not an AP over several
NEAR = 0.1
_SCORES = (0.05, 0.25, 0.5, 0.75, 0.9)
_POINTS = 160  # of a curve; more could not be seen

Json = dict[str, Any]


def percent(value: float) -> float | None:
    """Of a share; None for NaN."""
    return None if math.isnan(value) else 100 * float(value)


def number(value: float) -> float | None:
    """None for NaN and what is without an end."""
    return float(value) if math.isfinite(value) else None


def operating_point(point: OperatingPoint) -> Json:
    """With shares in percent."""
    shares = {"precision": point.precision, "recall": point.recall, "f1": point.f1}
    return {"score": number(point.score), **{key: percent(v) for key, v in shares.items()}}


def interval(found: Interval) -> Json:
    """In percent; the draws with a value are fewer where a set had no objects."""
    shares = asdict(found)
    draws, level = shares.pop("draws"), shares.pop("level")
    return {**{k: percent(v) for k, v in shares.items()}, "level": level, "draws": draws}


def curve_numbers(
    records: Records,
    pooled: Curve,
    categories: Sequence[Curve],
    drawn: Sequence[int],
    comparison: Comparison,
) -> Json:
    """
    Args:
        records: at COCO's thresholds
        pooled, categories: at the first of them
        drawn: categories that get a curve of their own
        comparison: for names
    """
    precision = PrecisionCurves(records).precision()  # (T, R, K)
    known = precision[..., precision[0, 0] >= 0]
    lines = {"0.50": known[0], "0.75": known[5], "0.50 to 0.95": known.mean(axis=0)}
    mean = {name: (100 * line.mean(axis=1)).tolist() for name, line in lines.items() if line.size}
    return {
        "iou": FOUND,
        "thresholds": IOU_THRESHOLDS.tolist(),
        "mean_precision_at_recall": mean,
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


def confusion_numbers(comparison: Comparison, score: float) -> Json:
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


def error_numbers(comparison: Comparison, report: ErrorReport, task: str) -> Json:
    """Kinds with their counts and what mending them gains; classes, those with most errors first.

    Boxes know no mask errors.
    """
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
    return {"found": FOUND, "near": NEAR, "AP": base, "kinds": kinds, "per_class": per_class}


def part_numbers(part: Part) -> Json:
    """A bin of a breakdown."""
    return {
        "lowest": number(part.lowest),
        "highest": number(part.highest),
        "images": part.images,
        "objects": part.objects,
        "AP": percent(part.ap),
        "AP50": percent(part.ap50),
        "AP75": percent(part.ap75),
    }


def negative_numbers(comparison: Comparison, score: float) -> Json:
    """Images without objects, at round scores and this one, and the classes found there."""
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
                "per_image": number(each),
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
