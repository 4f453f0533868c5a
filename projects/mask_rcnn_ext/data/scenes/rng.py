"""Random numbers that are the same on every machine and under every numpy.

Only 64-bit integer arithmetic: a splitmix64 sequence for single draws and the same mixing function,
applied to lattice positions, for whole arrays. numpy's own generators are not used because their
distributions may change between versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_MASK = (1 << 64) - 1
_STEP = 0x9E3779B97F4A7C15  # 2**64 / golden ratio, odd: the sequence visits every 64-bit state
_MUL1 = 0xBF58476D1CE4E5B9
_MUL2 = 0x94D049BB133111EB


def derive_key(*name: int | str) -> int:
    """A 64-bit key from a name such as (seed, "train", 17); different names, unrelated keys."""
    text = "/".join(str(part) for part in name)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big")


def _mix(state: int) -> int:
    state = ((state ^ (state >> 30)) * _MUL1) & _MASK
    state = ((state ^ (state >> 27)) * _MUL2) & _MASK
    return state ^ (state >> 31)


class Stream:
    """A sequence of uniform integers that depends on its name alone."""

    def __init__(self, *name: int | str) -> None:
        self._state = derive_key(*name)

    def bits(self) -> int:
        """The next 64 random bits."""
        self._state = (self._state + _STEP) & _MASK
        return _mix(self._state)

    def below(self, n: int) -> int:
        """Uniform in [0, n). The bias of multiply-and-shift is under n / 2**64."""
        return (self.bits() * n) >> 64

    def between(self, low: int, high: int) -> int:
        """Uniform in [low, high], both ends included."""
        return low + self.below(high - low + 1)

    def chance(self, per_mille: int) -> bool:
        """True in `per_mille` of 1000 draws."""
        return self.below(1000) < per_mille

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`, each as likely."""
        return items[self.below(len(items))]


def lattice_bits(key: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """64 random bits at each lattice position.

    Args:
        key: 64-bit key of the lattice
        rows: (H,) non-negative integers
        columns: (W,) non-negative integers

    Returns:
        (H, W) uint64; the value at (y, x) depends on key, y and x only
    """
    y = rows.astype(np.uint64)[:, None]
    x = columns.astype(np.uint64)[None, :]
    # Unsigned numpy arrays wrap around silently, as the scalar version's `& _MASK` does.
    state = np.array(key, dtype=np.uint64) + (y << np.uint64(32) | x) * np.uint64(_STEP)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_MUL1)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_MUL2)
    return state ^ (state >> np.uint64(31))
