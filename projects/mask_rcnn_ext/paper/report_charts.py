"""The report's drawings: a table's figures as dots, and the losses of its trainings."""

from __future__ import annotations

from markupsafe import Markup

from ..visualization.dot_plot import DotRow, Mark, Panel, dot_plot
from ..visualization.line_plot import Curve, line_plot
from .compare import RowResult
from .report import Part, Report
from .report_notes import words_of
from .report_values import decimals, ours_of, row_name, with_interval


def dot_panels(report: Report, part: Part) -> list[list[Panel]]:
    """A list of panels for each main figure of the table; panels of a list stand side by side.

    At the paper's own scale its figures and ours are on one axis. Elsewhere absolute values cannot
    be compared, so each has an axis of its own.
    """
    return [_panels(report, part, column) for column in main_columns(part)]


def dots(part: Part, panels: list[Panel]) -> Markup:
    """The panels as one drawing."""
    own = "the paper's figures hollow, ours filled"
    return dot_plot(panels, f"Table {part.result.table.table}: {own}; the table has the numbers")


def claim_panels(report: Report) -> list[Panel]:
    """Claims that have a difference, around 0; [] if none has."""
    there = [(one, one.difference) for one in report.claims if one.difference is not None]
    if not there:
        return []
    theirs, ours, both = [], [], []
    for one, found in there:
        printed, value = decimals(one.paper, sign=True), decimals(found.value, 2, sign=True)
        paper = Mark(f"the paper: {printed}", one.paper, "paper")
        name = f"ours: {with_interval(found)}, {one.verdict}"
        own = Mark(name, found.value, "ours", found.low, found.high)
        theirs.append(DotRow(one.subject, printed, (paper,)))
        ours.append(DotRow(one.subject, value, (own,)))
        both.append(DotRow(one.subject, f"{printed} | {value}", (paper, own)))
    if report.of == "coco":
        return [Panel("Points: the paper's | ours", tuple(both), sign=True)]
    return [
        Panel("Points: the paper's", tuple(theirs), sign=True),
        Panel("Points: ours, 95 % interval", tuple(ours), sign=True),
    ]


def claim_dots(panels: list[Panel]) -> Markup:
    """The panels as one drawing."""
    return dot_plot(panels, "Claims: differences around 0; the table has the numbers")


def losses(part: Part) -> Markup | None:
    """Training losses of all rows and seeds; None if no run has any."""
    names = {row.row.id: row_name(row.row, marks=part.facts) for row in part.result.rows}
    curves = [
        Curve(names[row], tuple(tuple((float(x), y) for x, y in run) for run in runs.values()))
        for row, runs in part.curves.items()
    ]
    if not curves:
        return None
    return line_plot(
        curves,
        title="Training loss, each seed a line",
        x_title="iteration",
        label=f"Table {part.result.table.table}: total training loss over iterations",
    )


def main_columns(part: Part) -> list[str]:
    """Those of plain AP, one a task; the first where there are none."""
    table = part.result.table
    found: dict[str, str] = {}
    for name, column in table.columns.items():
        task, _, figure = column.key.partition("/")
        if figure == "AP":
            found.setdefault(task, name)
    return list(found.values()) or [part.result.main]


def _panels(report: Report, part: Part, column: str) -> list[Panel]:
    name = words_of(column)
    theirs = [(_paper_marks(row, column), _paper_says(row, column)) for row in part.result.rows]
    ours = [
        (_own_marks(row, column), ours_of(row.cells[column], row.state)) for row in part.result.rows
    ]
    if report.of == "coco":
        both = [
            ((*their_marks, *own_marks), f"{their_words} | {own_words}")
            for (their_marks, their_words), (own_marks, own_words) in zip(theirs, ours, strict=True)
        ]
        return [_panel(part, f"{name}: the paper's | ours", both)]
    where = "on generated scenes" if report.scale == "scenes" else "on stand-in data"
    panels = [_panel(part, f"{name}: the paper's", theirs)]
    if any(marks for marks, _ in ours):
        panels.append(_panel(part, f"{name}: ours, {where}", ours))
    return panels


def _panel(part: Part, title: str, lines: list[tuple[tuple[Mark, ...], str]]) -> Panel:
    names = [row_name(row.row, marks=part.facts) for row in part.result.rows]
    rows = [DotRow(name, says, marks) for name, (marks, says) in zip(names, lines, strict=True)]
    return Panel(title, tuple(rows))


def _paper_says(row: RowResult, column: str) -> str:
    return decimals(row.cells[column].paper)


def _paper_marks(row: RowResult, column: str) -> tuple[Mark, ...]:
    value = row.cells[column].paper
    return () if value is None else (Mark(f"the paper: {value:.1f}", value, "paper"),)


def _own_marks(row: RowResult, column: str) -> tuple[Mark, ...]:
    cell = row.cells[column]
    if cell.ours is None:
        return ()
    low = high = None
    if cell.spread is not None:
        low, high = cell.ours - cell.spread, cell.ours + cell.spread
    seeds = ", ".join(f"seed {seed}: {value:.1f}" for seed, value in sorted(cell.values.items()))
    return (Mark(f"ours: {ours_of(cell, row.state)} ({seeds})", cell.ours, "ours", low, high),)
