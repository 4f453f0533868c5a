"""Random choices of a training step that depend on the image, not on who computes it.

Detectron2 draws which anchors and which proposals an image is trained on from the process's
generator, so another number of processes, or a batch in parts, draws others. Inside `draws` each
image has a generator state of its own, named by the seed, the iteration, its position in the global
batch and the sampler. Outside of it everything is as in Detectron2.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
import torch

# The samplers, which must not draw the same numbers for an image.
ANCHORS, PROPOSALS = 0, 1


@dataclass(frozen=True)
class _Step:
    seed: int
    iteration: int
    positions: tuple[int, ...]


_step: ContextVar[_Step | None] = ContextVar("step", default=None)
# Seeds of the images that the sampler at work has still to come to; None draws as Detectron2.
_images: ContextVar[Iterator[int] | None] = ContextVar("images", default=None)


@contextlib.contextmanager
def draws(seed: int, iteration: int, positions: Sequence[int]) -> Iterator[None]:
    """What a training forward draws within depends on these numbers alone.

    The generators outside are left as they were. An inner `draws` counts, until it ends.

    Args:
        seed: of the run, 0 or more, the same in all processes: `loader.dataset.seed`
        iteration: 0 or more
        positions: the place of each image of the forward in the global batch, 0 or more
    Raises:
        ValueError: a number below 0; in the forward, not as many positions as images
    """
    step = _Step(int(seed), int(iteration), tuple(int(position) for position in positions))
    if min(step.seed, step.iteration, *step.positions) < 0:
        raise ValueError(f"draws got {step}, expected numbers of 0 or more")
    token = _step.set(step)
    try:
        yield
    finally:
        _step.reset(token)


@contextlib.contextmanager
def each_image(sampler: int, images: int) -> Iterator[None]:
    """Around a sampler that goes through its images in order, each within `next_image`.

    Args:
        sampler: ANCHORS or PROPOSALS
        images: how many it goes through
    """
    step = _step.get()
    if step is not None and len(step.positions) != images:
        raise ValueError(
            f"draws got {len(step.positions)} positions for a batch of {images} images, expected "
            "one an image"
        )
    token = _images.set(None if step is None else _seeds(step, sampler))
    try:
        yield
    finally:
        _images.reset(token)


@contextlib.contextmanager
def next_image(device: torch.device) -> Iterator[None]:
    """Within it, the device's own generator is that of the image; put back after it.

    Args:
        device: where the numbers are drawn: a CPU or a GPU. Neither waits: a GPU's generator is a
            seed and a count that the host keeps
    """
    seeds = _images.get()
    if seeds is None:
        yield
        return
    generator = _generator_of(device)
    state = generator.get_state()
    generator.manual_seed(next(seeds))
    try:
        yield
    finally:
        generator.set_state(state)


def _seeds(step: _Step, sampler: int) -> Iterator[int]:
    for position in step.positions:
        # A spawn key keeps these apart from the streams of data loading, which have none.
        words = np.random.SeedSequence(
            step.seed, spawn_key=(step.iteration, position, sampler)
        ).generate_state(2)
        yield int(words[0]) << 32 | int(words[1])


def _generator_of(device: torch.device) -> torch.Generator:
    if device.type == "cpu":
        return torch.default_generator
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        return torch.cuda.default_generators[index]
    raise ValueError(f"draws knows the generators of CPUs and CUDA GPUs, got {device}")
