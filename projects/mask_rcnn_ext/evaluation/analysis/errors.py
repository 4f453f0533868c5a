"""What kind of error each wrong detection and each missed object is, and what each kind costs.

At one IoU threshold, `found` (0.5), detections are matched as for AP; `near` (0.1) is the IoU below
which nothing was meant. IoU is of masks, crowd regions are no objects here. A wrong detection is of
the first kind that fits:

    duplicate       IoU >= found with an object of its category, which another detection has
    classification  IoU >= found with an object of another category
    mask            box right, mask wrong: the boxes' IoU >= found with an object of its category
    localisation    IoU >= near with an object of its category
    both            IoU >= near with an object of another category
    background      what is left

Its *target* is the object in question that it overlaps most (the first of equal ones, in the
comparison's order); for `mask` the one whose box it overlaps most. An object is

    missed          if no detection found it and it is no target of a classification, mask or
                    localisation error

Mended, one kind at a time, the detections are these:

    classification, mask, localisation: the detection gets its target's category and finds it; if
        the target is found already, or is the target of an error of this kind with a higher score
        (of equal ones the first, in the comparison's order), it is deleted
    duplicate, both, background: deleted
    missed: the objects need not be found
    false_positives: all wrong detections are deleted
    false_negatives: all objects that nothing found need not be found

and the AP is COCO's at the one threshold. A category whose objects all need not be found any more
has an AP of 1. The kinds' gains do not add up to what is missing: mended errors uncover others.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .average_precision import average_precision, precision_at_levels
from .comparison import Comparison
from .matching import NOTHING, Records, match_detections

KINDS = ("duplicate", "classification", "mask", "localisation", "both", "background")
_DUPLICATE, _CLASSIFICATION, _MASK, _LOCALISATION, _BOTH, _BACKGROUND = range(len(KINDS))
_MENDABLE = (_CLASSIFICATION, _MASK, _LOCALISATION)
NO_ERROR = -1


@dataclass(frozen=True)
class ErrorReport:
    """Letters: D detections and G objects of the comparison, K categories.

    Attributes:
        ap: at the threshold, 0 to 1; NaN without objects
        kind: (D,) int64, index into KINDS; NO_ERROR for right and ignored detections
        target: (D,) int64, object, or -1 if the kind has none
        missed: (G,) bool
        counts: name of the kind, or "missed" -> (K,) int64; errors by the detection's category,
            missed ones by the object's
        mended_ap: name of the kind, "missed", "false_positives", "false_negatives" -> AP without
            these errors
    """

    ap: float
    kind: np.ndarray
    target: np.ndarray
    missed: np.ndarray
    counts: dict[str, np.ndarray]
    mended_ap: dict[str, float]


def error_report(comparison: Comparison, found: float = 0.5, near: float = 0.1) -> ErrorReport:
    """
    Args:
        comparison: of a set; made for bbox there are no mask errors
        found: IoU that AP asks for
        near: IoU below which a detection has nothing to do with an object
    """
    records = match_detections(comparison, np.array([found]))
    kind, target = _classify(comparison, records, found, near)
    objects = comparison.objects
    hit = np.zeros(len(objects), dtype=bool)
    hit[records.match[0, records.right[0]]] = True
    tried = np.zeros(len(objects), dtype=bool)
    tried[target[np.isin(kind, _MENDABLE)]] = True
    missed = ~objects.crowd & ~hit & ~tried

    size = comparison.num_categories
    counts = {
        name: np.bincount(records.category[kind == index], minlength=size)
        for index, name in enumerate(KINDS)
    }
    counts["missed"] = np.bincount(objects.category[missed], minlength=size)
    oracle = _Oracle(comparison, records, hit)
    wrong = records.wrong[0]
    mended = {}
    for index, name in enumerate(KINDS):
        if index in _MENDABLE:
            mended[name] = oracle.with_targets_found(kind == index, target)
        else:
            mended[name] = oracle.without(kind == index)
    mended["missed"] = oracle.without_objects(missed)
    mended["false_positives"] = oracle.without(wrong)
    mended["false_negatives"] = oracle.without_objects(~objects.crowd & ~hit)
    return ErrorReport(oracle.ap(), kind, target, missed, counts, mended)


def _classify(
    comparison: Comparison, records: Records, found: float, near: float
) -> tuple[np.ndarray, np.ndarray]:
    kind = np.full(len(records.score), NO_ERROR, np.int64)
    target = np.full(len(records.score), NOTHING, np.int64)
    wrong = records.wrong[0]
    for image, iou in enumerate(comparison.iou):
        place, things = comparison.detections_of(image), comparison.objects_of(image)
        rows = np.flatnonzero(wrong[place])
        if not len(rows):
            continue
        columns = np.flatnonzero(~comparison.objects.crowd[things])
        same = (
            records.category[place][rows, None]
            == comparison.objects.category[things][None, columns]
        )
        masks = iou[np.ix_(rows, columns)]
        boxes = comparison.box_iou(image)[np.ix_(rows, columns)]
        own, own_at = _best(np.where(same, masks, -1.0))
        other, other_at = _best(np.where(same, -1.0, masks))
        box, box_at = _best(np.where(same, boxes, -1.0))
        cases = [own >= found, other >= found, box >= found, own >= near, other >= near]
        which = np.select(cases, list(range(_BACKGROUND)), _BACKGROUND)
        nothing = np.full(len(rows), NOTHING)
        at = np.choose(which, [own_at, other_at, box_at, own_at, other_at, nothing])
        kind[place.start + rows] = which
        chosen = columns[at] if len(columns) else nothing
        target[place.start + rows] = np.where(at == NOTHING, NOTHING, things.start + chosen)
    return kind, target


def _best(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest of each row and where it is; -1 and NOTHING without columns."""
    if not values.shape[1]:
        return np.full(len(values), -1.0), np.full(len(values), NOTHING)
    at = np.argmax(values, axis=1)
    return values[np.arange(len(values)), at], at


class _Oracle:
    """AP of changed detections."""

    def __init__(self, comparison: Comparison, records: Records, hit: np.ndarray):
        self._object_category = comparison.objects.category
        self._category, self._score = records.category, records.score
        self._right, self._kept = records.right[0], ~records.ignored[0]
        self._hit = hit  # (G,) objects that a right detection has
        self._totals = records.totals()

    def ap(self) -> float:
        return self._ap(self._category, self._right, self._kept, self._totals)

    def without(self, deleted: np.ndarray) -> float:
        return self._ap(self._category, self._right, self._kept & ~deleted, self._totals)

    def without_objects(self, dropped: np.ndarray) -> float:
        gone = np.bincount(self._object_category[dropped], minlength=len(self._totals))
        return self._ap(self._category, self._right, self._kept, self._totals - gone)

    def with_targets_found(self, errors: np.ndarray, target: np.ndarray) -> float:
        rows = np.flatnonzero(errors)
        rows = rows[np.argsort(-self._score[rows], kind="stable")]
        best = np.zeros(len(errors), dtype=bool)
        best[rows[np.unique(target[rows], return_index=True)[1]]] = True
        mended = best & errors
        mended[mended] = ~self._hit[target[mended]]
        category = self._category.copy()
        category[mended] = self._object_category[target[mended]]
        kept = self._kept & (~errors | mended)
        return self._ap(category, self._right | mended, kept, self._totals)

    def _ap(
        self, category: np.ndarray, right: np.ndarray, kept: np.ndarray, totals: np.ndarray
    ) -> float:
        order = np.lexsort([-self._score, category])
        order = order[kept[order]]
        counted = np.ones((1, len(order)), dtype=bool)
        precision = precision_at_levels(right[None, order], counted, category[order], totals)
        precision[:, :, (totals == 0) & (self._totals > 0)] = 1.0
        return average_precision(precision)
