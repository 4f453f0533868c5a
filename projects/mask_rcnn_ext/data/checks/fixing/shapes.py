"""Repairs of boxes, masks, areas, crowd flags and keypoints."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...coco_table import POLYGONS
from ..boxes import normalised_rows, sound_boxes
from ..facts import Facts, clip
from ..keypoints import measure_keypoints, schema_length
from ..masks import sound_masks
from ..segmentations import is_polygon, window_of
from .document import MISSING, Document

_DIGITS = 2  # after the point, of what is computed here: as in COCO's files
_FLAGS = {"0": 0, "1": 1, "false": 0, "true": 1}


def box_from_mask(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """The mask's box, cut at the image's edge; left alone where the mask is doubtful, too."""
    boxes = facts.mask_clipped
    sound = sound_masks(facts)
    for row in rows.tolist():
        x0, y0, x1, y1 = boxes[row].tolist()
        if document.is_touched("annotations", row) or not sound[row] or not (x1 > x0 and y1 > y0):
            continue
        document.set(code, "annotations", row, "bbox", _numbers([x0, y0, x1 - x0, y1 - y0]))


def corners_to_sides(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """x0, y0, x1, y1 to x, y, width, height."""
    for row in rows.tolist():
        if not document.is_touched("annotations", row):
            x0, y0, x1, y1 = document.entries("annotations")[row]["bbox"]
            sides = [x0, y0, *_numbers([x1 - x0, y1 - y0])]
            document.set(code, "annotations", row, "bbox", sides)


def cut_box(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """The part of a box that lies in the image."""
    inside = clip(facts.corners, facts.sizes)
    for row in rows.tolist():
        x0, y0, x1, y1 = inside[row].tolist()
        if not document.is_touched("annotations", row) and x1 > x0 and y1 > y0:
            document.set(code, "annotations", row, "bbox", _numbers([x0, y0, x1 - x0, y1 - y0]))


def scale_box(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """Parts of the image to pixels, where the form is certain.

    x, y may be the corner or, as YOLO has it, the centre. If a box of the file would leave the
    image as a corner with sides, it is not the former, and nothing is done without masks.
    """
    boxes = facts.table.boxes
    normalised = normalised_rows(facts)
    is_corner = bool((boxes[normalised, :2] + boxes[normalised, 2:] <= 1 + 1e-6).all())
    from_mask = np.array([row for row in rows.tolist() if facts.masks.usable[row]], np.int64)
    box_from_mask(document, facts, code, from_mask)
    for row in rows.tolist():
        height, width = facts.sizes[row]
        if facts.masks.usable[row] or not is_corner or np.isnan(height):
            continue
        if not document.is_touched("annotations", row):
            scaled = boxes[row] * (width, height, width, height)
            document.set(code, "annotations", row, "bbox", _numbers(scaled.tolist()))


def scale_polygons(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """Polygons from parts of the image to pixels."""
    for row in rows.tolist():
        height, width = facts.sizes[row].tolist()
        if document.is_touched("annotations", row) or np.isnan(height):
            continue
        polygons = document.entries("annotations")[row]["segmentation"]
        sides = (width, height)
        scaled = [_numbers([v * sides[i % 2] for i, v in enumerate(part)]) for part in polygons]
        document.set(code, "annotations", row, "segmentation", scaled)


def nest_polygon(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """[x, y, ...] to [[x, y, ...]]."""
    for row in rows.tolist():
        flat = document.entries("annotations")[row]["segmentation"]
        if not document.is_touched("annotations", row) and is_polygon(flat):
            document.set(code, "annotations", row, "segmentation", [flat])


def drop_polygons(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """Polygons that cannot be used; the annotation goes where no other is left."""
    for row in rows.tolist():
        if document.is_touched("annotations", row):
            continue
        if facts.table.segmentation_kind[row] != POLYGONS:
            continue
        polygons = document.entries("annotations")[row]["segmentation"]
        kept = [part for part in polygons if is_polygon(part)]
        if kept:
            document.set(code, "annotations", row, "segmentation", kept)
        else:
            document.move_out(code, "annotations", row)


def area_from_mask(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """Pixels of the mask, or of the box where there is no mask."""
    boxes = facts.table.boxes
    by_mask, by_box = sound_masks(facts), sound_boxes(facts) & np.isnan(facts.masks.areas)
    for row in rows.tolist():
        height, width = facts.sizes[row].tolist()
        if document.is_touched("annotations", row) or np.isnan(height):
            continue
        area = 0.0
        if by_mask[row]:
            window = window_of(facts.table.segmentation(row), (int(height), int(width)))
            area = 0.0 if window is None else float(window.bits.sum())
        elif by_box[row]:
            area = float(boxes[row, 2] * boxes[row, 3])
        if area > 0:
            document.set(code, "annotations", row, "area", _numbers([area])[0])


def crowd_flag(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """Text and floats that mean 0 or 1."""
    for row in rows.tolist():
        value: Any = document.entries("annotations")[row].get("iscrowd")
        if isinstance(value, str):
            value = _FLAGS.get(value.strip().lower())
        clear = isinstance(value, int | float) and value in (0, 1)
        if clear and not document.is_touched("annotations", row):
            document.set(code, "annotations", row, "iscrowd", int(value))


def crowd_default(document: Document, facts: Facts, code: str) -> None:
    """0 where the flag is missing, which every reader takes it for."""
    for row, annotation in enumerate(document.entries("annotations")):
        if "iscrowd" not in annotation:
            document.set(code, "annotations", row, "iscrowd", 0)


def count_keypoints(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """num_keypoints: how many have a visibility above 0."""
    labelled = measure_keypoints(facts).labelled
    for row in rows.tolist():
        if not document.is_touched("annotations", row):
            document.set(code, "annotations", row, "num_keypoints", int(labelled[row]))


def no_keypoints(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """Zeros for an object without keypoints."""
    lengths = schema_length(facts)
    for row in rows.tolist():
        entry = document.entries("annotations")[row]
        if document.is_touched("annotations", row) or entry.get("keypoints", MISSING) not in (
            MISSING,
            None,
            [],
        ):
            continue
        document.set(code, "annotations", row, "keypoints", [0] * (3 * int(lengths[row])))
        document.set(code, "annotations", row, "num_keypoints", 0)


def _numbers(values: list[float]) -> list[float]:
    """Rounded; whole numbers as such."""
    rounded = [round(value, _DIGITS) for value in values]
    return [int(value) if float(value).is_integer() else value for value in rounded]
