"""What most likely made a training step fail: a list of known causes, each with its signs.

A cause is named where its signs are in the batch, the weights or the settings; several may be.
Without any the answer says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from .black_box_batch import tensors_of

# The paper's 0.02 goes with 16 images.
_RATE_AN_IMAGE = 0.02 / 16
_RATE_ADAMW = 0.001
_MUCH = 1.5  # times the usual rate
_HUGE_WEIGHT = 1e4  # trained networks have none near it
_EARLY = 1000  # iterations in which a missing warm-up shows


class Cause(NamedTuple):
    """name: a word for programs; text: what was seen and what to do."""

    name: str
    text: str


@dataclass(frozen=True)
class Facts:
    """What causes are looked for in.

    Attributes:
        kind: loss, gradient or memory
        iteration: counted from 0
        batch: as `to_plain` makes it
        learning_rates: of the optimizer's groups
        config: content of config.yaml
        state: the model's parameters and buffers by name, on the CPU, before the step
        parameters: names of what the optimizer changes
        running: names of running statistics, which this step's forward has changed already
        bad_momentum: names of parameters whose optimizer state is not finite
        untrained_frozen_norms: how many frozen norms do nothing, and of how many
        on_gpu: whether the model is on one
    """

    kind: str
    iteration: int
    batch: list[Any]
    learning_rates: Sequence[float]
    config: Mapping[str, Any]
    state: Mapping[str, torch.Tensor]
    parameters: frozenset[str] = frozenset()
    running: frozenset[str] = frozenset()
    bad_momentum: Sequence[str] = ()
    untrained_frozen_norms: tuple[int, int] = (0, 0)
    on_gpu: bool = False

    def key(self, path: str, default: Any = None) -> Any:
        """A config key's value, "SOLVER.BASE_LR"."""
        node: Any = self.config
        for part in path.split("."):
            if not isinstance(node, Mapping) or part not in node:
                return default
            node = node[part]
        return node


def likely_causes(facts: Facts) -> list[Cause]:
    """Those whose signs are there, the surest first; empty if there are none."""
    rules = _OF_MEMORY if facts.kind == "memory" else _OF_NUMBERS
    return [cause for rule in rules for cause in rule(facts)]


def not_finite(tensor: torch.Tensor) -> int:
    """How many values are NaN or infinite."""
    if not tensor.is_floating_point():
        return 0
    return int((~torch.isfinite(tensor)).sum())


def running_statistics(model: nn.Module) -> frozenset[str]:
    """Names of the buffers that a forward in training changes."""
    return frozenset(
        f"{name}.{buffer}".lstrip(".")
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.training
        for buffer, _ in module.named_buffers(recurse=False)
    )


def untrained_frozen_norms(model: nn.Module) -> tuple[int, int]:
    """(frozen batch norms that multiply by 1 and add 0, all frozen batch norms)."""
    norms = [module for module in model.modules() if isinstance(module, FrozenBatchNorm2d)]
    idle = [
        norm
        for norm in norms
        if bool((norm.weight == 1).all())
        and not bool(norm.bias.any())
        and not bool(norm.running_mean.any())
        and bool(((norm.running_var - 1).abs() <= 2 * norm.eps).all())
    ]
    return len(idle), len(norms)


def name_of_image(batch: Sequence[Any], number: int) -> str:
    """ "image 3 (id 139, val/000139.jpg)"; counted from 0."""
    image = batch[number] if isinstance(batch[number], Mapping) else {}
    known = [f"id {image['image_id']}"] if "image_id" in image else []
    known += [str(image["file_name"])] if "file_name" in image else []
    return f"image {number} of the batch" + (f" ({', '.join(known)})" if known else "")


def _pixel_std(facts: Facts) -> Iterator[Cause]:
    std, mean = (facts.key(f"MODEL.PIXEL_{name}", []) for name in ("STD", "MEAN"))
    if any(not value or not math.isfinite(value) for value in std):
        yield Cause(
            "pixel_std",
            f"MODEL.PIXEL_STD is {std}: images are divided by it. Caffe2's weights go with "
            "[1.0, 1.0, 1.0], torchvision's with [57.375, 57.12, 58.395] (BGR).",
        )
    if any(not math.isfinite(value) for value in mean):
        yield Cause("pixel_mean", f"MODEL.PIXEL_MEAN is {mean}; expected finite numbers.")


def _weights(facts: Facts) -> Iterator[Cause]:
    bad = [
        name
        for name, tensor in facts.state.items()
        if name not in facts.running and not_finite(tensor)
    ]
    if bad:
        yield Cause(
            "weights",
            f"{len(bad)} of the model's weights were not finite before this step, the first "
            f"{bad[0]}. The step before broke them, or the checkpoint holds them: go back to an "
            "earlier checkpoint, and compare the losses before it.",
        )


def _large_weights(facts: Facts) -> Iterator[Cause]:
    largest = {
        name: float(facts.state[name].abs().max())
        for name in facts.parameters
        if facts.state[name].numel() and not not_finite(facts.state[name])
    }
    name = max(largest, key=lambda one: largest[one], default="")
    if name and largest[name] > _HUGE_WEIGHT:
        yield Cause(
            "large_weights",
            f"the weights have grown out of any useful range, {name} to {largest[name]:.3g}: the "
            "training diverged some steps ago. Lower SOLVER.BASE_LR, or clip the gradients: "
            "SOLVER.CLIP_GRADIENTS.ENABLED True.",
        )


def _momentum(facts: Facts) -> Iterator[Cause]:
    if facts.bad_momentum:
        yield Cause(
            "momentum",
            f"the optimizer's state of {len(facts.bad_momentum)} weights is not finite, the first "
            f"{facts.bad_momentum[0]}: go back to an earlier checkpoint.",
        )


def _image(facts: Facts) -> Iterator[Cause]:
    for number, image in enumerate(facts.batch):
        pixels = image.get("image") if isinstance(image, Mapping) else None
        if isinstance(pixels, torch.Tensor) and not_finite(pixels):
            yield Cause(
                "image",
                f"{name_of_image(facts.batch, number)} has {not_finite(pixels)} pixel values that "
                "are not finite: look at the file, or at the augmentation that made it.",
            )


def _uniform_image(facts: Facts) -> Iterator[Cause]:
    for number, image in enumerate(facts.batch):
        pixels = image.get("image") if isinstance(image, Mapping) else None
        if not isinstance(pixels, torch.Tensor) or not pixels.numel() or not_finite(pixels):
            continue
        if pixels.min() == pixels.max():
            yield Cause(
                "uniform_image",
                f"{name_of_image(facts.batch, number)} has the value {float(pixels.min()):g} "
                "everywhere: was it read or augmented wrongly? A norm over it divides by nearly "
                "zero.",
            )


def _targets(facts: Facts) -> Iterator[Cause]:
    for number, image in enumerate(facts.batch):
        target = image.get("instances") if isinstance(image, Mapping) else None
        if not isinstance(target, Mapping):
            continue
        fields = target.get("fields", {})
        boxes = fields.get("gt_boxes", {})
        boxes = boxes.get("tensor") if isinstance(boxes, Mapping) else None
        where = name_of_image(facts.batch, number)
        if isinstance(boxes, torch.Tensor) and boxes.dim() == 2 and boxes.shape[1] == 4:
            bad = ~torch.isfinite(boxes).all(1)
            empty = ~bad & ((boxes[:, 2:] - boxes[:, :2]) <= 0).any(1)
            for mask, name, what in (
                (bad, "box_not_finite", "is not finite"),
                (empty, "box_empty", "has no width or no height"),
            ):
                if bool(mask.any()):
                    first = int(mask.nonzero()[0])
                    yield Cause(
                        name,
                        f"target box {first} of {where} {what}: {boxes[first].tolist()}. "
                        "`mask-rcnn-ext data check` finds such annotations; augmentations can "
                        "make them, too.",
                    )
        for path, tensor in tensors_of({k: v for k, v in fields.items() if k != "gt_boxes"}):
            if not_finite(tensor):
                yield Cause(
                    "annotation_not_finite",
                    f"{path.lstrip('.')} of {where} has {not_finite(tensor)} values that are not "
                    "finite; `mask-rcnn-ext data check` finds such annotations.",
                )
                break


def _frozen_norm(facts: Facts) -> Iterator[Cause]:
    idle, all_norms = facts.untrained_frozen_norms
    if all_norms and idle == all_norms:
        yield Cause(
            "frozen_norm",
            f"the model's {idle} frozen batch norms normalize nothing: it started from random "
            "weights. Give MODEL.WEIGHTS, or train the norms: MODEL.RESNETS.NORM BN "
            "MODEL.BACKBONE.FREEZE_AT 0.",
        )


def _float16(facts: Facts) -> Iterator[Cause]:
    amp = facts.key("SOLVER.AMP", {})
    chosen = amp.get("PRECISION", "auto")
    if amp.get("ENABLED") and (chosen == "float16" or chosen == "auto" and facts.on_gpu):
        yield Cause(
            "float16",
            "the forward is in float16, which ends at 65504: SOLVER.AMP.PRECISION bfloat16 has "
            "the range of float32.",
        )


def _learning_rate(facts: Facts) -> Iterator[Cause]:
    rate, images = facts.key("SOLVER.BASE_LR"), facts.key("SOLVER.IMS_PER_BATCH")
    if not rate or not images:
        return
    now = f" (now {max(facts.learning_rates):g})" if facts.learning_rates else ""
    if facts.key("SOLVER.OPTIMIZER", "SGD") == "AdamW":
        usual, rule = _RATE_ADAMW, "AdamW's is about 0.001"
    else:
        usual = _RATE_AN_IMAGE * images
        rule = f"the paper's 0.02 goes with 16 images, so {usual:g} with {images}"
    if rate > _MUCH * usual:
        yield Cause(
            "learning_rate",
            f"SOLVER.BASE_LR {rate:g}{now} is high for SOLVER.IMS_PER_BATCH {images}: {rule}. "
            f"Try SOLVER.BASE_LR {usual:g}.",
        )


def _warm_up(facts: Facts) -> Iterator[Cause]:
    steps, factor = facts.key("SOLVER.WARMUP_ITERS", 1000), facts.key("SOLVER.WARMUP_FACTOR", 0.0)
    if facts.iteration < _EARLY and (steps <= 0 or factor >= 1):
        yield Cause(
            "warm_up",
            f"iteration {facts.iteration} has the full learning rate, without a warm-up "
            f"(SOLVER.WARMUP_ITERS {steps}, WARMUP_FACTOR {factor:g}): try SOLVER.WARMUP_ITERS "
            "1000 SOLVER.WARMUP_FACTOR 0.001.",
        )


def _memory(facts: Facts) -> Iterator[Cause]:
    sizes = []
    for image in facts.batch:
        pixels = image.get("image") if isinstance(image, Mapping) else None
        if isinstance(pixels, torch.Tensor) and pixels.dim() == 3:
            target = image.get("instances") or {}
            classes = target.get("fields", {}).get("gt_classes")
            height, width = pixels.shape[1:]
            sizes.append((height, width, 0 if classes is None else len(classes)))
    if not sizes:
        return
    height, width = max(h for h, _, _ in sizes), max(w for _, w, _ in sizes)
    most = max(range(len(sizes)), key=lambda n: sizes[n][2])
    yield Cause(
        "memory",
        f"the batch's {len(sizes)} images are padded to {width} x {height} pixels, and "
        f"{name_of_image(facts.batch, most)} has {sizes[most][2]} objects. Fewer images at a time "
        "with the same batch: SOLVER.ACCUMULATION_STEPS; less for the mask branch of crowds: "
        "MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE 64; smaller images: INPUT.MAX_SIZE_TRAIN; half "
        "the memory for features: SOLVER.AMP.ENABLED True.",
    )


Rule = Callable[[Facts], Iterator[Cause]]
_OF_NUMBERS: tuple[Rule, ...] = (
    _pixel_std,
    _image,
    _targets,
    _weights,
    _large_weights,
    _momentum,
    _frozen_norm,
    _learning_rate,
    _warm_up,
    _float16,
    _uniform_image,
)
_OF_MEMORY: tuple[Rule, ...] = (_memory,)
