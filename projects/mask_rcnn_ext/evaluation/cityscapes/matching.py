"""What one image tells the Cityscapes benchmark: its objects, its predictions, what they share.

Letters: G objects and groups, P predictions, M pairs that share pixels, H, W the image's size.
A record holds a few numbers an object, so that it can be kept and sent where masks could not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...data.cityscapes.labels import BY_ID, INSTANCE_STEP, LABELS, THINGS
from ...errors import DataError
from .runs import Runs, count_shared, runs_of_bitmaps, runs_of_rles

# Instance id -> (median distance in metres, share of its pixels whose distance is known, 0 to 1).
Distances = Mapping[int, tuple[float, float]]
UNKNOWN_DISTANCE = (-1.0, 0.0)

_VOID = [label.id for label in LABELS if label.ignore_in_eval]
_INDEX = {label.id: index for index, label in enumerate(THINGS)}


@dataclass(frozen=True)
class ImageMatches:
    """One image's part in the figures; classes are indices into `labels.THINGS`.

    Attributes:
        name: of the image
        object_class: (G,) int64
        object_pixels: (G,) int64
        object_single: (G,) bool, False for a group region
        object_distance: (G, 2) float64, see `Distances`
        has_distances: whether distances were given
        prediction_class: (P,) int64
        prediction_pixels: (P,) int64, at least 1
        prediction_void: (P,) int64, its pixels on labels that the benchmark leaves out
        prediction_score: (P,) float64
        pairs: (M, 2) int64, prediction and object of the same class
        shared: (M,) int64, pixels of both, at least 1
    """

    name: str
    object_class: np.ndarray
    object_pixels: np.ndarray
    object_single: np.ndarray
    object_distance: np.ndarray
    has_distances: bool
    prediction_class: np.ndarray
    prediction_pixels: np.ndarray
    prediction_void: np.ndarray
    prediction_score: np.ndarray
    pairs: np.ndarray
    shared: np.ndarray


def match_image(
    ids: np.ndarray,
    masks: np.ndarray | Sequence[Mapping[str, Any]],
    label_ids: Sequence[int],
    scores: Sequence[float] | np.ndarray,
    *,
    name: str = "the image",
    distances: Distances | None = None,
) -> ImageMatches:
    """Compare an image's predictions with its annotation.

    Args:
        ids: (H, W) integers, as in *_gtFine_instanceIds.png: label id * 1000 + number for an
            object, the label id alone for a group and for all that is no object
        masks: (P, H, W), not zero inside, or P of COCO's run lengths
        label_ids: P of them, as in the label table; classes that the benchmark does not count are
            left out, empty masks too
        scores: P of them, finite
        name: of the image, for messages
        distances: of its objects and groups; what is missing there has an unknown distance
    Raises:
        DataError: masks of another size, an unknown label, a score that is no number
    """
    height, width = ids.shape
    if isinstance(masks, np.ndarray):
        if masks.shape[1:] != ids.shape and len(masks):
            raise DataError(
                f"{name}: masks are {masks.shape[1]}x{masks.shape[2]} (height x width), but the "
                f"annotation is {height}x{width}; predict on the image as it is on disk"
            )
        runs = runs_of_bitmaps(masks)
    else:
        runs = runs_of_rles(masks, (height, width), name)
    classes, confidence = _classes(label_ids, name), np.asarray(scores, np.float64)
    if not (runs.count == len(classes) == len(confidence)):
        raise DataError(
            f"{name}: {runs.count} masks, {len(classes)} labels, {len(confidence)} scores; "
            "each prediction has one of each"
        )
    if not np.isfinite(confidence).all():
        bad = int(np.flatnonzero(~np.isfinite(confidence))[0])
        raise DataError(f"{name}: the score of prediction {bad} is {confidence[bad]}, no number")
    return _match(ids, runs, classes, confidence, name, distances)


def _match(
    ids: np.ndarray,
    runs: Runs,
    classes: np.ndarray,
    scores: np.ndarray,
    name: str,
    distances: Distances | None,
) -> ImageMatches:
    values, pixels, shared = count_shared(runs, ids)
    labels = [_label_of(value, name) for value in values.tolist()]
    is_object = np.array([label in _INDEX for label in labels], dtype=bool)
    # An ignored class's own objects (29001) are not void, its groups (29) are: the official rule.
    void = shared[:, np.isin(values, _VOID)].sum(axis=1)
    keep = np.flatnonzero((classes >= 0) & (runs.areas() > 0))
    object_class = np.array([_INDEX[label] for label in labels if label in _INDEX], np.int64)
    shared = shared[np.ix_(keep, is_object)]  # (P, G)
    pairs = np.argwhere((shared > 0) & (classes[keep, None] == object_class))
    known = distances or {}
    far = [known.get(value, UNKNOWN_DISTANCE) for value in values[is_object].tolist()]
    return ImageMatches(
        name=name,
        object_class=object_class,
        object_pixels=pixels[is_object],
        object_single=values[is_object] >= INSTANCE_STEP,
        object_distance=np.array(far, np.float64).reshape(-1, 2),
        has_distances=distances is not None,
        prediction_class=classes[keep],
        prediction_pixels=runs.areas()[keep],
        prediction_void=void[keep],
        prediction_score=scores[keep],
        pairs=pairs,
        shared=shared[pairs[:, 0], pairs[:, 1]],
    )


def _classes(label_ids: Sequence[int], name: str) -> np.ndarray:
    unknown = [label for label in label_ids if label not in BY_ID]
    if unknown:
        raise DataError(
            f"{name}: a prediction has the label id {unknown[0]}, which is not in Cityscapes' "
            f"table; the things are {', '.join(f'{t.id} ({t.name})' for t in THINGS)}"
        )
    return np.array([_INDEX.get(label, -1) for label in label_ids], np.int64)


def _label_of(value: int, name: str) -> int:
    label = value // INSTANCE_STEP if value >= INSTANCE_STEP else value
    if label not in BY_ID or value < 0:
        raise DataError(
            f"{name}: the annotation holds the value {value}, which is no Cityscapes instance id "
            "(label id * 1000 + number for objects, the label id for the rest)"
        )
    return label
