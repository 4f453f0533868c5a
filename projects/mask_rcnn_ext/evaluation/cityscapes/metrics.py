"""Cityscapes' instance figures from the images' records, by the rules of the official script.

Letters: S settings (all; within 100 m; within 50 m), K classes, O overlaps. The rules:

- An object counts if it is no group, has at least 100 pixels (1000 in the two settings by distance)
  and lies within the distance, with a known distance for half of its pixels.
- A prediction finds an object of its class if their IoU is above the overlap. Of several that find
  the same one, that with the highest score is right, the others are wrong.
- A prediction that finds an object or group which does not count is neither right nor wrong.
- One that finds nothing is wrong, unless a larger share of its pixels than the overlap lies on void
  labels, groups of its class and objects that do not count. A small group is counted twice there,
  once as a group, once as small; so the official script has it.
- AP is the sum of precision times (recall before - recall after) / 2 over all score thresholds,
  closed by the point of precision 1 and recall 0. NaN without an object that counts. 0 if there is
  one and no prediction of the class, or none that is right or wrong (there the script fails).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...data.cityscapes.labels import THINGS
from ...errors import UsageError
from .matching import ImageMatches

# Not rounded: 0.6 is 0.6000000000000001 in the official script too.
OVERLAPS = np.arange(0.5, 1.0, 0.05)
CLASSES = tuple(label.name for label in THINGS)


@dataclass(frozen=True)
class Setting:
    """Which objects count.

    least_pixels: size of an object
    farthest: its median distance in metres
    least_known: share of its pixels with a known distance
    """

    least_pixels: int
    farthest: float
    least_known: float


SETTINGS = (
    Setting(100, math.inf, -math.inf),
    Setting(1000, 100.0, 0.5),
    Setting(1000, 50.0, 0.5),
)


@dataclass(frozen=True)
class CityscapesFigures:
    """ap: (S, K, O) float64, 0 to 1 or NaN; S is 1 without distances, else 3."""

    ap: np.ndarray

    def averages(self) -> dict[str, float]:
        """AP and AP50; with distances AP100m, AP50m and AP50_50m too. Over classes with objects."""
        found = {"AP": _mean(self.ap[0]), "AP50": _mean(self.ap[0, :, 0])}
        if len(self.ap) > 1:
            found["AP100m"] = _mean(self.ap[1])
            found["AP50m"] = _mean(self.ap[2])
            found["AP50_50m"] = _mean(self.ap[2, :, 0])
        return found

    def of_class(self, name: str) -> dict[str, float]:
        """The same figures of one class; NaN if no object of it counts."""
        index = CLASSES.index(name)
        return CityscapesFigures(self.ap[:, index : index + 1]).averages()


def cityscapes_figures(images: Sequence[ImageMatches]) -> CityscapesFigures:
    """The figures of a set of images, in any order.

    Raises:
        UsageError: distances for some images only
    """
    given = {image.has_distances for image in images}
    if len(given) > 1:
        bare = next(image.name for image in images if not image.has_distances)
        raise UsageError(
            f"distances are given for some images but not for {bare}; give all or none"
        )
    settings = SETTINGS if given == {True} else SETTINGS[:1]
    table = _Table(images)
    ap = np.full((len(settings), len(CLASSES), len(OVERLAPS)), np.nan)
    for s, setting in enumerate(settings):
        counts = table.counting(setting)
        for o, overlap in enumerate(OVERLAPS.tolist()):
            ap[s, :, o] = table.average_precisions(counts, overlap)
    return CityscapesFigures(ap)


class _Table:
    """All images' records after each other."""

    def __init__(self, images: Sequence[ImageMatches]):
        objects = np.cumsum([0, *(len(image.object_class) for image in images)])
        predictions = np.cumsum([0, *(len(image.prediction_class) for image in images)])
        nothing = np.zeros(0, np.int64)

        def joined(name: str) -> np.ndarray:
            return np.concatenate([nothing, *(getattr(image, name) for image in images)])

        self.object_class = joined("object_class").astype(np.int64)
        self.object_pixels = joined("object_pixels").astype(np.int64)
        self.single = joined("object_single").astype(bool)
        far = [image.object_distance for image in images]
        self.distance = np.concatenate([np.zeros((0, 2)), *far])
        self.prediction_class = joined("prediction_class").astype(np.int64)
        self.prediction_pixels = joined("prediction_pixels").astype(np.int64)
        self.void = joined("prediction_void").astype(np.int64)
        self.score = joined("prediction_score").astype(np.float64)
        pairs = [
            image.pairs + [prediction, thing]
            for image, prediction, thing in zip(images, predictions, objects, strict=False)
        ]
        self.prediction, self.object = np.concatenate([np.zeros((0, 2), np.int64), *pairs]).T
        self.shared = joined("shared").astype(np.int64)
        union = self.object_pixels[self.object] + self.prediction_pixels[self.prediction]
        self.iou = self.shared / (union - self.shared)

    def counting(self, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
        """(G,) bool, the objects that count; (P,) float64, share of ignored pixels."""
        median, known = self.distance.T
        outside = self.object_pixels < setting.least_pixels
        outside |= (median > setting.farthest) | (known < setting.least_known)
        times = (~self.single).astype(np.int64) + outside
        ignored = self.void + np.bincount(
            self.prediction, self.shared * times[self.object], len(self.score)
        )
        return self.single & ~outside, ignored / self.prediction_pixels

    def average_precisions(
        self, counting: tuple[np.ndarray, np.ndarray], overlap: float
    ) -> list[float]:
        """One a class."""
        counts, ignored = counting
        found = self.iou > overlap
        finder = np.zeros(len(self.score), dtype=bool)
        finder[self.prediction[found]] = True
        right = found & counts[self.object]
        thing, score = self.object[right], self.score[self.prediction[right]]
        order = np.lexsort([-score, thing])
        thing, score = thing[order], score[order]
        best = np.diff(thing, prepend=-1) != 0  # the first one of its object

        wrong = ~finder & (ignored <= overlap)
        classes = np.concatenate([self.object_class[thing], self.prediction_class[wrong]])
        scores = np.concatenate([score, self.score[wrong]])
        true = np.concatenate([best, np.zeros(int(wrong.sum()), dtype=bool)])
        totals = np.bincount(self.object_class[counts], minlength=len(CLASSES))
        return [
            _average_precision(scores[classes == k], true[classes == k], int(totals[k]))
            for k in range(len(CLASSES))
        ]


def _average_precision(scores: np.ndarray, true: np.ndarray, total: int) -> float:
    """
    Args:
        scores: (N,) of predictions that are right or wrong
        true: (N,) bool
        total: objects that count
    """
    if not total:
        return math.nan
    if not len(scores):
        return 0.0
    order = np.argsort(scores)
    # From here on ascending: a threshold keeps all predictions from its index on.
    first = np.unique(scores[order], return_index=True)[1]
    hits = np.cumsum(true[order][::-1])[::-1][first]
    precision = np.append(hits / (len(scores) - first), 1.0)
    recall = np.append(hits / total, 0.0)
    padded = np.concatenate([recall[:1], recall, [0.0]])
    return float(np.dot(precision, (padded[:-2] - padded[2:]) / 2))


def _mean(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN if all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else math.nan
