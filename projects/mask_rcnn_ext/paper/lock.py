"""One `tables run` at a time in a folder.

The operating system holds the lock for as long as a process has the file open: for the runner, and
for the stages that it started, which inherit it. So a runner that was killed blocks nobody, unless
what it started still writes into the folder.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import portalocker

from ..errors import UserError

NAME = ".lock"
_BUSY = (portalocker.exceptions.LockException, portalocker.exceptions.AlreadyLocked)
_FLAGS = portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING
_WAIT_SECONDS = 2.0


class FolderLock:
    """A context that holds the folder.

    with FolderLock(folder) as lock:
        subprocess.Popen(..., pass_fds=[lock.descriptor])
    """

    def __init__(
        self,
        folder: Path,
        *,
        wait: bool = False,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
    ):
        """
        Args:
            folder: made if needed
            wait: for the one that has it, instead of an error
            say: told once, whom it waits for
        """
        self._path = folder / NAME
        self._wait = wait
        self._say = say
        self._sleep = sleep
        self._file: Any = None

    @property
    def descriptor(self) -> int:
        """Of the open file, for processes that are to hold the lock, too."""
        number: int = self._file.fileno()
        return number

    def __enter__(self) -> FolderLock:
        """
        Raises:
            UserError: another process has it; says which
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Neither emptied nor deleted: another one may hold it, and reads who that is.
            self._file = open(self._path, "a+", encoding="utf-8")
        except OSError as error:
            raise UserError(f"cannot write {self._path}: {error.strerror}") from error
        told = False
        while not self._try():
            owner = self._owner()
            if not self._wait:
                self._file.close()
                raise UserError(
                    f"{self._path.parent} is in use by another tables run ({owner}); wait for it "
                    "(--wait), or choose another folder (--out)"
                )
            if not told:
                self._say(f"waiting for another tables run in {self._path.parent} ({owner})")
                told = True
            self._sleep(_WAIT_SECONDS)
        self._file.seek(0)
        self._file.truncate()
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": started}, self._file)
        self._file.flush()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing is enough, and leaves it to stages that still run.
        self._file.close()

    def _try(self) -> bool:
        try:
            portalocker.lock(self._file, _FLAGS)
        except _BUSY:
            return False
        return True

    def _owner(self) -> str:
        """Who has it, as far as the file says."""
        try:
            self._file.seek(0)
            found = json.loads(self._file.read())
            pid, host, since = found["pid"], found["host"], found["since"]
        except (OSError, ValueError, KeyError, TypeError):
            return "which has not said yet who it is"
        gone = ""
        if host == socket.gethostname() and not _is_alive(pid):
            gone = "; it has gone, but a stage that it started still runs"
        return f"process {pid} on {host} since {since}{gone}"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
