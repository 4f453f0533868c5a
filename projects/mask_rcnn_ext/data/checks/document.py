"""The file as a whole: is it an annotation file, and what do other tools make of its bytes?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import DataError
from .facts import Facts
from .findings import ERROR, NOTE, WARNING, Defect

_BOM = b"\xef\xbb\xbf"
_FIXABLE = "Write it anew as plain UTF-8; `--fix` does."


def parse_annotations(content: bytes, json_file: str) -> dict[str, Any]:
    """The annotation file as a dict; DataError when it is no JSON object."""
    try:
        data = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{json_file} is not JSON ({error}); its size is {len(content)} bytes. "
            "A download that broke off looks like this: fetch it again."
        ) from error
    except RecursionError as error:
        raise DataError(f"{json_file} nests too deep to be an annotation file") from error
    except ValueError as error:  # a number of more digits than Python converts
        raise DataError(f"{json_file} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise DataError(
            f"{json_file} holds a JSON {type(data).__name__}, expected an object with "
            "images, annotations and categories; is it a results file?"
        )
    return data


def other_kind_of_file(facts: Facts) -> Iterator[Defect]:
    """Panoptic and caption files have the same sections and mean something else."""
    table = facts.table
    ids = table.annotation_category_ids
    if not len(ids) or ids.dtype != object or any(value is not None for value in ids):
        return
    entry = facts.entries.annotation(0)
    if "segments_info" in entry:
        what = "a panoptic file: its annotations have segments_info and are one for each image"
        yield facts.file(
            "panoptic-file",
            ERROR,
            what,
            "Give the instances file, or convert the PNGs: mask-rcnn-ext data convert.",
        )
    elif "caption" in entry:
        yield facts.file(
            "captions-file", ERROR, "a file of captions, without boxes", "Give the instances file."
        )


def empty_sections(facts: Facts) -> Iterator[Defect]:
    """Nothing to look at; whether that is an error for training, the caller knows."""
    table = facts.table
    if not table.num_images:
        yield facts.file(
            "no-images", ERROR, "has no images", "Is it the right file? images is an empty list."
        )
    if not table.categories:
        yield facts.file(
            "no-categories",
            ERROR,
            "has no categories",
            'List the classes: "categories": [{"id": 1, "name": "cat"}, ...].',
        )
    if not table.num_annotations:
        yield facts.file(
            "no-annotations",
            WARNING,
            "has no annotations",
            "It can be a test set; it cannot be trained on.",
        )


def odd_bytes(facts: Facts) -> Iterator[Defect]:
    """A byte order mark and NaN: read here, but not by every reader."""
    try:
        with open(facts.table.path, "rb") as file:
            has_bom = file.read(len(_BOM)) == _BOM
    except OSError:
        return
    if has_bom:
        yield facts.file(
            "byte-order-mark",
            ERROR,
            "begins with a byte order mark, with which pycocotools, and so evaluation, fails",
            _FIXABLE,
        )


def literal_nan(facts: Facts) -> Iterator[Defect]:
    """Python writes NaN and Infinity into JSON, which has neither."""
    if not _has_literal_nan(_content(facts)):
        return
    yield facts.file(
        "nan-literal",
        WARNING,
        "holds NaN or Infinity, which are no JSON: strict readers refuse the file",
        "Find out which program wrote them; each that stands for a coordinate is listed.",
    )


def missing_crowd_flags(facts: Facts) -> Iterator[Defect]:
    """Without `iscrowd` training takes 0, but pycocotools' evaluation ends in a KeyError."""
    missing = facts.table.num_annotations - _content(facts).count(b'"iscrowd"')
    if missing > 0:
        yield facts.file(
            "crowd-missing",
            WARNING,
            f"{missing} of {facts.table.num_annotations} annotations lack iscrowd: training takes "
            "0, evaluation with pycocotools fails",
            'Write "iscrowd": 0; `--fix` does.',
        )


def empty_images(facts: Facts) -> Iterator[Defect]:
    """How many images have no object; a note, for they are useful as negatives."""
    table = facts.table
    owners = table.image_of[facts.is_instance]
    empty = table.num_images - len(set(owners.tolist()))
    if empty and table.num_annotations:
        yield facts.file(
            "images-without-objects",
            NOTE,
            f"{empty} of {table.num_images} images have no object",
            "DATALOADER.FILTER_EMPTY_ANNOTATIONS True leaves them out of training, "
            "False takes them as negatives.",
        )


def _content(facts: Facts) -> bytes:
    try:
        return Path(facts.table.path).read_bytes()
    except OSError:
        return b""


def _has_literal_nan(content: bytes) -> bool:
    if b"NaN" not in content and b"Infinity" not in content:
        return False
    found: list[str] = []
    try:
        json.loads(content, parse_constant=found.append)
    except ValueError:
        return False
    return bool(found)


FIRST = (other_kind_of_file,)  # with a finding of these the others make no sense
CHECKS = (empty_sections, odd_bytes, empty_images)
WHOLE_FILE = (literal_nan, missing_crowd_flags)  # reads the file again
