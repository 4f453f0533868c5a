"""Round numbers along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterable


def round_steps(values: Iterable[float], parts: int = 5) -> list[float]:
    """Evenly spaced round numbers around all of `values`, at least two.

    Args:
        values: finite; none at all is as 0 alone
        parts: about how many steps
    """
    known = list(values) or [0.0]
    low, high = min(known), max(known)
    if high - low < 1e-6:  # one value stands in the middle
        low, high = low - 1, high + 1
    rough = (high - low) / parts
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(k * power for k in (1, 2, 5, 10) if k * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 9) for k in range(first, last + 1)]


def round_powers(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, 20 ... around positive numbers, at least two, for a logarithmic axis."""
    power = math.floor(math.log10(low))
    steps = [k * 10.0**p for p in range(power, power + 12) for k in (1, 2, 5)]
    first = max(k for k, step in enumerate(steps) if step <= low * 1.000001)
    last = next((k for k, step in enumerate(steps) if step >= high * 0.999999), len(steps) - 1)
    return [round(step, 9) for step in steps[first : max(last, first + 1) + 1]]


def short_number(value: float, *, sign: bool = False) -> str:
    """Without needless zeros, with a real minus."""
    return f"{value:{'+' if sign else ''}g}".replace("-", "−")
