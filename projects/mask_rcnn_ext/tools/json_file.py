"""--json FILE, which verbs that print figures have; `data.target` looks at its place before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UserError
from ..files import write_json


def write_json_file(path: str | Path, value: Any) -> None:
    """
    Raises:
        UserError: it cannot be written
    """
    try:
        write_json(path, value)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
