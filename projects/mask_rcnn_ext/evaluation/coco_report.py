"""COCO figures as text that people read: the summary, a table of classes, the notes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tabulate import tabulate

from .coco_metrics import ClassFigures, CocoFigures

_WIDTH = 100  # characters of a line
_LONGEST = 24  # of a class name; longer ones are cut


def summary_text(figures: Sequence[CocoFigures]) -> str:
    """A table of the main figures, a line a task; recall below it, then the notes."""
    lines = []
    for kind in ("AP", "AR"):
        groups: dict[tuple[str, ...], list[CocoFigures]] = {}
        for one in figures:
            names = tuple(name for name in one.stats if name.startswith(kind))
            groups.setdefault(names, []).append(one)
        for names, members in groups.items():
            rows = [[one.task, *(_number(one.stats[name]) for name in names)] for one in members]
            lines.append(_table(["task", *names], rows))
    notes = {note: None for one in figures for note in one.notes}  # in order, each once
    lines.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(line for line in lines if line)


def classes_text(figures: CocoFigures, width: int = _WIDTH) -> str:
    """Class, objects, AP, AP50, AP75, in ascending order of category ids.

    Args:
        width: characters; as many groups of columns as fit stand side by side, read downwards
    """
    header = ["class", "objects", "AP", "AP50", "AP75"]
    cells = [_class_row(one) for one in figures.per_class]
    widths = [max(len(row[i]) for row in [header, *cells]) for i in range(len(header))]
    each = sum(widths) + 2 * len(widths)
    blocks = max(1, min(width // (each + 2), math.ceil(len(cells) / 10)))
    high = math.ceil(len(cells) / blocks) if cells else 0
    blank = [""] * len(header)
    rows = [
        [
            cell
            for block in range(blocks)
            for cell in (cells[block * high + row] if block * high + row < len(cells) else blank)
        ]
        for row in range(high)
    ]
    return _table(header * blocks, rows, left=range(0, len(header) * blocks, len(header)))


def _class_row(one: ClassFigures) -> list[str]:
    name = one.name if len(one.name) <= _LONGEST else one.name[: _LONGEST - 3] + "..."
    return [name, str(one.objects), *(_number(value) for value in (one.ap, one.ap50, one.ap75))]


def _number(value: float) -> str:
    return "NaN" if math.isnan(value) else f"{value:.2f}"


def _table(header: list[str], rows: list[list[str]], left: Sequence[int] = (0,)) -> str:
    return tabulate(
        rows,
        headers=header,
        colalign=["left" if column in left else "right" for column in range(len(header))]
        if rows
        else None,
        disable_numparse=True,
    )
