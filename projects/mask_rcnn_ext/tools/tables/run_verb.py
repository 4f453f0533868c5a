"""
Run what rows of the paper take, and keep a record of each stage for `tables report`.

Stages that rows share run once. A stage whose record is of the same config, data and code is kept;
one that was stopped goes on where it was; one that fails does not stop the others. Ctrl-C lets all
that runs save its state; the same command goes on.

  mask-rcnn-ext tables run --table 2c --data scenes
  mask-rcnn-ext tables run --table 2b 2c --row sigmoid roialign-ave --data scenes --seeds 3
  mask-rcnn-ext tables run --table 2c --dry-run
  mask-rcnn-ext tables run --table all --launcher submitit --partition gpu --gpus-per-node 8
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from ...errors import UsageError, UserError
from ..bench import positive
from .options import OUT, add_data, add_rows, add_tables

HELP = "run what rows take, finished stages kept; broken ones go on"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tables(parser, required=True)
    add_rows(parser, " (default: all)")
    parser.add_argument(
        "--seeds", type=positive, default=1, metavar="N", help="1 to N (default: 1)"
    )
    add_data(parser)
    parser.add_argument(
        "--jobs",
        type=positive,
        metavar="N",
        help="stages at once (default: scenes on a CPU: a core each; a cluster: all; else 1)",
    )
    parser.add_argument(
        "--num-gpus",
        type=positive,
        metavar="N",
        help="of a stage on COCO (default: those there are, shared out among --jobs)",
    )
    parser.add_argument(
        "--accumulate",
        type=positive,
        default=1,
        metavar="N",
        help="compute the images of a training step in N parts, where memory is too short for "
        "all (SOLVER.ACCUMULATION_STEPS; default: 1)",
    )
    parser.add_argument(
        "--float32",
        action="store_true",
        help="no half precision in the stages on scenes, which a CPU without bfloat16 (AVX-512 "
        "BF16 or AMX) is slow at",
    )
    parser.add_argument(
        "--out", type=Path, default=OUT, metavar="DIR", help="of all runs (default: %(default)s)"
    )
    parser.add_argument(
        "--records", type=Path, metavar="DIR", help="of the records (default: records in --out)"
    )
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="stand-ins for data and schedule (configs/paper/smoke.yaml), to see that all stages "
        "go through; records are marked so and kept apart",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the stages and commands, run nothing"
    )
    parser.add_argument(
        "--wait", action="store_true", help="for another tables run in --out (default: refuse)"
    )
    cluster = parser.add_argument_group("cluster")
    cluster.add_argument(
        "--launcher",
        choices=("local", "submitit"),
        default="local",
        help="submitit: each stage is a job of SLURM, and this command waits (default: local)",
    )
    cluster.add_argument("--partition", help="(default: the cluster's)")
    cluster.add_argument(
        "--gpus-per-node", type=int, default=1, metavar="G", help="of a job; 0: CPUs (default: 1)"
    )
    cluster.add_argument(
        "--hours", type=float, default=24, metavar="H", help="before it requeues (default: 24)"
    )


def run(args: argparse.Namespace) -> int:
    """Run what is missing.

    Returns:
        0 if all went well, 1 if a stage failed
    Raises:
        UsageError: an unknown row, nothing to run, data or weights that are not there
        UserError: another `tables run` in the folder, no place for records
        Interrupted: stopped on request
    """
    from ...config import require_detectron2

    require_detectron2()
    from ...paper.lock import FolderLock
    from .lacking import Looking
    from .run_request import chosen_rows, missing_of, plan_of, plan_text, setting_of, targets_of
    from .run_work import run_jobs

    if args.gpus_per_node < 0 or args.hours <= 0:
        raise UsageError(
            f"--gpus-per-node {args.gpus_per_node} --hours {args.hours:g}: numbers above 0 were "
            "expected (GPUs: 0 or more)"
        )
    setting = setting_of(args)
    looking = Looking(setting.paper)
    targets = targets_of(setting, chosen_rows(args, setting, looking))
    missing = missing_of(setting, looking, targets)
    if args.dry_run:
        jobs = plan_of(setting, targets, args.seeds, must_be_there=not missing)
        print(plan_text(setting, jobs), flush=True)
    if missing:
        raise UsageError(missing)
    if args.dry_run:
        return 0
    _make(setting.place.records)
    with FolderLock(args.out, wait=args.wait) as lock:
        return run_jobs(args, setting, plan_of(setting, targets, args.seeds), lock.descriptor)


def _make(records: Path) -> None:
    """Before stages run for hours whose records could not be kept.

    Raises:
        UserError: the folder cannot be made, or nothing be written into it
    """
    try:
        records.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=records):
            pass
    except OSError as error:
        raise UserError(f"cannot keep records in {records}: {error.strerror}") from error
