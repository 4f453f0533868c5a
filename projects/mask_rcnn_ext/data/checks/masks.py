"""Masks: polygons or RLE that cover something, of the image's size, where masks are expected."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..coco_table import FLAT, NO_SEGMENTATION, OTHER, POLYGONS, RLE, RLE_LIST
from . import segmentations as seg
from .boxes import SLACK, sound_boxes
from .facts import Facts, clip
from .findings import ERROR, WARNING, Defect, numbers, plain, show

_AREA_FACTOR = 2.0  # by which an area may differ from its mask's: some tools do not fill holes
_AREA_SLACK = 25.0  # pixels of area that rounding may make
_MOST_EXACT = 20_000  # masks that are rasterised to be sure of their area
_REDRAW = "Draw it anew, or take the annotation out."


def missing_masks(facts: Facts) -> Iterator[Defect]:
    """No annotation has a mask, or some lack one."""
    kinds = facts.table.segmentation_kind
    without = kinds == NO_SEGMENTATION
    if not len(kinds) or not without.any():
        return
    if without.all():
        yield facts.file(
            "no-masks",
            WARNING,
            "no annotation has a segmentation",
            "Give it masks, or train boxes only with MODEL.MASK_ON False.",
        )
        return
    share = f"{int(without.sum())} of {len(kinds)} annotations have none"
    yield facts.annotations(
        "mask-missing",
        ERROR,
        without,
        f"has no segmentation ({share})",
        "Draw its mask, or take it out; to train boxes only: MODEL.MASK_ON False.",
    )


def wrong_forms(facts: Facts) -> Iterator[Defect]:
    """Segmentations that are neither polygons nor RLE."""
    kinds = facts.table.segmentation_kind
    yield facts.annotations(
        "mask-flat",
        ERROR,
        kinds == FLAT,
        lambda row: (
            "its segmentation is one flat list of numbers, as VIA's export writes it: "
            f"{show(facts.table.segmentation(row))}"
        ),
        "COCO's form is a list of polygons, [[x, y, x, y, ...]]; `--fix` nests it.",
    )
    yield facts.annotations(
        "mask-malformed",
        ERROR,
        (kinds == OTHER) | facts.masks.has(seg.MALFORMED),
        lambda row: (
            f"its segmentation is {show(facts.table.segmentation(row))}, neither polygons nor RLE"
        ),
        _REDRAW,
    )


def mixed_forms(facts: Facts) -> Iterator[Defect]:
    """Polygons and RLE in one file; COCO's own crowds are RLE and do not count."""
    table = facts.table
    kinds = table.segmentation_kind[table.crowd == 0]
    polygons = int((kinds == POLYGONS).sum())
    runs = int(((kinds == RLE) | (kinds == RLE_LIST)).sum())
    if polygons and runs:
        yield facts.file(
            "mixed-mask-forms",
            WARNING,
            f"{polygons} objects have polygons and {runs} have RLE",
            "Our mappers take both; Detectron2's own needs INPUT.MASK_FORMAT bitmask.",
        )


def broken_polygons(facts: Facts) -> Iterator[Defect]:
    """Polygons that Detectron2 leaves out, an error where nothing else is left of the object."""
    masks = facts.masks
    rest = masks.usable > 0
    some = {
        "polygon-odd": (seg.ODD, "a polygon has an odd number of coordinates"),
        "polygon-short": (seg.SHORT, "a polygon has less than three points"),
        "polygon-not-finite": (seg.NOT_FINITE, "a coordinate of its polygons is no finite number"),
    }
    for code, (flag, text) in some.items():
        rows = masks.has(flag)
        words = f"{text}; its other polygons are taken"
        advice = "Mend or delete the polygon; `--fix` deletes it."
        # With NaN nothing is left out: it becomes some pixel, wherever that is.
        partly = ERROR if flag == seg.NOT_FINITE else WARNING
        yield facts.annotations(code, partly, rows & rest, words, advice)
        words = f"{text}, and it has no other: the object is lost"
        advice = f"{_REDRAW} `--fix` moves it to the list of changes."
        yield facts.annotations(code, ERROR, rows & ~rest, words, advice)


def broken_rle(facts: Facts) -> Iterator[Defect]:
    """RLE of another size than the image's, or that cannot be decoded."""
    masks, table = facts.masks, facts.table

    def size_words(row: int) -> str:
        (height, width), (own_height, own_width) = facts.sizes[row], masks.rle_sizes[row]
        turned = (
            " (height and width exchanged?)"
            if (own_width, own_height)
            == (
                height,
                width,
            )
            else ""
        )
        return (
            f"its RLE has size [{own_height}, {own_width}], the image has height {height:.0f} "
            f"and width {width:.0f}{turned}"
        )

    yield facts.annotations(
        "rle-size",
        ERROR,
        masks.has(seg.RLE_SIZE),
        size_words,
        "Encode the mask at the image's size.",
    )
    yield facts.annotations(
        "rle-broken",
        ERROR,
        masks.has(seg.RLE_SUM),
        "the runs of its RLE do not add up to height x width",
        "pycocotools decodes that into whatever is in memory. " + _REDRAW,
    )
    yield facts.annotations(
        "rle-malformed",
        ERROR,
        masks.has(seg.RLE_MALFORMED),
        lambda row: f"its RLE cannot be decoded: {show(table.segmentation(row))}",
        'The form is {"size": [height, width], "counts": text or a list of runs}.',
    )


def empty_masks(facts: Facts) -> Iterator[Defect]:
    """Masks without a pixel."""
    masks = facts.masks
    extent = masks.boxes[:, 2:] - masks.boxes[:, :2]
    nothing = (masks.usable > 0) & (np.isnan(extent).any(axis=1) | (masks.areas <= 0))
    yield facts.annotations(
        "mask-empty",
        WARNING,
        nothing,
        "its mask covers nothing",
        f"{_REDRAW} The box is trained on, the mask is not.",
    )


def masks_outside(facts: Facts) -> Iterator[Defect]:
    """Masks that leave the image, or that are parts of it instead of pixels."""
    masks = facts.masks
    inside = clip(masks.boxes, facts.sizes)
    with np.errstate(invalid="ignore"):
        normalised = normalised_masks(facts)
        beyond = np.abs(masks.boxes - inside).max(axis=1)
        gone = (masks.usable > 0) & (inside[:, 2:] <= inside[:, :2]).any(axis=1)
        gone &= (masks.boxes[:, 2:] > masks.boxes[:, :2]).all(axis=1)
        partly = (beyond > SLACK) & ~gone

    def words(row: int) -> str:
        height, width = facts.sizes[row]
        how = "lies outside of" if gone[row] else f"leaves by {beyond[row]:.1f} px"
        reach = numbers(masks.boxes[row])
        return f"its mask {how} the image of {width:.0f} x {height:.0f}; it reaches from {reach}"

    yield facts.annotations(
        "mask-normalised",
        ERROR,
        normalised,
        "its polygons lie between 0 and 1: parts of the image?",
        "Multiply by the image's width and height; `--fix` does.",
    )
    yield facts.annotations(
        "mask-outside",
        ERROR,
        gone,
        words,
        "Check the image's size and rotation; an object out of sight is better taken out.",
    )
    yield facts.annotations(
        "mask-beyond-edge", WARNING, partly, words, "Training cuts it at the edge."
    )


def normalised_masks(facts: Facts) -> np.ndarray:
    """(A,) bool, polygons that lie between 0 and 1."""
    reach = facts.masks.boxes
    is_polygons = facts.table.segmentation_kind == POLYGONS
    with np.errstate(invalid="ignore"):
        inside = ((reach >= 0) & (reach <= 1)).all(axis=1)
        return is_polygons & inside & (reach[:, 2:] > reach[:, :2]).all(axis=1)


def sound_masks(facts: Facts) -> np.ndarray:
    """(A,) bool, masks without any fault of their own, in pixels."""
    return (facts.masks.usable > 0) & (facts.masks.flags == 0) & ~normalised_masks(facts)


def areas(facts: Facts) -> Iterator[Defect]:
    """`area`, by which evaluation tells small objects from large ones."""
    table = facts.table
    areas, measured, box = table.areas, facts.masks.areas, table.boxes[:, 2:].prod(axis=1)
    missing = np.isnan(areas)
    yield facts.annotations(
        "area-missing",
        WARNING,
        missing,
        "has no area that is a number: training does not need it, evaluation does",
        "Write the mask's area in pixels; `--fix` does.",
    )
    yield facts.annotations(
        "area-not-positive",
        WARNING,
        (areas <= 0) | np.isinf(areas),
        lambda row: f"its area is {areas[row]:.6g}",
        "Write the mask's area in pixels; `--fix` does.",
    )
    with np.errstate(invalid="ignore"):
        usual = (areas > 0) & np.isfinite(areas) & ~normalised_masks(facts)
        off = np.isfinite(measured) & ~_area_agrees(areas, measured)
        by_box = np.isnan(measured) & sound_boxes(facts)
        off |= by_box & (areas > box * _AREA_FACTOR + _AREA_SLACK)
    measured = _exactly(facts, measured, np.flatnonzero(usual & off)[:_MOST_EXACT])
    with np.errstate(invalid="ignore"):
        off &= ~_area_agrees(areas, measured)
    yield facts.annotations(
        "area-differs",
        WARNING,
        usual & off,
        lambda row: (
            f"its area is {areas[row]:.6g}, "
            + (
                f"the box has {box[row]:.6g} px"
                if np.isnan(measured[row])
                else f"the mask has about {measured[row]:.6g} px"
            )
        ),
        "Evaluation would count it under a wrong size; `--fix` writes the mask's.",
    )


def _area_agrees(areas: np.ndarray, measured: np.ndarray) -> np.ndarray:
    near = np.abs(areas - measured) <= _AREA_SLACK
    within = (areas <= measured * _AREA_FACTOR) & (areas * _AREA_FACTOR >= measured)
    return near | within


def _exactly(facts: Facts, measured: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Pixels of these masks; the formula is wrong where polygons overlap or leave the image."""
    result = measured.copy()
    for row in rows.tolist():
        height, width = facts.sizes[row]
        if height > 0 and width > 0:
            window = seg.window_of(facts.table.segmentation(row), (int(height), int(width)))
            result[row] = measured[row] if window is None else window.bits.sum()
    return result


def crowds(facts: Facts) -> Iterator[Defect]:
    """Crowd flags other than 0 and 1, and files in which everything is a crowd."""
    table = facts.table
    yield facts.annotations(
        "crowd-flag",
        ERROR,
        table.crowd < 0,
        lambda row: (
            f"has iscrowd {show(plain(facts.entries.annotation(row).get('iscrowd')))}, "
            "expected 0 or 1"
        ),
        "Anything else than 0 is left out of training: write 0 for an object, 1 for a crowd; "
        "`--fix` does where it is clear.",
    )
    yield facts.annotations(
        "ignore-flag",
        ERROR,
        table.ignored & (table.crowd != 1),
        'has "ignore" set, which is none of COCO\'s keys: training would take it for an object',
        "Write iscrowd 1 for a region that is to be left out, or take the annotation out.",
    )
    if table.num_annotations and (table.crowd == 1).all():
        yield facts.file(
            "only-crowds",
            ERROR,
            "all annotations are crowds (iscrowd 1), which training leaves out",
            "Write iscrowd 0 for single objects.",
        )


CHECKS = (
    missing_masks,
    wrong_forms,
    mixed_forms,
    broken_polygons,
    broken_rle,
    empty_masks,
    masks_outside,
)
OTHERS = (areas, crowds)  # make sense without masks, too
