"""Whether two runs' folders hold the same bits, apart from times."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

# In the names of figures of the clock and of the memory; all others must agree.
_CLOCK = ("time", "seconds", "memory", "per_second", "figures/bytes", "provenance")


def differences(one: Path, other: Path) -> list[str]:
    """What differs in the final checkpoint, the best one, metrics.json and results.json."""
    found: list[str] = []
    names = sorted({p.name for p in [*one.glob("model_*.pth"), *other.glob("model_*.pth")]})
    for name in [n for n in names if not n[6:13].isdigit()]:
        a, b = (torch.load(folder / name, weights_only=True) for folder in (one, other))
        found += _differences(a, b, name)
    found += _differences(_figures(one), _figures(other), "metrics.json")
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, other)]
    return found + _differences(*results, "results.json")


def _figures(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


def _differences(one: Any, other: Any, where: str) -> list[str]:
    return list(_walk(one, other, where))


def _walk(one: Any, other: Any, where: str) -> Iterator[str]:
    if type(one) is not type(other):
        yield f"{where}: {one!r} and {other!r}"
    elif isinstance(one, dict):
        mine, theirs = (
            {k for k in side if not any(word in f"{where}/{k}" for word in _CLOCK)}
            for side in (one, other)
        )
        if mine != theirs:
            yield f"{where}: keys {sorted(map(str, mine ^ theirs))}"
        for key in mine & theirs:
            yield from _walk(one[key], other[key], f"{where}/{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield f"{where}: lengths {len(one)} and {len(other)}"
        for index, (a, b) in enumerate(zip(one, other, strict=False)):
            yield from _walk(a, b, f"{where}/{index}")
    elif torch.is_tensor(one):
        if not torch.equal(one, other):
            yield f"{where}: tensors differ"
    elif isinstance(one, float) and math.isnan(one) and math.isnan(other):
        return
    elif one != other:
        yield f"{where}: {one!r} and {other!r}"
