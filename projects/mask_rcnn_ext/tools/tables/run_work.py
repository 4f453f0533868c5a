"""The stages of a plan, run: `tables run` after everything is settled."""

from __future__ import annotations

import argparse
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from ...errors import Interrupted, UserError
from ...paper.run_plan import KEPT, Job, data_task
from ...paper.schedule import NO_TURN, End, Running, Task, run_tasks
from .run_process import Launcher, LocalLauncher, cores
from .run_request import Setting, data_to_make, gpus_there, summary_of, weights_to_fetch
from .run_stage import DataRun, StageRun
from .run_status import Status

# The same request may come by several ways, from a terminal and from a program in between.
_SAME_REQUEST_SECONDS = 1.0


def run_jobs(args: argparse.Namespace, setting: Setting, jobs: Sequence[Job], lock: int) -> int:
    """
    Args:
        lock: descriptor that started commands keep open
    Returns:
        0 if all went well, 1 if a stage failed
    Raises:
        Interrupted: stopped on request
    """
    for job in jobs:
        if job.verdict == KEPT:
            print(f"kept: {job.name}")
        elif job.why:
            print(f"to run: {job.name}: {job.why}")
    print(*weights_to_fetch(setting, jobs), summary_of(jobs), sep="\n", flush=True)
    to_do = {job.name: job for job in jobs if job.verdict != KEPT}
    if not to_do:
        return 0
    machine = setting.machine
    if machine.device == "cpu" and args.data == "coco" and not args.smoke:
        print("note: hours are for 8 GPUs; without any, training on COCO takes months", flush=True)
    data = {data_task(name): name for name in data_to_make(jobs)}
    tasks = [*(Task(name) for name in data), *(job.task for job in to_do.values())]
    needed = {need for job in to_do.values() for need in job.needs}
    at_once = jobs_at_once(args, machine.device, len(tasks), len(to_do.keys() - needed))
    here = LocalLauncher(lock, at_once, machine.device, machine.gpus, gpus_there())
    launcher: Launcher = here
    if args.launcher == "submitit":
        from .run_submitit import ClusterLauncher

        launcher = ClusterLauncher(args)
    trusts_hours = not args.smoke and (args.data == "scenes" or machine.gpus >= 8)
    status = Status(at_once, len(tasks), trusts_hours=trusts_hours)
    runs: dict[str, DataRun | StageRun] = {}

    def start(task: Task, slot: int) -> Running:
        if task.name in data:
            made = DataRun(setting.paper, setting.place, data[task.name], here, slot)
            return runs.setdefault(task.name, made)
        job = to_do[task.name]
        return runs.setdefault(task.name, StageRun(job, setting, launcher, here, slot, status.say))

    with _stop_requests(status.say) as requests:
        ends = run_tasks(tasks, at_once, start, status, requests=requests)
    return _conclude(ends, runs)


def jobs_at_once(args: argparse.Namespace, device: str, count: int, ends: int) -> int:
    """--jobs, or what suits.

    Args:
        count: tasks in all
        ends: those that no other needs; a chain of stages has one, and gets all cores
    """
    if args.jobs:
        return int(args.jobs)
    if args.launcher == "submitit":
        return count
    return min(cores(), max(1, ends)) if args.data == "scenes" and device == "cpu" else 1


@contextmanager
def _stop_requests(say: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """A function that tells how often we were asked to stop; signals are ours inside."""
    times: list[float] = []
    told = 0

    def heard(number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not times or now - times[-1] > _SAME_REQUEST_SECONDS:
            times.append(now)

    def requests() -> int:
        nonlocal told
        if len(times) > told:
            first = told == 0
            told = len(times)
            say(
                "stopping: what runs saves its state; once more ends it at once"
                if first
                else "ending at once"
            )
        return told

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = {number: signal.signal(number, heard) for number in numbers}
    try:
        yield requests
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _conclude(ends: Mapping[str, End], runs: Mapping[str, DataRun | StageRun]) -> int:
    """Say what failed and with what last words; the exit code."""
    failed = {name: end for name, end in ends.items() if end.state == "failed"}
    for name, end in failed.items():
        tail = runs[name].tail if name in runs else ()
        where = f"; the end of {runs[name].output}:" if tail else ""
        print("", f"{name} failed: {end.reason}{where}", *(f"  | {one}" for one in tail), sep="\n")
    counts = Counter(end.state for end in ends.values())
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    print(f"\n{told}", flush=True)
    if counts["stopped"] or any(end.reason == NO_TURN for end in ends.values()):
        raise Interrupted(
            "stopped on request. To go on, give the same command again; exit code "
            f"{Interrupted.exit_code} says so to a scheduler."
        )
    return UserError.exit_code if failed else 0
