"""The main job on real COCO images: what README shows, and the proof that it learns."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _run(words: list[str], datasets: Path, timeout: float) -> None:
    result = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=os.environ | {"DETECTRON2_DATASETS": str(datasets)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]


def test_the_command_of_the_readme(coco_images, tmp_path):
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    command = re.search(r"^DETECTRON2_DATASETS=\S+ python (train_net\.py .*)$", text, re.MULTILINE)
    assert command, "README has lost its command for real images"
    words = shlex.split(command[1])
    words[words.index("OUTPUT_DIR") + 1] = str(tmp_path)
    _run(words, coco_images, timeout=280)
    results = json.loads((tmp_path / "results.json").read_text())
    assert 0 <= results["segm/AP"] <= 100
    assert json.loads((tmp_path / "run.json").read_text())["state"] == "finished"
    assert (tmp_path / "samples.png").stat().st_size > 100_000


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_four_real_images_are_learned_by_heart(coco_images, tmp_path):
    config = "configs/COCO-InstanceSegmentation/mask_rcnn_R_18_FPN_overfit_4.yaml"
    words = ["train_net.py", "--config-file", config, "OUTPUT_DIR", str(tmp_path), "SEED", "1"]
    words += ["MODEL.DEVICE", "cpu"]
    _run(words, coco_images, timeout=1700)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["segm/AP"] >= 50
