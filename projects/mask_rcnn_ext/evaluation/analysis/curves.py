"""Precision, recall and F1 over the score, and the score at which F1 is best.

Letters: D detections, N different scores, K categories.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .matching import Records


@dataclass(frozen=True)
class OperatingPoint:
    """What a model does with all detections from `score` on; 0 to 1, NaN where undefined."""

    score: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Curve:
    """One point for each score that occurs.

    Attributes:
        score: (N,) float64, falling; a point counts the detections with at least this score
        right, wrong: (N,) int64, how many detections are
        total: objects to be found
    """

    score: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    total: int

    @property
    def precision(self) -> np.ndarray:
        """(N,) right of all that are right or wrong; 1 where there is neither."""
        counted = self.right + self.wrong
        return np.where(counted > 0, self.right / np.maximum(counted, 1), 1.0)

    @property
    def recall(self) -> np.ndarray:
        """(N,) right of the objects; NaN without objects."""
        return self.right / self.total if self.total else np.full(len(self.score), np.nan)

    @property
    def f1(self) -> np.ndarray:
        """(N,) 2 right / (2 right + wrong + missed); NaN without objects."""
        if not self.total:
            return np.full(len(self.score), np.nan)
        return 2 * self.right / (self.right + self.wrong + self.total)

    def best(self) -> OperatingPoint:
        """The point with the highest F1; of equal ones that with the highest score.

        Without objects, or where nothing right was found, there is no such score: NaN, with a
        recall and F1 of 0 if there are objects.
        """
        nan = float("nan")
        if not self.total:
            return OperatingPoint(nan, nan, nan, nan)
        if not self.right.any():
            return OperatingPoint(nan, nan, 0.0, 0.0)
        return self._point(int(np.argmax(self.f1)))

    def at(self, score: float) -> OperatingPoint:
        """With all detections from this score on; precision is NaN if there are none."""
        nan = float("nan")
        place = int(np.searchsorted(-self.score, -score, side="right")) - 1
        if place < 0:
            nothing = 0.0 if self.total else nan
            return OperatingPoint(score, nan, nothing, nothing)
        point = self._point(place)
        return OperatingPoint(score, point.precision, point.recall, point.f1)

    def _point(self, place: int) -> OperatingPoint:
        columns = (self.score, self.precision, self.recall, self.f1)
        return OperatingPoint(*(float(column[place]) for column in columns))


@dataclass(frozen=True)
class Curves:
    """categories: K curves; pooled: all categories' detections with one score for all."""

    categories: list[Curve]
    pooled: Curve


def precision_recall_curves(records: Records, threshold: int = 0) -> Curves:
    """
    Args:
        records: of a set
        threshold: index into `records.thresholds`
    """
    right, wrong = records.right[threshold], records.wrong[threshold]
    counted = right | wrong
    totals = records.totals()
    categories = []
    for k in range(records.num_categories):
        own = counted & (records.category == k)
        categories.append(_curve(records.score[own], right[own], int(totals[k])))
    return Curves(categories, _curve(records.score[counted], right[counted], int(totals.sum())))


def _curve(score: np.ndarray, right: np.ndarray, total: int) -> Curve:
    levels, place = np.unique(-score, return_inverse=True)
    hits = np.bincount(place, right, len(levels)).astype(np.int64)
    every = np.bincount(place, minlength=len(levels))
    return Curve(-levels, np.cumsum(hits), np.cumsum(every - hits), total)
