"""Rows of the paper as text, at most 100 columns wide."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby

from ...data.registration import datasets_root
from ...paper import Comparison, Figure, Paper, Row, Sorted, Stage, Table
from ...paper.commands import pasted
from ...paper.state import OTHER, STALE
from .entry import Entry
from .published import is_fetched, published

WIDTH = 100
_ABSENT = "-"  # as the paper prints it
_UNBROKEN = "\N{NO-BREAK SPACE}"  # between a key and its value, until lines are wrapped
_LEGEND = (
    "Figures are the paper's. h: hours{hardware} with all stages that the row takes, shared or "
    "not, estimated; lacks: what of it is not there (data, weights or both); a reference is "
    "another system's row, which is not run."
)
_STATES = {
    STALE: "measured by another version of the code",
    OTHER: "measured with another config or other data",
}


def overview(paper: Paper, chosen: Sequence[Entry], *, notes: bool) -> str:
    """A block a table, and what is missing for all of them.

    Args:
        notes: whether to add the tables' footnotes
    """
    machines = dict.fromkeys(stage.hardware for one in chosen for stage in one.stages)
    hardware = f" on {' or '.join(machines)}" if machines else ""
    shown = {one.state.text for one in chosen}
    states = "".join(f" {key}: {text}." for key, text in _STATES.items() if key in shown)
    parts = [_wrapped(_LEGEND.format(hardware=hardware) + states)]
    for table, group in groupby(chosen, key=lambda one: one.table):
        some = list(group)
        parts.append(_table(table, some) if table else _comparisons(some))
        if notes:
            parts.append(_footnotes(text for one in some for text in one.footnotes))
    parts.append(_missing(paper, chosen))
    stages = {stage.id: stage for one in chosen for stage in one.stages}
    ours = sum(not one.is_reference for one in chosen)
    parts.append(
        _wrapped(
            f"{len(chosen)} rows, {ours} of them ours: {len(stages)} stages, "
            f"{hours_text(sum(one.hours for one in stages.values())) or '0'} hours where each runs "
            "once."
        )
    )
    return "\n\n".join(part for part in parts if part)


def details(paper: Paper, entry: Entry, records: Sorted) -> str:
    """All of one row: figures, stages with their configs, what they need, footnotes."""
    one = entry.one
    if isinstance(one, Comparison):
        lines = [*_comparison(entry)]
    else:
        assert entry.table is not None, one.id
        lines = _row_details(entry.table, one)
    takes = f"; {hours_text(entry.hours)} hours, in this order:" if entry.stages else ""
    lines.append(f"state: {entry.state.text}{takes}")
    lines += [line for stage in entry.stages for line in _stage(stage, records)]
    if entry.stages:
        lines += _needs(paper, entry)
    notes = ["footnotes:", _footnotes(entry.footnotes)] if entry.footnotes else []
    return "\n".join([*lines, *notes])


def hours_text(hours: float) -> str:
    """Three characters at most for any row of ours; "" for none."""
    if not hours:
        return ""
    if hours >= 9.95:
        return f"{hours:.0f}"
    return f"{hours:.1f}" if hours >= 0.05 else f"{hours:.2f}"


# ---- overview


def _table(table: Table, entries: Sequence[Entry]) -> str:
    """One line a row, figures right-aligned below their column."""
    where = f"{table.dataset} {table.split}"
    if table.measured_on:
        where += f", ours on {table.measured_on}"
    rows = [["row", *table.columns, "h", "lacks", "state"]]
    for entry in entries:
        assert isinstance(entry.one, Row)
        figures = [_cell(value) for value in entry.one.paper.values()]
        lacks = entry.needs.lacking
        rows.append([entry.one.id, *figures, hours_text(entry.hours), lacks, entry.state.text])
    if (delta := table.printed_delta) is not None:
        shown = [f"{delta.paper[c]:+.1f}" if c in delta.paper else "" for c in table.columns]
        rows.append(["printed difference", *shown, "", "", ""])
    title = textwrap.fill(f"Table {table.table}  {table.title} ({where})", WIDTH)
    note = [_wrapped(f"Note: {table.note}")] if table.note else []
    return "\n".join([title, *_aligned(rows, left=(0, -2, -1)), *note])


def _aligned(rows: Sequence[Sequence[str]], left: Iterable[int]) -> list[str]:
    count = len(rows[0])
    widths = [max(len(row[i]) for row in rows) for i in range(count)]
    to_the_left = {i % count for i in left}
    # Two blanks between columns where the page has them.
    gap = "  " if sum(widths) + 2 * (count - 1) <= WIDTH else " "
    return [
        gap.join(
            cell.ljust(width) if i in to_the_left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _comparisons(entries: Sequence[Entry]) -> str:
    title = "In the text, between the tables"
    return "\n".join([title, *("\n".join(_comparison(entry)) for entry in entries)])


def _comparison(entry: Entry) -> list[str]:
    one = entry.one
    assert isinstance(one, Comparison), one.id
    lacks = f", lacks {entry.needs.lacking}" if entry.needs.lacking else ""
    hours = f", {hours_text(entry.hours)} h" if entry.hours else ""
    head = f"{one.id} ({one.section}): {one.claim}; {entry.state.text}{hours}{lacks}"
    names = [f"    {name}" for name in one.figures]
    rows = [
        [name, f"{figure.paper:g}", _formula(figure)]
        for name, figure in zip(names, one.figures.values(), strict=True)
    ]
    note = [textwrap.fill(one.note, WIDTH, initial_indent="    ", subsequent_indent="    ")]
    return [
        textwrap.fill(head, WIDTH, subsequent_indent="  "),
        *_aligned(rows, left=(0, 2)),
        *(note if one.note else []),
    ]


def _formula(figure: Figure) -> str:
    if figure.of is None:
        return "not measured here"
    if figure.percent_over is not None:
        return f"{figure.of} over {figure.percent_over}, %"
    if figure.minus is None:
        return f"{figure.key} of {figure.of}"
    if figure.minus == figure.of:
        return f"{figure.key} - {figure.minus_key} of {figure.of}"
    return f"{figure.key} of {figure.of} - {figure.minus}"


def _missing(paper: Paper, entries: Sequence[Entry]) -> str:
    """One paragraph for each data set and weights file that is not there."""
    data = {name: paths for one in entries for name, paths in one.needs.data.items() if paths}
    weights = [name for one in entries for name, lacks in one.needs.weights.items() if lacks]
    lines = [data_line(paper, name, paths) for name, paths in data.items()]
    lines += [weights_line(paper, name, lacks=True) for name in dict.fromkeys(weights)]
    return "\n".join(["Not there:", *lines]) if lines else ""


# ---- details


def _row_details(table: Table, row: Row) -> list[str]:
    facts = ", ".join(f"{key} {_fact(value)}" for key, value in row.facts.items())
    lines = [_wrapped(f"Table {table.table}, row {row.id}: {row.name} ({facts})")]
    where = f"  the paper, {table.dataset} {table.split}"
    figures = [f"{name} {_cell(value)}" for name, value in row.paper.items()]
    lines.append(_indented(f"{where}: {', '.join(figures)}"))
    if row.stage is not None:
        keys = ", ".join(dict.fromkeys(column.key for column in table.columns.values()))
        where = table.measured_on or table.split
        lines.append(_indented(f"  ours, {table.dataset} {where}: {keys} of {row.stage}"))
    return lines


def _stage(stage: Stage, records: Sorted) -> list[str]:
    hours = f"{hours_text(stage.hours)} h: {stage.hours_from}"
    lines = [f"  {stage.id}  ({stage.kind}, {hours})", f"    configs/{stage.config}"]
    if stage.overrides:
        pairs = zip(stage.words[::2], stage.words[1::2], strict=True)
        lines.append("    " + " ".join(pasted(pair).replace(" ", _UNBROKEN) for pair in pairs))
    if stage.needs:
        given = (("model", stage.model), ("proposals", stage.proposals), ("labels", stage.labels))
        lines.append("    with " + ", ".join(f"{key} of {name}" for key, name in given if name))
    lines += [f"    {text}" for text in records.told(stage.id)]
    return [_indented(line, "      ").replace(_UNBROKEN, " ") for line in lines]


def _needs(paper: Paper, entry: Entry) -> list[str]:
    lines = [data_line(paper, name, paths) for name, paths in entry.needs.data.items()]
    for name, lacks in entry.needs.weights.items():
        lines.append(weights_line(paper, name, lacks=lacks))
    return ["needs:", *lines] if lines else []


def data_line(paper: Paper, name: str, missing: Sequence[str]) -> str:
    data = paper.data[name]
    size = f"{data.images:,} images, {data.gigabytes:g} GB, {data.address}"
    root = os.path.join(datasets_root(), "")
    below = [path.removeprefix(root) for path in missing]
    state = "generated when needed" if data.make else "found"
    if missing:
        state = f"missing below {root}: {', '.join(below)}"
    return _indented(f"  data {name} ({size}) {state}")


def weights_line(paper: Paper, name: str, *, lacks: bool) -> str:
    """
    Args:
        lacks: whether a file that the user must bring is not there
    """
    weights = paper.weights[name]
    digits = weights.sha256 and f", sha256 {weights.sha256}"
    digits = digits or (weights.md5 and f", md5 {weights.md5}")
    state = "missing" if lacks else "found"
    if weights.is_published and not is_fetched(weights.address):
        one = published(weights.address)
        state = f"fetched when needed; without a network, put {one.url} at {one.path}"
    note = f": {weights.note}" if weights.note else ""
    return _indented(f"  weights {name} ({weights.address}{digits}) {state}{note}")


def _footnotes(texts: Iterable[str]) -> str:
    return "\n".join(_indented(f"  * {text}") for text in dict.fromkeys(texts))


def _cell(value: float | None) -> str:
    return _ABSENT if value is None else f"{value:.1f}"


def _fact(value: str | bool | None) -> str:
    if value is None:
        return _ABSENT
    return ("no", "yes")[value] if isinstance(value, bool) else value


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH)


def _indented(text: str, further: str = "    ") -> str:
    """Wrapped, long paths left whole."""
    return textwrap.fill(
        text, WIDTH, subsequent_indent=further, break_long_words=False, break_on_hyphens=False
    )
