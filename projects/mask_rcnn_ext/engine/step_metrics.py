"""Losses on their way from the device into EventStorage, fetched together and not step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage, get_event_storage


@dataclass(frozen=True)
class _Waiting:
    iteration: int
    data_time: float
    names: tuple[str, ...]
    values: torch.Tensor  # (number of losses,) on the device


class PendingMetrics:
    """Losses of steps that EventStorage does not know yet."""

    def __init__(self) -> None:
        self._waiting: list[_Waiting] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, iteration: int, losses: dict[str, torch.Tensor], data_time: float) -> None:
        """
        Args:
            losses: one scalar each, of this process
            data_time: seconds that the step waited for its batch
        """
        values = torch.stack(list(losses.values()))
        self._waiting.append(_Waiting(iteration, data_time, tuple(losses), values))

    def flush(self) -> None:
        """Put all that wait into EventStorage, as Detectron2 does, each with its own iteration.

        All processes must call it in the same place: it gathers what they have.
        """
        if not self._waiting:
            return
        values = torch.cat([one.values for one in self._waiting]).tolist()  # the one copy
        own: list[tuple[float, dict[str, float]]] = []
        for one in self._waiting:
            own.append((one.data_time, dict(zip(one.names, values, strict=False))))
            del values[: len(one.names)]
        everyone = comm.gather(own)  # [] in processes that are not the first
        if everyone:
            for one, of_step in zip(self._waiting, zip(*everyone, strict=True), strict=True):
                _put(one.iteration, of_step)
        self._waiting.clear()


def _put(iteration: int, of_processes: Sequence[tuple[float, dict[str, float]]]) -> None:
    storage = get_event_storage()
    now = storage.iter
    storage.iter = iteration
    try:
        # The step waits for the slowest.
        storage.put_scalar("data_time", max(data_time for data_time, _ in of_processes))
        first = of_processes[0][1]
        means = {k: float(np.mean([losses[k] for _, losses in of_processes])) for k in first}
        storage.put_scalar("total_loss", sum(means.values()))
        if len(means) > 1:
            storage.put_scalars(**means)
    finally:
        storage.iter = now


class PartStorage(EventStorage):
    """What a model says about one part of a batch; pictures go through to the storage outside."""

    def __init__(self, outside: EventStorage):
        super().__init__(outside.iter)
        self._outside = outside

    def put_image(self, *args: Any, **kwargs: Any) -> None:
        self._outside.put_image(*args, **kwargs)

    def put_histogram(self, *args: Any, **kwargs: Any) -> None:
        self._outside.put_histogram(*args, **kwargs)


def put_means(parts: Sequence[PartStorage], outside: EventStorage) -> None:
    """The scalars of the parts of a batch as one value, the mean of the parts that have it."""
    found: dict[str, list[float]] = {}
    hints: dict[str, bool] = {}
    for part in parts:
        hints |= part.smoothing_hints()
        for name, (value, _) in part.latest().items():
            found.setdefault(name, []).append(value)
    for name, values in found.items():
        outside.put_scalar(name, float(np.mean(values)), smoothing_hint=hints[name])
