"""What a run leaves for later readers: `run.json` (how it was made), `results.json` (figures)."""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import resource
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..files import write_json
from .provenance import UNHASHED_KEYS, code_version, config_hash, versions

# Of the environment, what decides on threads, devices and data.
_ENVIRONMENT = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_VISIBLE_DEVICES",
    "DETECTRON2_DATASETS",
    "GOMP_SPINCOUNT",
    "MKL_NUM_THREADS",
    "NVIDIA_TF32_OVERRIDE",
    "OMP_NUM_THREADS",
    "PYTHONHASHSEED",
)
# Of a start, what the list of starts repeats.
_OF_A_START = ("command", "commit", "changes", "config_hash", "device", "threads", "processes")


class RunRecord:
    """Collects what `run.json` holds; written at the start, on request, and at the end.

    The top level describes the latest start, `starts` all of them, resumed ones included;
    wall_seconds is their sum and the peak memories are their maxima.
    """

    def __init__(
        self,
        cfg: CfgNode,
        args: argparse.Namespace,
        fingerprints: dict[str, str],
        resumed_from: int | None = None,
    ):
        """
        Args:
            args: of `argument_parser()`
            fingerprints: data set name -> fingerprint of its annotation file
            resumed_from: iteration of the checkpoint that this start goes on from, if it does and
                if it is known yet; see `resume`
        """
        self._path = Path(cfg.OUTPUT_DIR) / "run.json"
        self._clock = time.monotonic()
        goes_on = args.resume or args.eval_only or resumed_from is not None
        before = _starts_of(self._path, keep=goes_on)
        fields: dict[str, Any] = {
            "state": "running",
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "config_file": args.config_file,
            "overrides": list(args.opts),
            "resumed": args.resume,
            **code_version(),
            "config_hash": config_hash(cfg),
            "config_hash_leaves_out": list(UNHASHED_KEYS),
            "versions": versions(),
            "seed": cfg.SEED,
            "device": _device_name(cfg.MODEL.DEVICE),
            "threads": torch.get_num_threads(),
            "processes": comm.get_world_size(),
            "machines": _machines(args),
            "precision": {"training": _training_precision(cfg), "test": cfg.TEST.PRECISION},
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "environment": {key: os.environ[key] for key in _ENVIRONMENT if key in os.environ},
            "datasets": fingerprints,
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        self._start: dict[str, Any] = {
            "kind": "evaluation" if args.eval_only else "training",
            "started": fields["started"],
            "iteration": resumed_from or 0,
            "state": "running",
            **{key: fields[key] for key in _OF_A_START},
        }
        self._fields = {**fields, "starts": [*before, self._start]}
        self._write()

    def resume(self, iteration: int) -> None:
        """Note where this start begins, once that is known, and write the record.

        Args:
            iteration: the first that it does, counted from 0
        """
        self._start["iteration"] = iteration
        self.reach(iteration)

    def reach(self, iteration: int) -> None:
        """Note how far the run is, and write the record: what a kill leaves then is right so far.

        Args:
            iteration: steps done
        """
        self._start["reached"] = iteration
        self._measure()
        self._write()

    def finish(self, state: str, reason: str = "") -> None:
        """Write the record again.

        Args:
            state: finished, stopped or failed
            reason: why, if there is more to say: the first line of an error, the signal
        """
        self._fields["state"] = self._start["state"] = state
        if reason:
            self._start["reason"] = reason
        self._measure()
        self._write()

    def _measure(self) -> None:
        self._start["wall_seconds"] = round(time.monotonic() - self._clock, 1)
        # The main process; data-loader workers come on top. Linux counts in KiB.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        self._start["peak_memory_mb"] = round(peak, 1)
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            peak = torch.cuda.max_memory_allocated() / 2**20
            self._start["peak_gpu_memory_mb"] = round(peak, 1)
        starts = self._fields["starts"]
        for key, over_starts in (
            ("wall_seconds", sum),
            ("peak_memory_mb", max),
            ("peak_gpu_memory_mb", max),
        ):
            values = [start[key] for start in starts if key in start]
            if values:
                self._fields[key] = round(over_starts(values), 1)

    def _write(self) -> None:
        write_json(self._path, self._fields)


def _starts_of(path: Path, *, keep: bool) -> list[dict[str, Any]]:
    """The starts that an earlier record lists; one that never ended is marked so."""
    if not path.exists():
        return []
    try:
        earlier = json.loads(path.read_text())
        starts = earlier.get("starts", [])
        # A file of before there was such a list describes one start itself.
        starts = [dict(start) for start in starts or [_only_start(earlier)]]
    except (OSError, ValueError, AttributeError, TypeError) as error:
        aside = path.with_name("run.broken.json")
        os.replace(path, aside)
        logging.getLogger("mask_rcnn_ext").warning(
            "%s cannot be read (%s); it is now %s, and the record begins anew", path, error, aside
        )
        return []
    for start in starts:
        if start.get("state") == "running":
            start["state"] = "killed"  # nobody could write its end
    return starts if keep else []


def _only_start(record: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("started", "state", "wall_seconds", "peak_memory_mb", "peak_gpu_memory_mb")
    start = {key: record[key] for key in (*_OF_A_START, *kept) if key in record}
    return {"kind": "training", **start}


def _machines(args: argparse.Namespace) -> int:
    # torchrun says how many of its processes run here; Detectron2's launcher has the option.
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "0"))
    by_torchrun = comm.get_world_size() // here if here else 1
    return max(by_torchrun, getattr(args, "num_machines", 1))


def _training_precision(cfg: CfgNode) -> str:
    amp = cfg.SOLVER.AMP
    return f"mixed, {amp.PRECISION}" if amp.ENABLED else "float32"


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


def _device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    return f"cpu ({os.cpu_count()} cores)"
