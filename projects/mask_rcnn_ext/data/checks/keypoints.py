"""Keypoints: x, y, visibility for each name of the category's schema."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from .facts import Facts
from .findings import ERROR, WARNING, Defect, plain, show

_CHUNK = 8192
_BEYOND = 1.0  # pixels by which a point may leave the image


@dataclass
class Keypoints:
    """Columns over the annotations of a file.

    has: (A,) bool, there are keypoints
    lengths: (A,) int64, numbers; -1 where there are none
    malformed: (A,) bool, something else than finite numbers
    visibility: (A,) bool, a visibility other than 0, 1, 2
    labelled: (A,) int64, points with a visibility above 0
    beyond: (A,) float64, pixels by which the farthest labelled point leaves the image
    """

    has: np.ndarray
    lengths: np.ndarray
    malformed: np.ndarray
    visibility: np.ndarray
    labelled: np.ndarray
    beyond: np.ndarray


def measure_keypoints(facts: Facts) -> Keypoints:
    """All keypoints of the file, read once."""
    return facts.remember("keypoints", lambda: _measure(facts))


def _measure(facts: Facts) -> Keypoints:
    count = facts.table.num_annotations
    result = Keypoints(
        has=np.zeros(count, bool),
        lengths=np.full(count, -1, np.int64),
        malformed=np.zeros(count, bool),
        visibility=np.zeros(count, bool),
        labelled=np.zeros(count, np.int64),
        beyond=np.zeros(count),
    )
    for start in range(0, count, _CHUNK):
        texts = [
            facts.table.keypoints_text(row) for row in range(start, min(start + _CHUNK, count))
        ]
        rows = np.array([i for i, text in enumerate(texts, start) if text not in (b"", b"[]")])
        if len(rows):
            _measure_chunk(result, facts, rows, [texts[row - start] for row in rows.tolist()])
    return result


def _measure_chunk(result: Keypoints, facts: Facts, rows: np.ndarray, texts: list[bytes]) -> None:
    try:
        lists = msgspec.json.decode(b"[" + b",".join(texts) + b"]", type=list[list[float]])
    except (msgspec.DecodeError, RecursionError):
        lists = [_tolerant(text) for text in texts]
    lengths = np.array([len(values) for values in lists], np.int64)
    numbers = np.fromiter(itertools.chain.from_iterable(lists), np.float64, int(lengths.sum()))
    owner = np.repeat(rows, lengths)
    place = np.arange(len(numbers)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    result.has[rows] = True
    result.lengths[rows] = lengths
    result.malformed[owner[~np.isfinite(numbers)]] = True
    result.malformed[rows[lengths == 0]] = True
    whole = np.repeat(lengths % 3 == 0, lengths) & ~result.malformed[owner]
    x, y, v = (numbers[whole & (place % 3 == i)] for i in range(3))
    owner = owner[whole & (place % 3 == 0)]
    result.visibility[owner[~np.isin(v, (0, 1, 2))]] = True
    np.add.at(result.labelled, owner, v > 0)
    height, width = facts.sizes[owner].T
    with np.errstate(invalid="ignore"):
        beyond = np.maximum.reduce([-x, -y, x - width, y - height])
    beyond = np.where((v > 0) & np.isfinite(beyond), beyond, 0.0)
    np.maximum.at(result.beyond, owner, beyond)


def _tolerant(text: bytes) -> list[float]:
    try:
        values = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return [math.nan]
    if not isinstance(values, list):
        return [math.nan]
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    try:
        return float(value) if type(value) in (int, float) else math.nan
    except OverflowError:
        return math.inf


def schemas(facts: Facts) -> Iterator[Defect]:
    """The names and the skeleton of each category."""
    found: dict[int, str] = {}
    for row, category in enumerate(facts.table.categories):
        problem = _schema_problem(category)
        if problem:
            found[row] = f"category {show(category.get('name'))} {problem}"
    yield facts.categories(
        "keypoint-schema",
        WARNING,
        np.array(sorted(found), np.int64),
        lambda row: found[row],
        'Write "keypoints": [names] and "skeleton": [[from, to], ...], counted from 1.',
    )


def _schema_problem(category: dict[str, Any]) -> str | None:
    if "keypoints" not in category and "skeleton" not in category:
        return None
    names = category.get("keypoints")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return f"has keypoints {show(names)}, expected a list of names"
    if len(set(names)) < len(names):
        return f"has a keypoint name twice: {show(sorted(n for n in names if names.count(n) > 1))}"
    skeleton = category.get("skeleton") or []
    for bone in skeleton if isinstance(skeleton, list) else [skeleton]:
        ends = bone if isinstance(bone, list) and len(bone) == 2 else [None]
        if not all(type(end) is int and 1 <= end <= len(names) for end in ends):
            return f"has {show(bone)} in its skeleton, but keypoints 1 to {len(names)}"
    return None


def schema_length(facts: Facts) -> np.ndarray:
    """(A,) int64, keypoints of each annotation's category; -1 if it lists none."""
    lengths = [
        len(names) if isinstance(names := category.get("keypoints"), list) else -1
        for category in facts.table.categories
    ]
    return np.array([*lengths, -1], np.int64)[facts.table.category_of]


def broken_keypoints(facts: Facts) -> Iterator[Defect]:
    """Lists of another form or length than the schema's."""
    points = measure_keypoints(facts)
    expected = schema_length(facts)
    yield facts.annotations(
        "keypoints-malformed",
        ERROR,
        points.malformed,
        lambda row: f"its keypoints are {show(facts.table.keypoints(row))}, expected numbers",
        "Write x, y, visibility for each keypoint; 0, 0, 0 where it is not labelled.",
    )
    wrong = points.has & ~points.malformed
    wrong &= (points.lengths % 3 != 0) | ((expected >= 0) & (points.lengths != 3 * expected))

    def words(row: int) -> str:
        if expected[row] < 0:
            return f"has {points.lengths[row]} numbers of keypoints, expected three for each"
        return (
            f"has {points.lengths[row]} numbers of keypoints, expected {3 * expected[row]} for "
            f"the {expected[row]} of {facts.category_name(row)}"
        )

    yield facts.annotations(
        "keypoints-length",
        ERROR,
        wrong,
        words,
        "Write x, y, visibility for each keypoint; 0, 0, 0 where it is not labelled.",
    )
    yield facts.annotations(
        "keypoints-visibility",
        ERROR,
        points.visibility,
        "a visibility of its keypoints is none of 0 (not labelled), 1 (hidden), 2 (visible)",
        "Every third number is a visibility.",
    )


def unlisted_keypoints(facts: Facts) -> Iterator[Defect]:
    """Keypoints without a schema, and objects without keypoints where others have them."""
    points, expected = measure_keypoints(facts), schema_length(facts)
    table = facts.table
    rows = np.flatnonzero(points.has & (expected < 0) & facts.known_category)
    if len(rows):
        yield facts.file(
            "keypoints-without-schema",
            WARNING,
            f"{len(rows)} annotations have keypoints, but their classes list no names "
            f"(class {facts.category_name(int(rows[0]))})",
            "Add keypoints (names) and skeleton to the category.",
        )
    instances = facts.is_instance & (expected > 0)
    if (points.has & instances).any():
        yield facts.annotations(
            "keypoints-missing",
            WARNING,
            instances & ~points.has,
            lambda row: f"has no keypoints, other {facts.category_name(row)} have",
            "Write zeros for an object whose keypoints are not labelled; `--fix` does.",
        )
    given = table.num_keypoints
    yield facts.annotations(
        "keypoints-count",
        WARNING,
        points.has
        & ~points.malformed
        & ~points.visibility
        & (points.lengths % 3 == 0)
        & (given != points.labelled),
        lambda row: (
            f"has num_keypoints {_given(facts, row)}, but {points.labelled[row]} keypoints with a "
            "visibility above 0"
        ),
        "Evaluation leaves objects with 0 out; `--fix` counts anew.",
    )


def _given(facts: Facts, row: int) -> str:
    value = int(facts.table.num_keypoints[row])
    if value >= 0:
        return str(value)
    entry = facts.entries.annotation(row)
    return show(plain(entry["num_keypoints"])) if "num_keypoints" in entry else "missing"


def keypoints_outside(facts: Facts) -> Iterator[Defect]:
    """Labelled points beyond the image's edge."""
    points = measure_keypoints(facts)
    yield facts.annotations(
        "keypoints-outside",
        WARNING,
        points.beyond > _BEYOND,
        lambda row: f"a labelled keypoint lies {points.beyond[row]:.1f} px outside of the image",
        "Training does not use it; write 0, 0, 0 if it is not in the picture.",
    )


CHECKS = (schemas, broken_keypoints, unlisted_keypoints, keypoints_outside)
