"""Pictures that two splits share: what is measured on them is memory, not skill."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import numpy as np

from ..coco_table import CocoTable
from .facts import Facts
from .findings import ERROR, Defect, plain, show


class SharedImages:
    """A check that compares the content of the pictures with another split's.

    Only files that have the size of one of the other's, in bytes, are read.

    Args:
        name: the other split, for messages
        table: its annotation file
        image_root: folder of its images
    """

    def __init__(self, name: str, table: CocoTable, image_root: str):
        self._name, self._table, self._root = name, table, image_root
        self._digests: dict[str, str] = {}  # path -> of its content, "" if it cannot be read

    def __call__(self, facts: Facts) -> Iterator[Defect]:
        theirs = _by_size(self._table, self._root)
        ours = _by_size(facts.table, facts.image_root or "")
        common = sorted(ours.keys() & theirs.keys())
        total = sum(len(ours[size]) + len(theirs[size]) for size in common)
        done, found = 0, {}
        for size in common:
            digests: dict[str, int] = {}
            for row in theirs[size]:
                digests.setdefault(self._digest(self._root, self._table, row), row)
            for row in ours[size]:
                digest = self._digest(facts.image_root or "", facts.table, row)
                if digest and digest in digests:
                    found[row] = digests[digest]
            done += len(ours[size]) + len(theirs[size])
            facts.progress(f"shared with {self._name}", done, total)

        def words(row: int) -> str:
            other = found[row]
            who = show(plain(self._table.image_ids[other]))
            name = self._table.file_name(other)
            return f"is the same picture as image {who} ({name}) of {self._name}"

        yield facts.images(
            "shared-image",
            ERROR,
            np.array(sorted(found), np.int64),
            words,
            "Take it out of one of the two splits.",
        )

    def _digest(self, root: str, table: CocoTable, row: int) -> str:
        path = os.path.join(root, table.file_name(row))
        if path not in self._digests:
            try:
                with open(path, "rb") as file:
                    self._digests[path] = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError:
                self._digests[path] = ""
        return self._digests[path]


def _by_size(table: CocoTable, root: str) -> dict[int, list[int]]:
    """bytes -> images whose file has so many; empty and missing files are left out."""
    rows: dict[int, list[int]] = {}
    for row in range(table.num_images):
        try:
            size = os.stat(os.path.join(root, table.file_name(row))).st_size
        except (OSError, ValueError):
            continue
        if size and table.file_name(row):
            rows.setdefault(size, []).append(row)
    return rows
