"""Draw instances on a picture so that people can read them.

Frame: pixels of the picture that is drawn on, x to the right, y down; colours are RGB in 0..255.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN = 0.61803398875  # steps of the golden ratio keep neighbouring hues apart for any count


@dataclass(frozen=True)
class Drawn:
    """One instance: mask (H, W) bool or None, box (x0, y0, x1, y1), its label, its class number.

    keypoints: (K, 3) of x, y, visibility (0 is not drawn), or None; skeleton: pairs of indices.
    """

    mask: np.ndarray | None
    box: Sequence[float]
    label: str
    class_index: int
    keypoints: np.ndarray | None = None
    skeleton: Sequence[tuple[int, int]] = ()


def class_colour(class_index: int) -> tuple[int, int, int]:
    """The colour of a class, the same in every picture; RGB, bright enough for dark text."""
    hue = (class_index * _GOLDEN + 0.05) % 1.0
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.75 - 0.25 * (class_index % 2), 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_instances(
    image: np.ndarray, instances: Sequence[Drawn], *, scale: float = 1.0, alpha: float = 0.45
) -> np.ndarray:
    """
    Args:
        image: (H, W, 3) uint8 RGB, not changed
        instances: in the frame of `image`; later ones are drawn over earlier ones
        scale: enlarge the picture, so that labels on small images can be read
        alpha: weight of a mask's colour over the picture, 0 to 1
    Returns:
        (round(H * scale), round(W * scale), 3) uint8 RGB
    """
    height, width = (round(side * scale) for side in image.shape[:2])
    canvas = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
    for instance in instances:
        _draw_mask(canvas, instance, alpha)
    taken: list[tuple[int, int, int, int]] = []
    for instance in instances:
        colour = class_colour(instance.class_index)
        x0, y0, x1, y1 = (round(edge * scale) for edge in instance.box)
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), colour, 1, cv2.LINE_AA)
        _draw_keypoints(canvas, instance, scale, colour)
    for instance in instances:
        taken.append(_draw_label(canvas, instance, scale, taken))
    return canvas


def _draw_mask(canvas: np.ndarray, instance: Drawn, alpha: float) -> None:
    if instance.mask is None or not instance.mask.any():
        return
    size = (canvas.shape[1], canvas.shape[0])
    mask = cv2.resize(instance.mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    colour = np.array(class_colour(instance.class_index), np.float32)
    inside = mask.astype(bool)
    canvas[inside] = (canvas[inside] * (1 - alpha) + colour * alpha).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(canvas, contours, -1, class_colour(instance.class_index), 1, cv2.LINE_AA)


def _draw_keypoints(
    canvas: np.ndarray, instance: Drawn, scale: float, colour: tuple[int, int, int]
) -> None:
    if instance.keypoints is None:
        return
    points = [(round(x * scale), round(y * scale)) for x, y, _ in instance.keypoints]
    shown = instance.keypoints[:, 2] > 0
    for a, b in instance.skeleton:
        if shown[a] and shown[b]:
            cv2.line(canvas, points[a], points[b], colour, 1, cv2.LINE_AA)
    for point, is_shown in zip(points, shown, strict=True):
        if is_shown:
            cv2.circle(canvas, point, 2, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, point, 2, (0, 0, 0), 1, cv2.LINE_AA)


def _draw_label(
    canvas: np.ndarray, instance: Drawn, scale: float, taken: Sequence[tuple[int, int, int, int]]
) -> tuple[int, int, int, int]:
    """Put the label near the box's corner where no earlier label is; return its rectangle."""
    font_scale, pad = 0.4, 2
    (text_w, text_h), baseline = cv2.getTextSize(instance.label, _FONT, font_scale, 1)
    w, h = text_w + 2 * pad, text_h + baseline + pad
    x0, y0, _, y1 = (round(edge * scale) for edge in instance.box)
    left = int(np.clip(x0, 0, max(0, canvas.shape[1] - w)))
    # Above the box, inside its top, below it, then further down row by row.
    tops = [y0 - h, y0, y1, *range(y0 + h, canvas.shape[0] - h, h), *range(y0 - 2 * h, 0, -h)]
    places = [(left, int(np.clip(top, 0, max(0, canvas.shape[0] - h))), w, h) for top in tops]
    place = next((p for p in places if not any(_overlap(p, t) for t in taken)), places[0])
    x, y = place[:2]
    cv2.rectangle(canvas, (x, y), (x + w, y + h), class_colour(instance.class_index), -1)
    cv2.putText(
        canvas,
        instance.label,
        (x + pad, y + text_h + pad // 2),
        _FONT,
        font_scale,
        (0, 0, 0),
        1,
        cv2.LINE_AA,
    )
    return place


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
