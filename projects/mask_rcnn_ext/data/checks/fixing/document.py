"""An annotation file while it is being mended: every change is written down."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

MISSING = "(missing)"  # stands in a change for a key that was not there


@dataclass(frozen=True)
class Change:
    """One value that was replaced.

    code: the finding that it answers
    section: "images", "annotations", "categories", or "file"
    id: of the entry, as it was before this change
    key: of the entry; for the file as a whole, what of it
    """

    code: str
    section: str
    id: Any
    key: str
    before: Any
    after: Any


@dataclass(frozen=True)
class MovedOut:
    """An entry that is no longer in the file, whole."""

    code: str
    section: str
    entry: dict[str, Any]


class Document:
    """
    Args:
        data: the parsed file; changed in place
    """

    def __init__(self, data: dict[str, Any]):
        self.data = data
        self.changes: list[Change] = []
        self.moved_out: list[MovedOut] = []
        self._touched: set[tuple[str, int]] = set()
        self._leaving: dict[tuple[str, int], str] = {}
        self._noted = 0

    def entries(self, section: str) -> list[dict[str, Any]]:
        """A section's list."""
        found: list[dict[str, Any]] = self.data.get(section) or []
        return found

    def is_touched(self, section: str, row: int) -> bool:
        """Whether the entry was changed in this round: what is known about it is out of date."""
        return (section, row) in self._touched

    def set(self, code: str, section: str, row: int, key: str, value: Any) -> None:
        """Replace a value; nothing happens where it is the same."""
        entry = self.entries(section)[row]
        before = entry.get(key, MISSING)
        if type(before) is type(value) and before == value:
            return
        change = Change(code, section, entry.get("id"), key, copy.deepcopy(before), value)
        self.changes.append(change)
        entry[key] = value
        self._touched.add((section, row))

    def move_out(self, code: str, section: str, row: int) -> None:
        """Take an entry out of the file, at the end of the round, and keep it in the list.

        Nothing is taken out for a reason that holds for more than half of a section: that is no
        correction but another file.
        """
        self._touched.add((section, row))
        self._leaving.setdefault((section, row), code)

    def note(self, code: str, key: str, before: Any, after: Any) -> None:
        """Write down a change of the file as a whole."""
        self.changes.append(Change(code, "file", None, key, before, after))

    def end_round(self) -> bool:
        """Carry out what `move_out` announced; whether the round has changed anything."""
        for section in ("images", "annotations", "categories"):
            rows = {row: code for (where, row), code in self._leaving.items() if where == section}
            most = len(self.entries(section)) / 2
            few = {code for code, count in Counter(rows.values()).items() if count <= most}
            rows = {row: code for row, code in rows.items() if code in few}
            if not rows:
                continue
            kept = []
            for row, entry in enumerate(self.entries(section)):
                if row in rows:
                    self.moved_out.append(MovedOut(rows[row], section, entry))
                else:
                    kept.append(entry)
            self.data[section] = kept
        self._touched.clear()
        self._leaving.clear()
        before, self._noted = self._noted, len(self.changes) + len(self.moved_out)
        return self._noted > before
