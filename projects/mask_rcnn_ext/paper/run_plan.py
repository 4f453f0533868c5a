"""What of some rows' stages is kept and what must run, for each seed.

A stage whose record has the right key is kept. One that another stage needs must also have left
its weights, proposals or labels here; a stage that nobody needs any more and that is no row's own
is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from .place import Place
from .run_folder import is_done
from .schedule import Task
from .spec import Paper, Stage
from .state import Sorted

Verdict = Literal["kept", "record", "run"]
KEPT: Final = "kept"
RECORD: Final = "record"
RUN: Final = "run"


@dataclass(frozen=True)
class Job:
    """A stage with a seed.

    key: of its content; "" where it cannot be known, as data are not there
    verdict: kept: there is nothing to do; record: it is done, only its record is not there; run
    why: it is not simply new
    needs: names of jobs
    makes: generated data that it reads
    """

    stage: Stage
    seed: int
    key: str
    verdict: Verdict
    why: str
    needs: tuple[str, ...]
    makes: tuple[str, ...]

    @property
    def name(self) -> str:
        return name_of(self.stage.id, self.seed)

    @property
    def task(self) -> Task:
        """For the schedule; only a job that is not kept."""
        needs = () if self.verdict == RECORD else self.needs
        made = tuple(data_task(one) for one in self.makes)
        hours = 0.0 if self.verdict == RECORD else self.stage.hours
        alone = self.stage.kind == "time" and self.verdict == RUN
        return Task(self.name, (*made, *needs), hours, alone)


def name_of(stage: str, seed: int) -> str:
    """What messages call it."""
    return f"{stage}, seed {seed}"


def data_task(data: str) -> str:
    """The name of the task that generates data."""
    return f"data {data}"


def plan(
    paper: Paper,
    place: Place,
    targets: Iterable[str],
    seeds: Iterable[int],
    key_of: Callable[[str, int], str],
    records: Sorted,
    configs: Path | None = None,
) -> list[Job]:
    """
    Args:
        targets: stages whose records are asked for
        key_of: stage and seed -> key, "" where it cannot be known
        records: of this scale
        configs: folder that the stages' configs are in; this project's where none is given
    Returns:
        each after what it needs
    """
    targets = tuple(targets)
    nodes: dict[tuple[str, int], tuple[tuple[str, int], ...]] = {}  # -> what it needs
    for seed in seeds:
        for stage in paper.chain(*targets):
            below = (paper.stages[need] for need in stage.needs)
            needs = tuple((one.id, one.seed_for(seed)) for one in below)
            nodes.setdefault((stage.id, stage.seed_for(seed)), needs)
    verdicts: dict[tuple[str, int], tuple[Verdict, str]] = {}
    for node in reversed(nodes):
        users = (user for user, needs in nodes.items() if node in needs)
        needed = any(verdicts.get(user, (KEPT, ""))[0] == RUN for user in users)
        name, seed = node
        key = key_of(name, seed)
        has_record = seed in records.current.get(name, {})
        done = bool(key) and is_done(place, paper.stages[name], seed, key, configs)
        why = "" if has_record else _why(records, name, seed)
        if needed and not done:
            again = "its record is there, but what others need of it is not"
            verdicts[node] = RUN, again if has_record else why
        elif has_record:
            verdicts[node] = KEPT, ""
        elif done:
            verdicts[node] = RECORD, ""
        elif name in targets:
            verdicts[node] = RUN, why
    return [
        Job(
            stage=paper.stages[name],
            seed=seed,
            key=key_of(name, seed),
            verdict=verdicts[name, seed][0],
            why=verdicts[name, seed][1],
            needs=tuple(name_of(*need) for need in needs),
            makes=tuple(one for one in paper.stages[name].data if paper.data[one].make),
        )
        for (name, seed), needs in nodes.items()
        if (name, seed) in verdicts
    ]


def _why(records: Sorted, stage: str, seed: int) -> str:
    groups = (
        (records.failed, "failed the last time"),
        (records.stale, "its record is of another code version"),
        (records.other, "its record is of another config or of other data"),
    )
    return next((text for group, text in groups if seed in group.get(stage, {})), "")
