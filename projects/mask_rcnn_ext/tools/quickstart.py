"""Generate scenes, train Mask R-CNN on them, evaluate on held-out ones, draw pictures.

Ends with the AP table beside the expected figure. Runs on a GPU where there is one, else on the
CPU. An interrupted quick start goes on where it stopped; a finished one shows its table again.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..errors import UsageError, UserError

HELP = "generated scenes, training, evaluation and pictures in about ten minutes"
CONFIG = "configs/quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
TRAIN_IMAGES, VAL_IMAGES, IMAGE_SIZE, SCENES_SEED = 2000, 200, 128, 1
# Mean over seeds 1, 2, 3 on 2 CPU cores, docs/performance.md has
# each; a run further below than the tolerance is a failure.
EXPECTED = {"segm/AP": 50.1, "segm/AP50": 74.2, "bbox/AP": 58.3}
TOLERANCE = 4.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("output/quickstart"), help="folder (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the training (default: 1)")
    parser.add_argument(
        "--force", action="store_true", help="delete the folder's earlier quick start first"
    )
    parser.add_argument(
        "opts", nargs="*", metavar="KEY VALUE", help="config overrides, for other settings"
    )


def run(args: argparse.Namespace) -> int:
    from ..data.scenes import generate_splits

    out: Path = args.out
    if args.force and (out / "run.json").exists():
        shutil.rmtree(out)
    splits = {"train": TRAIN_IMAGES, "val": VAL_IMAGES}
    generate_splits(out / "data" / "scenes", splits, IMAGE_SIZE, SCENES_SEED)

    words = ["--config-file", CONFIG, "--resume", "OUTPUT_DIR", str(out)]
    words += [*_device_overrides(), "SEED", str(args.seed), *args.opts]
    record = _read(out / "run.json")
    if record and record.get("overrides") != words[3:]:
        raise UsageError(
            f"{out} holds a quick start of other settings "
            f"({shlex.join(record.get('overrides', []))}); "
            "--force deletes it, --out chooses another folder"
        )
    if record.get("state") == "finished":
        print(f"{out} holds a finished quick start of the same settings; --force trains anew.")
    else:
        code = _train(words, out / "data")
        if code:
            return code
    return _summarise(out)


def _train(words: list[str], data: Path) -> int:
    """Run `mask-rcnn-ext train` as a user would; returns its exit code."""
    # A thread that waits for the other one soon gives its core away instead of spinning, which
    # would make a step several times slower when anything else runs on one of two cores.
    settings = {"DETECTRON2_DATASETS": str(data), "GOMP_SPINCOUNT": "30000"}
    shown = " ".join(f"{key}={shlex.quote(value)}" for key, value in settings.items())
    print(f"Training: {shown} mask-rcnn-ext train {shlex.join(words)}", flush=True)
    # Ctrl-C reaches both processes; the child saves its state and says so, we only wait for it.
    previous = signal.signal(signal.SIGINT, lambda signum, frame: None)
    try:
        command = [sys.executable, "-m", "mask_rcnn_ext.tools", "train", *words]
        return subprocess.run(command, env=os.environ | settings, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, previous)


def _device_overrides() -> list[str]:
    import torch

    return ["MODEL.DEVICE", "cuda" if torch.cuda.is_available() else "cpu"]


def _summarise(out: Path) -> int:
    results, record = _read(out / "results.json"), _read(out / "run.json")
    if not results:
        raise UserError(f"{out}/results.json is missing or empty; run again with --force")
    print(f"\n{'':10}{'measured':>10}{'expected':>10}")
    for metric in ("segm/AP", "segm/AP50", "segm/AP75", "bbox/AP", "bbox/AP50"):
        expected = f"{EXPECTED[metric]:10.1f}" if metric in EXPECTED else ""
        print(f"{metric:10}{results[metric]:10.1f}{expected}")
    print(
        f"\n{record['wall_seconds'] / 60:.1f} minutes on {record['device']}, "
        f"peak memory {record['peak_memory_mb'] / 1024:.1f} GiB, seed {record['seed']}.\n"
        f"Pictures, ground truth beside prediction: {out}/samples.png\n"
        f"Weights: {out}/model_final.pth   Figures: {out}/results.json"
    )
    if results["segm/AP"] < EXPECTED["segm/AP"] - TOLERANCE:
        print(
            f"segm/AP is more than {TOLERANCE:g} below the expected figure: something is wrong "
            "with this installation, or the overrides changed the recipe.",
            file=sys.stderr,
        )
        return 1
    return 0


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return {}
