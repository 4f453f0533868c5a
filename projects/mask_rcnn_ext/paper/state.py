"""Whether a row has been measured."""

from __future__ import annotations

from .spec import Comparison, Row

REFERENCE = "reference"
NOT_RUN = "not run"


def state_of(row: Row | Comparison) -> str:
    """Another system's row is a reference; of ours there are no records yet."""
    return REFERENCE if isinstance(row, Row) and row.reference else NOT_RUN
