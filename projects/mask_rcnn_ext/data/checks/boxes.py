"""Boxes: four numbers x, y, width, height in pixels, inside the image, around the mask."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .facts import Facts, clip
from .findings import ERROR, WARNING, Defect, numbers, plain, show

SLACK = 2.0  # pixels by which boxes may miss: tools round differently
_SLACK_OF_SIDE = 0.05  # the same as a part of the mask's longer side
_FEWEST_BOXES = 5  # without masks, so many boxes must tell xyxy from xywh
_OVERRUN = 0.1  # and such a part of them must leave the image


def unusable_boxes(facts: Facts) -> Iterator[Defect]:
    """No box, or something else than four finite numbers."""

    def words(row: int) -> str:
        entry = facts.entries.annotation(row)
        if "bbox" not in entry:
            return "lacks bbox"
        return f"has bbox {show(entry['bbox'])}, expected four finite numbers"

    yield facts.annotations(
        "box-malformed",
        ERROR,
        ~np.isfinite(facts.corners).all(axis=1),
        words,
        "Write [x, y, width, height] in pixels; `--fix` does where there is a mask.",
    )


def degenerate_boxes(facts: Facts) -> Iterator[Defect]:
    """Boxes without an area: training drops such an object without a word."""
    boxes = facts.table.boxes
    yield facts.annotations(
        "box-negative",
        ERROR,
        (boxes[:, 2:] < 0).any(axis=1) & np.isfinite(facts.corners).all(axis=1),
        lambda row: f"bbox {numbers(boxes[row])} has a negative width or height",
        "Write [x, y, width, height], x and y of the upper left corner.",
    )
    yield facts.annotations(
        "box-empty",
        WARNING,
        (boxes[:, 2:] == 0).any(axis=1) & (boxes[:, 2:] >= 0).all(axis=1),
        lambda row: f"bbox {numbers(boxes[row])} has no area: training drops the object",
        "Draw it anew or take it out; `--fix` recomputes it where there is a mask.",
    )


def corners_for_sides(facts: Facts) -> Iterator[Defect]:
    """x0, y0, x1, y1 where x, y, width, height are expected."""
    boxes = facts.table.boxes
    yield facts.annotations(
        "box-xyxy",
        ERROR,
        xyxy_rows(facts),
        lambda row: (
            f"bbox {numbers(boxes[row])} looks like x0, y0, x1, y1{_mask_words(facts, row)}"
        ),
        "COCO's form is [x, y, width, height]; `--fix` converts.",
    )


def xyxy_rows(facts: Facts) -> np.ndarray:
    """(A,) bool, boxes that are corners: their mask shows it, or all boxes together do."""
    return facts.remember("xyxy_rows", lambda: _xyxy_rows(facts))


def _xyxy_rows(facts: Facts) -> np.ndarray:
    boxes, corners = facts.table.boxes, facts.corners
    ordered = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & (boxes[:, :2] >= 0).all(1)
    shifted = (boxes[:, :2] > 0).any(axis=1)  # at the origin both forms are the same
    with np.errstate(invalid="ignore"):
        tolerance = _tolerance(facts)
        as_sides = np.abs(corners - facts.mask_clipped).max(axis=1)
        as_corners = np.abs(boxes - facts.mask_clipped).max(axis=1)
        by_mask = ordered & shifted & (as_corners <= tolerance) & (as_sides > tolerance)
    without = np.isfinite(corners).all(axis=1) & np.isnan(as_sides) & ~normalised_rows(facts)
    others_agree = by_mask.sum() * 2 >= np.isfinite(as_sides).sum()
    if without.sum() < _FEWEST_BOXES or not others_agree:
        return by_mask
    limits = facts.sizes[:, ::-1] + SLACK
    with np.errstate(invalid="ignore"):
        fits = ordered & np.all(boxes[:, 2:] <= limits, axis=1)
        overruns: np.ndarray = np.asarray(np.any(corners[:, 2:] > limits, axis=1))
    if fits[without].all() and overruns[without].mean() >= _OVERRUN:
        return by_mask | (without & shifted)
    return by_mask


def normalised_boxes(facts: Facts) -> Iterator[Defect]:
    """Coordinates as parts of the image instead of pixels."""
    boxes = facts.table.boxes
    yield facts.annotations(
        "box-normalised",
        ERROR,
        normalised_rows(facts),
        lambda row: f"bbox {numbers(boxes[row])} lies between 0 and 1: parts of the image?",
        "Multiply by the image's width and height; `--fix` does.",
    )


def normalised_rows(facts: Facts) -> np.ndarray:
    """(A,) bool, boxes between 0 and 1 that are not whole pixels."""
    boxes = facts.table.boxes
    with np.errstate(invalid="ignore"):
        inside = ((boxes >= 0) & (boxes <= 1)).all(axis=1) & (boxes[:, 2:] > 0).all(axis=1)
        return inside & (boxes != np.round(boxes)).any(axis=1)


def sound_boxes(facts: Facts) -> np.ndarray:
    """(A,) bool, boxes of a size, inside their image as far as that is known, in pixels."""
    inside = clip(facts.corners, facts.sizes)
    with np.errstate(invalid="ignore"):
        fits = np.abs(facts.corners - inside).max(axis=1) <= SLACK
        sized = (facts.table.boxes[:, 2:] > 0).all(axis=1)
    return fits & sized & ~xyxy_rows(facts) & ~normalised_rows(facts)


def boxes_outside(facts: Facts) -> Iterator[Defect]:
    """Boxes that leave the image; what is outside is cut off in training."""
    table, corners = facts.table, facts.corners
    judged = (table.boxes[:, 2:] > 0).all(axis=1) & ~xyxy_rows(facts) & ~normalised_rows(facts)
    inside = clip(corners, facts.sizes)
    with np.errstate(invalid="ignore", over="ignore"):
        part = (inside[:, 2:] - inside[:, :2]).prod(axis=1) / table.boxes[:, 2:].prod(axis=1)
        beyond = np.abs(corners - inside).max(axis=1)
        mostly = judged & (part < 0.5) & (beyond > SLACK)
        slightly = judged & (part >= 0.5) & (beyond > SLACK)

    def words(row: int) -> str:
        height, width = facts.sizes[row]
        size = f"the image of {width:.0f} x {height:.0f} (width x height)"
        if part[row] <= 0:
            return f"bbox {numbers(table.boxes[row])} lies outside of {size}"
        return f"bbox {numbers(table.boxes[row])} leaves {size} by {beyond[row]:.1f} px"

    yield facts.annotations(
        "box-outside",
        ERROR,
        mostly,
        words,
        "Less than half of the object is left: check the image's size, its rotation and the "
        "box; `--fix` takes the mask's box where there is one.",
    )
    yield facts.annotations(
        "box-beyond-edge",
        WARNING,
        slightly,
        words,
        "Training cuts it at the edge; `--fix` does so in the file.",
    )


def boxes_and_masks(facts: Facts) -> Iterator[Defect]:
    """Boxes that are not around their mask."""
    off, part, judged = box_mask_difference(facts)
    judged &= ~xyxy_rows(facts) & ~normalised_rows(facts)
    with np.errstate(invalid="ignore"):
        differs = judged & (off > _tolerance(facts))

    def words(row: int) -> str:
        box = facts.table.boxes[row]
        return f"bbox {numbers(box)} is off by {off[row]:.1f} px{_mask_words(facts, row)}"

    advice = "Look which of the two is right; `--fix` takes the mask's box."
    code = "box-not-around-mask"
    yield facts.annotations(code, ERROR, differs & (part < 0.5), words, advice)
    yield facts.annotations("box-loose", WARNING, differs & (part >= 0.5), words, advice)


def box_mask_difference(facts: Facts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A,) the farthest edge in pixels, (A,) intersection over union, (A,) bool what has both."""
    corners, mask = facts.corners, facts.masks.boxes
    boxes = facts.table.boxes
    inside, mask_inside = clip(corners, facts.sizes), facts.mask_clipped
    with np.errstate(invalid="ignore", over="ignore"):
        # Both may leave the image in the same way; or the box is of what is left of the mask.
        off = np.minimum(
            np.abs(corners - mask).max(axis=1), np.abs(inside - mask_inside).max(axis=1)
        )
        low = np.maximum(inside[:, :2], mask_inside[:, :2])
        high = np.minimum(inside[:, 2:], mask_inside[:, 2:])
        common = np.clip(high - low, 0, None).prod(axis=1)
        areas = [(b[:, 2:] - b[:, :2]).prod(axis=1) for b in (inside, mask_inside)]
        part = common / np.maximum(areas[0] + areas[1] - common, 1e-9)
        judged = np.isfinite(off) & (boxes[:, 2:] > 0).all(axis=1)
        # A box or mask that lies outside, or is parts of the image, is a finding of its own.
        judged &= (inside[:, 2:] > inside[:, :2]).all(axis=1)
        judged &= (mask_inside[:, 2:] > mask_inside[:, :2]).all(axis=1)
        judged &= ~(mask <= 1).all(axis=1)
    return off, part, judged


def repeated_boxes(facts: Facts) -> Iterator[Defect]:
    """The same box of the same class in the same image: annotated twice."""
    table = facts.table
    usable = facts.is_instance & facts.known_category & (table.boxes[:, 2:] > 0).all(axis=1)
    rows = np.flatnonzero(usable & np.isfinite(facts.corners).all(axis=1))
    keys = np.column_stack(
        [table.image_of[rows], table.category_of[rows], np.round(table.boxes[rows] * 100)]
    )
    order = np.lexsort(keys.T[::-1])
    same = np.zeros(len(rows), bool)
    same[1:] = (keys[order[1:]] == keys[order[:-1]]).all(axis=1)
    first = order[np.maximum.accumulate(np.where(same, 0, np.arange(len(rows))))]
    partner = dict(zip(rows[order[same]].tolist(), rows[first[same]].tolist(), strict=True))

    def words(row: int) -> str:
        other = show(plain(table.annotation_ids[partner[row]]))
        return f"has the same box and class as annotation {other}: {facts.category_name(row)}"

    yield facts.annotations(
        "repeated-box",
        WARNING,
        np.array(sorted(partner), np.int64),
        words,
        "If it is the same object, take one of them out.",
    )


def _tolerance(facts: Facts) -> np.ndarray:
    """(A,) pixels by which a box may miss its mask."""
    mask = facts.masks.boxes
    sides = (mask[:, 2:] - mask[:, :2]).max(axis=1)
    return np.maximum(SLACK, _SLACK_OF_SIDE * sides)


def _mask_words(facts: Facts, row: int) -> str:
    x0, y0, x1, y1 = facts.masks.boxes[row]
    if np.isnan(x0):
        return ": read as width and height, boxes leave their images"
    return f": the mask reaches from ({x0:.6g}, {y0:.6g}) to ({x1:.6g}, {y1:.6g})"


CHECKS = (
    unusable_boxes,
    degenerate_boxes,
    corners_for_sides,
    normalised_boxes,
    boxes_outside,
    boxes_and_masks,
    repeated_boxes,
)
