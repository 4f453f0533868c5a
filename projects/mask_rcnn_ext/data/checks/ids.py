"""Ids: each entry has one, no two have the same, and what they point to exists."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .facts import Facts
from .findings import ERROR, WARNING, Defect, plain, show

_EXPECTED = "expected a whole number"


def unusable_ids(facts: Facts) -> Iterator[Defect]:
    """Missing, null, true, 1.0, a list: nothing that another entry can refer to."""
    table = facts.table
    for code, section, ids in (
        ("image-id", "images", table.image_ids),
        ("annotation-id", "annotations", table.annotation_ids),
        ("category-id", "categories", _category_ids(facts)),
    ):
        if ids.dtype != object:
            continue
        rows = np.array([not is_id(value) for value in ids], bool)
        yield Defect(
            code,
            ERROR,
            section,
            np.flatnonzero(rows),
            _id_words(facts, section, ids),
            "Number the entries; two entries of a section must not have the same id.",
        )


def _id_words(facts: Facts, section: str, ids: np.ndarray) -> Callable[[int], str]:
    def words(row: int) -> str:
        who = {"images": "image", "annotations": "annotation", "categories": "category"}[section]
        if section == "images":
            entry = facts.entries.image(row)
        elif section == "annotations":
            entry = facts.entries.annotation(row)
        else:
            entry = facts.table.categories[row]
        if "id" not in entry:
            return f"{who} number {row} lacks id"
        return f"the id of {who} number {row} is {show(plain(ids[row]))}, {_EXPECTED}"

    return words


def duplicate_ids(facts: Facts) -> Iterator[Defect]:
    """Readers keep the last entry of an id, so the others are lost without a word."""
    table = facts.table
    yield facts.images(
        "duplicate-image-id",
        ERROR,
        later_of_same(table.image_ids),
        lambda row: f"another image before it has the id {show(plain(table.image_ids[row]))} too",
        "Only one of them is ever read, with the annotations of both: give it an id of its own.",
    )
    # Detectron2 lets exactly these of COCO's own files pass, too: the few doubles do no harm.
    known = "minival" in table.path
    yield facts.annotations(
        "duplicate-annotation-id",
        WARNING if known else ERROR,
        later_of_same(table.annotation_ids),
        lambda row: f"another annotation has the id {show(plain(table.annotation_ids[row]))} too",
        "Evaluation counts one of them twice and the other never; `--fix` gives it a free id.",
    )
    ids = _category_ids(facts)
    yield facts.categories(
        "duplicate-category-id",
        ERROR,
        later_of_same(ids),
        lambda row: (
            f"category {show(table.categories[row].get('name'))} has the id "
            f"{show(plain(ids[row]))}, which another category has too"
        ),
        "Their objects cannot be told apart: give it an id of its own, in its annotations too.",
    )


def types_of_ids(facts: Facts) -> Iterator[Defect]:
    """Text and numbers side by side cannot be ordered, nor does 1 find "1"."""
    table = facts.table
    columns = {
        "images": table.image_ids,
        "annotations": table.annotation_ids,
        "categories": _category_ids(facts),
    }
    for section, ids in columns.items():
        if ids.dtype != object:
            continue
        texts = sum(isinstance(value, str) for value in ids)
        whole = sum(type(value) is int for value in ids)
        if texts and whole:
            yield facts.file(
                "mixed-ids",
                ERROR,
                f"of the ids in {section}, {texts} are text and {whole} numbers",
                "Make all of them whole numbers; `--fix` does where the text is a number.",
            )
        elif texts:
            yield facts.file(
                "string-ids",
                WARNING,
                f"the ids in {section} are text, such as {show(next(iter(ids)))}",
                "COCO's ids are whole numbers and many tools rely on it; `--fix` turns text that "
                "is a number into one.",
            )


def unknown_images(facts: Facts) -> Iterator[Defect]:
    """Annotations that no image has: lost."""
    table = facts.table
    known = {str(value) for value in table.image_ids.tolist()}

    def words(row: int) -> str:
        value = plain(table.annotation_image_ids[row])
        if value is None and "image_id" not in facts.entries.annotation(row):
            return "lacks image_id"
        same = " (ids are compared with their type: 1 is not '1')" if str(value) in known else ""
        return f"belongs to image_id {show(value)}, which no image has{same}"

    yield facts.annotations(
        "unknown-image",
        ERROR,
        table.image_of < 0,
        words,
        "Add the image, mend the id, or take the annotation out; `--fix` moves it to the list of "
        "changes.",
    )


def unknown_categories(facts: Facts) -> Iterator[Defect]:
    """Annotations of a class that the file does not list."""
    table = facts.table

    def words(row: int) -> str:
        value = plain(table.annotation_category_ids[row])
        if value is None and "category_id" not in facts.entries.annotation(row):
            return "lacks category_id"
        return f"has category_id {show(value)}, which no category has"

    yield facts.annotations(
        "unknown-category",
        ERROR,
        table.category_of < 0,
        words,
        "Add the class to categories, mend the id, or take the annotation out; `--fix` moves it "
        "to the list of changes.",
    )


def annotation_id_zero(facts: Facts) -> Iterator[Defect]:
    """pycocotools marks a match by the id of what was matched, and 0 means none."""
    yield facts.annotations(
        "annotation-id-zero",
        WARNING,
        np.array([type(v) is int and v == 0 for v in facts.table.annotation_ids.tolist()], bool)
        if facts.table.annotation_ids.dtype == object
        else facts.table.annotation_ids == 0,
        "has the id 0, which pycocotools takes for no match: a right detection counts as wrong",
        "Count from 1; `--fix` gives it a free id.",
    )


def _category_ids(facts: Facts) -> np.ndarray:
    return as_column([category.get("id") for category in facts.table.categories])


def as_column(values: list[Any]) -> np.ndarray:
    """int64 if all values are such, else object."""
    if all(type(value) is int and abs(value) < 2**63 for value in values):
        return np.array(values, np.int64)
    column = np.empty(len(values), object)
    column[:] = values
    return column


def is_id(value: Any) -> bool:
    """Whether it is a whole number or text."""
    return isinstance(value, int | str | np.integer) and not isinstance(value, bool)


def later_of_same(ids: np.ndarray) -> np.ndarray:
    """(n,) rows whose id an earlier row has, type by type; unusable ids are left out."""
    if ids.dtype != object:
        _, first = np.unique(ids, return_index=True)
        later = np.ones(len(ids), bool)
        later[first] = False
        return np.flatnonzero(later)
    seen: set[tuple[type, Any]] = set()
    rows = []
    for row, value in enumerate(ids):
        if not is_id(value):
            continue
        key = (type(value), value)
        if key in seen:
            rows.append(row)
        seen.add(key)
    return np.array(rows, np.int64)


CHECKS = (
    unusable_ids,
    duplicate_ids,
    types_of_ids,
    unknown_images,
    unknown_categories,
    annotation_id_zero,
)
