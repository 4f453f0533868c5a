"""What a model finds where there is nothing: images without any annotation.

Letters: S scores, K categories.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .comparison import Comparison


@dataclass(frozen=True)
class NegativeImages:
    """Counts on images without objects and without crowd regions.

    Attributes:
        images: how many there are
        scores: (S,) float64, least score of a detection that counts
        with_detections: (S,) int64, of those images
        detections: (S, K) int64, by category; all of them are false
    """

    images: int
    scores: np.ndarray
    with_detections: np.ndarray
    detections: np.ndarray

    @property
    def per_image(self) -> np.ndarray:
        """(S,) false detections an image; NaN without such images."""
        total = self.detections.sum(axis=1)
        return total / self.images if self.images else np.full(len(total), np.nan)


def negative_images(
    comparison: Comparison, scores: Sequence[float] = (0.05, 0.25, 0.5, 0.75, 0.9)
) -> NegativeImages:
    """
    Args:
        comparison: of a set
        scores: S of them
    """
    empty = np.diff(comparison.object_starts) == 0
    found = comparison.detections
    on_empty = empty[found.image] if len(found) else np.zeros(0, dtype=bool)
    image, category, score = (
        column[on_empty] for column in (found.image, found.category, found.score)
    )
    levels = np.asarray(scores, np.float64)
    with_detections = [len(np.unique(image[score >= level])) for level in levels]
    detections = [
        np.bincount(category[score >= level], minlength=comparison.num_categories)
        for level in levels
    ]
    return NegativeImages(
        images=int(empty.sum()),
        scores=levels,
        with_detections=np.array(with_detections, np.int64),
        detections=np.array(detections, np.int64).reshape(len(levels), -1),
    )
