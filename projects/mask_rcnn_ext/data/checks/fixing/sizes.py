"""Repairs of the images' height and width, from the pictures."""

from __future__ import annotations

import numpy as np

from ..boxes import SLACK
from ..facts import Facts
from ..pixels import image_path, look_at
from .document import Document

_SAME_SHAPE = 0.01  # by which the scales of both sides may differ in a picture that was resized


def size_from_picture(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """The picture's size where the file has none."""
    for row in rows.tolist():
        size = _upright_size(facts, row)
        if size is not None:
            _set_size(document, code, row, size)


def size_that_fits(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """The picture's size where the annotations can only belong to it.

    They must fit into the picture; and either leave the stated size, or the picture must not be a
    resized version of it, for then they would have to be resized, too.
    """
    for row in rows.tolist():
        size = _upright_size(facts, row)
        if size is None:
            continue
        stated = facts.table.image_sizes[row]
        reach = _reach(facts, row)
        fits_picture = bool((reach <= np.array(size) + SLACK).all())
        fits_stated = bool((reach <= stated + SLACK).all())
        scale = np.array(size) / stated
        resized = abs(scale[0] - scale[1]) < _SAME_SHAPE * scale.max()
        turned = size == tuple(stated[::-1].tolist())
        if fits_picture and not (fits_stated and (resized or turned)):
            _set_size(document, code, row, size)


def _reach(facts: Facts, row: int) -> np.ndarray:
    """(2,) how far down and to the right the image's boxes and masks go; 0 without any."""
    mine = facts.table.annotations_of(row)
    corners = np.concatenate([facts.corners[mine], facts.masks.boxes[mine]])
    corners = corners[np.isfinite(corners).all(axis=1)]
    reach: np.ndarray = corners[:, [3, 2]].max(axis=0, initial=0.0)
    return reach


def _upright_size(facts: Facts, row: int) -> tuple[int, int] | None:
    try:
        look = look_at(image_path(facts, row), decode=False)
    except (OSError, ValueError):
        return None
    return None if look.problem else look.upright_size


def _set_size(document: Document, code: str, row: int, size: tuple[int, int]) -> None:
    if not document.is_touched("images", row):
        document.set(code, "images", row, "height", size[0])
        document.set(code, "images", row, "width", size[1])
