"""Samples by key: the same picture, changed in the same way, whoever asks and whenever."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from ..errors import DataError
from .dubious import Dubious
from .samplers import Key

Sample = dict[str, Any]
_MOST_TRIES = 100


class SampleDataset(Dataset[Sample]):
    """A map-style data set of mapped samples, whose keys are a sampler's (epoch, index).

    Python's, NumPy's and PyTorch's random numbers are seeded by (seed, key) while a sample is made
    and put back after it. Works as Detectron2's `build_detection_train_loader(dataset,
    mapper=None, sampler=...)`, too.
    """

    def __init__(
        self,
        records: Sequence[Sample],
        mapper: Callable[[Sample], Sample | None],
        seed: int,
    ):
        """
        Args:
            records: of Detectron2's standard form
            mapper: one of the registry, or any; its attribute `copy_paste`, if it has one that is
                not None, joins a sample with that of another record
            seed: 0 or more
        """
        if not len(records):
            raise DataError("the training set has no image with a usable annotation")
        if seed < 0:
            raise ValueError(f"SampleDataset got seed={seed}, expected 0 or more")
        self.records = records
        self.mapper = mapper
        self.seed = seed
        self.dubious = Dubious()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, key: int | Key) -> Sample:
        """
        Args:
            key: (epoch, index, ...), or an index of epoch 0
        Returns:
            what the mapper makes of that record; where it returns None, of another one that
            follows from the key
        Raises:
            DataError: from the mapper; or it returned None 100 times in a row
        """
        key = tuple(int(part) for part in key) if isinstance(key, tuple) else (0, int(key))
        if not 0 <= key[1] < len(self):
            raise IndexError(f"sample {key[1]} of {len(self)}")
        with seeded(self.seed, *key):
            return self._sample(key)

    def _sample(self, key: Key) -> Sample:
        sample = self._mapped(key[1])
        tries = 1
        while sample is None:
            if tries == _MOST_TRIES:
                raise DataError(
                    f"the mapper refused {tries} records in a row, the first being "
                    f"{_where(self.records[key[1]])}; mend the data or the mapper"
                )
            sample = self._mapped(int(np.random.randint(len(self))))
            tries += 1
        copy_paste = getattr(self.mapper, "copy_paste", None)
        if copy_paste is not None and copy_paste.wanted():
            partner = self._mapped(int(np.random.randint(len(self))))
            if partner is not None:
                sample = copy_paste(sample, partner)
        return sample

    def _mapped(self, index: int) -> Sample | None:
        record = self.records[index]
        sample = self.mapper(record)
        if sample is None:
            self.dubious.note(
                "the mapper refused a record, another one takes its place", _where(record)
            )
        return sample


@contextlib.contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Random numbers of Python, NumPy and PyTorch (CPU) from these seeds; the old ones after it."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    words = np.random.SeedSequence(entropy).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    # torch.manual_seed would seed every GPU as well.
    torch.default_generator.manual_seed(int(words[2]) << 32 | int(words[3]))
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


def _where(record: Sample) -> str:
    return f"image {record.get('file_name')} (image id {record.get('image_id', 'unknown')})"
