"""From rows of an annotation file to the cards of `data browse`; broken data is shown as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import transforms as T
from PIL import Image

from ..data.coco_table import FLAT, NO_SEGMENTATION, CocoTable
from ..data.mappers.images import read_image
from ..data.mask_windows import WindowMaker, polygons_of
from ..data.statistics import class_name, instance_areas
from .browse_page import Card, Picture, Shown
from .html import picture_uri
from .outlines import path_of_mask, path_of_polygons

_BROKEN = (ValueError, TypeError, KeyError, OverflowError, IndexError)
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def class_order(table: CocoTable) -> list[int]:
    """Rows of the categories in the order of their ids, which is that of class numbers."""
    return sorted(range(len(table.categories)), key=lambda row: _sort_key(table, row))


def skeleton_of(table: CocoTable, row: int) -> list[tuple[int, int]]:
    """Pairs of keypoints, counted from 0, that a line joins; COCO counts from 1."""
    pairs = table.categories[row].get("skeleton")
    return [
        (pair[0] - 1, pair[1] - 1)
        for pair in (pairs if isinstance(pairs, list) else [])
        if isinstance(pair, list) and len(pair) == 2
        if all(type(end) is int and end >= 1 for end in pair)
    ]


class CardMaker:
    """Makes the card of an image."""

    def __init__(self, table: CocoTable, image_root: str, longest: int):
        """
        Args:
            table: the annotation file
            image_root: folder that its file names are relative to
            longest: side of an embedded picture, pixels, at most
        """
        self.table = table
        self.image_root = image_root
        self.longest = longest
        order = class_order(table)
        self.class_indices = {row: index for index, row in enumerate(order)}

    def __call__(self, row: int) -> Card:
        """The card of an image; what is wrong with it goes into its notes."""
        table = self.table
        height, width = table.image_sizes[row].tolist()
        pixels, note = self._read(row)
        if pixels is not None:
            found = pixels.shape[:2]
            if found != (height, width):
                note = f"the file is {found[1]} × {found[0]} pixels, the annotations say "
                note += f"{width} × {height}" if width > 0 and height > 0 else "nothing usable"
            height, width = found
        elif height < 1 or width < 1:
            height, width = 480, 640
        return Card(
            str(table.image_ids[row]),
            table.file_name(row),
            Picture(
                "" if pixels is None else picture_uri(pixels, self.longest),
                height,
                width,
                self._instances(row, height, width),
            ),
            note,
        )

    def _read(self, row: int) -> tuple[np.ndarray | None, str]:
        name = self.table.file_name(row)
        path = Path(self.image_root) / name
        if not name or not path.is_file():
            return None, f"there is no file {path}" if name else "it has no file name"
        try:
            return np.ascontiguousarray(read_image(str(path), "RGB")), ""
        except _UNREADABLE as error:
            return None, f"{path} does not decode: {error}"

    def _instances(self, image: int, height: int, width: int) -> tuple[Shown, ...]:
        rows = self.table.annotations_of(image)
        areas, _ = instance_areas(self.table, rows)
        tolerance = 0.4 * max(height, width) / self.longest
        maker = WindowMaker(T.TransformList([T.NoOpTransform()]), (height, width), (height, width))
        shown = [
            self._shown(row, area, maker, tolerance)
            for row, area in zip(rows.tolist(), areas.tolist(), strict=True)
        ]
        # Small ones last, on top; a crowd below what stands before it.
        return tuple(sorted(shown, key=lambda one: (not one.crowd, -one.size)))

    def _shown(self, row: int, area: float, maker: WindowMaker, tolerance: float) -> Shown:
        table = self.table
        category = int(table.category_of[row])
        x, y, w, h = table.boxes[row].tolist()
        notes = []
        if not np.isfinite([x, y, w, h]).all():
            notes.append("its box is not four numbers")
        path, holes = "", False
        if table.segmentation_kind[row] != NO_SEGMENTATION:
            try:
                path, holes = self._path(row, maker, tolerance)
            except _BROKEN as error:
                notes.append(str(error))
        if table.crowd[row] < 0:
            notes.append("iscrowd is neither 0 nor 1")
        known = category >= 0
        if not known:
            notes.append("its class is not in the file")
        identity = table.annotation_ids[row]
        keypoints = _keypoints(table.keypoints(row))
        return Shown(
            identity="" if identity is None else str(identity),
            class_name=class_name(table, category)
            if known
            else f"unknown class {table.annotation_category_ids[row]}",
            class_index=self.class_indices[category] if known else -1,
            box=(x, y, x + w, y + h) if np.isfinite([x, y, w, h]).all() else None,
            path=path,
            holes=holes,
            area=area,
            crowd=table.crowd[row] == 1,
            keypoints=keypoints,
            skeleton=self._skeleton(category, len(keypoints)),
            note="; ".join(notes),
        )

    def _skeleton(self, category: int, points: int) -> tuple[tuple[int, int], ...]:
        if category < 0 or not points:
            return ()
        return tuple(pair for pair in skeleton_of(self.table, category) if max(pair) < points)

    def _path(self, row: int, maker: WindowMaker, tolerance: float) -> tuple[str, bool]:
        segmentation = self.table.segmentation(row)
        if isinstance(segmentation, dict):
            window = maker(segmentation)
            return path_of_mask(window.bits, window.left, window.top, tolerance), True
        if self.table.segmentation_kind[row] == FLAT:
            segmentation = [segmentation]
        return path_of_polygons(polygons_of(segmentation)), False


def _keypoints(values: Any) -> tuple[tuple[float, float, float], ...]:
    if not isinstance(values, list) or len(values) % 3:
        return ()
    if not all(type(value) in (int, float) and abs(value) < 1e6 for value in values):
        return ()
    # COCO's are pixel indices; the page's frame is continuous.
    triples = zip(values[::3], values[1::3], values[2::3], strict=True)
    return tuple((x + 0.5, y + 0.5, seen) for x, y, seen in triples)


def _sort_key(table: CocoTable, row: int) -> tuple[bool, bool, Any]:
    identity = table.categories[row].get("id")
    number = isinstance(identity, int | float)
    return not number, isinstance(identity, str), identity if number else str(identity)
