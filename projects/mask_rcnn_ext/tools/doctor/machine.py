"""The machine: disk, shared memory, open files, and the cores and memory that may be used."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

from .findings import NOTE, OK, PROBLEM, WARNING, Finding

GB = 10**9
_LITTLE_DISK, _TOO_LITTLE_DISK = 10 * GB, 1 * GB  # a checkpoint of R-50-FPN has 0.35 GB
_SLOW_DISK = 20e6  # bytes a second
_PROBE_BYTES = 32 << 20
# Four workers with two batches each of two images of 1333 x 800 pixels.
_SHARED_MEMORY = 512 << 20
_FEW_FILES = 1024
_LITTLE_MEMORY = 4 << 30
_CGROUP = Path("/sys/fs/cgroup")


def check_disk(folder: Path) -> list[Finding]:
    """Space and speed where runs are written.

    Args:
        folder: of the output; the nearest one above it that exists is looked at
    """
    while not folder.is_dir():
        folder = folder.parent
    subject = f"disk of {folder}"
    try:
        free = shutil.disk_usage(folder).free
        speed = _write_speed(folder) if free > 4 * _PROBE_BYTES else None
    except OSError as error:
        return [
            Finding(
                PROBLEM,
                subject,
                f"cannot be written: {error.strerror or error}",
                "mask-rcnn-ext doctor --out FOLDER  # one that can, and OUTPUT_DIR FOLDER to train",
            )
        ]
    text = f"{free / GB:.0f} GB free" if free >= 10 * GB else f"{free / GB:.1f} GB free"
    if speed is not None:
        text += f", writes {speed / 1e6:.0f} MB/s"
    if free < _TOO_LITTLE_DISK:
        return [Finding(PROBLEM, subject, f"{text}: no room for checkpoints", f"du -sh {folder}/*")]
    if free < _LITTLE_DISK:
        text += "; SOLVER.CHECKPOINTS_KEPT 3 saves space"
        return [Finding(WARNING, subject, text)]
    if speed is not None and speed < _SLOW_DISK:
        return [Finding(WARNING, subject, f"{text}: each checkpoint will take long")]
    return [Finding(OK, subject, text)]


def check_shared_memory(place: Path = Path("/dev/shm")) -> Finding:
    """Data-loader workers hand their images over through it."""
    try:
        usage = shutil.disk_usage(place)
    except OSError:
        return Finding(NOTE, "shared memory", f"{place} is not there; workers use files")
    text = f"{usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB free in {place}"
    if usage.free < _SHARED_MEMORY:
        return Finding(
            WARNING,
            "shared memory",
            f"{text}: data-loader workers may die of a bus error",
            "docker run --shm-size=8g ...  # or train with DATALOADER.NUM_WORKERS 0",
        )
    return Finding(OK, "shared memory", text)


def check_open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= soft < _FEW_FILES:
        more = hard if hard > soft else 65536
        text = f"at most {soft}: workers that share tensors may run out"
        return Finding(WARNING, "open files", text, f"ulimit -n {more}")
    return Finding(OK, "open files", "no limit" if soft < 0 else f"at most {soft}")


def check_cores(threads: int | None, cgroup: Path = _CGROUP) -> Finding:
    """
    Args:
        threads: that torch uses, if that is known
    """
    there = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else there
    quota = _cpu_quota(cgroup)
    allowed = usable if quota is None else min(usable, quota)
    text = f"{allowed:g} of {there} cores may be used"
    if threads is None:
        return Finding(OK, "CPU", text)
    text += f", torch takes {threads} threads"
    # Half a core over is what rounding up gives.
    if threads > allowed + 0.5:
        return Finding(
            WARNING,
            "CPU",
            f"{text}: they wait for each other",
            f"export OMP_NUM_THREADS={max(1, round(allowed))}",
        )
    return Finding(OK, "CPU", text)


def check_memory(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> Finding:
    free = _available_memory(meminfo)
    limit = _memory_left(cgroup)
    if limit is not None and (free is None or limit < free):
        free, of = limit, " (the container's limit)"
    else:
        of = ""
    if free is None:
        return Finding(NOTE, "memory", "the system does not say how much is free")
    text = f"{free / 2**30:.1f} GiB free{of}"
    if free < _LITTLE_MEMORY:
        return Finding(
            WARNING,
            "memory",
            f"{text}: little for training; SOLVER.IMS_PER_BATCH 1 and DATALOADER.NUM_WORKERS 0 "
            "need the least",
        )
    return Finding(OK, "memory", text)


def _write_speed(folder: Path) -> float:
    """Bytes a second, fsync included."""
    data = os.urandom(1 << 20) * (_PROBE_BYTES >> 20)
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor.") as file:
        start = time.perf_counter()
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        return _PROBE_BYTES / max(time.perf_counter() - start, 1e-6)


def _cpu_quota(cgroup: Path) -> float | None:
    """Cores that the container may use, of cgroup v2 or v1; None for no limit."""
    quota, period = (_words(cgroup / "cpu.max") + ["", ""])[:2]
    if not quota:
        quota = " ".join(_words(cgroup / "cpu" / "cpu.cfs_quota_us"))
        period = " ".join(_words(cgroup / "cpu" / "cpu.cfs_period_us"))
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return None  # "max", or v1's -1
    return int(quota) / int(period)


def _memory_left(cgroup: Path) -> int | None:
    """Bytes below the container's limit, of cgroup v2 or v1; None for no limit."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        words = _words(cgroup / limit)
        if words and words[0].isdigit():
            now = _words(cgroup / used)
            return int(words[0]) - (int(now[0]) if now and now[0].isdigit() else 0)
    return None


def _available_memory(meminfo: Path) -> int | None:
    try:
        for line in meminfo.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
