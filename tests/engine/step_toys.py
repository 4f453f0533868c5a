"""A small model and loaders for the tests of the training step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext.engine.step import TrainStep

Batch = list[dict[str, Any]]
BAD = "bad"
FAR = "far"


class Toy(nn.Module):
    """Two losses, each a mean over the images; a sample with the key "bad" makes them NaN.

    One with the key "far" makes a loss infinite and leaves all gradients finite.
    """

    def __init__(self, norm: bool = False):
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.norm = nn.BatchNorm1d(8) if norm else nn.Identity()
        self.second = nn.Linear(8, 2)

    def forward(self, batch: Batch) -> dict[str, torch.Tensor]:
        x = torch.stack([sample["image"] for sample in batch])
        y = torch.stack([sample["target"] for sample in batch])
        if any(BAD in sample for sample in batch):
            x = x * float("nan")
        out = self.second(torch.tanh(self.norm(self.first(x))))
        one = (out[:, 0].float() - y).square().mean()
        if any(FAR in sample for sample in batch):
            one = one + float("inf")
        return {"loss_one": one, "loss_two": out[:, 1].float().abs().mean()}


def toy_batches(size: int, *, bad: Sequence[int] = (), mark: str = BAD) -> Iterator[Batch]:
    """Endless; batch k is always the same.

    Args:
        bad: which batches have `mark` in their last sample
    """
    number = 0
    while True:
        generator = torch.Generator().manual_seed(100 + number)
        images = torch.randn(size, 6, generator=generator)
        batch: Batch = [
            {"image": image, "target": image.sum(), "image_id": 1000 * number + place}
            for place, image in enumerate(images)
        ]
        if number in bad:
            batch[-1][mark] = True
        yield batch
        number += 1


def toy_model(norm: bool = False) -> Toy:
    torch.manual_seed(7)
    return Toy(norm)


def sgd(model: nn.Module, *, fused: bool = False) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3, fused=fused
    )
    if fused:  # as build_optimizer
        for parameter in model.parameters():
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def run_steps(
    step: Any, count: int, start: int = 0, storage: EventStorage | None = None
) -> EventStorage:
    """What the trainer's loop does around the step, without hooks."""
    storage = storage or EventStorage(start)
    with storage:
        for iteration in range(start, start + count):
            storage.iter = step.iter = iteration
            step.run_step()
        if isinstance(step, TrainStep):
            step.flush()
    return storage


def histories(storage: EventStorage, without: Sequence[str] = ("data_time", "rank_data_time")):
    return {k: h.values() for k, h in storage.histories().items() if k not in without}


def same_bits(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


class Keeping:
    """A black box that keeps what it is told."""

    message = "why it may have failed; the step is in the/folder"

    def __init__(self) -> None:
        self.failures: list[Any] = []

    def record(self, failure: Any) -> str:
        self.failures.append(failure)
        return "the/folder"


class From:
    """A loader that is an iterator; TrainStep asks for iter() once."""

    def __init__(self, make: Callable[[], Iterator[Batch]]):
        self._make = make

    def __iter__(self) -> Iterator[Batch]:
        return self._make()
