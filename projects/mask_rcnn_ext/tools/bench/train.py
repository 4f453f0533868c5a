"""Training, images a second: ours beside Detectron2, blocks of iterations in turns.

Ours is what the trainer is made of: its loader and mapper, its model, its step, its optimizer.
Stock has the same weights to begin with in Detectron2's own parts: `build_detection_train_loader`
with `DatasetMapper`, `SimpleTrainer` (`AMPTrainer` with SOLVER.AMP on a GPU), the same optimizer in
its usual, not fused form. Both train on the same data set in one process, a block of ours, a block
of stock's and so on; each sees its own order of images, as each has its own loader.

Before that both models get one batch, with the same random numbers: their losses must be alike.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_train_loader
from detectron2.engine import AMPTrainer, SimpleTrainer
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage

from ...data.registration import DATASETS_ENV
from ...data.scenes import generate_splits
from ...engine.checkpoint import Checkpointer
from ...engine.optimizer import build_optimizer
from ...engine.precision import training_dtype
from ...engine.step import build_step
from ...engine.trainer import Trainer
from ...modeling.speed import to_channels_last, wants_channels_last
from .infer import settle_frozen_norms
from .stock import stock_config
from .timing import Spread, clock, environment, megabytes, peak_memory, say, table

_SEED = 1
_SCENES, _SCENES_SIDE = 200, 128


@dataclass
class Side:
    """One of the two, and what it took.

    seconds: one value a block
    losses: total loss of the last iteration of each block
    memory: peak bytes of one iteration beyond weights, gradients and optimizer state
    """

    step: SimpleTrainer
    storage: EventStorage = field(default_factory=lambda: EventStorage(0))
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    memory: float | None = None

    def run(self, iterations: int) -> None:
        """Train for so many iterations."""
        with self.storage:
            for _ in range(iterations):
                self.step.iter = self.storage.iter
                self.step.run_step()
                self.storage.step()

    def total_loss(self) -> float:
        """The newest one that the step has written."""
        if hasattr(self.step, "flush"):
            with self.storage:
                self.step.flush()
        return float(self.storage.history("total_loss").latest())


@dataclass
class Result:
    """All that was measured.

    first_losses: name -> (ours, stock), of the same batch and weights
    """

    ours: Side
    stock: Side
    first_losses: dict[str, tuple[float, float]]
    facts: dict[str, Any]

    @property
    def ratio(self) -> Spread:
        """Stock's time over ours, block by block; above 1 ours is faster."""
        pairs = zip(self.stock.seconds, self.ours.seconds, strict=True)
        return Spread.of([stock / ours for stock, ours in pairs])

    @property
    def loss_difference(self) -> float:
        """The largest one of `first_losses`."""
        return max(abs(ours - stock) for ours, stock in self.first_losses.values())

    def images_per_second(self, side: Side) -> Spread:
        images = self.facts["iterations"] * self.facts["batch"]
        return Spread.of([images / seconds for seconds in side.seconds])

    def as_json(self) -> dict[str, Any]:
        sides = {
            name: {
                "seconds": side.seconds,
                "images_per_second": self.images_per_second(side).as_json(),
                "losses": side.losses,
                "peak_bytes": side.memory,
            }
            for name, side in (("ours", self.ours), ("stock", self.stock))
        }
        return {
            **self.facts,
            **sides,
            "first_losses": self.first_losses,
            "ratio": self.ratio.as_json(),
        }


def run_train(cfg: CfgNode, iterations: int, repeats: int) -> Result:
    """
    Args:
        cfg: of ours, frozen; its data set is there (see `scenes_for`), its MODEL.WEIGHTS are used
            if there are any
        iterations: of a block
        repeats: timed blocks of each, after one that warms up
    Raises:
        UserError: a config that Detectron2 cannot build, a data set that is not there
    """
    stock_cfg = stock_config(cfg)
    seed_all_rng(_SEED)
    model = Trainer.build_model(cfg)
    keys = cfg.MODEL
    if wants_channels_last(keys.CHANNELS_LAST, keys.DEVICE, half=cfg.SOLVER.AMP.ENABLED):
        to_channels_last(model)
    stock_model = build_model(stock_cfg)
    # A loader of Detectron2 v0.6 serves one iterator only: a batch half made stays in it.
    batch = next(iter(build_detection_train_loader(stock_cfg)))
    if cfg.MODEL.WEIGHTS:
        Checkpointer(model, save_dir="").load(cfg.MODEL.WEIGHTS)
    else:
        settle_frozen_norms(model, batch)
    stock_model.load_state_dict(model.state_dict())
    model.train()
    stock_model.train()
    first = _first_losses(model, stock_model, batch)

    loader = Trainer.build_train_loader(cfg)
    optimizer = Trainer.build_optimizer(cfg, model)
    sides = (
        Side(build_step(cfg, model, loader, optimizer)),
        Side(_stock_step(stock_cfg, stock_model, build_detection_train_loader(stock_cfg))),
    )
    device = next(model.parameters()).device
    for repeat in range(-1, repeats):
        say("warming up" if repeat < 0 else f"block {repeat + 1} of {repeats}")
        for side in sides:
            seconds, _ = clock(_block(side, iterations), device)
            if repeat >= 0:
                side.seconds.append(seconds)
                side.losses.append(side.total_loss())
    for side in sides:
        side.memory = peak_memory(_block(side, 1), device)
    amp = cfg.SOLVER.AMP.ENABLED and device.type == "cuda"
    facts = {
        **environment(device),
        "iterations": iterations,
        "repeats": repeats,
        "batch": cfg.SOLVER.IMS_PER_BATCH,
        "train_set": list(cfg.DATASETS.TRAIN),
        "workers": cfg.DATALOADER.NUM_WORKERS,
        "precision": str(training_dtype(cfg, device) or torch.float32).removeprefix("torch."),
        "stock_precision": "float16" if amp else "float32",
    }
    return Result(*sides, first, facts)


def _block(side: Side, iterations: int) -> Callable[[], None]:
    return lambda: side.run(iterations)


def _stock_step(cfg: CfgNode, model: torch.nn.Module, loader: Any) -> SimpleTrainer:
    plain = cfg.clone()
    plain.defrost()
    plain.SOLVER.FUSED = False
    # Detectron2's mixed precision is CUDA's; on a CPU it has none.
    amp = cfg.SOLVER.AMP.ENABLED and torch.device(cfg.MODEL.DEVICE).type == "cuda"
    step: SimpleTrainer = (AMPTrainer if amp else SimpleTrainer)(
        model, loader, build_optimizer(plain, model)
    )
    return step


def _first_losses(
    ours: torch.nn.Module, stock: torch.nn.Module, batch: list[dict[str, Any]]
) -> dict[str, tuple[float, float]]:
    """Losses of both models in float32; the same images, the same random numbers."""
    found = []
    for model in (ours, stock):
        seed_all_rng(_SEED)
        with EventStorage(0):
            losses = model(batch)
        found.append({name: float(loss.detach()) for name, loss in losses.items()})
    return {name: (found[0][name], found[1][name]) for name in found[1]}


@contextmanager
def scenes_for() -> Iterator[Path]:
    """Generated scenes as the data sets `scenes_train` and `scenes_val`, gone afterwards."""
    before = os.environ.get(DATASETS_ENV)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate_splits(
            root / "scenes",
            {"train": _SCENES, "val": 1},
            _SCENES_SIDE,
            _SEED,
            workers=1,
            progress=False,
        )
        os.environ[DATASETS_ENV] = folder
        try:
            yield root
        finally:
            os.environ.pop(DATASETS_ENV)
            if before is not None:
                os.environ[DATASETS_ENV] = before


def as_text(result: Result) -> str:
    """The table, and what one must know to read it."""
    facts = result.facts
    header = ["whose", "images/s", "ms an iteration", "stock / ours", "peak MB", "last loss"]
    rows = []
    for whose, side in (("ours", result.ours), ("stock", result.stock)):
        each = Spread.of([seconds / facts["iterations"] for seconds in side.seconds])
        rows.append(
            [
                whose,
                result.images_per_second(side).text(1, 2),
                each.text(1e3),
                result.ratio.text(1, 2) if whose == "ours" else "",
                megabytes(side.memory),
                f"{side.losses[-1]:.3f}",
            ]
        )
    return "\n".join(
        [
            f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; "
            f"{', '.join(facts['train_set'])}, {facts['batch']} images an iteration, "
            f"{facts['workers']} loader processes",
            f"{facts['repeats']} blocks of {facts['iterations']} iterations each, in turns; ours "
            f"in {facts['precision']}, stock in {facts['stock_precision']}",
            table(header, rows),
            f"same weights, same batch: losses differ by {result.loss_difference:.1e} at most, in "
            "float32",
            "Medians (quartiles); the ratio is taken block by block. Peak: memory of an iteration "
            "beyond weights, gradients and optimizer state.",
        ]
    )
