"""The records of a folder, sorted by what this version of code, configs and data asks for."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...data.registration import locate_dataset
from ...paper import (
    Keys,
    NoFingerprint,
    Paper,
    Sorted,
    code_hash,
    find_records,
    fingerprints_in,
    sort_records,
)
from .lacking import missing_of_set

_DIGITS = 16  # as data.checks.gate


def sorted_records(
    paper: Paper, folder: Path, scale: str, smoke: Any = None, *, look: bool = True
) -> Sorted:
    """Records that cannot be read are named on stderr.

    Args:
        folder: of all scales; none there means no records
        scale: "coco", "scenes" or "smoke"
        smoke: for scale "smoke": as `Keys` takes it
        look: whether data that this machine has count more than what the records say of them
    """
    found = list(find_records(folder, scale))
    if not found:
        return Sorted()
    code = code_hash()
    fingerprint = fingerprints(fingerprints_in(found), look=look)
    keys = Keys(paper, code=code, fingerprint=fingerprint, smoke=smoke)
    result = sort_records(found, keys.key_of, code)
    for error in result.broken:
        print(f"mask-rcnn-ext tables: ignored: {error}", file=sys.stderr)
    return result


def fingerprints(recorded: Mapping[str, str], *, look: bool = True) -> Callable[[str], str]:
    """
    Args:
        recorded: what to go by for data that are not there, as `fingerprints_in` gives it; {} where
            they must be there
        look: whether to look for data at all
    Returns:
        data set -> fingerprint of its annotations, that run.json has, too; each is looked for once.
        Raises NoFingerprint
    """
    known: dict[str, str] = {}

    def fingerprint(name: str) -> str:
        if name not in known:
            known[name] = (_of_file(name) if look else "") or recorded.get(name, "")
        if not known[name]:
            raise NoFingerprint(f"data set {name!r} is not there")
        return known[name]

    return fingerprint


def _of_file(name: str) -> str:
    """ "" where there is no such file."""
    location = None if missing_of_set(name) else locate_dataset(name)
    if location is None:
        return ""
    with open(location[0], "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
