"""SIGTERM, SIGUSR1 and Ctrl-C: finish the step, save, leave with a code that means "again"."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ..errors import Interrupted

_SIGNALS = {signal.SIGTERM: "SIGTERM", signal.SIGUSR1: "SIGUSR1", signal.SIGINT: "Ctrl-C"}
_WORKERS_LAST_SECONDS = 30


class StopRequest:
    """Whether somebody asked this run to stop, and what happens then.

    While a run trains and evaluates (`deferred`), a signal is only remembered; the checkpoint hook
    asks for it after each step, and an evaluation before each batch. At any other time it raises:
    there is nothing to save then. A second Ctrl-C ends the run at once, with what the last
    checkpoint holds.

    Install it before the data loader starts its workers: they inherit the handler, which does
    nothing in them, so that the step in hand still gets its data.
    """

    def __init__(self) -> None:
        self.signal: str | None = None
        self._deferring = 0
        self._main_pid = os.getpid()
        self._previous: dict[int, Any] = {}

    def install(self) -> StopRequest:
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def uninstall(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._previous.clear()

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Signals only set `signal` inside."""
        self._deferring += 1
        try:
            yield
        finally:
            self._deferring -= 1

    def agreed(self) -> bool:
        """Whether any process was asked; all must call it together, and get the same answer."""
        if comm.get_world_size() == 1:
            return self.signal is not None
        flag = torch.tensor([self.signal is not None], dtype=torch.int32)
        # On the CPU, so that a GPU's queue is not waited for.
        dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=comm._get_global_gloo_group())
        return bool(flag.item())

    def raise_if_requested(self) -> None:
        if self.signal is not None:
            raise self.interruption()

    def interruption(self, where: str = "") -> Interrupted:
        """The error that ends the run; Args: where: up to where its state is saved."""
        cause = self.signal or "a signal to another process"
        return Interrupted(
            f"stopped by {cause}{where}. To go on, run the same command again; exit code "
            f"{Interrupted.exit_code} says so to a scheduler."
        )

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._main_pid:
            return
        again = self.signal is not None
        self.signal = _SIGNALS[signal.Signals(number)]
        if number == signal.SIGINT and again:
            raise KeyboardInterrupt
        if again:  # schedulers signal the same process by several ways
            return
        if not self._deferring:
            raise self.interruption()
        text = f"{self.signal}: finishing this step, then saving"
        more = "; once more to stop now" if number == signal.SIGINT else ""
        # Not print(): the main thread may be inside a write to the same buffer.
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{text}{more}\n".encode())


class Interruptible:
    """Batches for work that can be done again: a request ends it before the next one.

    Iterating raises `Interrupted` then.
    """

    def __init__(self, batches: Any, stop: StopRequest):
        self._batches, self._stop = batches, stop

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Any]:
        try:
            for batch in self._batches:
                self._stop.raise_if_requested()
                yield batch
        except RuntimeError:
            # A signal to all processes of a run may end a data-loader worker first.
            self._stop.raise_if_requested()
            raise


def outlive_termination(worker: int = 0) -> None:
    """Let a data-loader worker serve the step in hand after a SIGTERM to all processes of the run.

    It then ends within half a minute in any case. Who uses it must shut the loader down: at the
    end of a program `multiprocessing` sends a SIGTERM of its own, and waits.

    Args:
        worker: its number, as `DataLoader` calls its `worker_init_fn`
    """

    def later(number: int, frame: FrameType | None) -> None:
        signal.alarm(_WORKERS_LAST_SECONDS)

    signal.signal(signal.SIGTERM, later)
