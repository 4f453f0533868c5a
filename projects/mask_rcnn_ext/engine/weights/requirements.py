"""What weights expect of a config: the network's shape, and the pixels it was trained on.

Weights load into a network whose pictures have another colour order or scale without a complaint,
and then see noise; so these are compared, key by key, with the config.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import UsageError
from .sources import Source

_IMAGENET_MEAN = (123.675, 116.28, 103.53)  # RGB, 255 times (0.485, 0.456, 0.406)
_IMAGENET_STD = (58.395, 57.12, 57.375)  # RGB, 255 times (0.229, 0.224, 0.225)
_DETECTRON1_MEAN = (102.9801, 115.9465, 122.7717)  # BGR
_ONES = (1.0, 1.0, 1.0)

_DEPTHS: dict[tuple[bool, tuple[int, ...]], int] = {
    (True, (3, 4, 6, 3)): 50,
    (True, (3, 4, 23, 3)): 101,
    (True, (3, 8, 36, 3)): 152,
    (False, (2, 2, 2, 2)): 18,
    (False, (3, 4, 6, 3)): 34,
}


@dataclass(frozen=True)
class Requirement:
    """A config key and the values that go with the weights, the most likely one first."""

    key: str
    expected: tuple[Any, ...]
    configured: Any

    @property
    def met(self) -> bool:
        return any(_same(self.configured, value) for value in self.expected)


def requirements(source: Source, cfg: Mapping[str, Any]) -> list[Requirement]:
    """
    Args:
        source: of `recognise`
        cfg: the config, or as many of its sections as are needed
    Returns:
        what is known for this kind of weights; a Detectron2 checkpoint does not record its pixel
        statistics (only early ones do), so for one of them the list has the network's shape only
    """
    expected = {**_network(source), **_pixels(source)}
    return [Requirement(key, values, _configured(cfg, key)) for key, values in expected.items()]


def _network(source: Source) -> dict[str, tuple[Any, ...]]:
    """Depth, groups and width, read off the names and shapes of the residual blocks."""
    blocks: dict[int, set[int]] = {}
    first: dict[str, torch.Tensor] = {}
    for name, tensor in source.tensors.items():
        found = re.search(r"(?:^|\.)res([2-5])\.(\d+)\.(conv[123]\.weight)$", name)
        if found:
            blocks.setdefault(int(found[1]), set()).add(int(found[2]))
            if found[1] == "2" and found[2] == "0":
                first[found[3]] = tensor
    if "conv1.weight" not in first or "conv2.weight" not in first:
        return {}
    bottleneck = "conv3.weight" in first
    counts = tuple(len(blocks.get(stage, ())) for stage in range(2, 6))
    depth = _DEPTHS.get((bottleneck, counts))
    known: dict[str, tuple[Any, ...]] = {}
    if depth is not None:
        known["MODEL.RESNETS.DEPTH"] = (depth,)
    if bottleneck:
        inside, group = first["conv2.weight"].shape[:2]
        known["MODEL.RESNETS.NUM_GROUPS"] = (inside // group,)
        known["MODEL.RESNETS.WIDTH_PER_GROUP"] = (group,)
    stride = _stride_in_1x1(source, grouped=bottleneck and inside != group)
    if bottleneck and stride is not None:
        known["MODEL.RESNETS.STRIDE_IN_1X1"] = (stride,)
    return known


def _stride_in_1x1(source: Source, *, grouped: bool) -> bool | None:
    """Where a block strides leaves no trace in any shape; each publisher has a habit."""
    if source.kind == "torchvision":
        return False
    if source.kind in ("caffe2", "detectron1"):
        group_norm = any("_gn_" in name for name in source.original.values())
        return not (grouped or group_norm)  # MSRA's ResNets True, FAIR's ResNeXts and GN False
    return None


def _pixels(source: Source) -> dict[str, tuple[Any, ...]]:
    bgr = _IMAGENET_MEAN[::-1]
    if source.kind == "torchvision":
        return _statistics("RGB", _IMAGENET_MEAN, _IMAGENET_STD)
    if source.kind == "detectron1":
        return _statistics("BGR", _DETECTRON1_MEAN, _ONES)
    if source.kind == "caffe2":
        grouped = _network(source).get("MODEL.RESNETS.NUM_GROUPS", (1,))[0] > 1
        if not grouped:
            return _statistics("BGR", bgr, _ONES)
        # The same names for two things: Detectron2's zoo (FAIR/X-101-32x8d.pkl) divides by the
        # deviation, the older files of the catalog have it in their first convolution.
        return _statistics("BGR", bgr, _IMAGENET_STD[::-1], _ONES)
    if {"pixel_mean", "pixel_std"} <= set(source.tensors):
        mean, std = (
            tuple(round(float(v), 4) for v in source.tensors[name].flatten())
            for name in ("pixel_mean", "pixel_std")
        )
        # ImageNet's red is its brightest channel
        return _statistics("RGB" if mean[0] > mean[-1] else "BGR", mean, std)
    return {}


def _statistics(
    order: str, mean: Sequence[float], *stds: Sequence[float]
) -> dict[str, tuple[Any, ...]]:
    return {
        "INPUT.FORMAT": (order,),
        "MODEL.PIXEL_MEAN": (list(mean),),
        "MODEL.PIXEL_STD": tuple(list(std) for std in stds),
    }


def _configured(cfg: Mapping[str, Any], key: str) -> Any:
    value: Any = cfg
    for part in key.split("."):
        if part not in value:
            raise UsageError(f"the config has no {key}")
        value = value[part]
    return list(value) if isinstance(value, list | tuple) else value


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(
            math.isclose(a, b, abs_tol=0.01) for a, b in zip(one, other, strict=True)
        )
    return bool(one == other)
