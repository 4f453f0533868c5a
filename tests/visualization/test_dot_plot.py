"""Dot plots and curves: marks where their values are, round numbers, text that is text."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mask_rcnn_ext.visualization.chart_file import chart_file, chart_style
from mask_rcnn_ext.visualization.chart_scale import round_powers, round_steps, short_number
from mask_rcnn_ext.visualization.dot_plot import WIDTH, DotRow, Mark, Panel, dot_plot
from mask_rcnn_ext.visualization.line_plot import COLOURS, Curve, line_plot

EVIL = '<script>alert(1)</script> & "co" \''
FINITE = st.floats(-1000, 1000, allow_nan=False).map(lambda x: round(x, 2))


def _svg(chart: str) -> ElementTree.Element:
    return ElementTree.fromstring(str(chart))


def _of_class(chart: str, name: str) -> list[ElementTree.Element]:
    return [one for one in _svg(chart).iter() if name in (one.get("class") or "").split()]


def _panel(*values: float, **more: float) -> Panel:
    rows = [
        DotRow(f"row {value}", f"{value}", (Mark("", value, "ours", **more),)) for value in values
    ]
    return Panel("AP", tuple(rows))


def _ticks(chart: str) -> dict[float, float]:
    """Number -> x."""
    found = _of_class(chart, "plot-tick")
    return {float((one.text or "").replace("−", "-")): float(one.get("x") or 0) for one in found}


def test_a_dot_lies_where_its_value_is_on_the_axis():
    chart = dot_plot([_panel(20.0, 22.5, 30.0)], "three rows")
    x = [float(one.get("cx") or 0) for one in _of_class(chart, "plot-dot")]
    ticks = _ticks(chart)
    assert x[0] == pytest.approx(ticks[20], abs=0.1)
    assert x[1] == pytest.approx((ticks[20] + 0.25 * (ticks[30] - ticks[20])), abs=0.1)
    assert x[2] == pytest.approx(ticks[30], abs=0.1)
    y = [float(one.get("cy") or 0) for one in _of_class(chart, "plot-dot")]
    assert y == sorted(y)
    assert len(set(y)) == 3


def test_an_interval_reaches_from_its_low_to_its_high_end():
    chart = dot_plot([_panel(25.0, low=20.0, high=30.0)], "a row")
    (bar,) = _of_class(chart, "plot-interval")
    low, high = map(float, re.match(r"M([\d.]+) [\d.]+H([\d.]+)", bar.get("d") or "").groups())
    ticks = _ticks(chart)
    assert (low, high) == pytest.approx((ticks[20], ticks[30]), abs=0.1)


def test_an_interval_widens_the_axis():
    narrow, wide = (dot_plot([_panel(25.0, **ends)], "") for ends in ({}, {"low": 5, "high": 26}))
    assert min(_ticks(narrow)) > 20
    assert min(_ticks(wide)) <= 5


def test_the_papers_dots_are_told_apart_and_lie_below_ours():
    both = (Mark("ours", 5.0, "ours"), Mark("paper", 5.0, "paper"))
    chart = dot_plot([Panel("AP", (DotRow("row", "5.0", both),))], "both")
    assert [one.get("class") for one in _of_class(chart, "plot-dot")] == [
        "plot-dot paper",
        "plot-dot ours",
    ]
    style = str(chart_style())
    assert re.search(r"\.plot-dot\.paper \{[^}]*fill: var\(--ground", style)


def test_each_panel_has_its_own_axis_beside_the_other():
    chart = dot_plot([_panel(20.0, 30.0), _panel(1.0, 2.0)], "two")
    groups = [one for one in _svg(chart) if one.tag.endswith("g")]
    starts = [float(re.findall(r"[\d.]+", one.get("transform") or "")[0]) for one in groups]
    assert starts[0] == 0
    assert starts[1] >= WIDTH
    numbers = [[float(t.text or 0) for t in g if t.get("class", "").startswith("plot-tick")]
               for g in groups]  # fmt: skip
    assert max(numbers[1]) <= 2 < 20 <= min(numbers[0])
    assert (_svg(chart).get("viewBox") or "").split()[2] == f"{starts[1] + WIDTH:g}"


def test_differences_have_a_line_at_zero():
    panel = _panel(2.0, 3.0)
    assert not _of_class(dot_plot([panel], ""), "plot-zero")
    chart = dot_plot([Panel("Δ", panel.rows, sign=True)], "")
    assert len(_of_class(chart, "plot-zero")) == 1
    assert 0 in _ticks(chart)


def test_a_row_without_figures_says_why():
    chart = dot_plot([Panel("AP", (DotRow("row", "not run", ()),))], "nothing")
    assert not _of_class(chart, "plot-dot")
    assert [one.text for one in _of_class(chart, "plot-says")] == ["not run"]


def test_text_is_escaped_and_long_names_are_cut():
    name = EVIL + "x" * 80
    chart = dot_plot([Panel(EVIL, (DotRow(name, EVIL, (Mark(EVIL, 1.0, "ours"),)),))], EVIL)
    root = _svg(chart)  # would not parse
    assert not [one for one in root.iter() if one.tag.endswith("script")]
    (shown,) = _of_class(chart, "plot-name")
    assert shown[0].text == name  # its tooltip
    assert (shown[0].tail or "").endswith("…")
    assert root.get("aria-label") == EVIL


def test_a_file_is_an_svg_of_its_own_that_says_who_made_it():
    curves = line_plot([Curve(EVIL, (((1.0, 2.0),),))], title=EVIL, x_title="x", label=EVIL)
    for chart in (dot_plot([_panel(1.0)], EVIL), curves):
        content = chart_file(chart, "mask-rcnn-ext tables report")
        root = ElementTree.fromstring(content)
        assert root.tag == "{http://www.w3.org/2000/svg}svg"
        assert b"mask-rcnn-ext tables report" in content[:400]
        assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b"")
        assert root.get("aria-label") == EVIL
        assert "prefers-color-scheme: dark" in content.decode()
        assert float(root.get("width") or 0) > 0
        assert float(root.get("height") or 0) > 0


def _paths(chart: str) -> list[list[tuple[float, float]]]:
    curves = [one for one in _of_class(chart, "plot-curve") if "key" not in one.get("class", "")]
    points = [re.findall(r"[ML]([\d.]+) ([\d.]+)", one.get("d") or "") for one in curves]
    return [[(float(x), float(y)) for x, y in path] for path in points]


def test_curves_of_all_runs_on_a_logarithmic_scale():
    runs = (((0.0, 1.0), (50.0, 10.0), (100.0, 100.0)), ((0.0, 10.0), (100.0, 10.0)))
    chart = line_plot([Curve("row", runs)], title="t", x_title="iteration", label="l")
    first, second = _paths(chart)
    steps = [b[1] - a[1] for a, b in zip(first, first[1:], strict=False)]
    assert steps[0] == pytest.approx(steps[1], abs=0.2)
    assert steps[0] < 0
    assert second[0][1] == pytest.approx(first[1][1], abs=0.1)
    assert first[1][0] - first[0][0] == pytest.approx(first[2][0] - first[1][0], abs=0.2)


def test_a_loss_that_has_no_logarithm_is_left_out():
    chart = line_plot(
        [Curve("a", (((1.0, 0.0), (2.0, 3.0), (3.0, 2.0)),)), Curve("b", (((1.0, -1.0),),))],
        title="t", x_title="x", label="l",
    )  # fmt: skip
    assert [len(path) for path in _paths(chart)] == [2]
    assert [one.text for one in _of_class(chart, "plot-name")] == ["a"]


def test_curves_keep_apart_beyond_the_colours():
    curves = [Curve(f"{k}", (((0.0, 1.0), (9.0, 2.0)),)) for k in range(COLOURS + 2)]
    chart = line_plot(curves, title="t", x_title="x", label="l")
    kinds = [one.get("class") for one in _of_class(chart, "key")]
    assert len(set(kinds)) == len(curves)
    for k in range(COLOURS):
        assert f".l{k} " in str(chart_style())


def test_no_curves_at_all():
    assert not _paths(line_plot([], title="t", x_title="x", label="l"))


@given(st.lists(FINITE, max_size=6))
def test_steps_are_round_even_and_hold_all_values(values):
    steps = round_steps(values)
    assert 2 <= len(steps) <= 9
    assert all(steps[0] <= value <= steps[-1] for value in values)
    gap = steps[1] - steps[0]
    assert all(
        b - a == pytest.approx(gap, rel=1e-6) for a, b in zip(steps, steps[1:], strict=False)
    )
    assert f"{gap:.0e}"[0] in "125"
    if len(set(values)) > 1 and max(values) - min(values) > 1e-3:  # no needless steps
        assert steps[1] >= min(values) - 1e-6
        assert steps[-2] <= max(values) + 1e-6


@given(st.floats(1e-3, 1e4), st.floats(1, 1e4))
def test_powers_hold_both_ends(low, factor):
    high = low * factor
    steps = round_powers(low, high)
    assert len(steps) >= 2
    assert steps[0] <= low * 1.00001
    assert steps[-1] >= high * 0.99999
    assert all(f"{step:.0e}"[0] in "125" for step in steps)


def test_numbers_have_a_real_minus():
    assert short_number(-2.5) == "−2.5"
    assert short_number(2.0, sign=True) == "+2"
