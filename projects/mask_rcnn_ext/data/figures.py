"""Figures that sum up many numbers: quantiles and histograms, ready for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

QUANTILES = {
    "min": 0.0,
    "5%": 0.05,
    "25%": 0.25,
    "median": 0.5,
    "75%": 0.75,
    "95%": 0.95,
    "max": 1.0,
}


@dataclass(frozen=True)
class Histogram:
    """counts[i] values lie in [edges[i], edges[i + 1]); the last edge may be infinite."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    @staticmethod
    def of(values: np.ndarray, edges: tuple[float, ...]) -> Histogram:
        """Count values; one outside of the edges is not counted."""
        inside = values[(values >= edges[0]) & (values < edges[-1])]
        places = np.searchsorted(np.asarray(edges), inside, side="right") - 1
        counts = np.bincount(places, minlength=len(edges) - 1)
        return Histogram(tuple(edges), tuple(int(count) for count in counts))


def quantiles(values: np.ndarray) -> dict[str, float]:
    """QUANTILES and the mean of the finite values; empty if there is none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {}
    found = np.quantile(values, list(QUANTILES.values()))
    named = dict(zip(QUANTILES, found.tolist(), strict=True))
    return {**named, "mean": float(values.mean())}


def plain(value: Any) -> Any:
    """Dicts and lists of what JSON has; a number that it lacks is None."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return value
