"""The report as one Markdown file, readable as text, with its drawings as files beside it."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import PurePosixPath

from ..visualization.chart_file import chart_file
from .claims import Claim
from .report import GENERATOR, Part, Report
from .report_charts import claim_dots, claim_panels, dot_panels, dots, losses, main_columns
from .report_lines import RUN_HEAD, claim_line, figure_lines, in_text_lines, run_line
from .report_notes import (
    NOTHING,
    SMOKE_SHORT,
    TITLES,
    base_text,
    environment_lines,
    how_to_read,
    measured_figures,
    measured_text,
    order_text,
    rows_of,
    title_of,
    where_of,
    words_of,
)
from .report_values import NONE, row_name

WIDTH = 100  # of paragraphs
_TABLE = 132  # of tables whose columns are padded
_MARK = re.compile(r"^( *\d*)([-+#>.)](?: |$))")


@dataclass(frozen=True)
class Written:
    """
    Attributes:
        text: the Markdown file, UTF-8
        files: name below the folder beside it -> content
    """

    text: bytes
    files: Mapping[str, bytes]


def as_markdown(
    report: Report, name: str, *, configs: str | None = None, pictures: bool = False
) -> Written:
    """
    Args:
        name: of the file; its drawings go to the folder that has its name without the ending
        configs: the folder of configs as the file links to it; None for no links
        pictures: whether the records' pictures become files, too
    """
    writer = _Writer(report, PurePosixPath(name), configs, pictures)
    return Written(writer.text().encode("utf-8", "replace"), writer.files)


def command_of(report: Report, *words: str) -> str:
    """The command that makes it, without places of this machine."""
    tables = ["--table", *report.asked] if report.asked else []
    return " ".join([GENERATOR, "--data", report.of, "--records", "DIR", *tables, *words])


class _Writer:
    def __init__(self, report: Report, name: PurePosixPath, configs: str | None, pictures: bool):
        self._report, self._name, self._configs, self._pictures = report, name, configs, pictures
        self._links: dict[str, str] = {}
        self.files: dict[str, bytes] = {}

    def text(self) -> str:
        report = self._report
        more = ["--pictures"] if self._pictures else []
        command = command_of(report, "--markdown", self._name.name, *more)
        blocks = [
            f"<!-- Written by `{command}`; what is changed here is lost. -->",
            f"# {TITLES[report.of]}",
            *([f"**{SMOKE_SHORT}**"] if report.smoke else []),
            "## How to read",
            *map(_paragraph, how_to_read(report)),
            *([f"**{NOTHING}**"] if not report.records else []),
            *self._environments(),
            *self._claims(),
        ]
        for part in report.tables:
            blocks += self._table(part)
        if report.in_text.results:
            blocks += self._in_text()
        blocks += self._left_out()
        blocks += ["\n".join(f"[{name}]: {link}" for name, link in sorted(self._links.items()))]
        return "\n\n".join(block for block in blocks if block) + "\n"

    # ---- beginning and end

    def _environments(self) -> list[str]:
        found = []
        for one in self._report.environments:
            lines = [escape(line) for line in environment_lines(one)]
            lines[0] = f"**{one.letter}**: {lines[0]}"
            lines.append(f"rows: {escape(rows_of(self._report, one))}")
            found.append(_item("; ".join(lines)))
        return ["## Where it was measured", "\n".join(found)] if found else []

    def _claims(self) -> list[str]:
        claims = self._report.claims
        if not claims:
            return []
        lines = [
            _item(f"{escape(one.words)} ({escape(one.where)}). {escape(one.reading)}", f"{k}.")
            for k, one in enumerate(claims, 1)
        ]
        panels = claim_panels(self._report)
        drawing = ""
        if panels:
            content = chart_file(claim_dots(panels), GENERATOR)
            drawing = self._drawing("claims.svg", content, "claims as dots around 0")
        return ["## Claims", _claims_table(claims), drawing, "\n".join(lines)]

    def _left_out(self) -> list[str]:
        report = self._report
        aside = [[escape(one.stage), f"{one.seed}", escape(one.reason)] for one in report.set_aside]
        blocks = []
        if aside:
            blocks += ["## Records that do not count", _grid([["stage", "seed", "why"], *aside])]
        if report.broken:
            blocks += ["## Records that cannot be read"]
            blocks += ["\n".join(_item(escape(text)) for text in report.broken)]
        return blocks

    # ---- tables

    def _table(self, part: Part) -> list[str]:
        table = part.result.table
        about = f"{where_of(self._report, table)}; {measured_text(part)}. {table.note}"
        blocks = [f"## {escape(title_of(table))}", _paragraph(escape(about))]
        if self._report.smoke:
            blocks.insert(1, f"**{SMOKE_SHORT}**")
        if not self._report.smoke:
            blocks.append(_paragraph(escape(order_text(part))))
        named = [(row.row.id, row_name(row.row, marks=part.facts)) for row in part.result.rows]
        names = [f"**{escape(key)}** {escape(name)}" for key, name in named if key != name]
        blocks.append(_paragraph(f"Rows: {'; '.join(names)}." if names else ""))
        blocks.append(self._figures(part))
        blocks.append(_paragraph(escape(base_text(part)) if self._report.of == "scenes" else ""))
        blocks += self._drawings(part)
        blocks.append(self._runs(part))
        blocks.append("\n".join(_item(escape(t), f"{k}.") for k, t in enumerate(part.notes, 1)))
        if part.steps:
            blocks.append("One row over another:")
            blocks.append(_claims_table(part.steps))
        return blocks

    def _figures(self, part: Part) -> str:
        columns = part.result.table.columns
        lines = [["row", "of", *map(words_of, columns)]]
        for row in part.result.rows:
            for one in figure_lines(self._report, part, row):
                lines.append([escape(row.row.id), escape(one.of), *map(escape, one.cells)])
        return _grid(lines, right=range(2, 2 + len(columns)))

    def _runs(self, part: Part) -> str:
        lines = [list(RUN_HEAD)]
        for row in part.result.rows:
            one = run_line(part, row)
            cells = [escape(cell) for cell in astuple(one)]
            cells[1] = self._config(one.config)
            lines.append(cells)
        return _grid(lines, right=(3, 4))

    def _config(self, config: str) -> str:
        name = PurePosixPath(config).stem
        if not config:
            return NONE
        if self._configs is None:
            return escape(name)
        self._links.setdefault(name, f"{self._configs}/{config}")
        return f"[{name}]"

    def _drawings(self, part: Part) -> list[str]:
        table = part.result.table.table
        columns, panels = main_columns(part), dot_panels(self._report, part)
        found = []
        for column, some in zip(columns, panels, strict=True):
            name = f"table_{table}.svg" if len(columns) == 1 else f"table_{table}_{column}.svg"
            words = f"{words_of(column)} of table {table} as dots"
            found.append(self._drawing(name, chart_file(dots(part, some), GENERATOR), words))
        curves = losses(part)
        if curves is not None:
            drawing = chart_file(curves, GENERATOR)
            found.append(self._drawing(f"curves_{table}.svg", drawing, "training losses"))
        for row, (seed, picture) in part.pictures.items() if self._pictures else ():
            words = f"{row}, seed {seed}: best, median and worst image"
            found.append(self._drawing(f"pictures_{table}_{row}.webp", picture, words))
        return ["\n".join(found)]

    def _drawing(self, name: str, content: bytes, words: str) -> str:
        self.files[name] = content
        return f"![{escape(words)}]({self._name.stem}/{name})"

    def _in_text(self) -> list[str]:
        found = self._report.in_text
        blocks = ["## In the text, between the tables"]
        for one in found.results:
            comparison = one.comparison
            notes = ", ".join(map(str, found.notes_of[comparison.id]))
            about = [
                f"{comparison.claim} ({comparison.section}).",
                f"{where_of(self._report, comparison)}; {measured_figures(one)}.",
                comparison.note,
                f"Notes: {notes}." if notes else "",
            ]
            lines = [[*map(escape, line)] for line in in_text_lines(self._report, one)]
            blocks += [
                f"### {escape(words_of(comparison.id))}",
                _paragraph(escape(" ".join(filter(None, about)))),
                _grid(lines, right=range(1, len(lines[0]) - 1)),
            ]
        blocks.append("\n".join(_item(escape(t), f"{k}.") for k, t in enumerate(found.notes, 1)))
        return blocks


def escape(text: str) -> str:
    """Text that Markdown shows as it is, in a table's cell, too."""
    text = " ".join(text.split())
    for letter in "\\`*[]|":
        text = text.replace(letter, f"\\{letter}")
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _claims_table(claims: Iterable[Claim]) -> str:
    lines = [["", "difference", "paper", "ours (95 % interval)", "seeds", "verdict"]]
    for number, claim in enumerate(claims, 1):
        one = claim_line(claim)
        verdict = one.verdict if one.verdict == "open" else f"**{one.verdict}**"
        lines.append([f"{number}", *map(escape, astuple(one)[:-1]), verdict])
    return _grid(lines, right=(0, 2, 3, 4))


def _grid(lines: Sequence[Sequence[str]], right: Iterable[int] = ()) -> str:
    """A table, its columns padded where the lines stay short enough."""
    to_the_right = set(right)
    widths = [max(3, *(len(line[k]) for line in lines)) for k in range(len(lines[0]))]
    padded = sum(widths) + 3 * len(widths) + 1 <= _TABLE
    rows = []
    for number, line in enumerate(lines):
        cells = [
            (cell.rjust(width) if k in to_the_right else cell.ljust(width)) if padded else cell
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        rows.append(f"| {' | '.join(cells)} |")
        if number == 0:
            rule = ["-" * ((width if padded else 3) - 1) for width in widths]
            ends = [f"{one}{':' if k in to_the_right else '-'}" for k, one in enumerate(rule)]
            rows.append(f"| {' | '.join(ends)} |")
    return "\n".join(rows)


def _paragraph(text: str) -> str:
    return _filled(text)


def _item(text: str, mark: str = "-") -> str:
    indent = " " * (len(mark) + 1)
    return _filled(text, f"{mark} ", indent)


def _filled(text: str, first: str = "", further: str = "") -> str:
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=further,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    # A further line must not begin as a list's item or a title does.
    return "\n".join(lines[:1] + [_MARK.sub(r"\1\\\2", line) for line in lines[1:]])
