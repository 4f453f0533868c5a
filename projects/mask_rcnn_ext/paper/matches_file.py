"""`matches_<task>.npz`: which detections of a run are right, small enough to be kept for each run.

From it follow AP of the whole set and of any images of it, by the analyses' own code
(`records_of`), without ground truth and predictions.

Letters: I images, K categories, D detections, T = 10 thresholds of IoU or OKS, P pairs of category
and image that have objects.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UserError
from ..files import atomic_write

if TYPE_CHECKING:  # takes pycocotools along
    from ..evaluation.analysis.matching import Records

FORMAT = 1
THRESHOLDS = 10  # as COCO's: 0.50, 0.55, ..., 0.95
SCORES = 256  # steps that scores are kept in


@dataclass(frozen=True)
class Matches:
    """Detections by category, then falling score; of equal scores in the order that COCO takes.

    Attributes:
        ground_truth: hash of the set: ids of images and categories, task, objects to be found.
            Runs can be compared where it is the same
        num_images: I, by ascending id
        starts: (K + 1,) where each category's detections begin, and D
        image: (D,) index of the image
        score: (D,) uint8, score times SCORES, rounded down
        tied: (D,) bool, whether the score itself is that of the detection before
        right, ignored: (D,) uint16, bit t set if the detection is right at threshold t, or neither
            right nor wrong; the others are wrong
        object_starts: (K + 1,) where each category's pairs begin, and P
        object_image: (P,) index of the image, ascending in a category
        object_count: (P,) objects of the category to be found in it
    """

    ground_truth: str
    num_images: int
    starts: np.ndarray
    image: np.ndarray
    score: np.ndarray
    tied: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    object_starts: np.ndarray
    object_image: np.ndarray
    object_count: np.ndarray

    @property
    def num_categories(self) -> int:
        """K."""
        return len(self.starts) - 1


_ARRAYS = [one.name for one in fields(Matches) if one.name not in ("ground_truth", "num_images")]


def bits_of(flags: np.ndarray) -> np.ndarray:
    """(T, D) bool -> (D,) uint16."""
    return (flags.astype(np.uint16) << np.arange(len(flags), dtype=np.uint16)[:, None]).sum(
        axis=0, dtype=np.uint16
    )


def flags_of(bits: np.ndarray) -> np.ndarray:
    """(D,) uint16 -> (T, D) bool."""
    return (bits >> np.arange(THRESHOLDS, dtype=np.uint16)[:, None]) % 2 == 1


def records_of(matches: Matches) -> Records:
    """For `PrecisionCurves`, `bootstrap_ap` and `paired_test`.

    In a category scores fall, and are equal, where the run's own did, between the steps that are
    kept; `match` is 0 for what is right, since the object itself is not kept.
    """
    from ..evaluation.analysis.matching import IOU_THRESHOLDS, NOTHING, Records

    categories = np.arange(matches.num_categories)
    category = np.repeat(categories, np.diff(matches.starts))
    index = np.arange(len(category))
    # In its category; equal ones have the place of their first.
    place = np.maximum.accumulate(np.where(matches.tied, 0, index)) - matches.starts[category]
    # Not in the byte that the score is kept in, which ends at 255.
    score = (matches.score.astype(float) + 1 - (place + 1) / (len(category) + 1)) / SCORES
    order = np.lexsort([index, category, matches.image])
    right, ignored = flags_of(matches.right[order]), flags_of(matches.ignored[order])
    pairs = np.repeat(categories, np.diff(matches.object_starts))
    return Records(
        thresholds=IOU_THRESHOLDS,
        image=matches.image[order].astype(np.int64),
        category=category[order],
        score=score[order],
        match=np.where(right, 0, NOTHING),
        ignored=ignored,
        counted_image=np.repeat(matches.object_image, matches.object_count).astype(np.int64),
        counted_category=np.repeat(pairs, matches.object_count),
        num_images=matches.num_images,
        num_categories=matches.num_categories,
    )


def write_matches(path: Path, matches: Matches) -> None:
    """Compressed; the same matches are the same bytes."""
    content = io.BytesIO()
    index = np.uint16 if matches.num_images <= 2**16 else np.uint32
    types = {"image": index, "object_image": index, "object_count": np.uint16, "score": np.uint8}
    np.savez_compressed(
        content,
        format=np.array(FORMAT),
        ground_truth=np.array(matches.ground_truth),
        num_images=np.array(matches.num_images),
        **{
            name: array.astype(types.get(name, array.dtype), copy=False)
            for name in _ARRAYS
            for array in [getattr(matches, name)]
        },
    )
    with atomic_write(path) as file:
        file.write(content.getvalue())


def read_matches(path: Path) -> Matches:
    """
    Raises:
        UserError: it is not there, or not what `write_matches` writes; names the file
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        if arrays["format"] != FORMAT:
            problem = f"it has format {arrays['format']}, this version reads {FORMAT}"
        else:
            matches = Matches(
                ground_truth=str(arrays["ground_truth"]),
                num_images=int(arrays["num_images"]),
                **{name: arrays[name] for name in _ARRAYS},
            )
            problem = _problem(matches)
    except Exception as error:  # a damaged zip file raises of any kind
        raise UserError(f"{path} is not a whole file of matches: {error!r}") from error
    if problem:
        raise UserError(f"{path} is not a file of matches: {problem}")
    return matches


def _problem(matches: Matches) -> str:
    """What is wrong, as a sentence; "" if nothing is."""
    for name in _ARRAYS:
        array = getattr(matches, name)
        if array.ndim != 1 or array.dtype.kind not in ("b" if name == "tied" else "ui"):
            return f"{name} is {array.dtype} of shape {array.shape}"
    for starts, names in (
        ("starts", ("image", "score", "tied", "right", "ignored")),
        ("object_starts", ("object_image", "object_count")),
    ):
        places = getattr(matches, starts).astype(np.int64)
        if len(places) < 1 or places[0] != 0 or (np.diff(places) < 0).any():
            return f"{starts} does not ascend from 0"
        for name in names:
            if len(getattr(matches, name)) != places[-1]:
                return f"{starts} ends at {places[-1]}, {name} has {len(getattr(matches, name))}"
    if len(matches.starts) != len(matches.object_starts):
        return "detections and objects are of different numbers of categories"
    for name, limit in (
        ("image", matches.num_images),
        ("object_image", matches.num_images),
        ("score", SCORES),
        ("right", 2**THRESHOLDS),
        ("ignored", 2**THRESHOLDS),
    ):
        array = getattr(matches, name)
        if len(array) and not 0 <= int(array.min()) <= int(array.max()) < limit:
            return f"{name} is {array.min()} to {array.max()}, expected 0 to {limit - 1}"
    rises = np.diff(matches.score.astype(np.int64), prepend=SCORES) > 0
    if np.setdiff1d(np.flatnonzero(rises), matches.starts).size:
        return "score rises in a category"
    return ""
