"""A small model, a batch and a step that fails, for the tests of the black box and its replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.black_box import BlackBox, Failure
from mask_rcnn_ext.engine.rng import rng_state
from mask_rcnn_ext.modeling.sampling import draws

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
SIDE, SEED, ITERATION, POSITIONS = 64, 5, 1234, [2, 3]


def config(*overrides: Any) -> Any:
    return load_config(CONFIG, ["MODEL.DEVICE", "cpu", *map(str, overrides)])


def batch_of(images: int = 2, objects: int = 3) -> list[dict[str, Any]]:
    """Noise with boxes, each filled by its mask."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for number in range(images):
        corner = torch.rand(objects, 2, generator=generator) * SIDE / 2
        size = 8 + torch.rand(objects, 2, generator=generator) * (SIDE / 2 - 8)
        boxes = torch.cat([corner, corner + size], dim=1)
        masks = torch.zeros(objects, SIDE, SIDE, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y0:y1, x0:x1] = True
        instances = Instances((SIDE, SIDE))
        instances.gt_boxes = Boxes(boxes)
        instances.gt_classes = torch.arange(objects) % 3
        instances.gt_masks = BitMasks(masks)
        pixels = torch.randint(0, 256, (3, SIDE, SIDE), generator=generator, dtype=torch.uint8)
        batch.append(
            {
                "image": pixels,
                "instances": instances,
                "image_id": 40 + number,
                "file_name": f"val/{number}.jpg",
                "height": SIDE,
                "width": SIDE,
            }
        )
    return batch


def fail(
    folder: Path,
    *,
    overrides: tuple[Any, ...] = (),
    batch: list[dict[str, Any]] | None = None,
    harm: Callable[[nn.Module], None] = lambda model: None,
    kind: str = "loss",
    box: dict[str, Any] | None = None,
) -> tuple[BlackBox, Path, dict[str, float]]:
    """Train one step on a model that was harmed and record it; the losses it had.

    Random numbers are drawn before the step, so that its random state is no fresh one.
    """
    cfg = config(*overrides)
    torch.manual_seed(3)
    model = build_model(cfg).train()
    with torch.no_grad():
        harm(model)
    batch = batch_of() if batch is None else batch
    black_box = BlackBox(
        folder,
        model,
        **{"config": cfg.dump(), "seed": SEED, "class_names": ["a", "b"], **(box or {})},
    )
    torch.rand(7)
    rng = rng_state()
    losses: dict[str, float] = {}
    error: BaseException | None = None
    try:
        with EventStorage(ITERATION), draws(SEED, ITERATION, POSITIONS[: len(batch)]):
            found = model(batch)
        losses = {name: float(loss.detach()) for name, loss in found.items()}
        sum(found.values()).backward()
    except (FloatingPointError, AssertionError, ValueError) as raised:
        error = raised
    norms = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    failure = Failure(
        kind, ITERATION, batch, losses, norms, [0.01, 0.01], rng, POSITIONS[: len(batch)], error
    )
    return black_box, black_box.record(failure), losses
