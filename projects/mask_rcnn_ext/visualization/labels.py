"""Where labels go on a picture: near their objects, never on each other, never outside.

Letters: R labels, C places that one could take. Frame: pixels of the picture that is drawn on.
"""

from __future__ import annotations

import numpy as np

_ORDER = 0.12  # what it costs to take the next best side of a box, in shares of a hidden object
_LEADER = 0.6  # ... to be led to by a line
_FAR = 0.06  # ... and to be one label's height farther away
_REACH = 3.0  # how far to look at first: in labels' widths, and in three times their heights
_ROOMY = 6.0  # a box of so many labels' area can carry its label inside
_FULL = 0.3  # labels cover at most this share of the picture, then they are made smaller


def place_labels(
    boxes: np.ndarray, sizes: np.ndarray, picture: tuple[int, int]
) -> list[tuple[int, int, bool] | None]:
    """
    Args:
        boxes: (R, 4) float, x0, y0, x1, y1 of the labelled objects; may leave the picture
        sizes: (R, 2) int, width and height of the labels
        picture: (H, W)
    Returns:
        for each label the left and top of its place, and whether it is away from its box, so that
        a line should lead there; None where no place is free. No two places overlap
    """
    boxes, sizes = np.asarray(boxes, float).reshape(-1, 4), np.asarray(sizes).reshape(-1, 2)
    boxes = boxes.clip(0, [picture[1], picture[0], picture[1], picture[0]])
    extent = np.maximum(boxes[:, 2:] - boxes[:, :2], 1)
    areas = extent.prod(axis=1)
    taken = np.zeros((0, 4))
    places: list[tuple[int, int, bool] | None] = [None] * len(boxes)
    # Small objects have less room around them: they choose first.
    for number in np.argsort(areas, kind="stable").tolist():
        width, height = sizes[number].tolist()
        if width > picture[1] or height > picture[0]:
            continue
        near = _beside(boxes[number], width, height, areas[number])
        chosen = _cheapest(near, np.arange(len(near)) * _ORDER, taken, boxes, areas, picture)
        away = False
        for reach in (_REACH, float("inf")):
            # Elsewhere may be better than on top of other objects, and must do if all is taken.
            if chosen is not None and chosen[1] <= _LEADER:
                break
            spots, distance = _around(boxes[number], width, height, picture, reach)
            other = _cheapest(
                spots, _LEADER + distance / height * _FAR, taken, boxes, areas, picture
            )
            if other is not None and (chosen is None or other[1] < chosen[1]):
                chosen, away = other, True
            if chosen is not None:
                break
        if chosen is not None:
            place = chosen[0]
            taken = np.vstack([taken, place])
            places[number] = (int(place[0]), int(place[1]), away)
    return places


def shrinking(sizes: np.ndarray, picture: tuple[int, int], smallest: float) -> float:
    """By how much to scale all labels so that they leave room for the picture: smallest to 1."""
    covered = float(np.asarray(sizes, float).reshape(-1, 2).prod(axis=1).sum())
    room = _FULL * picture[0] * picture[1]
    return 1.0 if covered <= room else max(smallest, (room / covered) ** 0.5)


def _beside(box: np.ndarray, width: int, height: int, area: float) -> np.ndarray:
    """(C, 4) places at the sides of a box, the best first."""
    x0, y0, x1, y1 = np.round(box)
    corners = [
        (x0, y0 - height), (x0, y1), (x1 - width, y0 - height), (x1 - width, y1),
        (x1, y0), (x0 - width, y0), (x1, y1 - height), (x0 - width, y1 - height),
    ]  # fmt: skip
    if area > _ROOMY * width * height:
        inside = [(x0, y0), (x1 - width, y0), (x0, y1 - height), (x1 - width, y1 - height)]
        corners[1:1] = inside[:1]
        corners += inside[1:]
        corners += [(x0, y) for y in np.arange(y0 + height, y1 - 2 * height, height)]
    left, top = np.array(corners).T
    return np.stack([left, top, left + width, top + height], axis=1)


def _around(
    box: np.ndarray, width: int, height: int, picture: tuple[int, int], reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """(C, 4) places in a grid, at most `reach` labels from the box's middle; (C,) distances."""
    x, y = box.reshape(2, 2).mean(axis=0)
    top = np.arange(0, picture[0] - height + 1, height // 2 + 1)
    left = np.arange(0, picture[1] - width + 1, max(1, width // 4))
    top = top[np.abs(top + height / 2 - y) <= 3 * reach * height]
    left = left[np.abs(left + width / 2 - x) <= reach * width]
    rows, columns = (one.ravel() for one in np.meshgrid(top, left, indexing="ij"))
    spots = np.stack([columns, rows, columns + width, rows + height], axis=1).astype(float)
    return spots, np.abs(rows + height / 2 - y) + np.abs(columns + width / 2 - x)


def _cheapest(
    spots: np.ndarray,
    cost: np.ndarray,
    taken: np.ndarray,
    boxes: np.ndarray,
    areas: np.ndarray,
    picture: tuple[int, int],
) -> tuple[np.ndarray, float] | None:
    """The cheapest place, (4,), that is inside and free, and its cost; None if there is none."""
    height, width = picture
    # A box at the border: its label may be moved along that border, if it stays beside the box.
    left = spots[:, 0].clip(0, np.maximum(width - (spots[:, 2] - spots[:, 0]), 0))
    spots = spots + np.multiply.outer(left - spots[:, 0], [1, 0, 1, 0])
    usable = (spots[:, 1] >= 0) & (spots[:, 3] <= height)
    usable &= ~(_overlaps(spots, taken) > 0).any(axis=1)
    spots, cost = spots[usable], cost[usable]
    if not len(spots):
        return None
    # What of each object the label would hide; of a large object, little.
    cost = cost + (_overlaps(spots, boxes) / areas).sum(axis=1)
    best = int(cost.argmin())
    return spots[best], float(cost[best])


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(C, R) areas that rectangles share."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return (high - low).clip(min=0).prod(axis=2)


def fitting(text: str, measure_width: int, limit: int) -> str:
    """`text`, shortened with an ellipsis if it is wider than `limit` pixels."""
    if measure_width <= limit or not text:
        return text
    kept = max(1, int(len(text) * limit / measure_width) - 2)
    return text[:kept] + "…"
