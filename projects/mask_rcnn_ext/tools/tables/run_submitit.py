"""Stages as jobs of a cluster, each waited for: `tables run --launcher submitit`."""

from __future__ import annotations

import argparse
import os
import re
import shutil
from pathlib import Path
from typing import Any

from ...errors import UserError
from ...paper.commands import Command
from ..submit import TrainingJob, executor_for, require_submitit, submit_to
from .run_process import Process

_CODE = re.compile(r"ended with exit code (-?\d+)")
LOGS = "submitit"  # folder of the jobs' own logs, below --out


class StageJob(TrainingJob):
    """What submitit runs: a stage's command, its output where it would be without a cluster."""

    def __init__(self, words: list[str], environment: dict[str, str], output: str):
        super().__init__(words, 0)
        self.environment = environment
        self.output = output

    def command(self, **where: Any) -> list[str]:
        """The words as they are; they are for one node."""
        return self.words

    def __call__(self) -> int:
        os.environ.update(self.environment)
        before = os.dup(1), os.dup(2)
        with open(self.output, "ab") as file:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
        try:
            return super().__call__()
        finally:
            for copy, number in zip(before, (1, 2), strict=True):
                os.dup2(copy, number)

    def checkpoint(self) -> Any:
        """The same job again, where that of `TrainingJob` would be."""
        from submitit.helpers import DelayedSubmission

        if super().checkpoint() is None:
            return None
        return DelayedSubmission(StageJob(self.words, self.environment, self.output))


class ClusterProcess:
    """A submitted job."""

    def __init__(self, job: Any, output: Path):
        self.output = output
        self._job = job

    def poll(self) -> int | None:
        if not self._job.done():
            return None
        error = self._job.exception()
        if error is None:
            return 0
        found = _CODE.search(str(error))
        return int(found[1]) if found else 1

    def stop(self, at_once: bool) -> None:
        # SLURM and submitit end it with a signal on which a training saves.
        self._job.cancel(check=False)


class ClusterLauncher:
    """Submits commands; submitit chooses this machine where there is no SLURM."""

    def __init__(self, args: argparse.Namespace):
        """
        Args:
            args: of `tables run`
        Raises:
            UsageError: submitit is not installed
        """
        require_submitit()
        self._options = argparse.Namespace(
            launcher="slurm" if shutil.which("srun") else "local",
            partition=args.partition,
            nodes=1,
            gpus_per_node=args.gpus_per_node,
            cpus_per_task=None,
            hours=args.hours,
            requeues=20,
            folder=args.out / LOGS,
            comment=None,
            slurm=[],
        )

    def start(self, command: Command, slot: int, output: Path) -> Process:
        name = output.parent.parent.name  # the stage's
        try:
            executor = executor_for(argparse.Namespace(**{**vars(self._options), "name": name}))
        except OSError as error:
            raise UserError(f"cannot write {self._options.folder}: {error.strerror}") from error
        job = StageJob(command.words, command.environment, str(output.resolve()))
        return ClusterProcess(submit_to(executor, job), output)
