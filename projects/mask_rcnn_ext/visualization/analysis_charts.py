"""Charts of the analysis page as inline SVG: curves, dots on a line, a confusion map.

Colours come from the page's CSS by class names, so that they follow light and dark: `s0` to `s3`
are series, `mark` is a point of interest, `good` and `bad` are cells of a confusion map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

STRIP = 300  # width of a strip of dots, CSS pixels
_STRIP_HEIGHT = 22
_EDGE = 6.0  # room for half a dot
_BIG_MAP, _LEAST_CELL, _MOST_CELL = 760.0, 11.0, 40.0
_NUMBERED = 26.0  # least cell that has room for its count
_NAME = 22  # letters of a class in a map
_LETTER = 5.6  # width of a small letter, CSS pixels


@dataclass(frozen=True)
class Line:
    """A curve: x and y of its points, and which series it is."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    series: int = 0


@dataclass(frozen=True)
class Dot:
    """A value on a strip; `name` for its tooltip."""

    name: str
    value: float | None
    series: int = 0


def tag(name: str, *children: str | Markup, **attributes: Any) -> Markup:
    """An element; attributes and text are escaped, `class_` is class, `_` within is a hyphen."""
    parts = [
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _short(value))
        for key, value in attributes.items()
        if value is not None
    ]
    inner = Markup("").join(children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), Markup("").join(parts), inner)


def curve_chart(
    lines: Sequence[Line],
    *,
    x_title: str,
    y_title: str,
    label: str,
    mark: tuple[float, float, str] | None = None,
    x_most: float = 100.0,
    small: bool = False,
) -> Markup:
    """Curves over axes from 0.

    Args:
        lines: y from 0 to 100
        x_title, y_title: of the axes
        label: what is to be seen, for somebody who cannot
        mark: x, y and the tooltip of a point, drawn large
        x_most: end of the x axis
        small: for one of many
    """
    width, height = (210.0, 168.0) if small else (400.0, 300.0)
    left, bottom, top, right = (26.0, 30.0, 6.0, 12.0) if small else (44.0, 42.0, 8.0, 14.0)
    wide, high = width - left - right, height - top - bottom

    def x_at(value: float) -> float:
        return left + wide * value / x_most

    def y_at(value: float) -> float:
        return top + high * (1 - value / 100)

    parts = []
    for step in range(0, 101, 50 if small else 20):
        x, y = x_at(step / 100 * x_most), y_at(step)
        grid = f"M{left:.1f} {y:.1f}H{left + wide:.1f}M{x:.1f} {top:.1f}V{top + high:.1f}"
        parts.append(tag("path", d=grid, class_="grid"))
        parts.append(tag("text", f"{step}", x=left - 5, y=y + 3.5, class_="tick end"))
        tick = f"{step / 100 * x_most:g}"
        parts.append(tag("text", tick, x=x, y=top + high + 13, class_="tick middle"))
    middle = left + wide / 2
    parts.append(tag("text", x_title, x=middle, y=height - 4, class_="axis middle"))
    if not small:  # its caption says it
        turn = f"translate(11 {top + high / 2:.1f}) rotate(-90)"
        parts.append(tag("text", y_title, transform=turn, class_="axis middle"))
    for line in lines:
        points = [
            f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in zip(line.x, line.y, strict=True)
        ]  # fmt: skip
        if points:
            title = tag("title", line.name)
            path = "M" + "L".join(points) + ("h.1" if len(points) == 1 else "")
            parts.append(tag("path", title, d=path, class_=f"line s{line.series}"))
    if mark is not None:
        x, y, words = mark
        title = tag("title", words)
        dot = tag("circle", title, cx=x_at(x), cy=y_at(y), r=4 if small else 5.5, class_="mark")
        parts.append(dot)
    kind = "chart small" if small else "chart"
    view = f"0 0 {width:g} {height:g}"
    return tag("svg", *parts, viewBox=view, class_=kind, role="img", aria_label=label)


def strip(
    dots: Sequence[Dot],
    *,
    interval: tuple[float | None, float | None] | None = None,
    reference: float | None = None,
    least: float = 0.0,
    most: float = 100.0,
    steps: int = 5,
) -> Markup:
    """Values of one row as dots on a line; beside the numbers, so hidden from screen readers.

    Args:
        dots: those without a value are left out
        interval: drawn as a bar behind them
        reference: drawn as a line across
        least, most: ends of the line
        steps: parts that a grid divides it into
    """
    wide, middle = STRIP - 2 * _EDGE, _STRIP_HEIGHT / 2

    def at(value: float) -> float:
        share = (value - least) / ((most - least) or 1.0)
        return _EDGE + wide * min(max(share, 0.0), 1.0)

    lines = [at(least + (most - least) * k / steps) for k in range(steps + 1)]
    grid = "".join(f"M{x:.1f} 0V{_STRIP_HEIGHT}" for x in lines)
    parts = [tag("path", d=grid, class_="grid")]
    if reference is not None:
        line = f"M{at(reference):.1f} 0V{_STRIP_HEIGHT}"
        parts.append(tag("path", d=line, class_="reference"))
    if interval is not None and interval[0] is not None and interval[1] is not None:
        low, high = (at(value) for value in interval if value is not None)
        bar = f"M{low:.1f} {middle}H{high:.1f}"
        ends = f"M{low:.1f} {middle - 5}v10M{high:.1f} {middle - 5}v10"
        parts.append(tag("path", d=bar + ends, class_="interval"))
    known = [(dot, dot.value) for dot in dots if dot.value is not None]
    if len(known) > 1:
        places = [at(value) for _, value in known]
        span = f"M{min(places):.1f} {middle}H{max(places):.1f}"
        parts.append(tag("path", d=span, class_="span"))
    for dot, value in reversed(known):
        title = tag("title", f"{dot.name}: {value:.1f}")
        parts.append(
            tag("circle", title, cx=at(value), cy=middle, r=4.5, class_=f"dot s{dot.series}")
        )
    view = f"0 0 {STRIP} {_STRIP_HEIGHT}"
    return tag("svg", *parts, viewBox=view, class_="strip", aria_hidden="true")


def strip_axis(least: float = 0.0, most: float = 100.0, steps: int = 5) -> Markup:
    """Numbers above a column of strips; with their signs if there are negative ones."""
    parts = []
    for k in range(steps + 1):
        value = least + (most - least) * k / steps
        words = (f"{value:+.3g}" if least < 0 and value else f"{value:.3g}").replace("-", "−")
        place = "start" if k == 0 else "end" if k == steps else "middle"
        x = {"start": 0.0, "end": STRIP}.get(place, _EDGE + (STRIP - 2 * _EDGE) * k / steps)
        parts.append(tag("text", words, x=x, y=11, class_=f"tick {place}"))
    return tag("svg", *parts, viewBox=f"0 0 {STRIP} 14", class_="strip", aria_hidden="true")


def confusion_map(names: Sequence[str], counts: np.ndarray, label: str) -> Markup:
    """A square of cells, a row for each true class, a column for each predicted one.

    A cell's strength is its share of its row; cells of the diagonal have a colour of their own.

    Args:
        names: K of them; the last row and column are the background's
        counts: (K + 1, K + 1)
        label: what is to be seen, for somebody who cannot
    """
    words = [_cut(name) for name in names] + ["background"]
    size = len(words)
    cell = min(max(_BIG_MAP / size, _LEAST_CELL), _MOST_CELL)
    letters = min(11.0, cell - 1.5)
    room = 16 + max(map(_columns, words)) * _LETTER * letters / 10
    totals = counts.sum(axis=1)
    far = room + size * cell
    parts = [tag("rect", x=room, y=room, width=far - room, height=far - room, class_="ground")]
    for k, word in enumerate(words):
        place = room + (k + 0.5) * cell
        style = f"font-size:{letters:.1f}px"
        row = {"x": room - 6, "y": place + letters * 0.35, "class_": "name end", "style": style}
        parts.append(tag("text", word, **row))
        turn = f"translate({place + letters * 0.35:.1f} {room - 6:.1f}) rotate(-90)"
        parts.append(tag("text", word, transform=turn, class_="name", style=style))
        if k % 5 == 0 and size > 20:
            edge = room + k * cell
            lines = f"M{room:.1f} {edge:.1f}H{far:.1f}M{edge:.1f} {room:.1f}V{far:.1f}"
            parts.append(tag("path", d=lines, class_="grid"))
    full = [*names, "background"]
    for t, p in zip(*map(np.ndarray.tolist, np.nonzero(counts)), strict=True):
        count, share = int(counts[t, p]), counts[t, p] / totals[t]
        x, y = room + p * cell, room + t * cell
        truth = f"{full[t]} taken for {full[p]}" if t < size - 1 else f"{full[p]} where is nothing"
        truth = f"{full[t]} not found" if p == size - 1 else truth
        truth = f"{full[t]} found" if t == p else truth
        title = tag("title", f"{truth}: {count:,}, {share:.1%} of the row's {int(totals[t]):,}")
        kind = "good" if t == p else "bad"
        # Even one of a thousand is to be seen.
        strength = 0.15 + 0.85 * float(share)
        parts.append(
            tag("rect", title, x=x, y=y, width=cell, height=cell, class_=kind,
                fill_opacity=f"{strength:.2f}")
        )  # fmt: skip
        if cell >= _NUMBERED:
            strong = " strong" if strength > 0.6 else ""
            middle = {"x": x + cell / 2, "y": y + cell / 2 + 4}
            parts.append(tag("text", _compact(count), class_=f"count middle{strong}", **middle))
    view = f"0 0 {far + 2:.1f} {far + 2:.1f}"
    return tag(
        "svg", *parts, viewBox=view, class_="map", role="img", aria_label=label,
        style=f"width:{far + 2:.0f}px",
    )  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)


def _compact(count: int) -> str:
    return f"{count}" if count < 10_000 else f"{count / 1000:.0f}k"


def _cut(name: str) -> str:
    name = " ".join(name.split())
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _columns(text: str) -> float:
    """How many letters wide; those beyond Latin are counted as wide ones."""
    return sum(1.0 if ord(letter) < 0x2000 else 1.8 for letter in text)
