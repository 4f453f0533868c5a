"""Figures as dots on a line, a row each, with their intervals: tables for those who rather look.

Colours come from `templates/chart.css` by class names: `paper` is hollow, `ours` filled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from .analysis_charts import tag
from .chart_scale import round_steps, short_number

WIDTH = 344  # of a panel, CSS pixels
_EDGE, _GAP = 14.0, 28.0  # room for a dot at the end of the axis; between panels
_TITLE, _ROW, _STRIP, _AXIS = 24.0, 36.0, 25.0, 20.0  # heights; the strip's middle in its row
_LETTER = 6.5  # width of a letter, CSS pixels, in a wide font such as DejaVu Sans


@dataclass(frozen=True)
class Mark:
    """A value, and its interval where it has one; `name` for its tooltip."""

    name: str
    value: float
    kind: Literal["paper", "ours"]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class DotRow:
    """
    Attributes:
        name: written above the line
        says: the figures in words, above its end
        marks: () for a row without figures
    """

    name: str
    says: str
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Panel:
    """
    Attributes:
        title: of the axis
        rows: on one scale of their own
        sign: whether values are differences, which have a line at 0
    """

    title: str
    rows: tuple[DotRow, ...]
    sign: bool = False


def dot_plot(panels: Sequence[Panel], label: str) -> Markup:
    """Panels side by side, each with its own scale.

    Args:
        label: what is to be seen, for somebody who cannot
    """
    height = _TITLE + _AXIS + _ROW * max((len(one.rows) for one in panels), default=0)
    width = len(panels) * WIDTH + (len(panels) - 1) * _GAP
    drawn = [
        tag("g", *_panel(one), transform=f"translate({k * (WIDTH + _GAP):g} 0)")
        for k, one in enumerate(panels)
    ]
    return tag(
        "svg", *drawn, viewBox=f"0 0 {width:g} {height:g}", width=f"{width:g}",
        height=f"{height:g}", class_="plot", role="img", aria_label=label,
    )  # fmt: skip


def _panel(panel: Panel) -> list[Markup]:
    marks = [mark for row in panel.rows for mark in row.marks]
    ends = [end for mark in marks for end in (mark.value, mark.low, mark.high) if end is not None]
    steps = round_steps([*ends, 0.0] if panel.sign else ends)
    least, most = steps[0], steps[-1]

    def at(value: float) -> float:
        return _EDGE + (WIDTH - 2 * _EDGE) * (value - least) / (most - least)

    bottom = _TITLE + _ROW * len(panel.rows)
    parts = [tag("text", panel.title, x=0.0, y=13.0, class_="plot-title")]
    grid = "".join(f"M{at(step):.1f} {_TITLE:g}V{bottom:g}" for step in steps)
    parts.append(tag("path", d=grid, class_="plot-grid"))
    if panel.sign:
        parts.append(tag("path", d=f"M{at(0):.1f} {_TITLE:g}V{bottom:g}", class_="plot-zero"))
    for step in steps:
        number = short_number(step, sign=panel.sign and step != 0)
        parts.append(tag("text", number, x=at(step), y=bottom + 14, class_="plot-tick middle"))
    for k, row in enumerate(panel.rows):
        top = _TITLE + k * _ROW
        # The row's line ends where the words begin, so that no grid line runs through them.
        room = WIDTH - len(row.says) * _LETTER - 8
        name = _cut(row.name, int(room / _LETTER))
        title = tag("title", row.name)
        parts.append(tag("rect", x=0.0, y=top + 1, width=WIDTH, height=14.0, class_="plot-band"))
        parts.append(tag("text", title, name, x=0.0, y=top + 12, class_="plot-name"))
        parts.append(tag("text", row.says, x=float(WIDTH), y=top + 12, class_="plot-says end"))
        middle = top + _STRIP
        line = f"M{at(least):.1f} {middle:g}H{at(most):.1f}"
        parts.append(tag("path", d=line, class_="plot-line"))
        # Ours above the paper's where both lie at one place.
        for mark in sorted(row.marks, key=lambda one: one.kind == "ours"):
            if mark.low is not None and mark.high is not None:
                low, high = at(mark.low), at(mark.high)
                bar = f"M{low:.1f} {middle:g}H{high:.1f}"
                caps = f"M{low:.1f} {middle - 4:g}v8M{high:.1f} {middle - 4:g}v8"
                parts.append(tag("path", d=bar + caps, class_=f"plot-interval {mark.kind}"))
            dot = tag("title", mark.name)
            parts.append(
                tag("circle", dot, cx=at(mark.value), cy=middle, r=4.5,
                    class_=f"plot-dot {mark.kind}")
            )  # fmt: skip
    return parts


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: max(letters - 1, 1)].rstrip() + "…"
