"""The list of images and the folder they are in, without opening one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from .facts import Facts, list_folder
from .findings import ERROR, WARNING, Defect, plain, show


def missing_sizes(facts: Facts) -> Iterator[Defect]:
    """Height and width, by which everything else is judged."""

    def words(row: int) -> str:
        entry = facts.entries.image(row)
        lacking = [key for key in ("height", "width") if key not in entry]
        if lacking:
            return f"lacks {', '.join(lacking)}"
        height, width = entry["height"], entry["width"]
        return f"has height {show(height)} and width {show(width)}, expected pixels above 0"

    yield facts.images(
        "image-size",
        ERROR,
        np.any(facts.table.image_sizes < 1, axis=1),
        words,
        "Write the picture's height and width, in pixels; `--fix` does where it can be opened.",
    )


def missing_file_names(facts: Facts) -> Iterator[Defect]:
    """Images without a file."""

    def words(row: int) -> str:
        entry = facts.entries.image(row)
        if "file_name" not in entry:
            return "lacks file_name"
        return f"has file_name {show(entry['file_name'])}, expected the name of a picture"

    names = [facts.table.file_name(row) for row in range(facts.table.num_images)]
    yield facts.images(
        "image-file-name",
        ERROR,
        np.array([not name for name in names], bool),
        words,
        "Name the picture, relative to the image folder.",
    )


def names_that_leave_the_folder(facts: Facts) -> Iterator[Defect]:
    """`../x.jpg` and `/home/me/x.jpg` work on the machine where they were written."""
    table = facts.table
    absolute, upwards = [], []
    for row in range(table.num_images):
        name = table.file_name(row)
        if name.startswith("/") or "\\" in name or name[1:2] == ":":
            absolute.append(row)
        elif ".." in name and os.path.normpath(name).startswith(".."):
            upwards.append(row)
    yield facts.images(
        "absolute-file-name",
        WARNING,
        np.array(absolute, np.int64),
        lambda row: f"file_name {show(table.file_name(row))} is a path of one machine",
        "Write file names relative to the image folder, with /.",
    )
    yield facts.images(
        "file-name-outside",
        WARNING,
        np.array(upwards, np.int64),
        lambda row: f"file_name {show(table.file_name(row))} leads out of the image folder",
        "Give a folder above as the image folder, and file names relative to it.",
    )


def repeated_files(facts: Facts) -> Iterator[Defect]:
    """The same picture listed twice: each time the objects of the other are background."""
    table = facts.table
    first: dict[str, int] = {}
    rows = []
    for row in range(table.num_images):
        name = table.file_name(row)
        if name and first.setdefault(os.path.normpath(name), row) != row:
            rows.append(row)

    def words(row: int) -> str:
        other = first[os.path.normpath(table.file_name(row))]
        return f"is the same file as image {show(plain(table.image_ids[other]))}"

    yield facts.images(
        "repeated-image",
        ERROR,
        np.array(rows, np.int64),
        words,
        "List it once, with the annotations of all; where the objects of one entry are missing "
        "in the other they are trained as background.",
    )


def missing_files(facts: Facts) -> Iterator[Defect]:
    """Images that the folder does not hold; answered by one listing a folder."""
    table = facts.table
    if facts.image_root is None:
        return
    absent = np.flatnonzero(~facts.image_present)
    absent = np.array([row for row in absent.tolist() if table.file_name(row)], np.int64)
    similar: dict[str, dict[str, str]] = {}

    def words(row: int) -> str:
        name = table.file_name(row)
        folder, _, file = name.rpartition("/")
        if folder not in similar:
            listed = list_folder(os.path.join(str(facts.image_root), folder))
            similar[folder] = {entry.lower(): entry for entry in sorted(listed)}
        found = similar[folder].get(file.lower())
        hint = f"; there is {found}" if found else ""
        return f"{name} is not in {facts.image_root}{hint} ({len(absent)} of {table.num_images})"

    yield facts.images(
        "missing-image",
        ERROR,
        absent,
        words,
        "Fetch it, name the right folder, or take it out of the annotation file.",
    )


CHECKS = (
    missing_sizes,
    missing_file_names,
    names_that_leave_the_folder,
    repeated_files,
    missing_files,
)
