"""What a training's metrics.json says of it: the loss, thinned out, and the time of a step."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from ...errors import UserError

POINTS = 60
_DIGITS = 5  # of a loss that is kept


@dataclass(frozen=True)
class Curve:
    """
    Attributes:
        points: (iteration, total loss) as logged, at most POINTS, the first and the last among them
        seconds: median of a step; None if nothing was logged
    """

    points: list[tuple[int, float]]
    seconds: float | None


def read_curve(path: Path, most: int = POINTS) -> Curve:
    """
    Args:
        path: Detectron2's metrics.json, a JSON object a line
        most: number of points, at least 2
    Raises:
        UserError: it is not there or has a line that is none of these; names it
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"{path} cannot be read: {reason}") from error
    losses: dict[int, float] = {}
    seconds = []
    for number, line in enumerate(text.splitlines(), 1):
        entry = _entry(line, f"{path}: line {number}")
        loss = entry.get("total_loss")
        if loss is not None and math.isfinite(loss):
            losses[int(entry["iteration"])] = float(f"{loss:.{_DIGITS}g}")
        if "time" in entry and loss is not None:
            seconds.append(float(entry["time"]))
    points = list(losses.items())
    if len(points) > most:
        last = len(points) - 1
        points = [points[round(place * last / (most - 1))] for place in range(most)]
    return Curve(points, round(median(seconds), 5) if seconds else None)


def _entry(line: str, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{where} is not JSON ({error}); was the run stopped?") from error
    if not isinstance(entry, dict) or not isinstance(entry.get("iteration"), int):
        raise UserError(f"{where} is not an object with an iteration: {line[:60]}")
    for key in ("total_loss", "time"):
        if not isinstance(entry.get(key, 0.0), int | float):
            raise UserError(f"{where}: {key} is {entry[key]!r}, expected a number")
    return entry
