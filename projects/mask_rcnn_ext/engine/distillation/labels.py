"""Predictions above a threshold as an annotation file in COCO's format.

**Objects.** The threshold keeps as many predictions an image, on average over all images, as the
labelled set has objects an image; images without any count on both sides, crowds on neither. One
threshold for all classes is the article's; one for each class keeps each class's own average.

**Keypoints.** A prediction has all keypoints of its class, also those that the picture does not
show. The same rule chooses among them: those of the chosen objects are sorted by their own score
(of the averaged heat maps, at its maximum), and as many are kept, on average, as an object of the
labelled set has labelled ones. These get visibility 2; the others are 0, 0, 0, which is "not
labelled" and trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from ...errors import DataError, UserError
from ...files import atomic_write
from .labelled import LabelledSet
from .predictions import Part
from .threshold import Threshold, choose_threshold


@dataclass(frozen=True)
class Distilled:
    """What became of the predictions.

    Attributes:
        objects: the threshold of all classes, or with `per_class` one a class
        keypoints: theirs; None without keypoints
        images: labelled images, those without an object included
        annotations: labels
        failed: a message for each image that could not be used
        notes: what the user should know
    """

    objects: list[Threshold]
    keypoints: Threshold | None
    images: int
    annotations: int
    failed: list[str]
    notes: list[str]


def write_labels(
    parts: Sequence[Part],
    like: LabelledSet,
    output: Path,
    origin: Mapping[str, Any],
    *,
    keypoints: bool,
    per_class: bool = False,
) -> Distilled:
    """Choose the thresholds and write the annotation file.

    Args:
        parts: all of them done
        like: whose averages the labels get
        output: the file; its folder exists
        origin: what the file's "info" says about the teacher
        keypoints: whether labels have keypoints; the predictions then do
        per_class: a threshold for each class
    Raises:
        DataError: no image could be used, nothing was found, or nothing would be chosen
        UserError: the file cannot be written
    """
    place = {category["id"]: row for row, category in enumerate(like.categories)}
    seen = _look(parts, place)
    if not seen.images:
        raise DataError(f"none of the {len(seen.failed)} images can be used: {seen.failed[0]}")
    if not len(seen.scores):
        raise DataError(
            f"the model found nothing in {seen.images} images. Is it trained? "
            "Scores below MODEL.ROI_HEADS.SCORE_THRESH_TEST are not looked at."
        )
    objects = _object_thresholds(seen, like, per_class)
    if not sum(one.kept for one in objects):
        raise DataError(_why_none(objects, like, seen.images))
    by_class = objects if per_class else objects * len(like.categories)
    points = None
    if keypoints:
        chosen = [
            _point_scores(one)
            for one in _chosen(parts, by_class, place)
            if like.has_keypoints[place[one["category_id"]]]
        ]
        scores = np.concatenate([np.zeros(0), *chosen])
        points = choose_threshold(scores, like.keypoints_per_instance() * len(chosen))
    done = Distilled(
        objects=objects,
        keypoints=points,
        images=seen.images,
        annotations=sum(one.kept for one in objects),
        failed=seen.failed,
        notes=_notes(objects, like, per_class),
    )
    info = {**origin, **_info(done, like), "commits": sorted(seen.commits)}
    labels = (_label(one, like, place, points) for one in _chosen(parts, by_class, place))
    images = (image for part in parts for image in part.read()["images"])
    try:
        with atomic_write(output) as file:
            _write(file, info, like.categories, images, labels)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    return done


@dataclass(frozen=True)
class _Seen:
    """scores (N,) float64 and classes (N,) int64 of all N predictions, without the rest of them."""

    scores: np.ndarray
    classes: np.ndarray
    images: int
    failed: list[str]
    commits: set[str]


def _look(parts: Sequence[Part], place: Mapping[Any, int]) -> _Seen:
    scores, classes, failed, commits, images = [np.zeros(0)], [np.zeros(0, np.int64)], [], set(), 0
    for part in parts:
        content = part.read()
        found = content["annotations"]
        scores.append(np.array([one["score"] for one in found], np.float64))
        classes.append(np.array([place[one["category_id"]] for one in found], np.int64))
        failed += content["failed"]
        commits.add(content["commit"] or "no checkout")
        images += len(content["images"])
    return _Seen(np.concatenate(scores), np.concatenate(classes), images, failed, commits)


def _object_thresholds(seen: _Seen, like: LabelledSet, per_class: bool) -> list[Threshold]:
    if not per_class:
        return [choose_threshold(seen.scores, like.per_image() * seen.images)]
    return [
        choose_threshold(seen.scores[seen.classes == label], like.per_image(label) * seen.images)
        for label in range(len(like.categories))
    ]


def _chosen(
    parts: Sequence[Part], by_class: Sequence[Threshold], place: Mapping[Any, int]
) -> Iterator[dict[str, Any]]:
    """Read again each time: of a large set only one part is in memory."""
    for part in parts:
        for one in part.read()["annotations"]:
            if by_class[place[one["category_id"]]].keeps(one["score"]):
                yield one


def _point_scores(prediction: Mapping[str, Any]) -> np.ndarray:
    return np.array(prediction["keypoints"][2::3], np.float64)


def _label(
    prediction: dict[str, Any],
    like: LabelledSet,
    place: Mapping[Any, int],
    points: Threshold | None,
) -> dict[str, Any]:
    label = {key: value for key, value in prediction.items() if key != "keypoints"}
    if points is not None and like.has_keypoints[place[prediction["category_id"]]]:
        numbers = prediction["keypoints"]
        kept = points.keeps(_point_scores(prediction)).tolist()
        label["keypoints"] = [
            value
            for x, y, keep in zip(numbers[0::3], numbers[1::3], kept, strict=True)
            for value in ((x, y, 2) if keep else (0, 0, 0))
        ]
        label["num_keypoints"] = sum(kept)
    return {**label, "iscrowd": 0}


def _write(
    file: IO[bytes],
    info: Mapping[str, Any],
    categories: Sequence[Any],
    images: Iterator[Any],
    labels: Iterator[dict[str, Any]],
) -> None:
    encode = msgspec.json.encode
    file.write(b'{"info": ' + encode(info) + b',\n"categories": ' + encode(categories))
    file.write(b',\n"images": [')
    for number, image in enumerate(images):
        file.write((b",\n" if number else b"\n") + encode(image))
    file.write(b'],\n"annotations": [')
    for number, label in enumerate(labels, 1):
        file.write((b",\n" if number > 1 else b"\n") + encode({"id": number, **label}))
    file.write(b"]}\n")


def _info(done: Distilled, like: LabelledSet) -> dict[str, Any]:
    thresholds = [_facts(one) for one in done.objects]
    if len(thresholds) > 1:
        thresholds = [
            {"class": name, **one} for name, one in zip(like.class_names, thresholds, strict=True)
        ]
    return {
        "like": {
            "datasets": list(like.names),
            "images": like.images,
            "objects": int(like.instances.sum()),
            "objects_per_image": float(like.per_image()),
            "keypoints_per_object": float(like.keypoints_per_instance()),
        },
        "thresholds": thresholds,
        "keypoint_threshold": None if done.keypoints is None else _facts(done.keypoints),
        "images": done.images,
        "objects": done.annotations,
        "objects_per_image": done.annotations / done.images,
        "images_left_out": len(done.failed),
    }


def _facts(one: Threshold) -> dict[str, Any]:
    return {
        "score": one.score,
        "kept": one.kept,
        "wanted": float(one.wanted),
        "predictions": one.available,
    }


def _why_none(objects: Sequence[Threshold], like: LabelledSet, images: int) -> str:
    wanted = sum(one.wanted for one in objects)
    text = (
        f"{', '.join(like.names)} has {float(like.per_image()):.3g} objects an image, so that "
        f"{images} images should get {float(wanted):.1f} labels"
    )
    if max(one.wanted for one in objects) <= Fraction(1, 2):
        return f"{text}: none, rounded. Give more images."
    available = sum(one.available for one in objects)
    return (
        f"{text}. The {available} predictions are no help: most have the best score, all the same, "
        "or are of classes that the set lacks. Is the model trained?"
    )


def _notes(objects: Sequence[Threshold], like: LabelledSet, per_class: bool) -> list[str]:
    notes = []
    for number, one in enumerate(objects):
        what = f"class {like.class_names[number]!r}: " if per_class else ""
        if one.falls_short:
            notes.append(
                f"{what}{float(one.wanted):.1f} labels are wanted, but there are only "
                f"{one.available} predictions: all are taken. A lower "
                "MODEL.ROI_HEADS.SCORE_THRESH_TEST gives more, and worse ones."
            )
        elif abs(one.kept - one.wanted) > Fraction(1, 2):
            notes.append(
                f"{what}{float(one.wanted):.1f} labels are wanted, and {one.kept} are taken: "
                "predictions of the same score stay together"
            )
    return notes
