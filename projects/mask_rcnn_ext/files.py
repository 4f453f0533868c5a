"""Files that are either the old one or the new one, whenever the process or the disk gives up."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# What fsync of a folder answers where the file system has no such thing.
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; move it there when the block ends well.

    Args:
        path: the final place; its folder must exist
        mode: "wb" or "w" (UTF-8)
    Raises:
        OSError: disk full, no permission, ...; `path` is then as it was, and nothing is left over.
            Of a folder that cannot be synchronized (EIO) the file may have arrived, whole
    """
    path = Path(path)
    name = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    # The mode that open() gives, so that the umask decides who may read.
    raw = _ErrorKeeping(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")
    try:
        with raw.reraised(), _buffered(raw, text="b" not in mode) as file:
            yield file
            file.flush()
            os.fsync(raw.fileno())
        os.replace(name, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def remove_leftovers(folder: str | Path, names: re.Pattern[str]) -> list[Path]:
    """Delete what `atomic_write` could not, because its process was killed.

    Args:
        folder: may be missing; nothing must be writing to those files now
        names: of the final files, matched whole
    Returns:
        the deleted files; what cannot be deleted stays
    """
    removed = []
    for path in Path(folder).glob(".*.partial"):
        found = re.fullmatch(r"\.(.+)\.[0-9a-f]{8}\.partial", path.name)
        if found is not None and names.fullmatch(found[1]) and path.is_file():
            with contextlib.suppress(OSError):
                path.unlink()
                removed.append(path)
    return removed


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as readable JSON, atomically; NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, allow_nan=False)
    with atomic_write(path, "w") as file:
        file.write(text + "\n")


class _ErrorKeeping(io.FileIO):
    """A file that keeps the first OSError of a write.

    torch.save writes from C++, where "no space left on device" turns into a RuntimeError about an
    unexpected position, or is swallowed while an archive is closed.
    """

    _error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            # May write less than all; the buffer around it then comes back with the rest.
            return os.write(self.fileno(), data)
        except OSError as error:
            self._error = self._error or error
            raise

    @contextlib.contextmanager
    def reraised(self) -> Iterator[None]:
        """Let that error leave the block, whatever became of it there."""
        try:
            yield
        except Exception as error:
            if self._error is not None and error is not self._error:
                raise self._error from error
            raise
        if self._error is not None:
            raise self._error


def _buffered(raw: io.RawIOBase, *, text: bool) -> IO[Any]:
    file = io.BufferedWriter(raw)
    return io.TextIOWrapper(file, encoding="utf-8") if text else file


def _sync_folder(folder: Path) -> None:
    # Without it a power cut may undo the rename. Not every system lets a folder be opened.
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
    finally:
        os.close(descriptor)
