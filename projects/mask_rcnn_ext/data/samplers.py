"""Which image comes when: an endless order that is known at every position, so runs resume exactly.

Letters: N images, P positions of an epoch. A key names a sample: (epoch, index), or (epoch, index,
repeat) where an image comes more than once an epoch. `SampleDataset` draws its random numbers from
the key, so the order and each sample follow from the seed alone. Batches are those of all processes
together; each process takes its share of each, so they do not depend on how many there are.
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

    def epoch_keys(self, epoch: int) -> np.ndarray:
        """(P, 2 or 3) int64, the keys of an epoch, for all processes together."""
        return _keys(epoch, _random(self.seed, _ORDER, epoch).permutation(self.size))

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
            yield from map(tuple, keys[start :: self.world_size].tolist())
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

    def epoch_keys(self, epoch: int) -> np.ndarray:
        subset = _random(self.seed, _SUBSET).permutation(self.size)[: self.epoch_length(epoch)]
        return _keys(epoch, _random(self.seed, _ORDER, epoch).permutation(subset))


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

    def epoch_keys(self, epoch: int) -> np.ndarray:
        repeats = self._repeats(epoch)
        indices = np.repeat(np.arange(self.size), repeats)
        which = np.arange(len(indices)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        order = _random(self.seed, _ORDER, epoch).permutation(len(indices))
        return _keys(epoch, indices[order], which[order])


class BatchSampler(Sampler[list[Key]]):
    """This process's share of each global batch: of B keys every world-size'th, from its rank on.

    On request the pictures of a batch are of one orientation. Detectron2 groups loaded samples, in
    each process for itself; here it is decided before loading, so batch number `position` is the
    same one for any number of processes and workers, and after a restart.
    """

    def __init__(self, sampler: ShuffledSampler, batch_size: int, wide: np.ndarray | None = None):
        """
        Args:
            sampler: of keys, and which process this is; its own `position` is not read
            batch_size: B, of all processes together
            wide: (N,) bool, whether each image is wider than high; None mixes them
        """
        if batch_size < 1:
            raise ValueError(f"BatchSampler got batch_size={batch_size}, expected 1 or more")
        self.sampler = sampler
        self.batch_size = batch_size
        self.wide = np.zeros(sampler.size, bool) if wide is None else np.asarray(wide, dtype=bool)
        self.position = 0  # batches that were consumed before iteration starts: iterations

    def __iter__(self) -> Iterator[list[Key]]:
        rank, world = self.sampler.rank, self.sampler.world_size
        skip = self.position
        keys = self.sampler.epoch_keys(0)
        epoch = 0
        while True:
            batches, waiting = self._grouped(keys)
            for places in batches[skip:]:
                yield list(map(tuple, keys[places[rank::world]].tolist()))
            skip = max(0, skip - len(batches))
            epoch += 1
            keys = np.concatenate([keys[waiting], self.sampler.epoch_keys(epoch)])

    def _grouped(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Batches of one orientation, each ready when its last key has come.

        Args:
            keys: (M, 2 or 3), in the order of the stream
        Returns:
            (batches, B) and (waiting,), places in `keys`: the batches in the order in which they
            get ready, and the keys whose batch needs more, in order within an orientation
        """
        wide = self.wide[keys[:, 1]]
        batches, waiting = [], []
        for group in (np.flatnonzero(~wide), np.flatnonzero(wide)):
            taken = len(group) // self.batch_size * self.batch_size
            batches.append(group[:taken].reshape(-1, self.batch_size))
            waiting.append(group[taken:])
        found = np.concatenate(batches)
        return found[np.argsort(found[:, -1])], np.concatenate(waiting)


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


def _keys(epoch: int, *columns: np.ndarray) -> np.ndarray:
    return np.stack([np.full(len(columns[0]), epoch), *columns], axis=1)


def _random(*entropy: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(entropy))
