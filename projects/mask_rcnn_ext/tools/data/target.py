"""Where a command writes: never over its input, over another file only with --force."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import UsageError

_HEAD = 4096  # bytes of a file in which it says who wrote it


def check_target(
    target: str | Path, option: str, marker: str, *, inputs: tuple[str, ...], force: bool
) -> Path:
    """Refuse a file that must not be written, before any work is done.

    Args:
        target: the file to write
        option: what the user calls it, "--json"
        marker: text near the beginning of a file that an earlier call wrote; such a file is
            replaced without --force
        inputs: files that the command reads
        force: replace any other file, too
    Returns:
        `target`
    Raises:
        UsageError: no such folder, a folder, an input, or somebody else's file
    """
    path = check_place(target, option)
    if not path.exists():
        return path
    if any(os.path.exists(name) and path.samefile(name) for name in inputs):
        raise UsageError(f"{option} {target} is the file that is read; choose another name")
    if not force and not _written_by(path, marker):
        raise UsageError(
            f"{option} {target} is there already and was not written by this command; "
            "choose another name, or add --force"
        )
    return path


def check_place(target: str | Path, option: str) -> Path:
    """Refuse a file that cannot be, before any work is done; see `check_target`.

    Raises:
        UsageError: no such folder, or a folder
    """
    path = Path(target)
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option} {target}: there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"{option} {target} is a folder, expected a file's name")
    return path


def _written_by(path: Path, marker: str) -> bool:
    try:
        with path.open("rb") as file:
            return marker.encode() in file.read(_HEAD)
    except OSError:
        return False
