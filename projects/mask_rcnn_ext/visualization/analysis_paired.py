"""Two runs on the same images, as the analysis page shows them: differences and what they say."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from ..evaluation.analysis import (
    IOU_THRESHOLDS,
    Comparison,
    PairedTest,
    PrecisionCurves,
    Records,
    average_precision,
    paired_test,
)
from .analysis_sections import percent

FIGURE_THRESHOLDS = {"AP": IOU_THRESHOLDS, "AP50": IOU_THRESHOLDS[:1], "AP75": IOU_THRESHOLDS[5:6]}
PAIRED_FIGURES = ("AP", "AP50", "AP75")

Json = dict[str, Any]


def paired_numbers(
    other: Records,
    own: Records,
    comparison: Comparison,
    draws: int,
    seed: int,
    level: float,
    names: tuple[str, str],
    progress: Callable[[int, int], None],
) -> Json:
    """
    Args:
        other, own: of the same set, at COCO's thresholds
        comparison: of `own`, for the classes' names
        draws, seed, level: of the test
        names: of own and other
        progress: told after each draw
    Returns:
        AP, AP50 and AP75 of both runs with their differences (own minus other), and the classes,
        that with the largest difference first; percent
    """
    figures = []
    for name in PAIRED_FIGURES:
        first, second = (at_thresholds(one, FIGURE_THRESHOLDS[name]) for one in (other, own))
        test = paired_test(first, second, draws=draws, level=level, seed=seed, progress=progress)
        before, after = (_ap(PrecisionCurves(one).precision()) for one in (first, second))
        difference = test.difference
        figures.append(
            {
                "name": name,
                "own": after,
                "other": before,
                "difference": percent(difference.value),
                "low": percent(difference.low),
                "high": percent(difference.high),
                "level": level,
                "draws": difference.draws,
                "p_value": None if math.isnan(test.p_value) else test.p_value,
                "says": verdict(test, name, names, draws),
            }
        )
    return {
        "own": names[0],
        "other": names[1],
        "figures": figures,
        "classes": _classes(other, own, comparison),
    }


def verdict(test: PairedTest, figure: str, names: tuple[str, str], draws: int) -> str:
    """What a paired test says, as a sentence for people.

    Args:
        test: first run against second
        figure: AP, AP50 or AP75
        names: of the second run and the first
        draws: how many swaps there were
    """
    difference, level = test.difference, test.difference.level
    if math.isnan(difference.value) or not difference.draws:
        return f"There is nothing to compare: no {figure}, for want of ground truth."
    size = abs(100 * difference.value)
    low, high = 100 * difference.low, 100 * difference.high
    if size == 0 and low == high == 0:
        return f"The two have the same {figure} on every set of images that was drawn."
    clear = low > 0 or high < 0
    rare = test.p_value < 1 - level
    word = "better" if difference.value > 0 else "worse"
    ends = f"{low:+.1f} to {high:+.1f}".replace("-", "−")
    seen = (
        f"{names[0]} has {size:.1f} {figure} {'more' if difference.value > 0 else 'less'} than "
        f"{names[1]}, with {level:.0%} of the draws of images from {ends}"
    )
    chance = f"p = {test.p_value:.3g} from {draws} random swaps of the two runs' images"
    if clear and rare:
        return f"{seen}; {chance}. It is {word} by more than the choice of these images explains."
    if clear or rare:
        return f"{seen}; {chance}. That is on the border: more images would decide."
    return f"{seen}; {chance}. These images do not tell the two apart."


def at_thresholds(records: Records, thresholds: np.ndarray) -> Records:
    """The records of some of their own thresholds."""
    rows = np.flatnonzero(np.isin(records.thresholds, thresholds))
    return replace(
        records,
        thresholds=records.thresholds[rows],
        match=records.match[rows],
        ignored=records.ignored[rows],
    )


def _classes(other: Records, own: Records, comparison: Comparison) -> list[Json]:
    before, after = (PrecisionCurves(one).precision() for one in (other, own))
    totals = own.totals()
    rows = []
    for k, name in enumerate(comparison.category_names):
        pair = _ap(after[..., k]), _ap(before[..., k])
        if pair[0] is None or pair[1] is None:
            continue
        rows.append(
            {
                "name": name,
                "category_id": comparison.category_ids[k],
                "objects": int(totals[k]),
                "own": pair[0],
                "other": pair[1],
                "difference": pair[0] - pair[1],
            }
        )
    return sorted(rows, key=lambda row: (-abs(row["difference"]), -row["objects"]))


def _ap(precision: np.ndarray) -> float | None:
    return percent(average_precision(precision))
