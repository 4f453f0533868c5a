"""The report as one HTML file that works offline; made as the other pages are."""

from __future__ import annotations

import base64
import json
from pathlib import PurePosixPath
from typing import Any

from markupsafe import Markup

from ..resources import configs_dir
from ..visualization.chart_file import chart_style
from ..visualization.html import render_page
from .commands import pasted
from .report import GENERATOR, Part, Report
from .report_charts import claim_dots, claim_panels, dot_panels, dots, losses
from .report_lines import RUN_HEAD, claim_line, figure_lines, in_text_lines, run_line
from .report_markdown import command_of
from .report_notes import (
    NOTHING,
    SMOKE,
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
from .report_numbers import as_numbers
from .report_values import NONE, row_name


def as_page(report: Report, name: str) -> bytes:
    """
    Args:
        name: of the file
    Returns:
        UTF-8; `<script id="numbers">` holds `as_numbers`
    """
    text = json.dumps(as_numbers(report), allow_nan=False)
    return render_page(
        "tables",
        title=TITLES[report.of],
        generator=GENERATOR,
        command=command_of(report, "--html", name),
        report=report,
        chapters=[_chapter(report, part) for part in report.tables],
        claim_plots=[claim_dots([panel]) for panel in claim_panels(report)],
        configs=_configs(report),
        chart_style=chart_style(),
        numbers_json=Markup(text.replace("<", "\\u003c")),
        how_to_read=how_to_read(report),
        smoke=SMOKE,
        smoke_short=SMOKE_SHORT,
        nothing=NOTHING,
        none_text=NONE,
        run_head=RUN_HEAD,
        overrides=pasted,
        base_text=base_text,
        claim_line=claim_line,
        environment_lines=environment_lines,
        figure_lines=figure_lines,
        in_text_lines=in_text_lines,
        measured_figures=measured_figures,
        measured_text=measured_text,
        order_text=order_text,
        row_name=row_name,
        rows_of=rows_of,
        run_line=run_line,
        title_of=title_of,
        where_of=where_of,
        words_of=words_of,
    )


def _chapter(report: Report, part: Part) -> dict[str, Any]:
    """The drawings and pictures of a table; each panel a drawing, so that a phone stacks them."""
    panels = [panel for some in dot_panels(report, part) for panel in some]
    return {
        "part": part,
        "measured": measured_text(part).partition(" row")[0],
        "plots": [dots(part, [panel]) for panel in panels],
        "losses": losses(part),
        "pictures": [
            (row, seed, f"data:image/webp;base64,{base64.b64encode(content).decode()}")
            for row, (seed, content) in part.pictures.items()
        ],
    }


def _configs(report: Report) -> dict[str, dict[str, Any]]:
    """Path below configs/ -> its name and text, of all rows."""
    results = [row.result for part in report.tables for row in part.result.rows if row.result]
    paths = dict.fromkeys(one.stage.config for one in results if one.stage)
    return {
        path: {
            "number": number,
            "name": PurePosixPath(path).stem,
            "text": (configs_dir() / path).read_text(encoding="utf-8"),
        }
        for number, path in enumerate(sorted(paths), 1)
    }
