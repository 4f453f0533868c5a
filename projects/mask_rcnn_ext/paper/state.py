"""Whether a row has been measured."""

from __future__ import annotations

from .spec import Row

REFERENCE = "reference"
NOT_RUN = "not run"


def state_of(row: Row) -> str:
    """One or two words: another system's row is a reference, ours have not been run."""
    return REFERENCE if row.reference else NOT_RUN
