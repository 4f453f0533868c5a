"""Training steps that go wrong: what is known about them, and what the user reads."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from ..errors import UserError
from .black_box import BlackBox, Failure

Batch = list[dict[str, Any]]
_MOST_NAMED = 4


class NonFinite(UserError, FloatingPointError):
    """A loss or a gradient is infinite or not a number; names step, losses and images."""


class OutOfMemory(UserError):
    """A training step needs more memory than there is; names the sizes and what helps."""


@dataclass
class Attempt:
    """A training step in work, or done and not yet known to be sound.

    Attributes:
        positions: of the images of `batch` in the global batch
        rng: `rng_state()` before the forward
        losses: scalars on the device, means over the parts
        gradient_norms: (parameters,) on the device, 2-norms in the order of `parameters`
        nonfinite: () float on the device, above 0 if a loss or gradient of any process is bad
        on_host, copied: `nonfinite` on its way to the host, and the event after which it is there
    """

    iteration: int
    batch: Batch
    positions: list[int]
    rng: dict[str, Any]
    learning_rates: list[float]
    data_time: float
    losses: dict[str, torch.Tensor] = field(default_factory=dict)
    parameters: list[str] = field(default_factory=list)
    gradient_norms: torch.Tensor | None = None
    nonfinite: torch.Tensor | None = None
    on_host: torch.Tensor | None = None
    copied: torch.cuda.Event | None = None

    def fetch_later(self) -> None:
        """Start the copy of `nonfinite` without waiting for it."""
        assert self.nonfinite is not None
        self.on_host = self.nonfinite.to("cpu", non_blocking=True)  # into pinned memory
        if self.nonfinite.is_cuda:
            self.copied = torch.cuda.Event()
            self.copied.record()

    def is_bad(self) -> bool:
        """Whether `nonfinite` is set; waits for the device."""
        if self.copied is not None:
            self.copied.synchronize()
        flag = self.nonfinite if self.on_host is None else self.on_host
        assert flag is not None
        return bool(flag > 0)

    def failure(self, kind: str = "", error: BaseException | None = None) -> Failure:
        """What is known, on the host.

        Args:
            kind: of `Failure`; "" is what is not finite in this process
            error: that the step raised
        """
        norms = [] if self.gradient_norms is None else self.gradient_norms.tolist()
        losses = {name: float(loss) for name, loss in self.losses.items()}
        found = "gradient" if all(map(math.isfinite, losses.values())) else "loss"
        return Failure(
            kind=kind or found,
            iteration=self.iteration,
            batch=self.batch,
            losses=losses,
            gradient_norms=dict(zip(self.parameters, norms, strict=False)),
            learning_rates=self.learning_rates,
            rng=self.rng,
            positions=self.positions,
            error=error,
        )


def record(black_box: BlackBox | None, failure: Failure) -> str:
    """Why it may have failed and where it is written down, as the end of a message."""
    if black_box is None:
        return ""
    try:
        folder = black_box.record(failure)
        return f"\n{black_box.message}" if black_box.message else f" The step is in {folder}."
    except (OSError, UserError) as error:
        # The failure itself is what the user must hear of.
        logging.getLogger(__name__).warning("the failed step could not be written: %s", error)
        return ""


def describe_nonfinite(failure: Failure) -> str:
    """What is not finite in this process, and in which images."""
    what = ", ".join(f"{name} {value:.4g}" for name, value in failure.losses.items())
    if failure.kind == "gradient":
        norms = failure.gradient_norms
        bad = [name for name, norm in norms.items() if not math.isfinite(norm)]
        more = f" and {len(bad) - _MOST_NAMED} more" if len(bad) > _MOST_NAMED else ""
        what = f"the gradients of {', '.join(bad[:_MOST_NAMED])}{more} (losses: {what})"
    images = f"images {', '.join(map(str, _image_ids(failure.batch)))}"
    return f"{what}; {images}" if what else images


def _image_ids(batch: Batch) -> list[Any]:
    return [sample.get("image_id", sample.get("file_name", "?")) for sample in batch]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a GPU's or the CPU's memory was not enough; the CPU's has no class of its own."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def describe_memory(failure: Failure, parts: int) -> str:
    """What the step had to hold, and what needs less.

    Args:
        parts: into which the batch was split
    """
    sizes = [tuple(sample["image"].shape[-2:]) for sample in failure.batch if "image" in sample]
    objects = [len(sample["instances"]) for sample in failure.batch if "instances" in sample]
    lines = str(failure.error).strip().splitlines() or [type(failure.error).__name__]
    text = f"out of memory in iteration {failure.iteration}: {lines[0]}\n"
    text += f"This process had {len(failure.batch)} images in {parts} part(s)"
    if sizes:
        largest = f"{max(h for h, _ in sizes)} x {max(w for _, w in sizes)}"
        each = ", ".join(f"{h} x {w}" for h, w in sizes)
        text += f" of {each} pixels (height x width; each part is padded, at most to {largest})"
    if objects:
        text += f", with {', '.join(map(str, objects))} objects"
    remedies = [
        "MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE 32",
        "SOLVER.AMP.ENABLED True",
        "a smaller INPUT.MAX_SIZE_TRAIN",
        "a smaller SOLVER.IMS_PER_BATCH with a learning rate to match",
    ]
    images = len(failure.batch)
    finer = next((n for n in range(parts + 1, images + 1) if images % n == 0), None)
    if finer is not None:
        remedies.insert(0, f"SOLVER.ACCUMULATION_STEPS {finer} (the same batch in smaller parts)")
    return f"{text}.\nWhat needs less, the least change of results first: {', '.join(remedies)}."
