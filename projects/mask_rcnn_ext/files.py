"""Files that are either the old one or the new one, whenever the process or the disk gives up."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; move it there when the block ends well.

    Args:
        path: the final place; its folder must exist
        mode: "wb" or "w" (UTF-8)
    Raises:
        OSError: disk full, no permission, ...; `path` is then as it was, and nothing is left over
    """
    path = Path(path)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    try:
        encoding = None if "b" in mode else "utf-8"
        with _ErrorKeeping(os.fdopen(descriptor, mode, encoding=encoding)) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's own mode lets only the owner read
        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


class _ErrorKeeping:
    """A file that brings the first OSError of a write back when the block ends.

    torch.save writes from C++, where "no space left on device" turns into a RuntimeError about an
    unexpected position, or is swallowed while an archive is closed.
    """

    def __init__(self, file: IO[Any]):
        self._file = file
        self._error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._error = self._error or error
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        try:
            self._file.close()
        except OSError as error:
            self._error = self._error or error
        if self._error is not None and value is not self._error:
            raise self._error


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    # Without it a power cut may undo the rename. Not every system lets a folder be opened.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
