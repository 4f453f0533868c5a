"""Detections drawn on their picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from pycocotools import mask as coco_mask

from .draw import Drawn, draw_instances

_SMALLEST_SIDE = 480  # pixels; a smaller picture is enlarged, so that its labels can be read


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
        enlarge: draw a small picture larger; False keeps (H, W), as the frames of a video must
    Returns:
        (H', W', 3) uint8 RGB; the same class has the same colour in every picture
    """
    boxes = np.asarray(found.boxes, float)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    labels = found.labels
    drawn = []
    for number in np.argsort(-areas, kind="stable").tolist():  # small ones on top of large ones
        mask = None
        if found.rles is not None:
            mask = coco_mask.decode(found.rles[number]).astype(bool)
        keypoints = None if found.keypoints is None else _visible(found.keypoints[number])
        drawn.append(
            Drawn(
                mask=mask,
                box=boxes[number].tolist(),
                label=f"{labels[number]} {found.scores[number]:.2f}",
                class_index=int(found.classes[number]),
                keypoints=keypoints,
                skeleton=found.skeleton,
            )
        )
    scale = max(1.0, _SMALLEST_SIDE / max(image.shape[:2])) if enlarge else 1.0
    return draw_instances(image, drawn, scale=scale)


def _visible(keypoints: np.ndarray) -> np.ndarray:
    """(K, 3) with a visibility in place of the score: a detected keypoint is drawn."""
    points = np.array(keypoints, float)
    points[:, 2] = 1
    return points
