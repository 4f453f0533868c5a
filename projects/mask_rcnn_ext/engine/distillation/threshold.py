"""The score from which predictions become labels: that which keeps as many as wanted.

There is no search: scores are sorted and counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np


@dataclass(frozen=True)
class Threshold:
    """
    Attributes:
        score: predictions with this score or a higher one are kept; None keeps none
        kept: how many these are
        wanted: how many there should be; seldom a whole number
        available: how many there are in all
    """

    score: float | None
    kept: int
    wanted: Fraction
    available: int

    @property
    def falls_short(self) -> bool:
        """Whether there are fewer predictions than labels wanted, so that all are kept."""
        return self.available < self.wanted

    def keeps(self, scores: np.ndarray) -> np.ndarray:
        """
        Args:
            scores: of any shape
        Returns:
            bool, of that shape
        """
        if self.score is None:
            return np.zeros(np.shape(scores), bool)
        found: np.ndarray = np.asarray(scores) >= self.score
        return found


def choose_threshold(scores: np.ndarray, wanted: Fraction) -> Threshold:
    """The threshold that keeps the number nearest to `wanted`.

    Predictions of the same score are kept together or not at all. Of two numbers that are equally
    near the smaller one is chosen: a label too few does less harm than a wrong one.

    Args:
        scores: (N,), finite
        wanted: 0 or more
    """
    values, counts = np.unique(np.asarray(scores, np.float64), return_counts=True)
    # possible[i] predictions are kept by the i-th highest score; 0 by none.
    possible = np.concatenate([[0], np.cumsum(counts[::-1])])
    below = int(np.searchsorted(possible, int(wanted), side="right")) - 1
    place = below
    if below + 1 < len(possible):
        too_few, too_many = wanted - int(possible[below]), int(possible[below + 1]) - wanted
        place += too_many < too_few
    return Threshold(
        score=float(values[-place]) if place else None,
        kept=int(possible[place]),
        wanted=wanted,
        available=len(scores),
    )
