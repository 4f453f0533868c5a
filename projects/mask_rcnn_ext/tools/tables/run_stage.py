"""One stage with one seed, while it runs: its folder, its command, its record."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import yaml

from ...errors import Interrupted, UsageError, UserError
from ...paper import Paper
from ...paper.commands import Command, command_of, commands_for_data, gathering
from ...paper.place import Place
from ...paper.run_folder import (
    Marker,
    holds_a_run,
    move_aside,
    outputs_of,
    read_marker,
    write_marker,
    write_registry,
)
from ...paper.run_plan import RECORD, Job
from ...paper.schedule import End
from .run_process import Launcher, Process, reason_of, tail_of
from .run_request import Setting

OUTPUT = "output.txt"  # of the stage's commands; Detectron2's own log.txt is beside it
TAIL = 15  # lines of it that a failure shows
_REASON_LINES = 60
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DataRun:
    """Generates data: `schedule.Running`."""

    def __init__(self, paper: Paper, place: Place, data: str, launcher: Launcher, slot: int):
        self._launcher, self._slot = launcher, slot
        self._left = commands_for_data(paper, place, data)
        place.root_of(data).mkdir(parents=True, exist_ok=True)
        self.output = place.root_of(data) / OUTPUT
        self._stopped = False
        self._process = self._next()

    def look(self) -> End | None:
        code = self._process.poll()
        if code is None:
            return None
        if code:
            if self._stopped:
                return End("stopped")
            return End("failed", reason_of(code, tail_of(self.output, _REASON_LINES)))
        if not self._left:
            return End("finished")
        if self._stopped:
            return End("stopped")
        self._process = self._next()
        return None

    def stop(self, at_once: bool) -> None:
        self._stopped = True
        self._process.stop(at_once)

    @property
    def tail(self) -> Sequence[str]:
        """What it printed last."""
        return tail_of(self.output, TAIL)

    def _next(self) -> Process:
        return self._launcher.start(self._left.pop(0), self._slot, self.output)


class StageRun:
    """A stage's command, then its record: `schedule.Running`."""

    def __init__(
        self,
        job: Job,
        setting: Setting,
        launcher: Launcher,
        gatherer: Launcher,
        slot: int,
        say: Callable[[str], None],
    ):
        """
        Args:
            launcher: of the stage's command
            gatherer: of what writes the record
            slot: of --jobs
            say: for lines that the user should see
        Raises:
            UserError: the folder cannot be written to, the command not started
        """
        self.job = job
        self._setting, self._place = setting, setting.place
        self._launcher, self._gatherer, self._slot, self._say = launcher, gatherer, slot, say
        self.folder = self._place.run_of(job.stage, job.seed)
        self.output = self.folder / OUTPUT
        self._stopped = False
        self._begun = time.monotonic()
        self._before = 0.0  # hours, of earlier starts
        self._failed = ""
        self._is_stray = False  # the folder holds a run that nobody marked
        self._most: int | None = None
        if job.verdict == RECORD:
            marker = read_marker(self.folder)
            self._before = marker.hours if marker else 0.0
            self._gathers = True
            self._process = self._gather()
        else:
            self._gathers = False
            self._process = self._start()

    @property
    def progress(self) -> tuple[int, int] | None:
        """Iterations done and in all, of a training that has begun."""
        if self._gathers or self.job.stage.kind != "train":
            return None
        try:
            if self._most is None:
                content = yaml.load((self.folder / "config.yaml").read_bytes(), _Loader)
                self._most = int(content["SOLVER"]["MAX_ITER"])
            last = json.loads(tail_of(self.folder / "metrics.json", 1)[-1])
            return min(int(last["iteration"]) + 1, self._most), self._most
        except (OSError, ValueError, KeyError, TypeError, IndexError, yaml.YAMLError):
            return None

    def look(self) -> End | None:
        code = self._process.poll()
        if code is None:
            return None
        if self._gathers:
            return self._recorded(code)
        if code == UsageError.exit_code and self._is_stray and not self._stopped:
            self._say(f"{self.job.name}: {self.folder} holds a run of another config")
            self._make_room()
            self._process = self._start()
            return None
        if code == Interrupted.exit_code or (code and self._stopped):
            write_marker(self.folder, Marker(key=self.job.key, state="started", hours=self._hours))
            return End("stopped")
        if code:
            self._gather_failure(self._reason(code))
            return None
        return self._done()

    def stop(self, at_once: bool) -> None:
        self._stopped = True
        self._process.stop(at_once)

    @property
    def tail(self) -> Sequence[str]:
        """What it printed last."""
        return tail_of(self.output, TAIL)

    @property
    def _hours(self) -> float:
        return self._before + (time.monotonic() - self._begun) / 3600

    def _start(self) -> Process:
        """Look at the folder, mark it, and start the stage's command."""
        marker = read_marker(self.folder)
        if marker is not None and marker.key != self.job.key:
            self._say(f"{self.job.name}: {self.folder} was made with another config or code")
            self._make_room()
            marker = None
        self._is_stray = marker is None and holds_a_run(self.folder)
        self._before = marker.hours if marker else 0.0
        self._begun = time.monotonic()
        write_marker(self.folder, Marker(key=self.job.key, state="started", hours=self._before))
        return self._launcher.start(
            self._command(replace=marker is not None), self._slot, self.output
        )

    def _command(self, *, replace: bool) -> Command:
        return command_of(
            self._setting.paper,
            self._place,
            self.job.stage,
            self.job.seed,
            self._setting.machine,
            replace=replace,
            smoke=self._setting.smoke is not None,
        )

    def _make_room(self) -> None:
        self._say(f"  moved to {move_aside(self.folder)}; it runs anew")

    def _done(self) -> End | None:
        """After the stage's command has ended well."""
        stage, seed = self.job.stage, self.job.seed
        try:
            if stage.kind == "distill":
                write_registry(self._place, stage, seed)
            outputs = outputs_of(self._place, stage, seed)
            if absent := [path for path in outputs if not path.is_file()]:
                raise UserError(f"it ended well, but {absent[0]} is not there")
            write_marker(self.folder, Marker(key=self.job.key, state="done", hours=self._hours))
        except UserError as error:
            self._gather_failure(str(error))
            return None
        if self._stopped:
            return End("stopped")
        self._before, self._gathers = self._hours, True
        self._process = self._gather()
        return None

    def _gather_failure(self, reason: str) -> None:
        """Let the record say so; the end follows."""
        self._failed = reason
        self._before, self._gathers = self._hours, True
        self._process = self._gather(reason)

    def _gather(self, failed: str = "") -> Process:
        command = gathering(
            self._setting.paper,
            self._place,
            self.job.stage,
            self.job.seed,
            self._setting.machine,
            key=self.job.key,
            code=self._setting.code,
            smoke=self._setting.smoke is not None,
            hours=self._before,
            failed=failed,
        )
        # What a failure shows is the stage's own output.
        output = self.folder / "gather.txt" if failed else self.output
        return self._gatherer.start(command, self._slot, output)

    def _recorded(self, code: int) -> End:
        if self._failed:
            if code and not self._stopped:
                self._say(f"{self.job.name}: no record of the failure: {self._reason(code)}")
            return End("failed", self._failed)
        if code and self._stopped:
            return End("stopped")
        return End("failed", f"no record: {self._reason(code)}") if code else End("finished")

    def _reason(self, code: int) -> str:
        """Why the command that ended now did not end well."""
        return reason_of(code, tail_of(self._process.output, _REASON_LINES))
