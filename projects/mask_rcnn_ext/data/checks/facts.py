"""What the checks of one file share: its columns, what was derived from them, and the settings."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..coco_table import CocoTable
from .entries import Entries
from .findings import Defect, show
from .segmentations import Segmentations, measure_segmentations

Progress = Callable[[str, int, int], None]  # (what is going on, done, of how many)


@dataclass(frozen=True)
class Settings:
    """What the checks need to know besides the file.

    short_edge, max_size: pixels, how training resizes (INPUT.MIN_SIZE_TRAIN, MAX_SIZE_TRAIN)
    detection_cap: detections an image (TEST.DETECTIONS_PER_IMAGE)
    masks: whether masks are looked at; a model without them need not
    keypoints: the same for keypoints
    most_masks: look at so many masks at most, spread evenly over the file; None for all
    """

    short_edge: int = 800
    max_size: int = 1333
    detection_cap: int = 100
    masks: bool = True
    keypoints: bool = True
    most_masks: int | None = None


class Facts:
    """
    Args:
        table: the annotation file
        image_root: folder of its images, None if nobody knows
        settings: see `Settings`
        progress: told about what takes long
    """

    def __init__(
        self,
        table: CocoTable,
        image_root: str | None,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.table = table
        self.image_root = image_root
        self.settings = settings or Settings()
        self.entries = Entries(table.path)
        self.progress: Progress = progress or (lambda label, done, total: None)
        self._remembered: dict[str, Any] = {}

    def remember(self, name: str, compute: Callable[[], Any]) -> Any:
        """What `compute` returns, computed once for this file."""
        if name not in self._remembered:
            self._remembered[name] = compute()
        return self._remembered[name]

    @functools.cached_property
    def masks(self) -> Segmentations:
        """What the masks cover; of an even sample where `most_masks` asks for one."""
        rows = np.arange(self.table.num_annotations)
        most = self.settings.most_masks
        if not self.settings.masks:
            rows = rows[:0]
        elif most is not None and len(rows) > most:
            rows = np.linspace(0, len(rows) - 1, most).round().astype(np.int64)
        return measure_segmentations(
            self.table, rows, lambda done, total: self.progress("masks", done, total)
        )

    @functools.cached_property
    def sizes(self) -> np.ndarray:
        """(A, 2) float64, height and width of each annotation's image, NaN where unknown."""
        image = self.table.image_of
        sizes = np.full((self.table.num_annotations, 2), np.nan)
        known = image >= 0
        sizes[known] = self.table.image_sizes[image[known]]
        sizes[(sizes < 1).any(axis=1)] = np.nan
        return sizes

    @functools.cached_property
    def corners(self) -> np.ndarray:
        """(A, 4) float64 x0, y0, x1, y1 of the boxes, NaN where there is none."""
        boxes = self.table.boxes
        with np.errstate(over="ignore"):
            return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)

    @functools.cached_property
    def mask_clipped(self) -> np.ndarray:
        """(A, 4) float64, the masks' boxes cut at the image's edges, as a rasterised mask is."""
        return clip(self.masks.boxes, self.sizes)

    @functools.cached_property
    def known_category(self) -> np.ndarray:
        """(A,) bool."""
        return self.table.category_of >= 0

    @functools.cached_property
    def is_instance(self) -> np.ndarray:
        """(A,) bool, annotations that training takes for an object: known image, no crowd."""
        return (self.table.crowd == 0) & (self.table.image_of >= 0)

    @functools.cached_property
    def image_present(self) -> np.ndarray:
        """(I,) bool, whether the folder lists the file; one listing a folder."""
        listings: dict[str, set[str]] = {}
        present = np.zeros(self.table.num_images, bool)
        for row in range(self.table.num_images):
            folder, _, file = self.table.file_name(row).rpartition("/")
            if folder not in listings:
                listings[folder] = list_folder(os.path.join(self.image_root or "", folder))
            present[row] = file in listings[folder] and file != ""
        return present

    def category_name(self, annotation: int) -> str:
        """For messages: the annotation's class."""
        row = int(self.table.category_of[annotation])
        return "unknown class" if row < 0 else show(self.table.categories[row].get("name"))

    def annotations(
        self,
        code: str,
        severity: str,
        rows: np.ndarray,
        what: Callable[[int], str] | str,
        advice: str,
    ) -> Defect:
        """A defect of annotations; `rows` may be a mask."""
        return _defect(code, severity, "annotations", rows, what, advice)

    def images(
        self,
        code: str,
        severity: str,
        rows: np.ndarray,
        what: Callable[[int], str] | str,
        advice: str,
    ) -> Defect:
        """A defect of images; `rows` may be a mask."""
        return _defect(code, severity, "images", rows, what, advice)

    def categories(
        self, code: str, severity: str, rows: np.ndarray, what: Callable[[int], str], advice: str
    ) -> Defect:
        """A defect of categories."""
        return _defect(code, severity, "categories", rows, what, advice)

    def file(self, code: str, severity: str, what: str, advice: str) -> Defect:
        """A defect of the file as a whole."""
        return _defect(code, severity, "file", np.zeros(1, np.int64), what, advice)


def _defect(
    code: str,
    severity: str,
    section: str,
    rows: np.ndarray,
    what: Callable[[int], str] | str,
    advice: str,
) -> Defect:
    rows = np.flatnonzero(rows) if rows.dtype == bool else np.asarray(rows, np.int64)
    words = (lambda row: what) if isinstance(what, str) else what
    return Defect(code, severity, section, rows, words, advice)


def clip(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Cut boxes (n, 4) x0, y0, x1, y1 at the edges of images of (n, 2) height and width."""
    width_height = sizes[:, ::-1]
    limits = np.concatenate([width_height, width_height], axis=1)
    return np.clip(corners, 0.0, np.where(np.isnan(limits), np.inf, limits))


def list_folder(folder: str) -> set[str]:
    """Names in a folder; none if it cannot be read."""
    try:
        return set(os.listdir(folder))
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return set()
