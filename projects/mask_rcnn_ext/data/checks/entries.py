"""Images and annotations as they stand in the file, for messages about what no column can hold."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import msgspec

from ..coco_table import BOM, objects_of, sections_of


class Entries:
    """Single entries of an annotation file; read at the first question, which is rare.

    Args:
        path: a file that `read_coco_table` has read
    """

    def __init__(self, path: str):
        self._path = path

    def image(self, row: int) -> dict[str, Any]:
        """One entry of `images`."""
        return self._entry("images", row)

    def annotation(self, row: int) -> dict[str, Any]:
        """One entry of `annotations`; a NaN in it is the text "nan"."""
        return self._entry("annotations", row)

    def _entry(self, section: str, row: int) -> dict[str, Any]:
        try:
            value = msgspec.json.decode(self._raw[section][row])
        except (msgspec.DecodeError, RecursionError):  # in a field that the table does not read
            return {}
        return value if isinstance(value, dict) else {}

    @functools.cached_property
    def _raw(self) -> dict[str, list[Any]]:
        content = Path(self._path).read_bytes().removeprefix(BOM)
        sections = sections_of(content, self._path)
        return {
            name: objects_of(sections[name], msgspec.Raw, name, self._path)
            for name in ("images", "annotations")
            if name in sections
        }
