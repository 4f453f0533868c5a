"""The page of `analyze`: why the figures of a results file are what they are.

Percent and scores as in `analysis_numbers`, which makes the numbers that are shown here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from .analysis_charts import Dot, Line, confusion_map, curve_chart, strip, strip_axis
from .html import render_page

GENERATOR = "mask-rcnn-ext analyze"
MOST_MAPPED = 100  # classes that a confusion map can hold
_LISTED = 15  # rows of a list of confusions
_COMPARED = 10  # classes of a paired test
_ENDLESS = 1e10  # COCO's word for an area without an end

TASK_NAMES = {"segm": "Masks", "bbox": "Boxes"}
FIGURE_NAMES = {
    "AP": "mean of IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "area up to 32²",
    "APm": "area 32² to 96²",
    "APl": "area from 96²",
}
ERRORS = {
    "classification": ("class wrong", "lies on an object of another class"),
    "mask": ("box right, mask wrong", "the box fits an object of its class, the mask does not"),
    "localisation": ("misplaced", "overlaps an object of its class, but too little"),
    "both": ("class wrong and misplaced", "overlaps an object of another class, too little"),
    "duplicate": ("duplicate", "lies on an object that another detection has found"),
    "background": ("nothing there", "overlaps hardly anything"),
    "missed": (
        "missed",
        "objects that nothing found; nor is one meant by a wrong class, mask or place",
    ),
    "false_positives": ("all wrong detections", "each of them deleted"),
    "false_negatives": ("all objects not found", "none of them to be found any more"),
}
BREAKDOWNS = {
    "objects_in_the_image": (
        "Objects in the image",
        "Images with so many objects, as if they were a set of their own.",
    ),
    "occlusion": (
        "Occlusion",
        "The share of an object's box that other objects cover. What lies in front is not known.",
    ),
    "area": (
        "Area",
        "The object's area, as the square of a side in pixels. COCO's small ends at 32², medium "
        "at 96².",
    ),
}

Json = dict[str, Any]


def analysis_page(report: Json, pictures: Sequence[Sequence[Sequence[Json]]]) -> bytes:
    """
    Args:
        report: everything that `analyze` writes as JSON
        pictures: of each task the worst and the best images, each with `truth` and `found`, data:
            addresses, in the order of the task's `pictures`
    Returns:
        an HTML file that needs nothing else; `<script id="numbers">` holds `report`
    """
    text = json.dumps(report, allow_nan=False)
    return render_page(
        "analysis",
        title=f"{report['dataset']}: analysis of {report['predictions']}",
        generator=GENERATOR,
        report=report,
        numbers_json=Markup(text.replace("<", "\\u003c")),
        chapters=[
            {"numbers": numbers, "charts": _charts(numbers), "pictures": drawn}
            for numbers, drawn in zip(report["tasks"], pictures, strict=True)
        ],
        task_names=TASK_NAMES,
        figure_names=FIGURE_NAMES,
        errors=ERRORS,
        breakdowns=BREAKDOWNS,
        part_name=part_name,
        decimals=decimals,
        strip=strip,
        strip_axis=strip_axis,
        dot=Dot,
        listed=_LISTED,
        compared=_COMPARED,
    )


def decimals(value: float | None, places: int = 1, sign: bool = False) -> str:
    """As people read it; a dash for what is not defined."""
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''},.{places}f}".replace("-", "−")


def part_name(kind: str, part: Json) -> str:
    """What a bin of a breakdown holds."""
    low, high = part["lowest"], part["highest"]
    if kind == "objects_in_the_image":
        if high is None:
            return f"{low:g} and more"
        return f"{low:g}" if low == high else f"{low:g} to {high:g}"
    if kind == "occlusion":
        if high == 0:
            return "not covered"
        return f"up to {high:.0%}" if low == 0 else f"{low:.0%} to {high:.0%}"
    sides = math.sqrt(low), math.sqrt(high)
    if high >= _ENDLESS:
        return f"from {sides[0]:g}²"
    return f"up to {sides[1]:g}²" if low == 0 else f"{sides[0]:g}² to {sides[1]:g}²"


def _charts(numbers: Json) -> Json:
    """The drawings of one task, and the lists that the template shows parts of."""
    curves, paired = numbers["curves"], numbers["paired"]
    cells = numbers["confusion"]["cells"]
    wrong = sorted(
        (one for one in cells if one["true_id"] != one["predicted_id"]),
        key=lambda one: -one["count"],
    )
    drawing, left_out = _map(cells, numbers["per_class"])
    return {
        "mean": _mean_chart(curves["mean_precision_at_recall"]),
        "pooled": _curve_chart(curves["pooled"], "All classes with one least score"),
        "scores": _score_chart(curves["pooled"]),
        "classes": [_curve_chart(one, one["name"], small=True) for one in curves["classes"]],
        "map": drawing,
        "map_left_out": left_out,
        "confused": [
            one for one in wrong if one["true_id"] is not None and one["predicted_id"] is not None
        ],
        "missed": [one for one in wrong if one["predicted_id"] is None],
        "invented": [one for one in wrong if one["true_id"] is None],
        "difference_range": _difference_range(paired["figures"]) if paired else 0.0,
    }


def _mean_chart(mean: Json) -> Markup:
    recall = np.linspace(0, 100, 101).tolist()
    lines = [Line(f"IoU {name}", recall, y, k) for k, (name, y) in enumerate(mean.items())]
    return curve_chart(
        lines,
        x_title="recall, %",
        y_title="precision, %",
        label="Precision at recall, mean over the classes, at IoU 0.50, 0.75 and 0.50 to 0.95",
    )


def _columns(curve: Json, *names: str) -> list[list[float]]:
    places = [curve["columns"].index(name) for name in names]
    return [[point[place] for point in curve["points"]] for place in places]


def _curve_chart(curve: Json, name: str, small: bool = False) -> Markup:
    recall, precision = _columns(curve, "recall", "precision")
    best = curve["best"]
    mark = None
    if best["score"] is not None:
        words = f"{name}: best F1 {decimals(best['f1'])} with scores from {best['score']:.3f}"
        mark = (best["recall"], best["precision"], words)
    return curve_chart(
        [Line(name, recall, precision)],
        x_title="recall, %",
        y_title="precision, %",
        label=f"Precision over recall: {name}",
        mark=mark,
        small=small,
    )


def _score_chart(curve: Json) -> Markup:
    score, *rest = _columns(curve, "score", "precision", "recall", "f1")
    names = ("precision", "recall", "F1")
    best = curve["best"]
    mark = None
    if best["score"] is not None:
        mark = (best["score"], best["f1"], f"best F1 {decimals(best['f1'])}")
    return curve_chart(
        [Line(name, score, y, k) for k, (name, y) in enumerate(zip(names, rest, strict=True))],
        x_title="least score",
        y_title="%",
        label="Precision, recall and F1 by the least score",
        mark=mark,
        x_most=1.0,
    )


def _map(cells: Sequence[Json], per_class: Sequence[Json]) -> tuple[Markup | None, int]:
    """Of the classes that occur, those with most errors if they are too many; how many are not."""
    names = {one["category_id"]: one["name"] for one in per_class}
    errors: dict[Any, int] = {}
    for one in cells:
        for key in {one["true_id"], one["predicted_id"]} - {None}:
            wrong = one["true_id"] != one["predicted_id"]
            errors[key] = errors.get(key, 0) + wrong * one["count"]
    kept = sorted(errors, key=lambda key: -errors[key])[:MOST_MAPPED]
    order = [key for key in names if key in set(kept)]
    # By id, so that kinds that the file keeps together stay together.
    order.sort(key=lambda key: (isinstance(key, str), key))
    place: dict[Any, int] = {key: k for k, key in enumerate(order)} | {None: len(order)}
    counts = np.zeros((len(order) + 1, len(order) + 1), np.int64)
    for one in cells:
        if one["true_id"] in place and one["predicted_id"] in place:
            counts[place[one["true_id"]], place[one["predicted_id"]]] = one["count"]
    if not counts.any():
        return None, 0
    label = "Confusion matrix; the largest confusions are listed below"
    return confusion_map([names[key] for key in order], counts, label), len(errors) - len(order)


def _difference_range(figures: Sequence[Json]) -> float:
    """A round number that no difference or end of an interval goes beyond."""
    values = [abs(one[key]) for one in figures for key in ("difference", "low", "high")
              if one[key] is not None]  # fmt: skip
    most = max(values, default=0.0)
    step = 10 ** math.floor(math.log10(most)) if most > 1e-6 else 1.0
    return max(0.1, math.ceil(most / step) * step)
