"""Repairs of ids and of what points to nothing."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from ..facts import Facts
from .document import Document

_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")
_REFERENCES = {"images": "image_id", "categories": "category_id"}


def text_to_numbers(document: Document, facts: Facts, code: str) -> None:
    """Ids that are numbers written as text, in a section and in what refers to it.

    Only where every text of the section is a number, and none of them is another entry's id.
    """
    for section in ("images", "annotations", "categories"):
        entries = document.entries(section)
        texts = [value for e in entries if isinstance(value := e.get("id"), str)]
        numbers = {e.get("id") for e in entries if type(e.get("id")) is int}
        as_numbers = {_number(text) for text in texts}
        if not texts or None in as_numbers or numbers & as_numbers:
            continue
        for row, entry in enumerate(entries):
            if isinstance(entry.get("id"), str):
                document.set(code, section, row, "id", _number(entry["id"]))
        key = _REFERENCES.get(section)
        if key:
            _follow(document, code, key, as_numbers)


def _follow(document: Document, code: str, key: str, ids: set[int | None]) -> None:
    for row, entry in enumerate(document.entries("annotations")):
        value = entry.get(key)
        if isinstance(value, str) and _number(value) in ids:
            document.set(code, "annotations", row, key, _number(value))


def resolve_image(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """An image_id of another type than the image's id; else the annotation is moved out."""
    _resolve(document, "images", code, rows)


def resolve_category(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """The same for category_id."""
    _resolve(document, "categories", code, rows)


def _resolve(document: Document, section: str, code: str, rows: np.ndarray) -> None:
    key = _REFERENCES[section]
    by_text: dict[str, list[Any]] = {}
    for entry in document.entries(section):
        value = entry.get("id")
        if isinstance(value, int | str) and not isinstance(value, bool):
            by_text.setdefault(str(value), []).append(value)
    for row in rows.tolist():
        if document.is_touched("annotations", row):
            continue
        value = document.entries("annotations")[row].get(key)
        usable = isinstance(value, int | str | float) and not isinstance(value, bool)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        meant = by_text.get(str(value), []) if usable else []
        if len(meant) == 1:
            document.set(code, "annotations", row, key, meant[0])
        else:
            document.move_out(code, "annotations", row)


def number_anew(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """Annotation ids that are missing, repeated or 0: the next free number."""
    ids = [entry.get("id") for entry in document.entries("annotations")]
    following = max([0, *(value for value in ids if type(value) is int)]) + 1
    for row in rows.tolist():
        if not document.is_touched("annotations", row):
            document.set(code, "annotations", row, "id", following)
            following += 1


def drop_equal_images(document: Document, facts: Facts, code: str, rows: np.ndarray) -> None:
    """An image that is in the list twice, word for word."""
    images = document.entries("images")
    first: dict[Any, int] = {}
    for row, image in enumerate(images):
        if isinstance(image.get("id"), int | str):
            first.setdefault((type(image["id"]), image["id"]), row)
    for row in rows.tolist():
        image = images[row]
        if images[first[(type(image["id"]), image["id"])]] == image:
            document.move_out(code, "images", row)


def _number(text: str) -> int | None:
    """None for text that is no number, or not as one writes it: "007"."""
    return int(text) if _WHOLE.fullmatch(text) else None
