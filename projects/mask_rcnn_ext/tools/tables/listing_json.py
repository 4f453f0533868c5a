"""Rows of the paper for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ...paper import Paper
from ...paper.spec import Scale
from .entry import Entry


def as_json(paper: Paper, chosen: Sequence[Entry], scale: Scale) -> dict[str, Any]:
    """{"scale", "tables": {number: ... "rows"}, "in_text": [...], "stages", "data", "weights"}.

    Figures are the paper's, in percent; None is printed as "-".
    """
    tables: dict[str, Any] = {}
    in_text = []
    for entry in chosen:
        if entry.table is None:
            in_text.append(_entry(entry))
            continue
        table = msgspec.to_builtins(entry.table) | {"rows": []}
        tables.setdefault(entry.table.table, table)["rows"].append(_entry(entry))
    stages = {stage.id: stage for entry in chosen for stage in entry.stages}
    return {
        "scale": scale,
        "tables": tables,
        "in_text": in_text,
        "stages": msgspec.to_builtins(stages),
        "data": _described(paper.data, [name for one in chosen for name in one.needs.data]),
        "weights": _described(paper.weights, [n for one in chosen for n in one.needs.weights]),
    }


def _described(known: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: msgspec.to_builtins(known[name]) for name in dict.fromkeys(names)}


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        **msgspec.to_builtins(entry.one),
        "runnable": bool(entry.stages),
        "stages": [stage.id for stage in entry.stages],
        "hours": round(entry.hours, 2),
        "missing": {
            "data": {name: list(paths) for name, paths in entry.needs.data.items() if paths},
            "weights": [name for name, lacks in entry.needs.weights.items() if lacks],
        },
        "footnotes": list(entry.footnotes),
        "state": entry.state.text,
        "seeds": list(entry.state.seeds),
    }
