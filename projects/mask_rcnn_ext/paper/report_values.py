"""How figures are written in the report: rounded as the paper's, no cell left blank."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from .compare import Cell, FigureResult, RowResult, StageResult
from .resampling import Difference
from .spec import Row

NONE = "–"  # where the paper prints "-"
BASE = "base row"
NO_BASE = "base not run"
NO_FIGURE = "no figure"  # of a finished run
QUOTED = "not measured here"


def decimals(value: float | None, places: int = 1, *, sign: bool = False) -> str:
    """With a real minus, and 0 without a sign; NONE for None."""
    if value is None:
        return NONE
    text = f"{value:{'+' if sign else ''}.{places}f}"
    if not text.strip("+-0."):
        text = text.strip("+-")
    return text.replace("-", "−")


def with_spread(mean: float | None, spread: float | None, places: int = 1) -> str:
    """ "21.4 ± 0.3"; without the spread of a single seed."""
    if mean is None or spread is None:
        return decimals(mean, places)
    return f"{decimals(mean, places)} ± {decimals(spread, places)}"


def with_interval(difference: Difference) -> str:
    """ "+1.90 (+0.80 to +3.02)": with one decimal an end might look like 0."""
    value, low, high = (
        decimals(one, 2, sign=True) for one in (difference.value, difference.low, difference.high)
    )
    return f"{value} ({low} to {high})"


def ours_of(cell: Cell, state: str) -> str:
    """Ours, or why there is nothing.

    Args:
        state: of the row, in a word or two
    """
    if cell.ours is not None:
        return with_spread(cell.ours, cell.spread)
    return NO_FIGURE if has_run(state) else state


def versus_of(
    row: RowResult, column: str, base: str | None, *, of: Literal["paper", "ours"]
) -> str:
    """A row's difference from the base row, or why there is none.

    Args:
        base: id of the base row in this column; None where there is none
        of: whose figures
    """
    cell = row.cells[column]
    if getattr(cell, of) is None:
        return ours_of(cell, row.state) if of == "ours" else NONE
    if row.row.id == base:
        return BASE
    difference = None if cell.versus is None else getattr(cell.versus, of)
    return NO_BASE if difference is None else decimals(difference, sign=True)


def delta_of(cell: Cell, state: str) -> str:
    """Ours less the paper's, or why there is none."""
    if cell.delta is not None:
        return decimals(cell.delta, sign=True)
    return NONE if cell.ours is not None else ours_of(cell, state)


def figure_ours(figure: FigureResult) -> str:
    """Ours of a figure of the text; one that is only quoted is not measured."""
    if figure.figure.of is None:
        return QUOTED
    cell = figure.cell
    if cell.ours is None:
        return NO_FIGURE if has_run(figure.state) else figure.state
    return with_spread(cell.ours, cell.spread, _places(figure, cell.ours))


def figure_paper(figure: FigureResult) -> str:
    return decimals(figure.figure.paper, _places(figure, figure.figure.paper))


def figure_delta(figure: FigureResult) -> str:
    """Ours less the paper's of a figure of the text."""
    if figure.cell.delta is None:
        return NONE if figure.cell.ours is not None else figure_ours(figure)
    return decimals(figure.cell.delta, _places(figure, figure.cell.delta), sign=True)


def _places(figure: FigureResult, value: float) -> int:
    """Decimals of a figure of the text: AP has one, times may be small."""
    is_time = (figure.figure.key or "").startswith(("run/", "time/"))
    return 2 if is_time and abs(value) < 10 else 1


def state_text(row: RowResult, reason: str) -> str:
    """A row's state with the reason, once for all its cells.

    Args:
        reason: why there are no figures though there are records; "" else
    """
    if reason.partition(":")[0] == row.state:
        return reason
    failures = row.result.failures if row.result is not None and is_measured(row) else {}
    why = "; ".join(f"seed {seed}: {text}" for seed, text in sorted(failures.items()))
    return ": ".join(filter(None, (row.state, reason or why)))


def has_run(state: str) -> bool:
    """Whether a state, in a word or two, is of a row with seeds."""
    return "seed" in state


def hours_text(hours: float | None) -> str:
    """From seconds to weeks in four characters."""
    if hours is None:
        return NONE
    return f"{hours:.0f}" if hours >= 99.5 else f"{hours:.1f}" if hours >= 9.95 else f"{hours:.2f}"


def memory_text(result: StageResult) -> str:
    """The peak of a process, and of the GPU where there was one."""
    parts = []
    if result.gpu_memory_mb is not None:
        parts.append(f"GPU {result.gpu_memory_mb / 1024:.1f} GiB")
    if result.memory_mb is not None:
        parts.append(f"{result.memory_mb / 1024:.1f} GiB")
    return ", ".join(parts) or NONE


def short_commit(commit: str | None) -> str:
    """Seven digits, and a + where the checkout had changes of its own."""
    if not commit:
        return "none"
    digits, _, changes = commit.partition("+")
    return digits[:7] + ("+" if changes else "")


def commits_text(commits: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(map(short_commit, commits))) or "none"


def row_name(row: Row, *, marks: Iterable[str] = ()) -> str:
    """What the paper says of it in one line; facts that all rows share are for the title.

    Args:
        marks: names of the facts to tell
    """
    told = [_fact(name, row.facts[name]) for name in marks if name in row.facts]
    return ", ".join([row.name, *filter(None, told)])


def telling_facts(rows: Iterable[Row]) -> tuple[str, ...]:
    """Names of the facts in which rows differ and that their names do not say."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row.facts)
    return tuple(
        name
        for name in names
        if len({row.facts.get(name) for row in rows}) > 1
        and any(str(row.facts.get(name)) not in row.name for row in rows)
    )


def counted(number: int, what: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def is_measured(row: RowResult) -> bool:
    """Whether there is any figure of ours."""
    return any(cell.ours is not None for cell in row.cells.values())


def _fact(name: str, value: str | bool | None) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    return value or ""
