"""Spread independent jobs over processes that never outlive their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

from ...errors import UserError
from .progress import Progress

Job = Callable[[int], Any]


def available_cpus() -> int:
    """CPUs that this process may use; a container often allows fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def collect_jobs(job: Job, count: int, workers: int, label: str, progress: bool) -> list[Any]:
    """`run_jobs` with the results in order and, if wanted, a progress line with this label."""
    results: list[Any] = [None] * count
    line = Progress(label, count, progress)
    try:
        for index, result in run_jobs(job, count, workers):
            results[index] = result
            line.advance()
    finally:
        line.close()
    return results


def run_jobs(job: Job, count: int, workers: int) -> Iterator[tuple[int, Any]]:
    """Yield (index, job(index)) for every index below `count`, in any order.

    Args:
        job: must be picklable where processes are spawned
        count: number of indices
        workers: processes; 1 means this one

    Raises:
        UserError: an OSError in a worker (a full disk, say), or a worker that was killed
    """
    if workers <= 1:
        for index in range(count):
            try:
                yield index, job(index)
            except OSError as error:
                raise _write_error(error) from error
        return
    context: Any = multiprocessing.get_context(_start_method())
    crew: dict[Connection, Any] = {}
    try:
        for number in range(workers):
            ours, theirs = context.Pipe(duplex=False)
            arguments = (job, range(number, count, workers), ours, theirs, os.getpid())
            process = context.Process(target=_work, args=arguments, daemon=True)
            with warnings.catch_warnings():
                # Python warns that forking is unsafe if torch runs threads: a worker does not
                # touch torch, nor any lock of it.
                warnings.simplefilter("ignore", DeprecationWarning)
                process.start()
            theirs.close()
            crew[ours] = process
        yield from _collect(dict(crew))
    finally:  # also on Ctrl-C
        for connection, process in crew.items():
            process.terminate()
            process.join()
            connection.close()


def _start_method() -> str:
    """fork starts at once; spawn, which imports everything anew, where fork is unsafe or absent."""
    methods = multiprocessing.get_all_start_methods()
    return "fork" if "fork" in methods and sys.platform != "darwin" else "spawn"


def _collect(crew: dict[Connection, Any]) -> Iterator[tuple[int, Any]]:
    while crew:
        for connection in wait(list(crew)):
            assert isinstance(connection, Connection), connection
            try:
                message = connection.recv()
            except EOFError:
                crew[connection].join()
                raise UserError(
                    f"a worker process ended early (exit code {crew[connection].exitcode}); "
                    "if memory ran out, use fewer --workers"
                ) from None
            if message is None:
                del crew[connection]
            elif isinstance(message, OSError):
                raise _write_error(message)
            elif isinstance(message, str):
                raise RuntimeError(f"a worker process failed:\n{message}")
            else:
                yield message


def _work(job: Job, indices: range, theirs: Connection, ours: Connection, parent: int) -> None:
    """A worker's life: send (index, result) for each index, then None; or what went wrong."""
    theirs.close()  # the parent's end; with it open here we would not notice that it has gone
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends us
    try:
        for index in indices:
            if os.getppid() != parent:  # killed without a chance to end us
                return
            ours.send((index, job(index)))
        ours.send(None)
    except BrokenPipeError:
        return
    except OSError as error:
        ours.send(error)
    except Exception:
        ours.send(traceback.format_exc())


def _write_error(error: OSError) -> UserError:
    where = f" {error.filename}" if error.filename else ""
    return UserError(f"cannot write{where}: {error.strerror or error}; what is there is unfinished")
