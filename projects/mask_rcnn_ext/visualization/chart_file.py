"""A chart as a file of its own, for Markdown; a page takes the same chart and style inline."""

from __future__ import annotations

from pathlib import Path

from markupsafe import Markup, escape

_STYLE = Path(__file__).resolve().parent / "templates" / "chart.css"


def chart_style() -> Markup:
    """CSS of `dot_plot` and `line_plot`, for light and dark."""
    return Markup(_STYLE.read_text(encoding="utf-8"))


def chart_file(chart: Markup, generator: str) -> bytes:
    """
    Args:
        chart: an <svg> element
        generator: who made it, without two hyphens in a row
    Returns:
        an SVG file, UTF-8
    """
    start, attributes = chart.partition(">")[0].split(" ", 1)
    assert start == "<svg", start
    inner = chart.partition(">")[2]
    # Its own ground: whoever shows the file may be light where the system is dark.
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}>\n<!-- {escape(generator)} -->\n'
        f"<style>\n{chart_style()}</style>\n"
        f'<rect class="chart-ground" width="100%" height="100%"/>\n{inner}\n'
    )
    return text.encode("utf-8", "replace")
