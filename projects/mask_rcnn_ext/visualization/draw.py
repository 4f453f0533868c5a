"""Draw instances on a picture so that people can read them.

Frame: pixels of the picture that is drawn on, x to the right, y down; colours are RGB in 0..255.
Lines and letters grow with the picture, so that it can be read when it is shown whole.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .labels import fitting, place_labels, shrinking

Colour = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.4
_SMALLEST_FONT = 0.75  # of the usual size, where there are very many labels
_UNIT = 1000  # a picture with a longer side of so many pixels has lines of one pixel
_GOLDEN = 0.61803398875  # steps of the golden ratio keep neighbouring hues apart for any count
# Saturation and value of the instances of one class, in turn, as factors of the class's own.
_SHADES = ((1.0, 1.0), (0.5, 1.0), (1.25, 0.74), (0.7, 0.84), (1.3, 0.9))


@dataclass(frozen=True)
class Drawn:
    """One instance.

    Attributes:
        mask: (h, w) bool of the whole picture or of a part of it, or None
        box: x0, y0, x1, y1
        label: "" for none
        class_index: chooses the hue
        keypoints: (K, 3) of x, y, visibility (0 is not drawn), or None
        skeleton: pairs of indices of keypoints that a line joins
        shade: tells the instances of one class apart: 0, 1, 2, ...
        corner: x, y of the mask's first pixel in the picture
    """

    mask: np.ndarray | None
    box: Sequence[float]
    label: str
    class_index: int
    keypoints: np.ndarray | None = None
    skeleton: Sequence[tuple[int, int]] = ()
    shade: int = 0
    corner: tuple[int, int] = (0, 0)

    @property
    def colour(self) -> Colour:
        return class_colour(self.class_index, self.shade)


def class_colour(class_index: int, shade: int = 0) -> Colour:
    """The colour of a class, the same in every picture; RGB.

    Args:
        class_index: the hue
        shade: which instance of the class; 0 is bright enough for dark text
    """
    hue = (class_index * _GOLDEN + 0.05) % 1.0
    saturation, value = _SHADES[shade % len(_SHADES)]
    saturation = min(1.0, (0.75 - 0.25 * (class_index % 2)) * saturation)
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
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
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    if scale == 1:
        canvas: np.ndarray = np.array(image, np.uint8, order="C")
    else:
        smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
        canvas = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=smooth)
    unit = max(1.0, max(height, width) / _UNIT)
    for instance in instances:
        _draw_mask(canvas, instance, scale, alpha, unit)
    for instance in instances:
        x0, y0, x1, y1 = (_drawable(edge * scale) for edge in instance.box)
        cv2.rectangle(canvas, (x0, y0), (x1 - 1, y1 - 1), instance.colour, round(unit))
    for instance in instances:
        _draw_keypoints(canvas, instance, scale, unit)
    _draw_labels(canvas, instances, scale, unit)
    return canvas


def _drawable(value: float) -> int:
    """A whole number that OpenCV can draw with; what is far outside is not seen anyway."""
    return round(min(max(value, -30000), 30000))


def _draw_mask(
    canvas: np.ndarray, instance: Drawn, scale: float, alpha: float, unit: float
) -> None:
    if instance.mask is None or not instance.mask.any():
        return
    rows, top = _enlarged(instance.mask.shape[0], instance.corner[1], scale, canvas.shape[0])
    columns, left = _enlarged(instance.mask.shape[1], instance.corner[0], scale, canvas.shape[1])
    mask = instance.mask[rows[:, None], columns]
    part = canvas[top : top + len(rows), left : left + len(columns)]
    colour = np.array(instance.colour, np.float32)
    part[mask] = (part[mask] * (1 - alpha) + colour * alpha).astype(np.uint8)
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(
        canvas, contours, -1, instance.colour, round(1.3 * unit), cv2.LINE_AA, offset=(left, top)
    )


def _enlarged(cells: int, first: int, scale: float, limit: int) -> tuple[np.ndarray, int]:
    """Of one axis: the mask's cell for each of the canvas's pixels that it covers, and the first.

    A pixel takes the cell that its centre lies in.
    """
    begin = max(0, int(np.ceil(first * scale - 0.5)))
    end = min(limit, int(np.ceil((first + cells) * scale - 0.5)))
    pixels = np.arange(begin, max(begin, end))
    inside = ((pixels + 0.5) / scale - first).astype(int)
    return inside.clip(0, cells - 1), begin


def _draw_keypoints(canvas: np.ndarray, instance: Drawn, scale: float, unit: float) -> None:
    if instance.keypoints is None:
        return
    points = [(_drawable(x * scale), _drawable(y * scale)) for x, y, _ in instance.keypoints]
    shown = instance.keypoints[:, 2] > 0
    thick, radius = round(2 * unit), round(2.2 * unit)
    for colour, wide in (((0, 0, 0), thick + max(2, round(unit))), (instance.colour, thick)):
        for a, b in instance.skeleton:
            if shown[a] and shown[b]:
                cv2.line(canvas, points[a], points[b], colour, wide, cv2.LINE_AA)
    for point, is_shown in zip(points, shown, strict=True):
        if is_shown:
            cv2.circle(canvas, point, radius, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, point, radius, (0, 0, 0), round(unit), cv2.LINE_AA)


def _draw_labels(canvas: np.ndarray, instances: Sequence[Drawn], scale: float, unit: float) -> None:
    named = [one for one in instances if one.label]
    if not named:
        return
    picture = canvas.shape[:2]
    font = _FONT_SCALE * unit
    texts = [_Text(one.label, font, picture[1]) for one in named]
    smaller = shrinking(np.array([text.size for text in texts]), picture, _SMALLEST_FONT)
    if smaller < 1:
        texts = [_Text(one.label, font * smaller, picture[1]) for one in named]
    boxes = np.array([[float(edge) * scale for edge in one.box] for one in named])
    places = place_labels(boxes, np.array([text.size for text in texts]), picture)
    for one, text, box, place in zip(named, texts, boxes, places, strict=True):
        if place is not None and place[2]:
            _draw_leader(canvas, one.colour, text, box, place[:2], unit)
    for one, text, place in zip(named, texts, places, strict=True):
        if place is not None:
            text.draw(canvas, place[:2], one.colour)


def _draw_leader(
    canvas: np.ndarray,
    colour: Colour,
    text: _Text,
    box: np.ndarray,
    place: tuple[int, int],
    unit: float,
) -> None:
    """A line from a label to the middle of its object."""
    start = (place[0] + text.size[0] // 2, place[1] + text.size[1] // 2)
    end = (_drawable((box[0] + box[2]) / 2), _drawable((box[1] + box[3]) / 2))
    for shade, wide in (((0, 0, 0), 3), (colour, 1)):
        cv2.line(canvas, start, end, shade, round(wide * unit), cv2.LINE_AA)
        cv2.circle(canvas, end, round((wide + 3) / 2 * unit), shade, -1, cv2.LINE_AA)


class _Text:
    """A label's words in a size; `size` is width and height with the space around them."""

    def __init__(self, words: str, font: float, limit: int):
        self._font = font
        self._pad = max(2, round(5 * font))
        self._thick = max(1, round(1.6 * font))
        room = limit - 2 * self._pad
        self._words = fitting(words, self._measure(words)[0], room)
        width, self._height, below = self._measure(self._words)
        self.size = (width + 2 * self._pad, self._height + below + self._pad)

    def _measure(self, words: str) -> tuple[int, int, int]:
        (width, height), below = cv2.getTextSize(words, _FONT, self._font, self._thick)
        return int(width), int(height), int(below)

    def draw(self, canvas: np.ndarray, place: tuple[int, int], colour: Colour) -> None:
        x, y = place
        right, bottom = x + self.size[0] - 1, y + self.size[1] - 1
        cv2.rectangle(canvas, (x, y), (right, bottom), colour, -1)
        luminance = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
        ink = (0, 0, 0) if luminance > 100 else (255, 255, 255)
        base = (x + self._pad, y + self._pad // 2 + self._height)
        cv2.putText(canvas, self._words, base, _FONT, self._font, ink, self._thick, cv2.LINE_AA)
