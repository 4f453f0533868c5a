"""What the paper claims, judged by the records: confirmed, contradicted, or open.

A claim is a difference of AP: of the text, where a comparison takes one stage's figure off
another's or calls one `nearly` as good as the other, and of a table's `steps`. The words are those
of configs/paper/. Intervals are of `resampling`, rounded before they are judged.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

from ..errors import UserError
from .compare import value_of
from .lineage import unlike
from .matches_file import read_matches, records_of
from .resampling import FIGURES, Difference, Sample, difference, sample
from .spec import Comparison, Paper, Row, Scale, Stage, Table
from .state import FAILED, NOT_RUN, OTHER, STALE, Sorted

LEAST_SEEDS = 3
# "Nearly as good": points of AP on COCO, where the paper's figures are 30 to 40; the same share of
# whatever the better side has on generated scenes.
NEARLY = 3.0
NEARLY_SHARE = 0.1
TASKS = {"bbox": "box", "segm": "mask", "keypoints": "keypoint"}

Kind = Literal["gain", "nearly"]
Verdict = Literal["confirmed", "contradicted", "open"]
Direction = Literal["with the paper", "against the paper", "neither way"]


@dataclass(frozen=True)
class Claim:
    """One difference that the paper prints or speaks of: first less second.

    Attributes:
        id: e.g. "roialign_gain/mask_AP_gain", "8/e2e/mask_AP"
        source: id of the comparison in the text, or of the table
        where: in the paper
        words: what the paper says
        subject: what is taken off what, e.g. "mask AP of RoIAlign less RoIPool"
        key: figure of results.json, of the first
        first, second: ids of stages at this scale; None: generated data have no recipe
        kind: "gain": the difference has the paper's sign; "nearly": the first is at most
            `margin` points worse
        paper: points; at scale scenes for orientation only
        margin: how much less is still nearly as good, points; 0 for a gain
        difference: ours, with interval; None if it cannot be told
        verdict: confirmed or contradicted if the whole interval says so, with at least LEAST_SEEDS
            seeds, and stages that both come from were the same runs; else open
        points: where the whole interval is, however many seeds; None without a difference
        reason: why it is open; "" else
        reading: the verdict in a plain sentence
    """

    id: str
    source: str
    where: str
    words: str
    subject: str
    key: str
    first: str | None
    second: str | None
    kind: Kind
    paper: float
    margin: float
    difference: Difference | None
    verdict: Verdict
    points: Direction | None
    reason: str
    reading: str


@dataclass(frozen=True)
class Claims:
    """
    Attributes:
        text: of the paper's text
        steps: of one table's rows, one over another
    """

    text: tuple[Claim, ...]
    steps: tuple[Claim, ...]


def judge(
    paper: Paper,
    scale: Scale,
    records: Sorted,
    progress: Callable[[int, int], None] | None = None,
) -> Claims:
    """
    Args:
        scale, records: as in `measure`
        progress: called with (runs resampled, of how many)
    """
    text = [_at(paper, scale, one) for one in _of_text(paper)]
    steps = [_at(paper, scale, one) for one in _of_tables(paper)]
    runs = _Runs(paper, scale, records)
    asked = dict.fromkeys(run for one in (*text, *steps) for run in runs.of(one))
    for done, run in enumerate(asked, 1):
        runs.add(*run)
        if progress is not None:
            progress(done, len(asked))
    return Claims(
        text=tuple(_judged(one, runs) for one in text),
        steps=tuple(_judged(one, runs) for one in steps),
    )


# ---- what there is to judge


@dataclass(frozen=True)
class _Asked:
    """A claim that nobody has judged yet; see `Claim`.

    first, second: ids of the paper's stages
    first_key, second_key: of results.json
    here: their stages at the scale, once that is known
    """

    id: str
    source: str
    where: str
    words: str
    names: tuple[str, str]
    first: str
    second: str
    first_key: str
    second_key: str
    kind: Kind
    paper: float
    here: tuple[Stage | None, Stage | None] = (None, None)

    @property
    def tasks(self) -> tuple[str, str]:
        return self.first_key.partition("/")[0], self.second_key.partition("/")[0]

    @property
    def figure(self) -> str:
        return self.first_key.partition("/")[2]

    @property
    def subject(self) -> str:
        first, second = (f"{TASKS[task]} {self.figure}" for task in self.tasks)
        if first == second:
            return f"{first} of {self.names[0]} less {self.names[1]}"
        return f"{first} less {second} of {self.names[0]}"


def _of_text(paper: Paper) -> Iterator[_Asked]:
    for one in paper.comparisons.values():
        for name, figure in one.figures.items():
            same_key = figure.minus_key in (None, figure.key)
            if figure.of and figure.key and figure.minus and same_key and _is_drawn(figure.key):
                keys = (figure.key, figure.key)
                yield _said(one, name, (figure.of, figure.minus), keys, "gain", figure.paper)
        if one.nearly is not None:
            yield from _nearly(one, *one.nearly)


def _nearly(one: Comparison, first: str, second: str) -> Iterator[_Asked]:
    worse, better = one.figures[first], one.figures[second]
    if worse.of and worse.key and better.of and better.key and _is_drawn(worse.key):
        stages, keys = (worse.of, better.of), (worse.key, better.key)
        yield _said(one, first, stages, keys, "nearly", _points(worse.paper, better.paper))


def _said(
    one: Comparison,
    name: str,
    stages: tuple[str, str],
    keys: tuple[str, str],
    kind: Kind,
    points: float,
) -> _Asked:
    return _Asked(
        id=f"{one.id}/{name}",
        source=one.id,
        where=one.section,
        words=one.claim,
        names=stages,
        first=stages[0],
        second=stages[1],
        first_key=keys[0],
        second_key=keys[1],
        kind=kind,
        paper=points,
    )


def _of_tables(paper: Paper) -> Iterator[_Asked]:
    for table in paper.tables.values():
        rows = {row.id: row for row in table.rows}
        for step in table.steps:
            row, minus = rows[step.row], rows[step.minus]
            for name, column in table.columns.items():
                one, two = row.paper[name], minus.paper[name]
                is_main = column.key.endswith("/AP") and _is_drawn(column.key)
                if not is_main or one is None or two is None or one == two:
                    continue
                if row.stage is None or minus.stage is None:
                    continue
                yield _Asked(
                    id=f"{table.table}/{step.row}/{step.minus}/{name}",
                    source=table.table,
                    where=f"table {table.table}",
                    words=step.claim,
                    names=(_label(table, row), _label(table, minus)),
                    first=row.stage,
                    second=minus.stage,
                    first_key=column.key,
                    second_key=column.key,
                    kind="gain",
                    paper=_points(one, two),
                )


def _label(table: Table, row: Row) -> str:
    """A row's name; the facts of rows that have the same one."""
    if [one.name for one in table.rows].count(row.name) == 1:
        return row.name
    return ", ".join(str(fact) for fact in row.facts.values() if isinstance(fact, str))


def _is_drawn(key: str) -> bool:
    """Whether AP on drawn images is to be had: matches are kept."""
    task, _, figure = key.partition("/")
    return task in TASKS and figure in FIGURES


def _points(one: float, two: float) -> float:
    return round(one - two, 2) + 0.0


def _at(paper: Paper, scale: Scale, one: _Asked) -> _Asked:
    return replace(one, here=(paper.at(scale, one.first), paper.at(scale, one.second)))


# ---- runs


@dataclass(frozen=True)
class _Runs:
    """Samples of runs, each drawn once for all claims."""

    paper: Paper
    scale: Scale
    records: Sorted
    samples: dict[tuple[str, int, str], Sample | UserError] = field(default_factory=dict)

    def seeds(self, one: _Asked) -> tuple[int, ...]:
        """That both stages have."""
        kept = [self.records.current.get(stage.id, {}) if stage else {} for stage in one.here]
        return tuple(sorted({*kept[0]} & {*kept[1]}))

    def of(self, one: _Asked) -> Iterator[tuple[str, int, str]]:
        """Stage, seed and task of the runs that a claim needs."""
        if _cannot(one):
            return
        for stage, task in zip(one.here, one.tasks, strict=True):
            if stage is not None:
                yield from ((stage.id, seed, task) for seed in self.seeds(one))

    def add(self, stage: str, seed: int, task: str) -> None:
        kept = self.records.current[stage][seed]
        path = kept.file(f"matches_{task}.npz")
        try:
            if path is None:
                raise UserError(f"{stage}, seed {seed}: no {task} matches were kept")
            matches = read_matches(path)
            self.samples[stage, seed, task] = sample(records_of(matches), matches.ground_truth)
        except UserError as error:
            self.samples[stage, seed, task] = error

    def difference(self, one: _Asked) -> Difference:
        """
        Raises:
            UserError: matches are missing, or of other images
        """
        sides: tuple[dict[int, Sample], dict[int, Sample]] = ({}, {})
        is_one_run = one.here[0] == one.here[1]
        for number, (stage, seed, task) in enumerate(self.of(one)):
            found = self.samples[stage, seed, task]
            if isinstance(found, UserError):
                raise found
            # Fingerprints of two tasks differ; the images of one run are the same.
            side = sides[number // len(self.seeds(one))]
            side[seed] = replace(found, images="one run") if is_one_run else found
        return difference(one.id, *sides, one.figure)

    def mixed(self, one: _Asked) -> list[str]:
        """Stages that both sides come from, but with some seed not from the same run of them."""
        first, second = one.here
        if first is None or second is None:
            return []
        found = (
            name
            for seed in self.seeds(one)
            for name in unlike(self.paper, self.records, first, second, seed)
        )
        return list(dict.fromkeys(found))

    def margin(self, one: _Asked) -> float:
        """See `Claim`."""
        stage = one.here[1]
        if one.kind == "gain" or stage is None:
            return 0.0
        if self.scale == "coco":
            return NEARLY
        kept = self.records.current.get(stage.id, {})
        found = (value_of(kept[seed].record, stage, one.second_key) for seed in self.seeds(one))
        better = [value for value in found if value is not None]
        return round(NEARLY_SHARE * statistics.fmean(better), 2) if better else 0.0

    def lack(self, stage: str) -> str:
        """Why a stage has no figures; "" if it has some."""
        groups = {
            "": self.records.current,
            FAILED: self.records.failed,
            STALE: self.records.stale,
            OTHER: self.records.other,
        }
        return next((text for text, group in groups.items() if group.get(stage)), NOT_RUN)


# ---- the verdict


def _cannot(one: _Asked) -> str:
    """Why a claim has no difference at this scale, whatever was run; "" if it may have one."""
    first, second = one.here
    if first is None or second is None:
        lacking = [n for n, here in zip((one.first, one.second), one.here, strict=True) if not here]
        return f"no recipe for generated data: {' and '.join(dict.fromkeys(lacking))}"
    if first == second and one.first_key == one.second_key:
        return f"{first.id} stands for both"
    if first != second and one.tasks[0] != one.tasks[1]:
        return "two stages and two tasks"
    return ""


def _judged(one: _Asked, runs: _Runs) -> Claim:
    first, second = one.here
    reason = _cannot(one) or _lacking(one, runs)
    found, points, margin = None, None, runs.margin(one)
    if not reason:
        try:
            found = runs.difference(one)
        except UserError as error:
            reason = str(error)
    verdict: Verdict = "open"
    if found is not None:
        points = direction(found, one.kind, one.paper, margin)
        if mixed := runs.mixed(one):
            reason = f"the two sides come from different runs of {', '.join(mixed)}"
        elif len(found.seeds) < LEAST_SEEDS:
            reason = f"{len(found.seeds)} of {LEAST_SEEDS} seeds"
        elif points == "neither way":
            reason = f"the interval contains {f'−{margin:g}' if margin else '0'}"
        else:
            verdict = "confirmed" if points == "with the paper" else "contradicted"
    return Claim(
        id=one.id,
        source=one.source,
        where=one.where,
        words=one.words,
        subject=one.subject,
        key=one.first_key,
        first=None if first is None else first.id,
        second=None if second is None else second.id,
        kind=one.kind,
        paper=one.paper,
        margin=margin,
        difference=found,
        verdict=verdict,
        points=points,
        reason=reason,
        reading=_reading(one, found, verdict, points, reason, margin),
    )


def direction(found: Difference, kind: Kind, paper: float, margin: float) -> Direction:
    """Where the whole interval lies.

    Of a gain on the paper's side of 0 or on the other one. Of what is nearly as good no more than
    `margin` below 0, or all further below: being better is no fault.
    """
    if kind == "nearly":
        is_with, is_against = found.low >= -margin, found.high < -margin
    elif paper > 0:
        is_with, is_against = found.low > 0, found.high < 0
    else:
        is_with, is_against = found.high < 0, found.low > 0
    return "with the paper" if is_with else "against the paper" if is_against else "neither way"


def _lacking(one: _Asked, runs: _Runs) -> str:
    """Which stages have no figures, or that they have no seed in common."""
    stages = list(dict.fromkeys(stage.id for stage in one.here if stage))
    lacks: dict[str, list[str]] = {}
    for stage in stages:
        if text := runs.lack(stage):
            lacks.setdefault(text, []).append(stage)
    if lacks:
        return "; ".join(f"{text}: {', '.join(names)}" for text, names in lacks.items())
    return "" if runs.seeds(one) else f"no seed that both have: {', '.join(stages)}"


def _reading(
    one: _Asked,
    found: Difference | None,
    verdict: Verdict,
    points: Direction | None,
    reason: str,
    margin: float,
) -> str:
    if found is None:
        return f"Open: {reason}."
    first, second = (f"{TASKS[task]} {one.figure}" for task in one.tasks)
    what = first if first == second else f"{first} than {second}"
    amount = f"{abs(found.value):.2f} points {_more(found.value)} {what}"
    bounds = f"interval {_signed(found.low)} to {_signed(found.high)}"
    if verdict == "open":
        leans = f", which points {points}" if len(found.seeds) < LEAST_SEEDS else ""
        return f"Open, {reason}: {amount} ({bounds}){leans}."
    if one.kind == "nearly":
        says = "at most" if verdict == "confirmed" else "more than"
        return f"{verdict.capitalize()}: {amount} ({bounds}), {says} {margin:g} points behind."
    if verdict == "confirmed":
        return f"Confirmed: {amount} ({bounds})."
    return f"Contradicted: {amount} ({bounds}), the paper has {_more(one.paper)}."


def _more(points: float) -> str:
    return "less" if points < 0 else "more"


def _signed(points: float) -> str:
    return f"{points:+.2f}".replace("-", "−") if points else "0"
