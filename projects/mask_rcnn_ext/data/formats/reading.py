"""Files of unknown make read with care: what is wrong is said with file and element."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from ...errors import DataError, UsageError

Item = TypeVar("Item")


def read_bytes(path: Path) -> bytes:
    """The file's content; UsageError when it is not there, DataError when it cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise UsageError(f"{path} is not there") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def read_text(path: Path) -> str:
    """UTF-8, with or without a byte order mark."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error})") from error


def read_json(path: Path) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({error})") from error


def number(value: Any, who: str, what: str) -> float:
    """A finite number; text that spells one counts, as XML and some exporters write it."""
    try:
        found = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise DataError(f"{who}: {what} is {value!r}, expected a finite number")
    return found


def tracked(items: Collection[Item], label: str) -> Iterable[Item]:
    """The items, with a line on stderr that says how many are done, where that is a terminal."""
    return tqdm(items, desc=label, disable=None, leave=False)


def option_path(options: Mapping[str, Any], name: str) -> Path | None:
    """The option's file, None where it is not given."""
    return Path(str(options[name])).expanduser() if options.get(name) is not None else None


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Files with this ending, sub-folders included, sorted."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder")
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() == suffix and p.is_file())
