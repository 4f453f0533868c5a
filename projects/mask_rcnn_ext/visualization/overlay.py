"""Detections drawn on their picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from .draw import Drawn, draw_instances

_SMALLEST_SIDE = 480  # pixels; a smaller picture is enlarged, so that its labels can be read
_ROOM = 25_000  # pixels of the picture for each label; a crowded picture is enlarged, too,
_CROWDED_SIDE = 1600  # ... but to no more than this
_LEAST_KEYPOINT_SCORE = 0.05  # as Detectron2 draws them
_LARGEST_SIDE = 16384  # a larger one is shrunk: JPEG ends at 65535, and most viewers before that


class Found(Protocol):
    """What `engine.prediction.Prediction` has; see there."""

    image_size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    rles: list[dict[str, Any]] | None
    keypoints: np.ndarray | None
    skeleton: Sequence[tuple[int, int]]

    @property
    def labels(self) -> list[str]: ...


def draw_prediction(image: np.ndarray, found: Any, *, enlarge: bool = True) -> np.ndarray:
    """
    Args:
        image: (H, W, 3) uint8 RGB
        found: a `Found`: the detections, in the frame of `image`
        enlarge: draw a small picture larger, and a huge one smaller; False keeps (H, W), as the
            frames of a video must
    Returns:
        (H', W', 3) uint8 RGB; the same class has the same hue in every picture, its instances
        different shades of it, by their order
    """
    boxes = np.asarray(found.boxes, float)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    labels, shades = found.labels, _shades(found.classes)
    drawn = []
    for number in np.argsort(-areas, kind="stable").tolist():  # small ones on top of large ones
        mask, corner = None, (0, 0)
        if found.rles is not None:
            mask, corner = _window(found.rles[number])
        keypoints = None if found.keypoints is None else _visible(found.keypoints[number])
        drawn.append(
            Drawn(
                mask=mask,
                box=boxes[number].tolist(),
                label=f"{labels[number]} {found.scores[number]:.2f}",
                class_index=int(found.classes[number]),
                keypoints=keypoints,
                skeleton=found.skeleton,
                shade=shades[number],
                corner=corner,
            )
        )
    scale = _scale(image.shape[0], image.shape[1], len(drawn)) if enlarge else 1.0
    return draw_instances(image, drawn, scale=scale)


def _scale(height: int, width: int, labels: int) -> float:
    longest = max(height, width)
    roomy = min((labels * _ROOM / (height * width)) ** 0.5, _CROWDED_SIDE / longest)
    return min(max(1.0, _SMALLEST_SIDE / longest, roomy), _LARGEST_SIDE / longest)


def _shades(classes: np.ndarray) -> list[int]:
    """For each detection how many of its class come before it."""
    seen: Counter[int] = Counter()
    shades = []
    for index in classes.tolist():
        shades.append(seen[index])
        seen[index] += 1
    return shades


def _window(rle: dict[str, Any]) -> tuple[np.ndarray | None, tuple[int, int]]:
    """The part of a mask that has pixels, (h, w) bool, and the x, y of its first one.

    A hundred masks of a large picture would be gigabytes.
    """
    x, y, width, height = (int(edge) for edge in coco_mask.toBbox(rle).tolist())
    if width == 0 or height == 0:
        return None, (0, 0)
    return coco_mask.decode(rle)[y : y + height, x : x + width].astype(bool), (x, y)


def _visible(keypoints: np.ndarray) -> np.ndarray:
    """(K, 3) with a visibility in place of the score; a guess is not drawn."""
    points = np.array(keypoints, float)
    points[:, 2] = points[:, 2] > _LEAST_KEYPOINT_SCORE
    return points
