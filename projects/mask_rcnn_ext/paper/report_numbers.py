"""The report for programs."""

from __future__ import annotations

from typing import Any

import msgspec

from .claims import Claim
from .compare import Cell, ComparisonResult, StageResult
from .report import GENERATOR, Part, Report


def as_numbers(report: Report) -> dict[str, Any]:
    """{"made_by", "of", "tables": {number: ...}, "in_text": {id: ...}, "claims", ...}.

    Percent and points as `compare` has them, hours and MiB rounded; None where there is no figure.
    """
    return {
        "made_by": GENERATOR,
        "of": report.of,
        "scale": report.scale,
        "stand_in_data": report.smoke,
        "records": report.records,
        "environments": [msgspec.to_builtins(one) for one in report.environments],
        "claims": [_claim(one) for one in report.claims],
        "tables": {part.result.table.table: _table(part) for part in report.tables},
        "in_text": {one.comparison.id: _in_text(report, one) for one in report.in_text.results},
        "set_aside": [msgspec.to_builtins(one) for one in report.set_aside],
        "broken": list(report.broken),
    }


def _table(part: Part) -> dict[str, Any]:
    result = part.result
    return {
        "title": result.table.title,
        "base": result.base,
        "order": msgspec.to_builtins(result.order),
        "rows": {
            row.row.id: {
                "name": row.row.name,
                "state": row.state,
                "reason": part.reasons[row.row.id],
                "cells": {name: _cell(cell) for name, cell in row.cells.items()},
                "run": _run(row.result) if row.result else None,
                "environments": list(part.letters[row.row.id]),
                "footnotes": [part.notes[number - 1] for number in part.notes_of[row.row.id]],
            }
            for row in result.rows
        },
        "steps": [_claim(one) for one in part.steps],
    }


def _cell(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(cell)
    found["values"] = {str(seed): value for seed, value in sorted(cell.values.items())}
    return found


def _run(result: StageResult) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(result)
    stage = result.stage
    found["stage"] = stage.id if stage else None
    found["config"] = stage.config if stage else None
    found["failures"] = {str(seed): why for seed, why in sorted(result.failures.items())}
    for key, places in (("hours", 4), ("chain_hours", 4), ("memory_mb", 1), ("gpu_memory_mb", 1)):
        if found[key] is not None:
            found[key] = round(found[key], places)
    return found


def _claim(claim: Claim) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(claim)
    return found


def _in_text(report: Report, one: ComparisonResult) -> dict[str, Any]:
    numbers = report.in_text.notes_of[one.comparison.id]
    return {
        "claim": one.comparison.claim,
        "figures": {
            name: {"state": figure.state, **_cell(figure.cell)}
            for name, figure in one.figures.items()
        },
        "footnotes": [report.in_text.notes[number - 1] for number in numbers],
    }
