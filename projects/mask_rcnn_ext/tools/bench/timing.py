"""Time, spread and peak memory of calls, on a CPU or a GPU.

Two calls are compared in one process, in turns: A B A B ... Other work on the machine then slows
both alike, and the ratio of one turn's pair says more than two medians taken apart.
"""

from __future__ import annotations

import contextlib
import gc
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...memory import trim_heap

_MEGA = 1e6


@dataclass(frozen=True)
class Spread:
    """Median, quartiles and extremes of a quantity's repeats; in the quantity's unit."""

    median: float
    low: float
    high: float
    minimum: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, median, high = np.percentile(values, [25, 50, 75]).tolist()
        return cls(median, low, high, float(min(values)), float(max(values)))

    def text(self, factor: float = 1.0, digits: int = 1) -> str:
        """ "12.3 (12.0-12.9)": median and quartiles."""
        median, low, high = (f"{v * factor:.{digits}f}" for v in (self.median, self.low, self.high))
        return f"{median} ({low}-{high})"

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told; a CPU always has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(call: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds that `call` takes until the device is idle again, and what it returns."""
    synchronise(device)
    begin = time.perf_counter()
    result = call()
    synchronise(device)
    return time.perf_counter() - begin, result


def peak_memory(call: Callable[[], Any], device: torch.device) -> float | None:
    """Bytes that `call` takes at its peak beyond what was there before; None if unknown.

    GPU: PyTorch's allocator says. CPU: the process's peak of resident memory, which Linux can reset
    and which holds C++'s own temporaries too. Freed memory goes back to the system before the call
    (glibc's `malloc_trim`), else reusing it would cost nothing; elsewhere the answer is None.
    """
    gc.collect()
    if device.type == "cuda":
        synchronise(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        synchronise(device)
        return float(torch.cuda.max_memory_allocated(device) - before)
    try:
        if not trim_heap():
            return None
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        before = _resident("VmRSS")
        call()
        return float(max(0, _resident("VmHWM") - before))
    except OSError:
        return None


def _resident(field: str) -> int:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise OSError(f"/proc/self/status has no {field}")
    return int(found[1]) * 1024


def megabytes(value: float | None) -> str:
    """ "12.3", in MB of 10^6 bytes, or a dash for unknown."""
    return "-" if value is None else f"{value / _MEGA:.1f}"


def device_name(device: torch.device) -> str:
    """What a reader would call the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device) -> dict[str, Any]:
    """The facts without which a time says nothing."""
    return {
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def say(message: str) -> None:
    """Progress, for people; results go to stdout."""
    print(message, file=sys.stderr, flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text columns, the first one left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = []
    for row in (header, ["-" * w for w in widths], *rows):
        cells = [c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)
