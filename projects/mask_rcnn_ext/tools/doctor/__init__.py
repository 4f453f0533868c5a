"""Check the environment: one line a check, and for a problem the command that mends it.

Looks at Python, torch with torchvision, Detectron2, the other libraries, the GPU, disk, shared
memory, cores, memory and data sets. It runs where torch or Detectron2 are missing or broken, too.
Exit code: 0 nothing stops a run (notes and warnings there may be), 1 problems, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable
from pathlib import Path

from ..json_file import write_json_file
from . import data, detectron2, gpu, libraries, machine
from .findings import LEVELS, OK, PROBLEM, WARNING, Finding
from .probe import Probe, probe

HELP = "check the environment, and say what mends it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gpu", action="store_true", help="try the GPU; that there is none is a problem"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("output"),
        metavar="FOLDER",
        help="where runs will write: its disk is checked (default: %(default)s)",
    )
    parser.add_argument("--json", metavar="FILE", help="write the findings there, for programs")


def run(args: argparse.Namespace) -> int:
    """Print the findings; 1 if there is a problem among them."""
    found = []
    for check in _checks(args):
        for finding in check():
            print(finding.as_text(), flush=True)
            found.append(finding)
    counts = {level: sum(one.level == level for one in found) for level in LEVELS}
    print(f"\n{counts[PROBLEM]} problems, {counts[WARNING]} warnings, {counts[OK]} checks are fine")
    if args.json:
        findings = [one.as_json() for one in found]
        write_json_file(args.json, {"counts": counts, "findings": findings})
    return 1 if counts[PROBLEM] else 0


def main(words: list[str], program: str) -> int:
    """Parse and run without the other verbs, whose libraries may be what is broken.

    Args:
        words: the command line after the verb
        program: for the usage line
    """
    parser = argparse.ArgumentParser(
        prog=program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    return run(parser.parse_args(words))


def _checks(args: argparse.Namespace) -> list[Callable[[], list[Finding]]]:
    """In order; those of torch share one probe, made when the first of them asks."""

    @functools.cache
    def torch() -> Probe:
        return gpu.run_on_gpu() if args.gpu else probe(libraries.TORCH_SCRIPT)

    return [
        lambda: [libraries.check_python()],
        lambda: libraries.check_torch(torch()),
        lambda: gpu.check_gpu(torch(), wanted=args.gpu),
        detectron2.check_detectron2,
        libraries.check_requirements,
        libraries.check_modules,
        libraries.check_opencv,
        lambda: [machine.check_cores(torch().said.get("threads"))],
        lambda: [machine.check_memory()],
        lambda: machine.check_disk(args.out),
        lambda: [machine.check_shared_memory()],
        lambda: [machine.check_open_files()],
        lambda: [data.check_data_sets()],
        lambda: [data.check_cache()],
    ]
