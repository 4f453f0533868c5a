"""What a call of `tables run` asks for: rows, their stages, what of it is there, the plan."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import UsageError
from ...paper import Keys, NoFingerprint, Paper, Sorted, code_hash, load_paper
from ...paper.commands import Command, Machine, command_of, commands_for_data, pasted
from ...paper.place import Place
from ...paper.run_plan import KEPT, RECORD, Job, data_task, plan
from ...paper.smoke import folder_of, load_smoke, stand_ins
from ...paper.spec import Scale
from .entry import Entry, entries
from .kept import fingerprints, sorted_records
from .lacking import Looking
from .listing import choose, table_of
from .listing_text import data_line, weights_line
from .options import ALL
from .published import is_fetched


@dataclass(frozen=True)
class Setting:
    """All that is settled before the first stage.

    scale: of the stages
    smoke: what stands in for data and schedule, for the content hash; None in a real run
    """

    paper: Paper
    place: Place
    scale: Scale
    smoke: Any
    code: str
    machine: Machine

    @property
    def records_of(self) -> str:
        """The scale that records are kept under."""
        return self.scale if self.smoke is None else "smoke"


def setting_of(args: argparse.Namespace) -> Setting:
    """
    Raises:
        UsageError: more GPUs than there are
    """
    paper = load_paper()
    folder, smoke = args.out, None
    if args.smoke:
        stand_in = load_smoke()
        paper, folder, smoke = stand_ins(paper, stand_in), folder_of(folder), stand_in.as_json
    return Setting(
        paper=paper,
        place=Place(folder, args.records or args.out / "records"),
        scale=args.data,
        smoke=smoke,
        code=code_hash(),
        machine=_machine(args),
    )


def gpus_there() -> int:
    """Of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _machine(args: argparse.Namespace) -> Machine:
    if args.launcher == "submitit":
        gpus = args.gpus_per_node
    else:
        there = gpus_there()
        if args.num_gpus and args.num_gpus > there:
            raise UsageError(f"--num-gpus {args.num_gpus}, but PyTorch sees {there} GPUs")
        gpus = args.num_gpus or (max(1, there // (args.jobs or 1)) if there else 0)
    how: dict[str, Any] = {"parts": args.accumulate, "float32": args.float32}
    if not gpus:
        return Machine("cpu", **how)
    return Machine("cuda", gpus if args.data == "coco" else 1, **how)


def chosen_rows(args: argparse.Namespace, setting: Setting, looking: Looking) -> list[Entry]:
    """The rows that can run; the others are named and left out.

    Raises:
        UsageError: a name that is not there, or none is left
    """
    tables = [] if any(name.lower() == ALL for name in args.table) else args.table
    every = entries(setting.paper, setting.scale, looking, Sorted())
    left_out: dict[str, list[str]] = {}
    found = []
    for one in choose(setting.paper, every, tables, args.row):
        if one.stages:
            found.append(one)
        else:
            what = "another system's" if one.is_reference else one.state.text
            left_out.setdefault(what, []).append(f"{table_of(one)} {one.one.id}")
    for what, names in left_out.items():
        print(f"left out, {what}: {', '.join(names)}")
    if not found:
        rows = f" --row {shlex.join(args.row)}" if args.row else ""
        raise UsageError(
            f"nothing is left to run of --table {shlex.join(args.table)}{rows}; "
            "`mask-rcnn-ext tables list` shows all rows"
        )
    return found


def targets_of(setting: Setting, chosen: Sequence[Entry]) -> list[str]:
    """The stages whose results are these rows' figures."""
    own = (setting.paper.at(setting.scale, name) for one in chosen for name in one.one.stages)
    return list(dict.fromkeys(stage.id for stage in own if stage is not None))


def missing_of(setting: Setting, looking: Looking, targets: Sequence[str]) -> str:
    """What of data and weights is not there, for people; "" for nothing."""
    paper = setting.paper
    needs = looking.needs_of(paper.chain(*targets))
    lines = [data_line(paper, name, paths) for name, paths in needs.data.items() if paths]
    for name, lacks in needs.weights.items():
        if lacks:
            path = Path(paper.weights[name].address).expanduser().absolute()
            lines += [weights_line(paper, name, lacks=True), f"    put the file at {path}"]
    if not lines:
        return ""
    return "\n".join(
        [
            "what these rows read is not there:",
            *lines,
            "datasets/README.md says how the folders look. Without them: --data scenes generates "
            "its own data",
        ]
    )


def plan_of(
    setting: Setting, targets: Sequence[str], seeds: int, *, must_be_there: bool = True
) -> list[Job]:
    """
    Args:
        must_be_there: whether all data are there; else keys are known of some stages only
    """
    paper, place = setting.paper, setting.place
    keys = Keys(paper, code=setting.code, fingerprint=fingerprints({}), smoke=setting.smoke)

    def key_of(stage: str, seed: int) -> str:
        try:
            return keys.key_of(stage, seed)
        except NoFingerprint:
            if must_be_there:
                raise
            return ""

    records = sorted_records(paper, place.records, setting.records_of, setting.smoke)
    return plan(paper, place, targets, range(1, seeds + 1), key_of, records)


def plan_text(setting: Setting, jobs: Sequence[Job]) -> str:
    """The plan: each job with its command as one can paste it."""
    paper, place, machine = setting.paper, setting.place, setting.machine
    lines = []
    for name in data_to_make(jobs):
        lines.append(f"{data_task(name)}: generated where it is not there")
        lines += [f"  {_pasted(one)}" for one in commands_for_data(paper, place, name)]
    for job in jobs:
        hours = f", {job.stage.hours:g} h on {job.stage.hardware}" if job.verdict != KEPT else ""
        why = f" ({job.why})" if job.why else ""
        what = {KEPT: "kept", RECORD: "done, its record is to be written"}
        lines.append(f"{job.name}: {what.get(job.verdict, 'runs')}{why}{hours}")
        if job.verdict not in what:
            smoke = setting.smoke is not None
            command = command_of(paper, place, job.stage, job.seed, machine, smoke=smoke)
            lines.append(f"  {_pasted(command)}")
    return "\n".join([*lines, *weights_to_fetch(setting, jobs), summary_of(jobs)])


def weights_to_fetch(setting: Setting, jobs: Sequence[Job]) -> list[str]:
    """A line for each file of published weights that stages will fetch."""
    paper = setting.paper
    stages = (job.stage for job in jobs if job.verdict not in (KEPT, RECORD))
    used = {stage.weights: paper.weights[stage.weights] for stage in stages if stage.weights}
    return [
        weights_line(paper, name, lacks=False)
        for name, one in used.items()
        if one.is_published and not is_fetched(one.address)
    ]


def _pasted(command: Command) -> str:
    settings = [f"{key}={shlex.quote(value)}" for key, value in command.environment.items()]
    return " ".join([*settings, pasted(["python", *command.words[1:]])])


def summary_of(jobs: Sequence[Job]) -> str:
    """How many stages are kept, how many run, and for how long."""
    to_do = [job for job in jobs if job.verdict not in (KEPT, RECORD)]
    hours = sum(job.stage.hours for job in to_do)
    hardware = " or ".join(dict.fromkeys(job.stage.hardware for job in to_do))
    estimate = f", about {hours:.3g} h one after the other on {hardware}" if to_do else ""
    kept = sum(job.verdict == KEPT for job in jobs)
    stages = "1 stage" if len(jobs) == 1 else f"{len(jobs)} stages"
    return f"{stages}: {kept} kept, {len(to_do)} to run{estimate}"


def data_to_make(jobs: Sequence[Job]) -> list[str]:
    """Generated data that they read."""
    return list(dict.fromkeys(one for job in jobs if job.verdict != KEPT for one in job.makes))
