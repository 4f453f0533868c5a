"""Ours beside the paper's: each row of a table, each figure of the text, from records.

Pure, and the same numbers on every machine: sums are exact, and AP is rounded to DECIMALS before
anything is taken off it or compared.

At scale coco ours is compared with the paper's figure itself. Generated scenes are another world:
there only differences between rows of the same table are, ours beside the paper's.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import combinations

import msgspec

from .records import Kept, Record
from .spec import Comparison, Figure, Paper, Row, Scale, Stage, Table
from .state import REFERENCE, Sorted, state_of

DECIMALS = 2  # of AP in percent
_AP = ("bbox", "segm", "keypoints", "cityscapes")  # tasks whose figures are AP


@dataclass(frozen=True)
class StageResult:
    """What the records say of one stage.

    Attributes:
        stage: at this scale; None if generated data have no recipe for it
        seeds: finished ones
        failures: seed -> why it failed
        config, overrides: below configs/, and KEY VALUE words; of the first seed
        commits, devices, machines: of all seeds, each once, sorted
        hours: of the stage itself, mean over seeds
        chain_hours: with all stages that it needs, mean over the seeds that have them all
        memory_mb, gpu_memory_mb: the largest over seeds, MiB
    """

    stage: Stage | None
    seeds: tuple[int, ...] = ()
    failures: dict[int, str] = field(default_factory=dict)
    config: str = ""
    overrides: tuple[str, ...] = ()
    commits: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    hours: float | None = None
    chain_hours: float | None = None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None


@dataclass(frozen=True)
class Versus:
    """A cell less that of another row in the same column.

    Attributes:
        row: id of the other row
        paper, ours: points; None where either cell is empty
    """

    row: str
    paper: float | None
    ours: float | None


@dataclass(frozen=True)
class Cell:
    """
    Attributes:
        paper: as printed, in percent; None is printed as "-"
        values: seed -> ours
        ours: their mean; None if there are none
        spread: their sample standard deviation; None for fewer than two
        delta: ours less the paper's; at scale coco only
        versus: against the table's base row; None for that row, and for other systems'
    """

    paper: float | None
    values: dict[int, float]
    ours: float | None
    spread: float | None
    delta: float | None = None
    versus: Versus | None = None


@dataclass(frozen=True)
class RowResult:
    """
    Attributes:
        row: as the paper has it
        state: in a word or two, as `state_of` has it
        result: of its stage; None for another system's
        cells: column -> cell
    """

    row: Row
    state: str
    result: StageResult | None
    cells: dict[str, Cell]


@dataclass(frozen=True)
class Order:
    """Whether a column orders our rows as the paper's does.

    Attributes:
        pairs: of measured rows of different stages whose figures differ in the paper
        agreeing: those that differ in the same direction
        others: row ids of the rest, the one that is better in the paper first
    """

    pairs: int
    agreeing: int
    others: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class TableResult:
    """
    Attributes:
        table: as the paper has it
        rows: in its order
        main: the column that counts most, the first
        base: column -> id of the row that `Cell.versus` is against; None where no row can be
        order: column -> how ours are ordered
    """

    table: Table
    rows: tuple[RowResult, ...]
    main: str
    base: dict[str, str | None]
    order: dict[str, Order]


@dataclass(frozen=True)
class FigureResult:
    """
    Attributes:
        figure: as the paper has it
        state: in a word or two, as `state_of` has it; REFERENCE for one that is only quoted
        results: of its stages, in the order of `Figure.stages`
        cell: with the values of seeds that all its stages have; AP in percent, else in the key's
            unit, or percent for `percent_over`
    """

    figure: Figure
    state: str
    results: tuple[StageResult, ...]
    cell: Cell


@dataclass(frozen=True)
class ComparisonResult:
    """
    Attributes:
        comparison: as the paper has it
        figures: name -> figure
    """

    comparison: Comparison
    figures: dict[str, FigureResult]


@dataclass(frozen=True)
class Measured:
    """All of the paper at one scale.

    Attributes:
        scale: coco or scenes
        tables, comparisons: by id, in the paper's order
    """

    scale: Scale
    tables: dict[str, TableResult]
    comparisons: dict[str, ComparisonResult]


def measure(paper: Paper, scale: Scale, records: Sorted, *, smoke: bool = False) -> Measured:
    """
    Args:
        scale: whose stages are looked at
        records: of that scale, or of its smoke runs
        smoke: whether they are of smoke runs: then nothing is taken off the paper's figures
    """
    sheet = _Sheet(paper, scale, records, is_absolute=scale == "coco" and not smoke)
    return Measured(
        scale=scale,
        tables={name: sheet.table(table) for name, table in paper.tables.items()},
        comparisons={name: sheet.comparison(one) for name, one in paper.comparisons.items()},
    )


@dataclass(frozen=True)
class _Sheet:
    """What all rows and figures are measured with."""

    paper: Paper
    scale: Scale
    records: Sorted
    is_absolute: bool

    # ---- tables

    def table(self, table: Table) -> TableResult:
        rows = tuple(self._row(table, row) for row in table.rows)
        base = {column: _base(table, rows, column) for column in table.columns}
        return TableResult(
            table=table,
            rows=tuple(_with_versus(row, rows, base) for row in rows),
            main=next(iter(table.columns)),
            base=base,
            order={column: _order(rows, column) for column in table.columns},
        )

    def _row(self, table: Table, row: Row) -> RowResult:
        result = None if row.stage is None else self.stage(row.stage)
        cells = {}
        for name, column in table.columns.items():
            values = {} if result is None else self._values(result, column.key)
            cells[name] = self._cell(row.paper[name], values, column.key)
        state = state_of(self.paper, row, self.scale, self.records).text
        return RowResult(row, state, result, cells)

    def _cell(self, paper: float | None, values: dict[int, float], key: str) -> Cell:
        ours = _mean(values.values(), key)
        return Cell(
            paper=paper,
            values=values,
            ours=ours,
            spread=_spread(values.values(), key),
            delta=_difference(ours, paper) if self.is_absolute else None,
        )

    # ---- figures of the text

    def comparison(self, comparison: Comparison) -> ComparisonResult:
        figures = {name: self._figure(comparison, name) for name in comparison.figures}
        return ComparisonResult(comparison, figures)

    def _figure(self, comparison: Comparison, name: str) -> FigureResult:
        figure = comparison.figures[name]
        state = REFERENCE
        if figure.of is not None:
            alone = msgspec.structs.replace(comparison, figures={name: figure})
            state = state_of(self.paper, alone, self.scale, self.records).text
        return FigureResult(
            figure=figure,
            state=state,
            results=tuple(self.stage(one) for one in figure.stages),
            cell=self._cell(figure.paper, self._figure_values(figure), figure.key or ""),
        )

    def _figure_values(self, figure: Figure) -> dict[int, float]:
        if figure.of is None or figure.key is None:
            return {}
        values = self._values(self.stage(figure.of), figure.key)
        if figure.minus is not None:
            less = self._values(self.stage(figure.minus), figure.minus_key or figure.key)
            both = [seed for seed in values if seed in less]
            return {seed: _rounded(values[seed] - less[seed], figure.key) for seed in both}
        if figure.percent_over is not None:
            whole = self._values(self.stage(figure.percent_over), figure.key)
            both = [seed for seed in values if whole.get(seed)]
            return {seed: 100 * (values[seed] / whole[seed] - 1) for seed in both}
        return values

    # ---- stages

    def stage(self, name: str) -> StageResult:
        """
        Args:
            name: of the paper's protocol
        """
        stage = self.paper.at(self.scale, name)
        if stage is None:
            return StageResult(None)
        kept = self._finished(stage)
        failed = sorted(self.records.failed.get(stage.id, {}).items())
        failures = {seed: one.record.reason for seed, one in failed}
        if not kept:
            return StageResult(stage, failures=failures)
        records = [kept[seed].record for seed in sorted(kept)]
        return StageResult(
            stage=stage,
            seeds=tuple(sorted(kept)),
            failures=failures,
            config=records[0].config,
            overrides=tuple(records[0].overrides),
            commits=_each_once(record.commit for record in records),
            devices=_each_once(record.device for record in records),
            machines=_each_once(record.machine for record in records),
            hours=statistics.fmean(record.hours for record in records),
            chain_hours=self._chain_hours(stage),
            memory_mb=_largest(record.memory_mb for record in records),
            gpu_memory_mb=_largest(record.gpu_memory_mb for record in records),
        )

    def _finished(self, stage: Stage) -> dict[int, Kept]:
        return self.records.current.get(stage.id, {})

    def _chain_hours(self, stage: Stage) -> float | None:
        chain = self.paper.chain(stage.id)
        hours = []
        for seed in sorted(self._finished(stage)):
            kept = [self._finished(one).get(one.seed_for(seed)) for one in chain]
            known = [one.record.hours for one in kept if one is not None]
            if len(known) == len(chain):
                hours.append(math.fsum(known))
        return statistics.fmean(hours) if hours else None

    def _values(self, result: StageResult, key: str) -> dict[int, float]:
        if result.stage is None:
            return {}
        kept = self._finished(result.stage)
        found = {seed: value_of(kept[seed].record, result.stage, key) for seed in result.seeds}
        return {seed: _rounded(one, key) for seed, one in found.items() if one is not None}


def value_of(record: Record, stage: Stage, key: str) -> float | None:
    """A figure as a table or the text calls it; None if the record has none."""
    if key == "run/hours":
        return record.hours
    if key == "run/seconds_per_iteration":
        return record.seconds_per_iteration
    return record.results.get(stage.key_of(key))


def _base(table: Table, rows: tuple[RowResult, ...], column: str) -> str | None:
    """Of the rows that others are compared with the first with a figure; measured ones first."""
    own = [row for row in rows if row.result is not None and row.cells[column].paper is not None]
    if (delta := table.printed_delta) is not None:
        own.sort(key=lambda row: row.row.id != delta.minus)
    measured = [row for row in own if row.cells[column].ours is not None]
    return next((row.row.id for row in [*measured, *own]), None)


def _with_versus(
    row: RowResult, rows: tuple[RowResult, ...], base: dict[str, str | None]
) -> RowResult:
    if row.result is None:
        return row
    cells = {}
    for name, cell in row.cells.items():
        other = next((one for one in rows if one.row.id == base[name]), None)
        if other is not None and other is not row:
            less = other.cells[name]
            cell = replace(
                cell,
                versus=Versus(
                    row=other.row.id,
                    paper=_difference(cell.paper, less.paper),
                    ours=_difference(cell.ours, less.ours),
                ),
            )
        cells[name] = cell
    return replace(row, cells=cells)


def _order(rows: tuple[RowResult, ...], column: str) -> Order:
    pairs, others = 0, []
    for one, two in combinations(rows, 2):
        paper = _difference(one.cells[column].paper, two.cells[column].paper)
        ours = _difference(one.cells[column].ours, two.cells[column].ours)
        if not paper or ours is None or _stage_of(one) == _stage_of(two):
            continue
        better, worse = (one, two) if paper > 0 else (two, one)
        pairs += 1
        if paper * ours <= 0:
            others.append((better.row.id, worse.row.id))
    return Order(pairs, pairs - len(others), tuple(others))


def _stage_of(row: RowResult) -> str | None:
    """On generated data one stage may stand for several."""
    return row.result.stage.id if row.result and row.result.stage else None


# ---- numbers


def _rounded(value: float, key: str) -> float:
    """AP to DECIMALS; anything else as it is."""
    return round(value, DECIMALS) + 0.0 if key.partition("/")[0] in _AP else value


def _mean(values: Iterable[float], key: str) -> float | None:
    values = list(values)
    return _rounded(statistics.fmean(values), key) if values else None


def _spread(values: Iterable[float], key: str) -> float | None:
    values = list(values)
    return _rounded(statistics.stdev(values), key) if len(values) > 1 else None


def _difference(one: float | None, two: float | None) -> float | None:
    return None if one is None or two is None else round(one - two, DECIMALS) + 0.0


def _largest(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _each_once(words: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(sorted({word for word in words if word}))
