"""A training batch as tensors and plain containers, which any torch loads safely, and back.

What Detectron2's mappers make is kept: tensors, arrays, plain values, Instances with boxes, masks
and keypoints. Anything else is left out, and its type is noted in its place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from detectron2.structures import (
    BitMasks,
    Boxes,
    Instances,
    Keypoints,
    PolygonMasks,
    ROIMasks,
    RotatedBoxes,
)

from ..data.masks import IndexedBitMasks
from ..errors import UserError

_KIND = "structure"  # marks a dict that stands for something else
# Each is made of the tensor that it holds. The first that fits counts: a subclass comes first.
_OF_ONE_TENSOR = (IndexedBitMasks, BitMasks, Boxes, RotatedBoxes, Keypoints, ROIMasks)


def to_plain(value: Any) -> Any:
    """
    Args:
        value: a batch, or any part of one
    Returns:
        copies on the CPU; dicts with the key "structure" for what is no tensor or plain container
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return {_KIND: "array", "tensor": torch.from_numpy(value.copy())}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Instances):
        fields = {name: to_plain(field) for name, field in value.get_fields().items()}
        return {_KIND: "Instances", "image_size": list(value.image_size), "fields": fields}
    if isinstance(value, PolygonMasks):
        polygons = [[torch.from_numpy(p.copy()) for p in one] for one in value.polygons]
        return {_KIND: "PolygonMasks", "polygons": polygons}
    for kind in _OF_ONE_TENSOR:
        if isinstance(value, kind):
            return {_KIND: kind.__name__, "tensor": to_plain(value.tensor)}
    if isinstance(value, dict):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return {_KIND: "left out", "type": f"{type(value).__module__}.{type(value).__qualname__}"}


def from_plain(value: Any) -> Any:
    """The batch that `to_plain` was given; tuples are lists now, what was left out is None.

    Raises:
        UserError: a structure of an unknown name
    """
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    name = value.get(_KIND)
    if name is None:
        return {key: from_plain(item) for key, item in value.items()}
    if name == "left out":
        return None
    if name == "array":
        return value["tensor"].numpy()
    if name == "Instances":
        height, width = value["image_size"]
        fields = {key: from_plain(field) for key, field in value["fields"].items()}
        return Instances((height, width), **fields)
    if name == "PolygonMasks":
        return PolygonMasks([[p.numpy() for p in one] for one in value["polygons"]])
    for kind in _OF_ONE_TENSOR:
        if name == kind.__name__:
            return kind(value["tensor"])
    raise UserError(f"the batch holds a {name!r}, which this version does not know")


def left_out(value: Any, path: str = "") -> Iterator[str]:
    """Places and types of what `to_plain` left out."""
    if isinstance(value, list):
        for number, item in enumerate(value):
            yield from left_out(item, f"{path}[{number}]")
    elif isinstance(value, dict) and value.get(_KIND) == "left out":
        yield f"{path or 'batch'}: {value['type']}"
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from left_out(item, f"{path}.{key}" if path else key)


def tensors_of(value: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """("[0].instances.gt_boxes", tensor) and so on, of a plain batch."""
    if isinstance(value, torch.Tensor):
        yield path, value
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from tensors_of(item, f"{path}[{number}]")
    elif isinstance(value, dict):
        inside = _KIND in value
        for key, item in value.items():
            yield from tensors_of(item, path if inside and key != "polygons" else f"{path}.{key}")
