"""What a run leaves for later readers: `run.json` (how it was made), `results.json` (figures)."""

from __future__ import annotations

import argparse
import math
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode

from ..files import write_json

_PACKAGES = (
    "torch",
    "torchvision",
    "detectron2",
    "numpy",
    "opencv-python",
    "pycocotools",
    "hotcoco",
    "fvcore",
    "pillow",
    "mask_rcnn_ext",
)


class RunRecord:
    """Collects what `run.json` holds; written at the start and again at the end."""

    def __init__(self, cfg: CfgNode, args: argparse.Namespace, fingerprints: dict[str, str]):
        self._path = Path(cfg.OUTPUT_DIR) / "run.json"
        self._start = time.monotonic()
        self._fields: dict[str, Any] = {
            "state": "running",
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "config_file": args.config_file,
            "overrides": list(args.opts),
            "resumed": args.resume,
            "commit": _commit(),
            "versions": _versions(),
            "seed": cfg.SEED,
            "device": _device_name(cfg.MODEL.DEVICE),
            "threads": torch.get_num_threads(),
            "datasets": fingerprints,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        write_json(self._path, self._fields)

    def finish(self, state: str) -> None:
        """Write the record again. Args: state: finished, stopped or failed."""
        self._fields |= {
            "state": state,
            "wall_seconds": round(time.monotonic() - self._start, 1),
            # The main process; data-loader workers come on top. Linux counts in KiB.
            "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        }
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            self._fields["peak_gpu_memory_mb"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
        write_json(self._path, self._fields)


def write_results(output_dir: str, results: Mapping[str, Any]) -> dict[str, float | None]:
    """Flatten Detectron2's nested results into `results.json`.

    Args:
        results: {"bbox": {"AP": ...}}, or {data set: {"bbox": ...}} for several test sets; percent
    Returns:
        {"bbox/AP": ..., "segm/AP50": ...}; None stands for a figure that does not exist (NaN: no
        ground truth of that class or size)
    """
    flat = flatten_results(results)
    write_json(os.path.join(output_dir, "results.json"), flat)
    return flat


def flatten_results(results: Mapping[str, Any], prefix: str = "") -> dict[str, float | None]:
    """Nested mappings to one level, keys joined by "/"; NaN and infinity become None."""
    flat: dict[str, float | None] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            flat |= flatten_results(value, f"{prefix}{key}/")
        else:
            flat[f"{prefix}{key}"] = float(value) if math.isfinite(value) else None
    return flat


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not an installed package"
    return found


def _commit() -> str | None:
    """Git commit of the checkout that this code runs from, "+changes" if it differs from it."""
    folder = Path(__file__).resolve().parent
    try:
        here = ["git", "-C", str(folder)]
        inside = subprocess.run(
            [*here, "ls-files", "--error-unmatch", __file__],
            capture_output=True,
            text=True,
            timeout=10,
        )
        if inside.returncode:
            return None  # installed somewhere below another project's checkout
        commit = subprocess.run(
            [*here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
        dirty = subprocess.run(
            [*here, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return f"cpu ({os.cpu_count()} cores)"
