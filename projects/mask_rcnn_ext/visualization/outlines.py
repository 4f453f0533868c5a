"""Masks as SVG paths. Frame: pixels of the image, continuous, x to the right, y down."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

_SHARE = 2  # a mask is enlarged by this, so that one pixel has an outline of its own


def path_of_polygons(polygons: Iterable[np.ndarray]) -> str:
    """The union of polygons, for `fill-rule="nonzero"`.

    Args:
        polygons: (n, 2) x, y each
    Returns:
        a path's `d`
    """
    # All turn the same way round, so that where two overlap the counts do not cancel.
    return "".join(_closed(points if _area(points) >= 0 else points[::-1]) for points in polygons)


def path_of_mask(bits: np.ndarray, left: int, top: int, tolerance: float = 0.0) -> str:
    """The outline of a mask, holes kept, for `fill-rule="evenodd"`.

    Args:
        bits: (h, w) bool
        left, top: place of its first pixel in the image
        tolerance: by how much the outline may be off, pixels; larger is shorter
    Returns:
        a path's `d`, within a quarter of a pixel and `tolerance` of the pixels' edges
    """
    if not bits.any():
        return ""
    large = np.repeat(np.repeat(bits.astype(np.uint8), _SHARE, axis=0), _SHARE, axis=1)
    contours, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts = []
    for contour in contours:
        if tolerance > 0:
            contour = cv2.approxPolyDP(contour, tolerance * _SHARE, closed=True)
        # A contour runs through the centres of the enlarged pixels.
        parts.append(_closed((contour.reshape(-1, 2) + 0.5) / _SHARE + (left, top)))
    return "".join(parts)


def number(value: float) -> str:
    """Short, to a tenth of a pixel."""
    text = f"{value:.1f}"
    return text[:-2] if text.endswith(".0") else text


def _closed(points: np.ndarray | Sequence[Sequence[float]]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points) + "Z"


def _area(points: np.ndarray) -> float:
    """Signed; half of it is the area."""
    x, y = points.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
