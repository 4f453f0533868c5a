"""What to tell the user when a checkpoint could not be written."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

from ..errors import UserError
from .checkpoint_store import ResumePoint

TOO_LITTLE_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def cannot_write(path: Path, error: OSError, *, size: int, usable: ResumePoint | None) -> UserError:
    """
    Args:
        path: of the checkpoint or the pointer
        error: of the system
        size: what the file would have had, in bytes, where room was the trouble
        usable: the checkpoint to go on from
    """
    message = f"cannot write checkpoint {path}: {error.strerror or error}."
    detail = _detail(path, error, size)
    message += f" {detail}" if detail else ""
    if usable is None:
        return UserError(f"{message} No earlier checkpoint in this folder can be read.")
    return UserError(
        f"{message} The previous checkpoint {usable} is whole: mend the cause and run the same "
        "command again."
    )


def _detail(path: Path, error: OSError, size: int) -> str:
    folder = path.parent
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"This user may not write in {folder}."
    if not folder.is_dir():
        # Made anew it would hold this one file, and hide that all others are lost.
        return f"The run's folder {folder} is gone, with all that was in it; it is not made anew."
    if error.errno == errno.EIO:
        return "The disk failed; the system's log (dmesg) may say why."
    if error.errno not in TOO_LITTLE_ROOM:
        return ""
    if error.errno == errno.EDQUOT:
        return f"It needs {_readable(size)}, and the quota has no room for that."
    if error.errno == errno.EFBIG:
        return f"It needs {_readable(size)}, more than a file may have here (see ulimit -f)."
    free = shutil.disk_usage(folder).free
    inodes = " Are the inodes used up (df -i)?" if free > size else ""
    return f"It needs {_readable(size)}, and {_readable(free)} are free.{inodes}"


def _readable(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"
