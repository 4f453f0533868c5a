"""Small models with random weights, in files, for tests of what uses a trained one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model

from mask_rcnn_ext import load_config

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
CLASSES = [f"shape {letter}" for letter in "abcdefghi"]


def save_tiny_model(
    folder: Path,
    overrides: Sequence[Any] = (),
    *,
    config: str = CONFIG,
    class_names: Sequence[str] | None = CLASSES,
) -> tuple[str, str]:
    """Write config.yaml and model.pth; their paths.

    Scores of all nine classes are about a tenth: with a threshold of 0.05 it detects much.
    """
    torch.manual_seed(1)
    cfg = load_config(config, ["MODEL.DEVICE", "cpu", *map(str, overrides)])
    model = build_model(cfg)
    weights = folder / "model.pth"
    content: dict[str, Any] = {"model": model.state_dict()}
    if class_names is not None:
        content["class_names"] = list(class_names)
    torch.save(content, weights)
    path = folder / "config.yaml"
    path.write_text(cfg.dump())
    return str(path), str(weights)
