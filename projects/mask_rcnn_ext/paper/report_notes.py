"""What the report says in words: how to read it, and where it was measured."""

from __future__ import annotations

from .claims import LEAST_SEEDS, NEARLY, NEARLY_SHARE
from .compare import ComparisonResult
from .report import Environment, Part, Report
from .report_values import counted
from .spec import Comparison, Table

TITLES = {
    "coco": "The paper's tables, measured",
    "scenes": "The paper's tables on generated scenes",
    "smoke": "The paper's tables: smoke run on stand-in data",
}
SMOKE_SHORT = "Stand-in data: says nothing about accuracy."
SMOKE = (
    f"{SMOKE_SHORT} These runs are to see that all stages go through; "
    "data or schedule are not those of the rows, and no figure below may be compared with the "
    "paper's."
)
NOTHING = "There are no records that count: no row has been run."

_FIGURES = (
    "Figures are AP in percent. The paper's are as printed; ours are means over seeds, ± their "
    "standard deviation where there are two or more."
)
_SCENES = (
    "Ours are of another world than COCO: generated scenes of 128 to 256 pixels a side, backbones "
    "of a quarter of the width without ImageNet weights, minutes of training. Only directions and "
    "order can be compared, never absolute values. So each table has beside the figures their "
    "difference from one of its own rows, the base row: the paper's and ours."
)
_COCO = (
    "Ours follow the paper's protocol; where a row departs from it, a footnote below its table "
    "says so. Δ is ours less the paper's."
)
_CLAIMS = (
    "A claim is a difference that the paper prints or speaks of. Ours has an interval that holds "
    "95 % of draws of images and seeds, the same ones for both sides. A claim is confirmed if its "
    "whole interval lies on the paper's side, contradicted if it lies on the other, with at least "
    f"{LEAST_SEEDS} seeds; else it is open, and the reason stands there. "
)
_NEARLY = {
    "coco": f"Nearly as good is what is at most {NEARLY:g} points worse.",
    "scenes": f"Nearly as good is what is at most {100 * NEARLY_SHARE:g} % worse.",
}
_STATES = (
    "Not run: there is no record yet. Reference: another system's row, shown as printed and not "
    "run. No recipe: generated scenes have no such stage. Stale, other config: there are records, "
    "of code or of a config that is not today's; they are listed at the end and not mixed in. "
    "Paper cells with – are printed so. Hours are of one seed: of the row's own stage, and with "
    "all stages that it needs. Memory is the most that a process took."
)


def how_to_read(report: Report) -> tuple[str, ...]:
    """Paragraphs."""
    what = {"scenes": (_SCENES,), "coco": (_COCO,), "smoke": ()}[report.of]
    claims = () if report.smoke else (_CLAIMS + _NEARLY[report.scale],)
    return (*((SMOKE,) if report.smoke else ()), " ".join((_FIGURES, *what)), *claims, _STATES)


def where_of(report: Report, one: Table | Comparison) -> str:
    """Data set and split of the paper's figures, and what ours are of where that is another one."""
    own = one.measured_on if isinstance(one, Table) else ""
    ours = {"scenes": "generated scenes", "smoke": "stand-in data"}.get(report.of, own)
    return f"The paper's on {one.dataset} {one.split}" + (f", ours on {ours}" if ours else "")


def title_of(table: Table) -> str:
    return f"Table {table.table}: {table.title}"


def environment_lines(one: Environment) -> tuple[str, ...]:
    """What is known of it, a line each."""
    threads = f", {counted(one.threads, 'thread')} a process" if one.threads else ""
    precision = f", {one.precision}" if one.precision else ""
    days = one.first if one.first == one.last else f"{one.first} to {one.last}"
    return (
        f"{one.machine}, device {one.device}{threads}{precision}",
        f"{counted(one.runs, 'run')}, {days}",
        ", ".join(f"{name} {version}" for name, version in one.versions) or "versions not known",
        f"commit {', '.join(one.commits)}; code {', '.join(one.codes)}",
    )


def rows_of(report: Report, environment: Environment) -> str:
    """ "2b softmax, sigmoid; 2c roipool"."""
    found = []
    for part in report.tables:
        letters = part.letters
        rows = [row for row, seen in letters.items() if environment.letter in seen]
        if rows:
            found.append(f"{part.result.table.table} {', '.join(rows)}")
    return "; ".join(found) or "none of the tables' own"


def order_text(part: Part) -> str:
    """Whether ours are in the paper's order in the main column; "" where nothing can be said."""
    column = part.result.main
    order = part.result.order[column]
    if not order.pairs:
        return ""
    text = (
        f"Order by {words_of(column)}: {order.agreeing} of {counted(order.pairs, 'pair')} of rows "
        "as in the paper."
    )
    others = [f"{better} over {worse}" for better, worse in order.others]
    return text + (f" Not: {', '.join(others)}." if others else "")


def base_text(part: Part) -> str:
    """Which rows the differences are from."""
    bases: dict[str, list[str]] = {}
    for column, row in part.result.base.items():
        if row is not None:
            bases.setdefault(row, []).append(words_of(column))
    if len(bases) == 1:
        return f"Δ: less the base row, {next(iter(bases))}."
    parts = [f"{row} in {', '.join(columns)}" for row, columns in bases.items()]
    return f"Δ: less the base row: {'; '.join(parts)}." if parts else ""


def measured_text(part: Part) -> str:
    """ "3 of 5 rows of ours measured"."""
    own = [row for row in part.result.rows if not row.row.reference]
    done = sum(any(cell.ours is not None for cell in row.cells.values()) for row in own)
    return f"{done} of {counted(len(own), 'row')} of ours measured"


def measured_figures(one: ComparisonResult) -> str:
    figures = [figure for figure in one.figures.values() if figure.figure.of is not None]
    done = sum(figure.cell.ours is not None for figure in figures)
    return f"{done} of {counted(len(figures), 'figure')} measured"


def words_of(name: str) -> str:
    """A column or figure as people write it."""
    return name.replace("_", " ")
