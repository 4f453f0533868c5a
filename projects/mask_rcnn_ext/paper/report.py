"""The report's content: ours beside the paper's, from run records alone, for any form of it.

    records ─ sort_records ─> measure, judge ─> Report ─> Markdown, HTML, JSON

The same records and the same checkout make the same report: nothing here asks for the time, the
machine, or where a folder lies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from .claims import Claim, Claims, judge
from .compare import ComparisonResult, RowResult, TableResult, measure
from .lineage import earlier
from .records import Kept, Record
from .report_values import short_commit, telling_facts
from .spec import Paper, Scale
from .state import BySeed, Sorted

GENERATOR = "mask-rcnn-ext tables report"
PICTURES = "pictures.webp"  # of a record: best, median and worst image


@dataclass(frozen=True)
class Environment:
    """Where runs were made.

    Attributes:
        letter: A, B, ..., by which rows name it
        machine, device, threads, precision, versions: as the records have them
        commits, codes: of its runs, short, each once
        first, last: UTC dates of its runs
        runs: how many
    """

    letter: str
    machine: str
    device: str
    threads: int | None
    precision: str
    versions: tuple[tuple[str, str], ...]
    commits: tuple[str, ...]
    codes: tuple[str, ...]
    first: str
    last: str
    runs: int


@dataclass(frozen=True)
class SetAside:
    """A record that does not count."""

    stage: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Part:
    """One table with what belongs to it.

    Attributes:
        result: its rows
        facts: what tells the rows apart, beside their names
        notes: footnotes, each once; their number is their place, from 1
        notes_of: row id -> numbers
        steps: claims on one row over another
        curves: row id -> seed -> (iteration, loss)
        pictures: row id -> seed and WebP file, of the first seed that has some
        letters: row id -> environments
        reasons: row id -> why it has no figures though it has records; "" else
    """

    result: TableResult
    facts: tuple[str, ...]
    notes: tuple[str, ...]
    notes_of: Mapping[str, tuple[int, ...]]
    steps: tuple[Claim, ...]
    curves: Mapping[str, Mapping[int, Sequence[tuple[int, float]]]]
    pictures: Mapping[str, tuple[int, bytes]]
    letters: Mapping[str, tuple[str, ...]]
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class InText:
    """Comparisons of the text.

    Attributes:
        results: in the paper's order
        notes, notes_of: as in `Part`, by id of a comparison
    """

    results: tuple[ComparisonResult, ...]
    notes: tuple[str, ...]
    notes_of: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Report:
    """
    Attributes:
        of: whose records; "smoke" for stand-ins
        scale: of the stages
        tables: tables that were asked for, in the paper's order
        in_text: comparisons of the text, if they were asked for
        claims: of the text
        environments: of all records that count
        set_aside: records that do not
        broken: what is wrong with those that cannot be read
        records: how many count
        asked: tables as the user named them, for the command; () for all
    """

    of: Literal["coco", "scenes", "smoke"]
    scale: Scale
    tables: tuple[Part, ...]
    in_text: InText
    claims: tuple[Claim, ...]
    environments: tuple[Environment, ...]
    set_aside: tuple[SetAside, ...]
    broken: tuple[str, ...]
    records: int
    asked: tuple[str, ...] = ()

    @property
    def smoke(self) -> bool:
        """Whether data are stand-ins, which say nothing about accuracy."""
        return self.of == "smoke"


def make_report(
    paper: Paper,
    of: Literal["coco", "scenes", "smoke"],
    sorted_records: Sorted,
    *,
    folder: Path,
    tables: Sequence[str],
    in_text: bool,
    asked: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """
    Args:
        of: whose records
        sorted_records: `sort_records` of them
        folder: of the records, which no message shall name
        tables: ids, in the paper's order
        in_text: whether to report the comparisons of the text, too
        asked: as the user named them
        progress: told (runs resampled, of how many)
    """
    scale = _scale_of(of, sorted_records)
    measured = measure(paper, scale, sorted_records, smoke=of == "smoke")
    claims = Claims((), ())
    if of != "smoke":
        found = judge(paper, scale, sorted_records, progress)
        claims = Claims(_without(folder, found.text), _without(folder, found.steps))
    environments, letters = _environments(sorted_records)
    content = _Content(paper, scale, sorted_records, claims, letters)
    parts = tuple(content.part(measured.tables[name]) for name in tables)
    return Report(
        of=of,
        scale=scale,
        tables=parts,
        in_text=content.in_text(tuple(measured.comparisons.values()) if in_text else ()),
        claims=tuple(one for one in claims.text if in_text or _is_of(one, parts)),
        environments=environments,
        set_aside=_set_aside(sorted_records),
        broken=tuple(sorted(_without_folder(folder, str(one)) for one in sorted_records.broken)),
        records=sum(len(seeds) for seeds in sorted_records.current.values()),
        asked=tuple(asked),
    )


def why_not(records: Sorted, stage: str) -> str:
    """Why a stage has no figures though it has records; "" if it has none or some count."""
    if stage in records.failed:
        record = records.failed[stage][min(records.failed[stage])].record
        return f"failed: {record.reason or 'no reason given'}"
    for group, says in ((records.stale, _stale), (records.other, _other)):
        if stage in group:
            return says(group[stage][min(group[stage])].record)
    return ""


@dataclass(frozen=True)
class _Content:
    """What all parts are made from."""

    paper: Paper
    scale: Scale
    records: Sorted
    claims: Claims
    letters: Mapping[tuple[str, int], str]

    def part(self, result: TableResult) -> Part:
        table = result.table
        notes_of = {}
        notes: dict[str, int] = {}
        for row in result.rows:
            own = (*row.row.footnotes, *(table.footnotes if row.row.stage else ()))
            texts = (*self._notes(own, row.row.stages), *self._earlier(row))
            notes_of[row.row.id] = _numbers(texts, notes)
        curves = {row.row.id: self._curves(row) for row in result.rows}
        pictures = {row.row.id: self._picture(row) for row in result.rows}
        return Part(
            result=result,
            facts=telling_facts(row.row for row in result.rows),
            notes=tuple(notes),
            notes_of=notes_of,
            steps=tuple(one for one in self.claims.steps if one.source == table.table),
            curves={row: runs for row, runs in curves.items() if runs},
            pictures={row: one for row, one in pictures.items() if one is not None},
            letters={row.row.id: self._letters_of(row) for row in result.rows},
            reasons={row.row.id: self._reason(row) for row in result.rows},
        )

    def in_text(self, results: tuple[ComparisonResult, ...]) -> InText:
        notes: dict[str, int] = {}
        notes_of = {}
        for one in results:
            texts = self._notes(one.comparison.footnotes, one.comparison.stages)
            notes_of[one.comparison.id] = _numbers(texts, notes)
        return InText(results, tuple(notes), notes_of)

    def _notes(self, own: Iterable[str], stages: Iterable[str]) -> tuple[str, ...]:
        there = [one.id for name in stages if (one := self.paper.at(self.scale, name)) is not None]
        ids = self.paper.footnotes_of(own, self.paper.chain(*there))
        return tuple(self.paper.footnotes[name] for name in ids)

    def _earlier(self, row: RowResult) -> tuple[str, ...]:
        """With which seeds a row comes from earlier runs of stages than those recorded."""
        stage = row.result and row.result.stage
        seeds: dict[tuple[str, ...], list[str]] = {}
        for seed in sorted(self._current(row)):
            if stage and (names := earlier(self.paper, self.records, stage, seed)):
                seeds.setdefault(tuple(names), []).append(str(seed))
        return tuple(
            f"seed {', '.join(some)}: of earlier runs than those recorded of {', '.join(names)}; "
            "same config, data and code, but perhaps other weights"
            for names, some in seeds.items()
        )

    def _reason(self, row: RowResult) -> str:
        """Of a row without figures; a stage that it needs may be the reason."""
        if row.result is None or row.result.stage is None or row.result.seeds:
            return ""
        chain = reversed(self.paper.chain(row.result.stage.id))
        return next(filter(None, (why_not(self.records, one.id) for one in chain)), "")

    def _current(self, row: RowResult) -> Mapping[int, Kept]:
        stage = row.result and row.result.stage
        return self.records.current.get(stage.id, {}) if stage else {}

    def _curves(self, row: RowResult) -> dict[int, Sequence[tuple[int, float]]]:
        """Of its training; of an evaluation that of its model."""
        stage = row.result and row.result.stage
        while stage and stage.kind != "train" and stage.model:
            stage = self.paper.stages[stage.model]
        kept = self.records.current.get(stage.id, {}) if stage else {}
        return {seed: kept[seed].record.curve for seed in sorted(kept) if kept[seed].record.curve}

    def _picture(self, row: RowResult) -> tuple[int, bytes] | None:
        for seed, kept in sorted(self._current(row).items()):
            path = kept.file(PICTURES)
            if path is not None:
                return seed, path.read_bytes()
        return None

    def _letters_of(self, row: RowResult) -> tuple[str, ...]:
        stage = row.result and row.result.stage
        seeds = self._current(row)
        return tuple(sorted({self.letters[stage.id, seed] for seed in seeds})) if stage else ()


def _without(folder: Path, claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Claims whose sentences do not name the folder of the records."""
    return tuple(
        replace(
            one,
            reason=_without_folder(folder, one.reason),
            reading=_without_folder(folder, one.reading),
        )
        for one in claims
    )


def _without_folder(folder: Path, text: str) -> str:
    return text.replace(f"{folder}{os.sep}", "")


def _is_of(claim: Claim, parts: Iterable[Part]) -> bool:
    """Whether both of its stages are of these tables."""
    rows = [row.result for part in parts for row in part.result.rows if row.result]
    there = {one.stage.id for one in rows if one.stage}
    return {claim.first, claim.second} <= there


def _numbers(texts: Iterable[str], notes: dict[str, int]) -> tuple[int, ...]:
    """Numbers of footnotes; those that `notes` has not are added."""
    return tuple(sorted(notes.setdefault(one, len(notes) + 1) for one in texts))


def _scale_of(of: str, records: Sorted) -> Scale:
    """Smoke runs are of the paper's protocol, or else of the one on generated data."""
    if of != "smoke":
        return "scenes" if of == "scenes" else "coco"
    scales = {kept.record.scale for kept in _all(records.current, records.failed)}
    return "scenes" if scales == {"scenes"} else "coco"


def _environments(
    records: Sorted,
) -> tuple[tuple[Environment, ...], dict[tuple[str, int], str]]:
    """Environments, and which one each stage and seed is of."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for kept in _all(records.current):
        one = kept.record
        versions = tuple(sorted(one.versions.items()))
        key = (one.machine, one.device, one.threads or 0, one.precision, versions)
        groups.setdefault(key, []).append(one)
    # The one with most runs first; the rest of the key makes the order one of the content alone.
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), repr(item[0])))
    found: list[Environment] = []
    letters: dict[tuple[str, int], str] = {}
    for place, ((machine, device, threads, precision, versions), runs) in enumerate(ordered):
        letter = _letter(place)
        letters |= {(one.stage, one.seed): letter for one in runs}
        days = sorted(one.started[:10] for one in runs)
        found.append(
            Environment(
                letter=letter,
                machine=machine,
                device=device,
                threads=threads or None,
                precision=precision,
                versions=versions,
                commits=tuple(sorted({short_commit(one.commit) for one in runs})),
                codes=tuple(sorted({one.code[:12] for one in runs})),
                first=days[0],
                last=days[-1],
                runs=len(runs),
            )
        )
    return tuple(found), letters


def _letter(place: int) -> str:
    """A ... Z, AA, AB, ..."""
    before, last = divmod(place, 26)
    return (_letter(before - 1) if before else "") + chr(ord("A") + last)


def _set_aside(records: Sorted) -> tuple[SetAside, ...]:
    groups = (
        (records.failed, lambda one: f"failed: {one.reason or 'no reason given'}"),
        (records.stale, _stale),
        (records.other, _other),
    )
    return tuple(
        SetAside(kept.record.stage, kept.record.seed, says(kept.record))
        for group, says in groups
        for kept in _all(group)
    )


def _stale(record: Record) -> str:
    return f"stale: code of commit {short_commit(record.commit)}"


def _other(record: Record) -> str:
    return f"other config: {record.config} of commit {short_commit(record.commit)}"


def _all(*groups: BySeed) -> list[Kept]:
    """By stage and seed."""
    return [
        seeds[seed]
        for group in groups
        for _, seeds in sorted(group.items())
        for seed in sorted(seeds)
    ]
