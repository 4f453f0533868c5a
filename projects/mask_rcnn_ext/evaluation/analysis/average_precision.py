"""COCO's average precision from matches, for the whole set or for any images of it.

Letters: I images, K categories, D detections, T IoU thresholds, R recall levels.
"""

from __future__ import annotations

import numpy as np

from .matching import Records

# As COCOeval's parameters, to the last bit.
RECALL_LEVELS = np.linspace(0.0, 1.0, 101)
NO_OBJECTS = -1.0


class PrecisionCurves:
    """Precision at each recall level; what does not depend on the images is done once."""

    def __init__(self, records: Records):
        self._records = records
        self._starts = np.searchsorted(records.image, np.arange(records.num_images + 1))
        self._right, self._counted = records.right, ~records.ignored
        # One number that sorts by category, then falling score.
        order = np.lexsort([-records.score, records.category])
        category, score = records.category[order], records.score[order]
        steps = (np.diff(category, prepend=-1) != 0) | (np.diff(score, prepend=np.nan) != 0)
        self._rank = np.empty(len(order), np.int64)
        self._rank[order] = np.cumsum(steps)

    def precision(self, images: np.ndarray | None = None) -> np.ndarray:
        """
        Args:
            images: indices of images, repeated ones count as copies; None is the whole set
        Returns:
            (T, R, K) float64, COCOeval's `precision`: that of the best threshold whose recall
            reaches the level, 0 if none does; NO_OBJECTS for a category without objects
        """
        records = self._records
        if images is None:
            chosen = np.arange(len(records.image))
            times = np.ones(records.num_images, np.int64)
        else:
            chosen = _ranges(self._starts[images], self._starts[images + 1])
            times = np.bincount(images, minlength=records.num_images)
        order = chosen[np.argsort(self._rank[chosen], kind="stable")]
        totals = np.bincount(
            records.counted_category, times[records.counted_image], records.num_categories
        )
        return precision_at_levels(
            self._right[:, order], self._counted[:, order], records.category[order], totals
        )


def precision_at_levels(
    right: np.ndarray, counted: np.ndarray, category: np.ndarray, totals: np.ndarray
) -> np.ndarray:
    """
    Args:
        right: (T, D) bool, detections that find an object to be found
        counted: (T, D) bool, detections that are right or wrong
        category: (D,) int64, ascending; by falling score within
        totals: (K,) objects to be found
    Returns:
        (T, R, K), see `PrecisionCurves.precision`
    """
    thresholds, categories = len(right), len(totals)
    precision = np.full((thresholds, len(RECALL_LEVELS), categories), NO_OBJECTS)
    bounds = np.searchsorted(category, np.arange(categories + 1))
    hits = _counts(right, bounds)
    value = np.where(right, hits / (_counts(counted, bounds) + np.spacing(1)), 0.0)
    for k in np.flatnonzero(totals > 0):
        part = slice(bounds[k], bounds[k + 1])
        total = int(totals[k])
        needed = np.searchsorted(np.arange(total + 1) / total, RECALL_LEVELS, side="left")
        needed = np.maximum(needed, 1)
        best = np.maximum.accumulate(value[:, part][:, ::-1], axis=1)[:, ::-1]
        for t in range(thresholds):
            # Only where a hit comes does recall rise.
            at_hits = np.append(best[t][right[t, part]], 0.0)
            precision[t, :, k] = at_hits[np.minimum(needed - 1, len(at_hits) - 1)]
    return precision


def average_precision(precision: np.ndarray) -> float:
    """COCO's AP of a `precision` array or a part of one, 0 to 1; NaN without objects."""
    known = precision[precision > NO_OBJECTS]
    return float(np.mean(known)) if known.size else float("nan")


def _counts(flags: np.ndarray, bounds: np.ndarray) -> np.ndarray:
    """(T, D) how many flags were set up to each place, from the category's start."""
    sums = np.cumsum(flags, axis=1, dtype=np.int64)
    before = np.concatenate([np.zeros((len(flags), 1), np.int64), sums], axis=1)[:, bounds[:-1]]
    return sums - np.repeat(before, np.diff(bounds), axis=1)


def _ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All numbers from each start to before its end, one range after the other."""
    sizes = ends - starts
    return np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes - starts, sizes)
