"""The training losses on test images: without gradients, augmentations or any trace in the model.

Each image is a batch of its own, so that the mean over images does not depend on batches or on the
number of processes. Which anchors and proposals count for the losses is drawn from a fixed seed and
the image's id: two evaluations of one model give the same values, and those of two checkpoints
differ by the checkpoints alone.
"""

from __future__ import annotations

import contextlib
import logging
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, build_detection_test_loader
from detectron2.data import transforms as T
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ..data.augmentations.build import build_augmentations
from ..data.mappers import build_mapper
from ..data.mappers.forgiving import FAILED, ForgivingMapper
from ..data.run_records import select_records
from ..errors import UsageError
from ..modeling.sampling import draws
from .rng import rng_state, set_rng_state

_SEED = 0


def validation_losses(
    model: nn.Module, batches: Iterable[Sequence[dict[str, Any]]], seed: int = _SEED
) -> dict[str, float]:
    """Mean losses over images; all processes must call it, each with its part of the images.

    Args:
        model: one that returns a dict of losses in training mode; its mode, its statistics and all
            random numbers are afterwards as before
        batches: of samples with "image" and "instances"; one with the key "failed" is left out
        seed: of the drawing of anchors and proposals
    Returns:
        each loss by name, and "total_loss", their sum, in all processes; {} without any image
    """
    plain = model.module if isinstance(model, DistributedDataParallel) else model
    sums: dict[str, float] = {}
    images = 0
    with contextlib.ExitStack() as stack:
        stack.enter_context(_losses_only(plain))
        stack.enter_context(_same_random_numbers(seed))
        stack.enter_context(torch.no_grad())
        # Models tell the current storage of a training's figures; those of here are not its.
        stack.enter_context(EventStorage(1))
        for sample in (sample for batch in batches for sample in batch if FAILED not in sample):
            place = zlib.crc32(str(sample.get("image_id", images)).encode())
            with draws(seed, 0, [place]):
                losses = plain([sample])
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            images += 1
    return _mean_of_all(sums, images)


class ValidationLoss:
    """`validation_losses` on each set of DATASETS.TEST that has annotations."""

    def __init__(self, cfg: CfgNode):
        """
        Args:
            cfg: reads DATASETS, INPUT, MODEL and DATALOADER.NUM_WORKERS
        Raises:
            UsageError: the mapper's augmentations cannot be replaced
        """
        self._names = list(cfg.DATASETS.TEST)
        self._loaders = {name: _build_loader(cfg, name) for name in self._names}
        for name, loader in self._loaders.items():
            if loader is None:
                logging.getLogger(__name__).warning(
                    "No validation loss on %s: none of its images has an annotation", name
                )

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """
        Returns:
            "validation/<loss>", with several test sets "validation/<set>/<loss>"
        """
        figures: dict[str, float] = {}
        for name, loader in self._loaders.items():
            prefix = f"validation/{name}/" if len(self._names) > 1 else "validation/"
            losses = validation_losses(model, loader) if loader is not None else {}
            figures |= {prefix + key: value for key, value in losses.items()}
        return figures


def _build_loader(cfg: CfgNode, name: str) -> Any:
    """One image a batch, resized as in evaluation, with annotations; None if there are none."""
    files = cfg.DATASETS.PROPOSAL_FILES_TEST if cfg.MODEL.LOAD_PROPOSALS else None
    place = list(cfg.DATASETS.TEST).index(name)
    records = select_records([name], proposal_files=[files[place]] if files else None)
    if not any(record.get("annotations") for record in records):
        return None
    mapper = build_mapper(cfg, is_train=True)
    if not isinstance(mapper, DatasetMapper):
        raise UsageError(
            f"TEST.VALIDATION_LOSS needs a mapper that derives from Detectron2's DatasetMapper; "
            f"INPUT.MAPPER {cfg.INPUT.MAPPER!r} is a {type(mapper).__name__}"
        )
    mapper.augmentations = T.AugmentationList(build_augmentations(cfg, is_train=False))
    return build_detection_test_loader(
        records, mapper=ForgivingMapper(mapper), num_workers=cfg.DATALOADER.NUM_WORKERS
    )


@contextlib.contextmanager
def _losses_only(model: nn.Module) -> Iterator[None]:
    """Training mode for the parts that compute losses, evaluation for what has statistics.

    Norms and dropout are modules without children; heads and the network around them have some.
    """
    before = {module: module.training for module in model.modules()}
    try:
        for module in before:
            module.training = any(True for _ in module.children())
        yield
    finally:
        for module, training in before.items():
            module.training = training


@contextlib.contextmanager
def _same_random_numbers(seed: int) -> Iterator[None]:
    state = rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_rng_state(state)


def _mean_of_all(sums: dict[str, float], images: int) -> dict[str, float]:
    parts = comm.all_gather((sums, images))
    total = sum(count for _, count in parts)
    if not total:
        return {}
    names = dict.fromkeys(name for part, _ in parts for name in part)
    means = {name: sum(part.get(name, 0.0) for part, _ in parts) / total for name in names}
    return means | {"total_loss": sum(means.values())}
