"""Sentences on what an importer or exporter could not keep: counted, with the first places."""

from __future__ import annotations

_SHOWN = 3  # places named in a note


class Notes:
    """Collects events of the same kind into one sentence each."""

    def __init__(self) -> None:
        self._places: dict[str, list[str]] = {}
        self._counts: dict[str, int] = {}

    def add(self, text: str, place: str, count: int = 1) -> None:
        """Count `text` once more.

        Args:
            text: what happened and what was done, the same words for the same event
            place: file, and element where known
            count: how many things it happened to there
        """
        self._counts[text] = self._counts.get(text, 0) + count
        places = self._places.setdefault(text, [])
        if len(places) <= _SHOWN and place not in places:
            places.append(place)

    def count(self, text: str) -> int:
        """How often `text` was counted."""
        return self._counts.get(text, 0)

    def lines(self) -> list[str]:
        """ "3 x polyline, not an area: left out (a.jpg, b.jpg)" for each text, sorted by it."""
        return [
            f"{self._counts[text]} x {text} ({_some(self._places[text])})"
            for text in sorted(self._counts)
        ]


def _some(places: list[str]) -> str:
    return ", ".join(places[:_SHOWN]) + (", ..." if len(places) > _SHOWN else "")
