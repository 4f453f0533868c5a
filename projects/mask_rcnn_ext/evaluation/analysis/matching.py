"""Which detection finds which object: COCO's greedy matching, kept as a few numbers a detection.

Letters: I images, K categories, D detections, G objects, T IoU thresholds; those of one category in
one image are D_c and G_c.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .comparison import Comparison

# As COCOeval's parameters, to the last bit.
IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
NOTHING = -1


@dataclass(frozen=True)
class Records:
    """What figures are made of; detections in the comparison's order.

    Attributes:
        thresholds: (T,) float64
        image, category: (D,) int64
        score: (D,) float64
        match: (T, D) int64, the object that a detection finds, NOTHING if none
        ignored: (T, D) bool, neither right nor wrong; the others are right if they find an object
        counted_image, counted_category: (N,) int64, of the objects that are to be found
        num_images, num_categories: I, K
    """

    thresholds: np.ndarray
    image: np.ndarray
    category: np.ndarray
    score: np.ndarray
    match: np.ndarray
    ignored: np.ndarray
    counted_image: np.ndarray
    counted_category: np.ndarray
    num_images: int
    num_categories: int

    @property
    def right(self) -> np.ndarray:
        """(T, D) bool."""
        return (self.match != NOTHING) & ~self.ignored

    @property
    def wrong(self) -> np.ndarray:
        """(T, D) bool."""
        return (self.match == NOTHING) & ~self.ignored

    def totals(self) -> np.ndarray:
        """(K,) int64, objects to be found."""
        return np.bincount(self.counted_category, minlength=self.num_categories)


def match_detections(
    comparison: Comparison,
    thresholds: np.ndarray = IOU_THRESHOLDS,
    *,
    left_out: np.ndarray | None = None,
    outside: np.ndarray | None = None,
) -> Records:
    """Match by falling score, each category in each image for itself.

    A detection takes, of the objects still free whose IoU reaches the threshold, the one with the
    highest. Crowd regions and objects that are left out come after all others; what takes one is
    ignored. A crowd region can be taken any number of times. (COCOeval overlooks matches with an
    annotation whose id is 0; here every id is one.)

    Args:
        comparison: of a set
        thresholds: (T,) IoU, above 0
        left_out: (G,) bool, objects that nobody need find, beside the crowd regions
        outside: (D,) bool, detections that are ignored if they find nothing
    """
    found, things = comparison.detections, comparison.objects
    ignore = things.crowd if left_out is None else things.crowd | left_out
    thresholds = np.asarray(thresholds, np.float64)
    match = np.full((len(thresholds), len(found)), NOTHING, np.int64)
    least = np.minimum(thresholds, 1 - 1e-10)
    pairs = comparison.pairs
    near = pairs.iou >= least.min(initial=1)
    d, g, iou = pairs.detection[near], pairs.object[near], pairs.iou[near]
    # Most have no rival: nothing to decide.
    alone = (np.bincount(d)[d] == 1) & (np.bincount(g)[g] == 1) if len(d) else near[:0]
    match[:, d[alone]] = np.where(iou[alone] >= least[:, None], g[alone], NOTHING)
    d, g, iou = d[~alone], g[~alone], iou[~alone]
    cell = found.image[d] * comparison.num_categories + found.category[d]
    starts = np.flatnonzero(np.diff(cell, prepend=-1))
    for start, end in pairwise([*starts.tolist(), len(d)]):
        rows, row = np.unique(d[start:end], return_inverse=True)
        columns, column = np.unique(g[start:end], return_inverse=True)
        values = np.zeros((len(rows), len(columns)))
        values[row, column] = iou[start:end]
        taken = _match_cell(values, least, ignore[columns], things.crowd[columns])
        match[:, rows] = np.where(taken == NOTHING, NOTHING, columns[taken])
    ignored = (match != NOTHING) & ignore[match] if len(things) else np.zeros(match.shape, bool)
    if outside is not None:
        ignored |= (match == NOTHING) & outside
    counted = ~ignore
    return Records(
        thresholds=thresholds,
        image=found.image,
        category=found.category,
        score=found.score,
        match=match,
        ignored=ignored,
        counted_image=things.image[counted],
        counted_category=things.category[counted],
        num_images=comparison.num_images,
        num_categories=comparison.num_categories,
    )


def _match_cell(
    iou: np.ndarray, least: np.ndarray, ignore: np.ndarray, crowd: np.ndarray
) -> np.ndarray:
    """
    Args:
        iou: (D_c, G_c), detections by falling score
        least: (T,) IoU to be reached
        ignore, crowd: (G_c,) bool
    Returns:
        (T, D_c) int64, index of the object or NOTHING
    """
    match = np.full((len(least), len(iou)), NOTHING, np.int64)
    free = np.ones((len(least), iou.shape[1]), dtype=bool)
    every = np.arange(len(least))
    for row, values in enumerate(iou):
        reached = (values >= least[:, None]) & free
        if not reached.any():
            continue
        counts = reached & ~ignore
        reached &= ~ignore | ~counts.any(axis=1, keepdims=True)
        rank = np.where(reached, values, -1.0)
        # Of equals the last one, as COCOeval has it.
        best = rank.shape[1] - 1 - np.argmax(rank[:, ::-1], axis=1)
        hit = reached[every, best]
        match[hit, row] = best[hit]
        free[every[hit & ~crowd[best]], best[hit & ~crowd[best]]] = False
    return match
