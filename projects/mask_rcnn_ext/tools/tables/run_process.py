"""A command in a process of its own, and what its output says of how it ended."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ...errors import UserError
from ...paper.commands import Command

_TAIL_BYTES = 20_000
_REASON_LETTERS = 400
# The message of an entry point of ours, or the end of a traceback.
_ERROR = re.compile(r"(mask-rcnn-ext|train_net\.py)( \w+)*: |[\w.]*(Error|Exception|Interrupt)\b")
_CAUSES: dict[int, str] = {
    signal.SIGKILL: "killed by SIGKILL, as Linux does when memory runs out; fewer --jobs need less",
    signal.SIGSEGV: "killed by SIGSEGV: compiled code crashed",
}


class Process(Protocol):
    """A command that was started somewhere.

    Attributes:
        output: what it prints goes there
    """

    output: Path

    def poll(self) -> int | None:
        """Its exit code, negative for a signal; None while it runs."""

    def stop(self, at_once: bool) -> None:
        """Ask it to save its state and leave with 75, or end it."""


class Launcher(Protocol):
    """Where commands run."""

    def start(self, command: Command, slot: int, output: Path) -> Process:
        """
        Args:
            slot: of --jobs; no two that run have the same
            output: file that is added to
        """


class LocalProcess:
    """On this machine, in a process group of its own: Ctrl-C reaches it once, through us."""

    def __init__(self, command: Command, environment: Mapping[str, str], output: Path, lock: int):
        """
        Args:
            environment: more of it
            lock: a descriptor that it keeps open (`FolderLock`)
        """
        self.output = output
        words = command.words
        try:
            with open(output, "ab") as file:
                self._process = subprocess.Popen(
                    words,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=os.environ | environment | command.environment,
                    start_new_session=True,
                    pass_fds=[lock],
                )
        except OSError as error:
            raise UserError(f"cannot start {words[0]}: {error.strerror}") from error

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self, at_once: bool) -> None:
        # The whole group: what the process itself started, too.
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL if at_once else signal.SIGTERM)


class LocalLauncher:
    """Starts commands on this machine, and shares its cores or GPUs out among them."""

    def __init__(self, lock: int, jobs: int, device: str, gpus: int, gpus_there: int):
        """
        Args:
            jobs: commands at once
            device: cpu or cuda
            gpus: of a command
            gpus_there: of the machine
        """
        self._lock = lock
        self._jobs = jobs
        self._device = device
        self._gpus = gpus
        # Where they are not enough for all, or the user has chosen, nothing is assigned.
        chosen = "CUDA_VISIBLE_DEVICES" in os.environ
        self._assigns = jobs > 1 and not chosen and jobs * gpus <= gpus_there

    def start(self, command: Command, slot: int, output: Path) -> Process:
        return LocalProcess(command, self.environment(slot), output, self._lock)

    def environment(self, slot: int) -> dict[str, str]:
        """Threads or GPUs of a command."""
        settings = {"PYTHONUNBUFFERED": "1"}
        if self._device == "cpu" and "OMP_NUM_THREADS" not in os.environ:
            settings["OMP_NUM_THREADS"] = str(max(1, cores() // self._jobs))
        if self._device == "cuda" and self._assigns:
            first = slot * self._gpus
            settings["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(first, first + self._gpus)))
        return settings


def cores() -> int:
    """That this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def tail_of(output: Path, lines: int) -> list[str]:
    """The last lines of a file; [] if it cannot be read."""
    try:
        with open(output, "rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()][-lines:]


def reason_of(code: int, lines: Sequence[str]) -> str:
    """Why a command failed, in a line.

    Args:
        code: its exit code, negative for a signal
        lines: the last of its output
    """
    if code < 0:
        return _CAUSES.get(-code, f"killed by signal {-code} ({signal.strsignal(-code)})")
    errors = [line for line in lines if _ERROR.match(line)]
    found = (errors or list(lines) or [""])[-1].strip()
    return found[:_REASON_LETTERS] or f"exit code {code}, and it printed nothing"
