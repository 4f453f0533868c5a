"""What a check of the environment says."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

OK, NOTE, WARNING, PROBLEM = "OK", "note", "warning", "problem"
LEVELS = (OK, NOTE, WARNING, PROBLEM)
PIP = f"{sys.executable} -m pip"


class Finding(NamedTuple):
    """One line, and what to do about it.

    level: of LEVELS
    subject: a word or two: what was looked at
    text: what was found, and what it means
    mend: the command that mends it, "" for none
    """

    level: str
    subject: str
    text: str
    mend: str = ""

    def as_text(self) -> str:
        line = f"{self.level:8} {self.subject}: {self.text}"
        return line + (f"\n{'':9}mend: {self.mend}" if self.mend else "")

    def as_json(self) -> dict[str, Any]:
        return self._asdict()
