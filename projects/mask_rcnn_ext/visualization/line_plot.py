"""Curves of training: loss over iterations on a logarithmic scale, with a list of the lines.

Colours come from `templates/chart.css` by class names, `l0` to `l7`; further lines are dashed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from .analysis_charts import tag
from .chart_scale import round_powers, round_steps, short_number

WIDTH, HEIGHT = 344, 220
COLOURS = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 34.0, 14.0, 24.0, 36.0
_LINE = 15.0  # height of a line of the list
_LETTERS = 54  # that a line of the list has room for


@dataclass(frozen=True)
class Curve:
    """One row: its name, and (x, y) of each run; y > 0."""

    name: str
    runs: tuple[tuple[tuple[float, float], ...], ...]


def line_plot(curves: Sequence[Curve], *, title: str, x_title: str, label: str) -> Markup:
    """Curves with their names below.

    Args:
        curves: those without any point are left out
        title: above
        x_title: of the x axis
        label: what is to be seen, for somebody who cannot
    """
    points = [point for curve in curves for run in curve.runs for point in run]
    x_steps = round_steps([0.0, *(x for x, _ in points)])
    positive = [y for _, y in points if y > 0] or [1.0]
    y_steps = round_powers(min(positive), max(positive))
    wide, high = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    low, span = math.log(y_steps[0]), math.log(y_steps[-1] / y_steps[0])

    def x_at(x: float) -> float:
        return _LEFT + wide * (x - x_steps[0]) / (x_steps[-1] - x_steps[0])

    def y_at(y: float) -> float:
        return _TOP + high * (1 - (math.log(y) - low) / span)

    parts = [tag("text", title, x=0.0, y=13.0, class_="plot-title")]
    for x in x_steps:
        grid = f"M{x_at(x):.1f} {_TOP:g}V{_TOP + high:g}"
        parts.append(tag("path", d=grid, class_="plot-grid"))
        number = short_number(x) if x < 10_000 else f"{short_number(x / 1000)}k"
        words = {"x": x_at(x), "y": _TOP + high + 14, "class_": "plot-tick middle"}
        parts.append(tag("text", number, **words))
    for y in y_steps:
        parts.append(
            tag("path", d=f"M{_LEFT:g} {y_at(y):.1f}H{_LEFT + wide:g}", class_="plot-grid")
        )
        words = {"x": _LEFT - 5, "y": y_at(y) + 3.5, "class_": "plot-tick end"}
        parts.append(tag("text", short_number(y), **words))
    middle = _LEFT + wide / 2
    parts.append(tag("text", x_title, x=middle, y=HEIGHT - 6, class_="plot-tick middle"))
    place = 0
    for curve in curves:
        runs = [[(x, y) for x, y in run if y > 0] for run in curve.runs]
        if not any(runs):
            continue
        kind = f"plot-curve l{place % COLOURS}" + (" dashed" if place >= COLOURS else "")
        for run in filter(None, runs):
            path = "M" + "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in run)
            path += "h.1" if len(run) == 1 else ""
            parts.append(tag("path", tag("title", curve.name), d=path, class_=kind))
        below = HEIGHT + place * _LINE + 8
        parts.append(tag("path", d=f"M{_LEFT:g} {below:g}h18", class_=f"{kind} key"))
        name = curve.name
        name = name if len(name) <= _LETTERS else name[: _LETTERS - 1].rstrip() + "…"
        parts.append(tag("text", name, x=_LEFT + 24, y=below + 4, class_="plot-name"))
        place += 1
    height = HEIGHT + place * _LINE + 4
    return tag(
        "svg", *parts, viewBox=f"0 0 {WIDTH} {height:g}", width=WIDTH, height=f"{height:g}",
        class_="plot", role="img", aria_label=label,
    )  # fmt: skip
