"""The lines of the report's tables, for Markdown and HTML alike; no cell is blank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .claims import Claim
from .compare import ComparisonResult, RowResult
from .report import Part, Report
from .report_notes import words_of
from .report_values import (
    NONE,
    commits_text,
    decimals,
    delta_of,
    figure_delta,
    figure_ours,
    figure_paper,
    hours_text,
    is_measured,
    memory_text,
    ours_of,
    state_text,
    versus_of,
    with_interval,
)

RUN_HEAD = (
    "row", "config", "commit", "hours", "with all", "memory", "where", "state", "notes",
)  # fmt: skip


@dataclass(frozen=True)
class FigureLine:
    """
    Attributes:
        of: whose figures: paper, ours, or a difference
        cells: a column each
    """

    of: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class RunLine:
    """Of one row, as in RUN_HEAD; `config` is below configs/, "" for another system's."""

    row: str
    config: str
    commit: str
    hours: str
    chain_hours: str
    memory: str
    where: str
    state: str
    notes: str


@dataclass(frozen=True)
class ClaimLine:
    """A claim without its sentences."""

    subject: str
    paper: str
    ours: str
    seeds: str
    verdict: str


def figure_lines(report: Report, part: Part, row: RowResult) -> list[FigureLine]:
    """The paper's line, ours, and differences: from the base row where only those say something."""
    columns = list(part.result.table.columns)
    cells = [row.cells[column] for column in columns]
    base = part.result.base
    paper = FigureLine("paper", tuple(decimals(cell.paper) for cell in cells))
    if row.result is None:
        return [FigureLine(row.state, paper.cells)]
    ours = FigureLine("ours", tuple(ours_of(cell, row.state) for cell in cells))
    if report.of == "scenes":
        less = {
            of: FigureLine(f"{of} Δ", tuple(versus_of(row, c, base[c], of=of) for c in columns))
            for of in ("paper", "ours")
        }
        own = [less["ours"]] if is_measured(row) else []
        return [paper, less["paper"], ours, *own]
    if report.of == "coco" and is_measured(row):
        return [paper, ours, FigureLine("Δ", tuple(delta_of(cell, row.state) for cell in cells))]
    return [paper, ours]


def run_line(part: Part, row: RowResult) -> RunLine:
    name = row.row.id
    result = row.result
    config = result.stage.config if result is not None and result.stage is not None else ""
    commit = hours = chain_hours = memory = where = row.state
    if result is not None and result.seeds:
        commit = commits_text(result.commits)
        hours = hours_text(result.hours)
        chain_hours = (
            "not all run" if result.chain_hours is None else hours_text(result.chain_hours)
        )
        memory = memory_text(result)
        where = " ".join(part.letters[name])
    return RunLine(
        row=name,
        config=config,
        commit=commit,
        hours=hours,
        chain_hours=chain_hours,
        memory=memory,
        where=where,
        state=state_text(row, part.reasons[name]),
        notes=", ".join(map(str, part.notes_of[name])) or "none",
    )


def claim_line(claim: Claim) -> ClaimLine:
    difference = claim.difference
    return ClaimLine(
        subject=claim.subject,
        paper=decimals(claim.paper, sign=True),
        ours=with_interval(difference) if difference else claim.reason.partition(":")[0] or NONE,
        seeds=f"{len(difference.seeds)}" if difference else "0",
        verdict=claim.verdict,
    )


def in_text_lines(report: Report, one: ComparisonResult) -> list[Sequence[str]]:
    """Head and a line a figure of the text."""
    with_delta = report.of == "coco"
    lines: list[Sequence[str]] = [
        ("figure", "paper", "ours", *(("Δ",) if with_delta else ()), "seeds")
    ]
    for name, figure in one.figures.items():
        delta = (figure_delta(figure),) if with_delta else ()
        paper = figure_paper(figure)
        seeds = ", ".join(map(str, sorted(figure.cell.values))) or NONE
        lines.append((words_of(name), paper, figure_ours(figure), *delta, seeds))
    return lines
