"""Which image comes when: an endless order that is known at every position, so runs resume exactly.

Letters: N images, P positions of an epoch. A key names a sample: (epoch, index), or (epoch, index,
repeat) where an image comes more than once an epoch. `SampleDataset` draws its random numbers from
the key, so the order and each sample follow from the seed alone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data.samplers import RepeatFactorTrainingSampler
from detectron2.utils import comm
from torch.utils.data import Sampler

from ..errors import UsageError

Key = tuple[int, ...]

# Streams of random numbers that must not be each other's shifted copies.
_ORDER, _SUBSET, _REPEATS = 0, 1, 2


class ShuffledSampler(Sampler[Key]):
    """One random permutation an epoch, for ever; each process takes every world-size'th position.

    Set `position` before iterating to start there. It is where iteration starts, and does not move.
    """

    def __init__(
        self, size: int, seed: int, *, rank: int | None = None, world_size: int | None = None
    ):
        """
        Args:
            size: N, at least 1
            seed: of the order, 0 or more, the same in all processes
            rank, world_size: this process and how many there are; Detectron2's if None
        """
        if size < 1:
            raise ValueError(
                f"a sampler of {size} images has nothing to sample, expected 1 or more"
            )
        if seed < 0:
            raise ValueError(f"a sampler got seed={seed}, expected 0 or more")
        self.size = size
        self.seed = seed
        self.rank = comm.get_rank() if rank is None else rank
        self.world_size = comm.get_world_size() if world_size is None else world_size
        self.position = 0  # of this process: how many keys it has had

    def epoch_keys(self, epoch: int) -> list[Key]:
        """The P keys of an epoch, for all processes together."""
        order = _random(self.seed, _ORDER, epoch).permutation(self.size)
        return [(epoch, index) for index in order.tolist()]

    def epoch_length(self, epoch: int) -> int:
        """P."""
        return self.size

    def __iter__(self) -> Iterator[Key]:
        start = self.rank + self.position * self.world_size  # in the order of all processes
        epoch = 0
        while start >= (length := self.epoch_length(epoch)):
            start -= length
            epoch += 1
        while True:
            keys = self.epoch_keys(epoch)
            yield from keys[start :: self.world_size]
            taken = len(range(start, len(keys), self.world_size))
            start += taken * self.world_size - len(keys)
            epoch += 1

    def state_dict(self) -> dict[str, int]:
        return {"seed": self.seed, "position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.seed, self.position = state["seed"], state["position"]


class SubsetSampler(ShuffledSampler):
    """The same random part of the images in every epoch."""

    def __init__(self, size: int, seed: int, ratio: float, **kwargs: Any):
        """
        Args:
            ratio: the part, more than 0, at most 1; at least one image
            kwargs: of `ShuffledSampler`
        """
        super().__init__(size, seed, **kwargs)
        if not 0 < ratio <= 1:
            raise ValueError(f"SubsetSampler got ratio={ratio}, expected more than 0, at most 1")
        self.ratio = ratio

    def epoch_length(self, epoch: int) -> int:
        return max(1, int(self.size * self.ratio))

    def epoch_keys(self, epoch: int) -> list[Key]:
        subset = _random(self.seed, _SUBSET).permutation(self.size)[: self.epoch_length(epoch)]
        order = _random(self.seed, _ORDER, epoch).permutation(subset)
        return [(epoch, index) for index in order.tolist()]


class RepeatFactorSampler(ShuffledSampler):
    """Images of rare classes more often (LVIS); a factor's fraction is drawn anew each epoch."""

    def __init__(self, factors: torch.Tensor | np.ndarray, seed: int, **kwargs: Any):
        """
        Args:
            factors: (N,) how often an image comes an epoch on average, 1 or more each
            kwargs: of `ShuffledSampler`
        """
        self.factors = np.asarray(factors, dtype=np.float64)
        super().__init__(len(self.factors), seed, **kwargs)

    def _repeats(self, epoch: int) -> np.ndarray:
        whole = np.floor(self.factors)
        chance = _random(self.seed, _REPEATS, epoch).random(self.size)
        return (whole + (chance < self.factors - whole)).astype(np.int64)

    def epoch_length(self, epoch: int) -> int:
        return int(self._repeats(epoch).sum())

    def epoch_keys(self, epoch: int) -> list[Key]:
        repeats = self._repeats(epoch)
        indices = np.repeat(np.arange(self.size), repeats)
        which = np.arange(len(indices)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        order = _random(self.seed, _ORDER, epoch).permutation(len(indices))
        keys = zip(indices[order].tolist(), which[order].tolist(), strict=True)
        return [(epoch, index, repeat) for index, repeat in keys]


class BatchSampler(Sampler[list[Key]]):
    """Batches of keys, on request of pictures of one orientation only, decided before loading.

    Detectron2 groups loaded samples; the batches are the same. Since they depend on no worker,
    batch number `position` is the same one after a restart.
    """

    def __init__(self, sampler: ShuffledSampler, batch_size: int, wide: np.ndarray | None = None):
        """
        Args:
            sampler: of keys; its own `position` must be 0
            batch_size: of this process
            wide: (N,) bool, whether each image is wider than high; None mixes them
        """
        if batch_size < 1:
            raise ValueError(f"BatchSampler got batch_size={batch_size}, expected 1 or more")
        self.sampler = sampler
        self.batch_size = batch_size
        self.wide = None if wide is None else np.asarray(wide, dtype=bool).tolist()
        self.position = 0  # batches that were consumed before iteration starts: iterations

    def __iter__(self) -> Iterator[list[Key]]:
        if self.wide is None:
            self.sampler.position = self.position * self.batch_size
            skip = 0
        else:
            self.sampler.position = 0
            skip = self.position  # which keys wait in a group follows from all before them
        buckets: tuple[list[Key], list[Key]] = ([], [])
        for key in self.sampler:
            bucket = buckets[self.wide[key[1]] if self.wide is not None else 0]
            bucket.append(key)
            if len(bucket) == self.batch_size:
                if skip:
                    skip -= 1
                else:
                    yield list(bucket)
                bucket.clear()


def build_sampler(cfg: CfgNode, records: Any, seed: int) -> ShuffledSampler:
    """What DATALOADER.SAMPLER_TRAIN names, by Detectron2's three names.

    Args:
        records: the data set, of standard dicts; read only for "RepeatFactorTrainingSampler"
        seed: of the order
    """
    name = cfg.DATALOADER.SAMPLER_TRAIN
    logging.getLogger(__name__).info("Using training sampler %s, seed %d", name, seed)
    if name == "TrainingSampler":
        return ShuffledSampler(len(records), seed)
    if name == "RandomSubsetTrainingSampler":
        ratio = cfg.DATALOADER.get("RANDOM_SUBSET_RATIO")
        if ratio is None:
            raise UsageError(
                "this Detectron2 has no DATALOADER.RANDOM_SUBSET_RATIO, as its main branch has; "
                "RandomSubsetTrainingSampler needs it"
            )
        return SubsetSampler(len(records), seed, ratio)
    if name == "RepeatFactorTrainingSampler":
        keys = cfg.DATALOADER
        root = {"sqrt": keys.REPEAT_SQRT} if "REPEAT_SQRT" in keys else {}  # main's; v0.6: always
        factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
            records, keys.REPEAT_THRESHOLD, **root
        )
        return RepeatFactorSampler(factors, seed)
    raise UsageError(
        f"DATALOADER.SAMPLER_TRAIN is {name!r}, expected TrainingSampler, "
        "RepeatFactorTrainingSampler or RandomSubsetTrainingSampler"
    )


def _random(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(entropy))
