"""`mask-rcnn-ext replay`: do a training step again that failed, from its black box.

  mask-rcnn-ext replay output/black_box/iteration_0001234

prints the losses beside those recorded, and names the first layer whose output is not finite. On a
CPU the losses are the recorded ones bit for bit. Nothing in the folder is executed.
Exit code: 0 the step gave what was recorded, 1 it did not or cannot be read, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from .json_file import write_json_file

if TYPE_CHECKING:
    from ..engine.replay import Replayed

HELP = "do a failed training step again, from its black box"
_SHOWN = 5  # gradients


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="OUTPUT_DIR/black_box/iteration_...")
    parser.add_argument("--device", metavar="D", help="cpu, cuda, cuda:1 (default: the step's)")
    parser.add_argument(
        "--anomaly",
        action="store_true",
        help="let autograd name the operation whose gradient is NaN first; slow",
    )
    parser.add_argument("--json", metavar="FILE", help="write the result there, for programs")


def run(args: argparse.Namespace) -> int:
    """Replay and print; 0 if the step gave the recorded losses."""
    from ..config import require_detectron2

    require_detectron2()
    from ..engine.replay import replay

    done = replay(args.folder, device=args.device, anomaly=args.anomaly)
    print(as_text(done))
    if args.json:
        write_json_file(args.json, as_json(done))
    return 1 if done.agreement == "different" and not done.report.get("processes", 1) > 1 else 0


def as_text(done: Replayed) -> str:
    """For people."""
    report = done.report
    lines = [f"iteration {report['iteration']}, {report['kind']}, on {done.device}"]
    lines += [f"Likely cause: {cause['text']}" for cause in report.get("causes", [])[:1]]
    lines += ["", f"{'':24}{'recorded':>16}{'now':>16}"]
    recorded = done.recorded
    for name in dict.fromkeys([*recorded, *done.losses]):
        was, now = recorded.get(name), done.losses.get(name)
        lines.append(f"{name:24}{_shown(was):>16}{_shown(now):>16}")
    lines.append(f"Losses: {done.agreement}.")
    if report.get("processes", 1) > 1:
        lines.append(
            f"The step was one of {report['processes']} processes, which share the counts that "
            "losses are divided by; here it is alone, so the losses may differ by such a factor."
        )
    if done.error:
        lines += ["", f"The step raised {done.error}"]
    lines += ["", f"First value that is not finite: {done.first or 'none, all are finite'}"]
    largest = sorted(done.gradient_norms.items(), key=lambda item: _rank(item[1]))[:_SHOWN]
    lines += ["Largest gradients:"] * bool(largest)
    lines += [f"  {name:60} {norm:.6g}" for name, norm in largest]
    return "\n".join(lines)


def as_json(done: Replayed) -> dict[str, Any]:
    """For programs; what is not finite is a string, "nan" or "inf"."""
    from ..engine.black_box_report import number

    return {
        "iteration": done.report["iteration"],
        "kind": done.report["kind"],
        "device": done.device,
        "recorded": {name: number(value) for name, value in done.recorded.items()},
        "losses": {name: number(value) for name, value in done.losses.items()},
        "gradient_norms": {name: number(value) for name, value in done.gradient_norms.items()},
        "agreement": done.agreement,
        "first_not_finite": done.first or None,
        "error": done.error or None,
        "causes": done.report.get("causes", []),
    }


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.8g}"


def _rank(norm: float) -> tuple[bool, float]:
    return math.isfinite(norm), -norm if math.isfinite(norm) else 0.0
