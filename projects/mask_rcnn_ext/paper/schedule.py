"""What runs when: tasks that wait for others, so many at a time, one failure not stopping the rest.

What a task is, is not known here: `start` makes something that runs of it. All happens in one
thread that looks at what runs from time to time; signals only set what `requests` tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from ..errors import UserError

_LOOK_SECONDS = 0.2
NO_TURN = "stopped before its turn"


@dataclass(frozen=True)
class Task:
    """
    Attributes:
        name: as messages call it; no two are the same
        needs: names of those that must have gone well before; others need not be known here
        hours: estimate
        alone: whether nothing else may run meanwhile: one that measures times
    """

    name: str
    needs: tuple[str, ...] = ()
    hours: float = 0.0
    alone: bool = False


@dataclass(frozen=True)
class End:
    """How a task ended; `stopped` is on request, its state is saved."""

    state: Literal["finished", "failed", "stopped", "not run"]
    reason: str = ""

    @property
    def is_good(self) -> bool:
        return self.state == "finished"


class Running(Protocol):
    """Something that was started."""

    def look(self) -> End | None:
        """Go on with what can go on without waiting; the end if there is one.

        A UserError is a failure.
        """

    def stop(self, at_once: bool) -> None:
        """Ask it to save its state and end, or end it."""


class Watcher(Protocol):
    """Who is told what happens."""

    def started(self, task: Task, running: Running) -> None: ...

    def ended(self, task: Task, end: End) -> None: ...

    def looked(self, running: Mapping[str, Running], waiting: Sequence[Task]) -> None:
        """Called some times a second."""


def by_urgency(tasks: Sequence[Task]) -> list[Task]:
    """What most waits for first; then what takes long; then as given. Those alone come last."""
    waiting = {task.name: _all_that_wait_for(task.name, tasks) for task in tasks}
    return sorted(tasks, key=lambda one: (one.alone, -len(waiting[one.name]), -one.hours))


def _all_that_wait_for(name: str, tasks: Sequence[Task]) -> set[str]:
    found: set[str] = set()
    new = {name}
    while new:
        new = {task.name for task in tasks if new & {*task.needs}} - found
        found |= new
    return found


def run_tasks(
    tasks: Sequence[Task],
    jobs: int,
    start: Callable[[Task, int], Running],
    watcher: Watcher,
    *,
    requests: Callable[[], int] = lambda: 0,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, End]:
    """Run all that can be run.

    Args:
        jobs: so many at once
        start: task and slot, 0 ... jobs - 1 -> what runs; a UserError is the task's failure
        requests: how often somebody asked to stop; after the first nothing new begins
    Returns:
        how each ended, in the order of the ends
    """
    waiting = by_urgency(tasks)
    running: dict[str, tuple[Task, int, Running]] = {}
    ends: dict[str, End] = {}
    heard = 0

    def end(task: Task, how: End) -> None:
        ends[task.name] = how
        watcher.ended(task, how)

    while waiting or running:
        if (asked := requests()) > heard:
            heard = asked
            for _, _, one in running.values():
                one.stop(asked > 1)
        for name, (task, _, one) in list(running.items()):
            if (how := _look(one)) is not None:
                del running[name]
                end(task, how)
        for task in list(waiting):
            if (how := _why_not(task, ends, heard)) is not None:
                waiting.remove(task)
                end(task, how)
        for task in _startable(waiting, running, ends, jobs):
            waiting.remove(task)
            slot = min({*range(jobs)} - {slot for _, slot, _ in running.values()})
            try:
                running[task.name] = (task, slot, start(task, slot))
            except UserError as error:
                end(task, End("failed", str(error)))
            else:
                watcher.started(task, running[task.name][2])
        watcher.looked({name: one for name, (_, _, one) in running.items()}, waiting)
        if running:
            sleep(_LOOK_SECONDS)
    return ends


def _look(one: Running) -> End | None:
    try:
        return one.look()
    except UserError as error:
        return End("failed", str(error))


def _why_not(task: Task, ends: Mapping[str, End], heard: int) -> End | None:
    """Why a task that waits will not run; None if it may."""
    for need in task.needs:
        if need in ends and not ends[need].is_good:
            if heard and ends[need].state == "stopped":
                return End("not run", NO_TURN)
            # Of a chain, the one at whose end all began.
            root = ends[need].reason if ends[need].state == "not run" else f"needs {need}"
            return End("not run", root)
    return End("not run", NO_TURN) if heard else None


def _startable(
    waiting: Sequence[Task],
    running: Mapping[str, tuple[Task, int, Running]],
    ends: Mapping[str, End],
    jobs: int,
) -> list[Task]:
    """Those to start now; one that is to be alone when there is nothing else that could run."""
    pending = {task.name for task in waiting} | {*running}
    ready = [task for task in waiting if not pending & {*task.needs}]
    together = [task for task in ready if not task.alone]
    if together or running:
        return together[: jobs - len(running)]
    return ready[:1]
