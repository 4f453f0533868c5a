"""The training data loader: same batches for any number of processes and workers, and restarts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.build import trivial_batch_collator
from detectron2.utils import comm
from torch.utils.data import DataLoader

from ..errors import UsageError
from .dataset import SampleDataset
from .samplers import BatchSampler, build_sampler

Record = dict[str, Any]


def build_train_loader(
    cfg: CfgNode,
    records: Sequence[Record],
    mapper: Callable[[Record], Record | None],
    seed: int | None = None,
) -> TrainLoader:
    """An endless loader of lists of SOLVER.IMS_PER_BATCH / processes samples.

    With seed and iteration alike, the samples of all processes together are alike, bit for bit,
    however many processes there are and whatever was prefetched; see `share_positions` for who has
    which, and `resume_at`.

    Args:
        cfg: reads SOLVER.IMS_PER_BATCH and ACCUMULATION_STEPS, DATALOADER and SEED
        records: already filtered, of Detectron2's standard form
        mapper: of the registry
        seed: of order and augmentations; None takes SEED, and where that is negative a random one,
            the same in all processes: `loader.dataset.seed` tells which
    Raises:
        UsageError: the batch cannot be shared among the processes and their parts
    """
    processes = comm.get_world_size()
    total, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS
    if total < 1 or total % (processes * parts):
        in_parts = f" times SOLVER.ACCUMULATION_STEPS {parts}" if parts > 1 else ""
        raise UsageError(
            f"SOLVER.IMS_PER_BATCH is {total}, expected a multiple of the {processes} processes"
            f"{in_parts}"
        )
    if seed is None:
        seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    dataset = SampleDataset(records, mapper, seed)
    wide = aspect_is_wide(records) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None
    batches = BatchSampler(build_sampler(cfg, records, seed), total, wide)
    return TrainLoader(
        dataset,
        batch_sampler=batches,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        pin_memory=cfg.MODEL.DEVICE.startswith("cuda") and torch.cuda.is_available(),
        collate_fn=trivial_batch_collator,
        # Of its own: starting to iterate must not draw from the one that the model draws from.
        generator=torch.Generator().manual_seed(0),
    )


def share_positions(total: int, rank: int, world: int) -> list[int]:
    """Where this process's samples stand in the global batch, in the order of its list.

    A share in equal, contiguous parts (SOLVER.ACCUMULATION_STEPS) has its positions in the same
    parts: part k of all processes together is then the k-th part of the global batch, for any
    number of processes.

    Args:
        total: images of the global batch, SOLVER.IMS_PER_BATCH
        rank: of this process, 0 <= rank < world
        world: the number of processes
    """
    return list(range(rank, total, world))


class TrainLoader(DataLoader[Any]):
    """PyTorch's loader, whose workers start with the first batch that is asked for.

    Detectron2's trainer makes its iterator before it knows where a resumed run goes on.
    """

    def __iter__(self) -> Any:
        return self._from_first_request()

    def _from_first_request(self) -> Iterator[Any]:
        yield from super().__iter__()


def resume_at(loader: DataLoader[Any], iteration: int, seed: int | None = None) -> None:
    """Let the loader begin with the batch of this iteration, counted from 0.

    It is exact with and without aspect-ratio groups, as long as data, sampler and IMS_PER_BATCH are
    those of the run before; the numbers of processes and workers do not matter.

    Args:
        loader: of `build_train_loader`; an iterator that has given a batch already goes on as it
            was
        iteration: batches consumed before
        seed: that of the run before, where SEED was negative; None leaves it
    """
    batches, dataset = loader.batch_sampler, loader.dataset
    assert isinstance(batches, BatchSampler), batches
    assert isinstance(dataset, SampleDataset), dataset
    batches.position = iteration
    if seed is not None:
        batches.sampler.seed = dataset.seed = seed


def aspect_is_wide(records: Sequence[Record]) -> np.ndarray:
    """(N,) bool, width above height, by which Detectron2 groups batches."""
    if hasattr(records, "aspect_is_wide"):  # CocoRecords has it as a column
        return np.asarray(records.aspect_is_wide(), dtype=bool)
    return np.array([record["width"] > record["height"] for record in records], dtype=bool)
