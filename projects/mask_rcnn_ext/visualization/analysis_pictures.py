"""The worst and the best images of a run: ground truth beside prediction, errors named.

Frame: pixels of the image, x to the right, y down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from ..data.coco_table import CocoTable
from ..data.mappers.images import read_image
from ..data.mask_windows import WindowMaker
from ..evaluation.analysis import Records
from ..evaluation.analysis.errors import KINDS, NO_ERROR
from .analysis_numbers import Analysis
from .draw import Drawn, draw_instances
from .html import picture_uri

LONGEST = 640  # pixels of an embedded picture's longer side
_SHOWN_LONGEST, _SHOWN_HEIGHT = 570, 430  # CSS pixels of a picture on the page, at most
WORDS = {
    "duplicate": "duplicate",
    "classification": "wrong class",
    "mask": "wrong mask",
    "localisation": "misplaced",
    "both": "wrong class, misplaced",
    "background": "nothing there",
}
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_GREY = 128
_MOST_DRAWN = 100  # of one picture; more cannot be told apart

Json = dict[str, Any]


class ImageScores:
    """What each image's detections from a score on are worth, at an IoU of 0.5.

    Attributes:
        right, wrong, missed: (I,) int64
        f1: (I,) float64, 2 right / (2 right + wrong + missed), 0 to 1; NaN with none of them
    """

    def __init__(self, records: Records, score: float):
        shown = records.score >= score
        self.right, self.wrong = (
            np.bincount(records.image[flags[0] & shown], minlength=records.num_images)
            for flags in (records.right, records.wrong)
        )
        objects = np.bincount(records.counted_image, minlength=records.num_images)
        self.missed = objects - self.right
        parts = 2 * self.right + self.wrong + self.missed
        self.f1 = np.where(parts > 0, 2 * self.right / np.maximum(parts, 1), np.nan)

    def worst(self, count: int) -> list[int]:
        """Images with the lowest F1 below 1; of equal ones those with the most errors."""
        errors = self.wrong + self.missed
        order = np.lexsort([-errors, self.f1])
        return [int(i) for i in order if self.f1[i] < 1][:count]

    def best(self, count: int) -> list[int]:
        """Images with the highest F1 above 0; of equal ones those with the most found."""
        order = np.lexsort([-self.right, -self.f1])
        return [int(i) for i in order if self.f1[i] > 0][:count]


@dataclass(frozen=True)
class Extremes:
    """The worst and the best images.

    Attributes:
        numbers: of both, what the images are and what was found
        worst, best: what `PairMaker` returns, in the same order
    """

    numbers: dict[str, list[Json]]
    worst: list[Json]
    best: list[Json]


def draw_extremes(
    analysis: Analysis,
    table: CocoTable,
    image_root: str,
    count: int,
    progress: Callable[[int, int], None],
) -> Extremes:
    """
    Args:
        analysis: of one task
        table: the ground truth
        image_root: folder of its images
        count: how many of each at most; none is among both
        progress: called with (images drawn, of how many)
    """
    scores = ImageScores(analysis.records, analysis.score)
    worst = scores.worst(count)
    best = [i for i in scores.best(2 * count) if i not in worst][:count]
    make = PairMaker(analysis, table, image_root)
    drawn: dict[int, Json] = {}
    for image in (*worst, *best):
        drawn[image] = make(image)
        progress(len(drawn), len(worst) + len(best))
    numbers = {
        kind: [
            {
                "image_id": analysis.comparison.image_ids[i],
                "file_name": make.file_name(i),
                "right": int(scores.right[i]),
                "wrong": int(scores.wrong[i]),
                "missed": int(scores.missed[i]),
                "f1": 100 * float(scores.f1[i]),
                "note": drawn[i]["note"],
            }
            for i in images
        ]
        for kind, images in (("worst", worst), ("best", best))
    }
    return Extremes(numbers, [drawn[i] for i in worst], [drawn[i] for i in best])


class PairMaker:
    """Draws an image twice: its objects, and what was found."""

    def __init__(self, analysis: Analysis, table: CocoTable, image_root: str):
        """
        Args:
            analysis: of one task
            table: the ground truth
            image_root: folder of its images
        """
        self._comparison, self._records = analysis.comparison, analysis.records
        self._errors, self._score = analysis.errors, analysis.score
        self._table, self._root = table, image_root
        # Of images with one id the first, as in the comparison.
        self._rows = {key: row for row, key in reversed([*enumerate(table.image_ids.tolist())])}

    def file_name(self, image: int) -> str:
        return self._table.file_name(self._rows[self._comparison.image_ids[image]])

    def __call__(self, image: int) -> Json:
        """
        Args:
            image: index in the comparison
        Returns:
            truth and prediction as data: addresses; css_width, of each on the page; note, what is
            wrong with the file, or ""
        """
        size = tuple(max(int(side), 1) for side in self._comparison.image_sizes[image])
        pixels, note = self._read(self.file_name(image), size)
        scale = LONGEST / max(size)
        shown = min(_SHOWN_LONGEST / max(size), _SHOWN_HEIGHT / size[0])
        pair: Json = {"note": note, "css_width": round(shown * size[1])}
        for key, drawn in (("truth", self._objects(image)), ("found", self._detections(image))):
            order = sorted(drawn, key=lambda one: -_area(one.box))[:_MOST_DRAWN]
            pair[key] = picture_uri(draw_instances(pixels, order, scale=scale), LONGEST)
        return pair

    def _read(self, name: str, size: Sequence[int]) -> tuple[np.ndarray, str]:
        blank = np.full((*size, 3), _GREY, np.uint8)
        path = Path(self._root) / name
        if not name or not path.is_file():
            return blank, "there is no such file" if name else "it has no file name"
        try:
            pixels = np.ascontiguousarray(read_image(str(path), "RGB"))
        except _UNREADABLE as error:
            return blank, f"the file does not decode: {error}"
        if pixels.shape[:2] != tuple(size):
            height, width = pixels.shape[:2]
            return blank, (
                f"the file is {width} × {height} pixels, the annotations say {size[1]} × {size[0]}"
            )
        return pixels, ""

    def _objects(self, image: int) -> list[Drawn]:
        objects, place = self._comparison.objects, self._comparison.objects_of(image)
        shown = self._records.right[0] & (self._records.score >= self._score)
        found = set(self._records.match[0, shown].tolist())
        masks = self._comparison.object_masks
        drawn = []
        for g in range(place.start, place.stop):
            word = ""
            if objects.crowd[g]:
                word = " (crowd)"
            elif g not in found:
                word = " - missed"
            drawn.append(
                self._drawn(image, objects.category[g], objects.box[g], word, masks[g : g + 1])
            )
        return drawn

    def _detections(self, image: int) -> list[Drawn]:
        found, place = self._comparison.detections, self._comparison.detections_of(image)
        masks = self._comparison.detection_masks
        drawn = []
        for d in range(place.start, place.stop):
            if found.score[d] < self._score:
                continue
            kind = int(self._errors.kind[d])
            word = f" {found.score[d]:.2f}"
            word += "" if kind == NO_ERROR else f" - {WORDS[KINDS[kind]]}"
            drawn.append(
                self._drawn(image, found.category[d], found.box[d], word, masks[d : d + 1])
            )
        return drawn

    def _drawn(
        self, image: int, category: int, box: np.ndarray, word: str, mask: Sequence[Any]
    ) -> Drawn:
        x, y, width, height = box.tolist()
        bits, corner = None, (0, 0)
        if len(mask):
            size = tuple(self._comparison.image_sizes[image].tolist())
            window = WindowMaker(T.TransformList([T.NoOpTransform()]), size, size)(mask[0])
            bits, corner = window.bits, (window.left, window.top)
        return Drawn(
            mask=bits,
            box=(x, y, x + width, y + height),
            label=self._comparison.category_names[category] + word,
            class_index=int(category),
            corner=corner,
        )


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
