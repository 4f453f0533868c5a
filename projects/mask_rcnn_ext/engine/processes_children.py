"""Child processes that live and die together, and that get the signals sent to their parent."""

from __future__ import annotations

import contextlib
import logging
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from ..errors import Interrupted, UserError

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# The same signal may reach us twice, from a terminal or a scheduler that addresses all processes:
# only one that comes later than this is a second request.
SAME_REQUEST_SECONDS = 1.0
# How long the others may go on after one has failed: enough to notice that it is gone.
GRACE_SECONDS = 5.0
# The same after one has stopped on request: another may still be writing the checkpoint.
SAVING_SECONDS = 300.0
LOOK_SECONDS = 0.5

_CAUSES = {
    "SIGKILL": "Linux does that to a process when the machine, or the container or job, runs out "
    "of memory (`dmesg`, or the job's own log, tells): fewer DATALOADER.NUM_WORKERS, fewer "
    "processes or a smaller SOLVER.IMS_PER_BATCH need less",
    "SIGBUS": "shared memory (/dev/shm) that is full does that: make it larger, or set "
    "DATALOADER.NUM_WORKERS 0",
    "SIGSEGV": "compiled code crashed: packages that were built for another PyTorch do that",
    "SIGABRT": "a library gave up; what it printed is above",
}


class ProcessFailed(RuntimeError):
    """A child ended by an error that is not the user's; holds its traceback as text."""


class Follower(UserError):
    """An error that another process explains; shown only where that one is not at hand."""


@dataclass
class _Child:
    rank: int
    process: Any
    pipe: Connection
    error: BaseException | None = None
    code: int = 0
    ended: float = 0.0
    killed_by_us: bool = False
    told: bool = False  # to stop

    @property
    def name(self) -> str:
        return f"rank {self.rank} (pid {self.process.pid})"


def run_children(
    work: Callable[[int], int | None],
    ranks: Sequence[int],
    environment: dict[str, str] | None = None,
    start_method: str = "spawn",
) -> int:
    """Start `work(i)` for each i in a process of its own and wait for all.

    SIGINT, SIGTERM and SIGUSR1 go on to the children, once each; a second one kills them. When one
    fails, the others are given a few seconds and then killed. When this process is killed, they go
    with it.

    Args:
        work: picklable; takes 0 ... len(ranks) - 1, returns an exit code, None counts as 0
        ranks: how messages call the children
        environment: variables that only the children get
        start_method: of `multiprocessing`; "fork" would not go with CUDA
    Returns:
        0, or the first exit code that is not
    Raises:
        UserError: what a child raised, of the same class (Interrupted: all were stopped); or one
            was killed: which, by which signal, and the likely cause
        ProcessFailed: a child raised something else
    """
    context: Any = multiprocessing.get_context(start_method)
    children: list[_Child] = []
    with _forwarding(children) as stop, _environment(environment or {}):
        for index, rank in enumerate(ranks):
            if stop.received:
                break  # those that run have been told already
            pipe, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_child, args=(work, index, theirs), name=f"rank {rank}", daemon=False
            )
            process.start()
            theirs.close()
            children.append(_Child(rank, process, pipe))
            stop.catch_up(children[-1])
        _wait(children)
        if stop.killed:
            raise UserError(
                f"stopped at once by a second {stop.killed}; what was done since the last "
                "checkpoint is lost. To go on from it, run the same command again"
            )
        return _result(children, stop.received)


def _wait(children: Sequence[_Child]) -> None:
    """Until all have ended; after the first bad end, not for longer than the grace."""
    running = list(children)
    deadline = math.inf
    while running:
        handles = [c.process.sentinel for c in running]
        pipes = [c.pipe for c in running if not c.pipe.closed]
        # A sentinel waits for the child's own children too, so look from time to time.
        wait(handles + pipes, min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))
        for child in running:
            alive = child.process.is_alive()
            _read(child)
            if not alive:
                child.ended = child.ended or time.monotonic()
                child.code = child.code or child.process.exitcode
        running = [c for c in running if c.process.exitcode is None]
        for child in children:
            if child.error is not None or child.code:
                deadline = min(deadline, child.ended + _grace(child))
        if time.monotonic() >= deadline:
            for child in running:
                child.killed_by_us = True
                _kill(child)


def _grace(child: _Child) -> float:
    return SAVING_SECONDS if isinstance(child.error, Interrupted) else GRACE_SECONDS


def _read(child: _Child) -> None:
    if child.pipe.closed:
        return
    try:
        if child.pipe.poll():
            child.code, child.ended, child.error = pickle.loads(child.pipe.recv_bytes())
            child.pipe.close()
    except (EOFError, OSError):
        child.pipe.close()


def _result(children: Sequence[_Child], received: str) -> int:
    """What the first cause says: what came after it may be a consequence."""
    bad = [c for c in children if (c.error is not None or c.code) and not c.killed_by_us]
    stopped = [c.ended for c in bad if isinstance(c.error, Interrupted)]
    # One that stops on request leaves its peers with a connection that is closed.
    bad = [
        c
        for c in bad
        if not (isinstance(c.error, ProcessFailed) and c.ended > min([*stopped, math.inf]))
    ]
    if not bad:
        if received and not children:
            raise _stopped_early(received)
        return 0
    first = min(bad, key=lambda c: (_order(c, received), c.ended))
    if first.error is not None:
        raise first.error
    if first.code > 0:
        return first.code
    name = signal.Signals(-first.code).name
    if name == received:
        raise _stopped_early(name)
    cause = _CAUSES.get(name)
    raise UserError(f"{first.name} was killed by {name}" + (f"; {cause}" if cause else ""))


def _order(child: _Child, received: str) -> int:
    """One killed from outside comes first: its peers' errors may be noticed before its end."""
    if isinstance(child.error, Follower):
        return 3
    if isinstance(child.error, Interrupted | KeyboardInterrupt):
        return 2
    if child.error is None and child.code < 0 and -child.code != signal.SIGABRT:
        return 2 if signal.Signals(-child.code).name == received else 0
    return 1


def _stopped_early(name: str) -> Interrupted:
    return Interrupted(
        f"stopped by {name} before the training took note of signals; nothing was lost. "
        "To go on, run the same command again"
    )


class _Stop:
    """What has been asked for: the name of the signal, and of the one that killed the children."""

    def __init__(self) -> None:
        self.received = ""
        self.killed = ""
        self.at = 0.0

    def catch_up(self, child: _Child) -> None:
        """Do to a child what has been asked for; one that has just started may have missed it."""
        if self.killed:
            child.told = True
            _kill(child)
        elif self.received and not child.told:
            child.told = True
            if child.process.is_alive():
                os.kill(child.process.pid, signal.Signals[self.received])


@contextlib.contextmanager
def _forwarding(children: Sequence[_Child]) -> Iterator[_Stop]:
    stop = _Stop()

    def forward(signum: int, frame: FrameType | None) -> None:
        name, now = signal.Signals(signum).name, time.monotonic()
        if not stop.received:
            stop.received = name
            stop.at = now
        elif now - stop.at >= SAME_REQUEST_SECONDS and signum != signal.SIGUSR1:
            stop.killed = name
        for child in children:
            stop.catch_up(child)

    # A thread other than the main one (a notebook's) gets no signals.
    main = threading.current_thread() is threading.main_thread()
    before: dict[signal.Signals, Any] = {}
    for number in FORWARDED if main else ():
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup and background shells ignore some
            before[number] = signal.signal(number, forward)
    try:
        yield stop
    except BaseException:
        for child in children:
            _kill(child)  # those that have ended, too: they may have left data-loader workers
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _kill(child: _Child) -> None:
    """End a child and what it has started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.process.pid, signal.SIGKILL)
    if child.process.is_alive():  # not yet a group of its own
        child.process.kill()


def _child(work: Callable[[int], int | None], index: int, pipe: Connection) -> None:
    # A group of its own: Ctrl-C in a terminal reaches it through the parent, once; and the parent
    # can end it together with its data-loader workers.
    os.setpgid(0, 0)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    error: BaseException | None = None
    code = 0
    try:
        code = work(index) or 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException as raised:
        error, code = _portable(raised), getattr(raised, "exit_code", 1)
    pipe.send_bytes(pickle.dumps((code, time.monotonic(), error)))
    if error is not None or code:
        # The group's threads may wait for the other processes: do not wait for them.
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 1)


def _portable(error: BaseException) -> BaseException:
    """The error itself where it is for users, else its traceback as text."""
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt()
    if isinstance(error, UserError):
        with contextlib.suppress(Exception):
            copy: BaseException = pickle.loads(pickle.dumps(error))
            return copy
        return UserError(str(error))
    return ProcessFailed("in one of the processes:\n" + "".join(traceback.format_exception(error)))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "only children have this thread"
    parent.join()
    os.killpg(0, signal.SIGKILL)
