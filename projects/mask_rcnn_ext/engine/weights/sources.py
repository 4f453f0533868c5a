"""What kind of weights a file holds, and its tensors under one kind of names.

read_weights -> recognise -> Source(tensors under Detectron2's names, without a model's prefix)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names

from ...errors import UserError
from .torchvision_names import is_torchvision, to_detectron2

# Where programs put the model's state dict beside optimizer, epoch and the like.
WRAPPERS = ("model", "state_dict", "model_state", "blobs")


@dataclass(frozen=True)
class Source:
    """Published weights.

    kind: "torchvision", "caffe2" (ImageNet models of MSRA and FAIR), "detectron1" (its detection
        models) or "detectron2"
    tensors: name -> tensor. Names are Detectron2's; of a backbone alone they start at "stem." and
        "res2.", of a detector in our own format they are the model's own.
    original: the same names -> names in the file
    by_suffix: whether a name may be the end of a model's name; otherwise it is the whole
    author: what the file says of itself, or ""
    skipped: names in the file that are no weights (momentum, settings)
    """

    kind: str
    tensors: dict[str, torch.Tensor]
    original: dict[str, str]
    by_suffix: bool
    author: str
    skipped: list[str]


def recognise(content: Any, name: str) -> Source:
    """
    Args:
        content: of `read_weights`
        name: of the file, for messages
    Raises:
        UserError: it has no tensors by name
    """
    content, state = _state_dict(content, name)
    author = str(content.get("__author__", ""))
    weights = {k: v for k, v in state.items() if not k.endswith("_momentum")}
    tensors = {k: t for k, v in weights.items() if (t := to_tensor(v)) is not None}
    skipped = [key for key in state if key not in tensors]
    if not tensors:
        raise UserError(
            f"{name} holds no tensors by name, only {_names(state) or 'nothing'}; expected a state "
            "dict, or a checkpoint with one under 'model', 'state_dict' or 'blobs'"
        )
    tensors, prefixed = _without_ddp(tensors)
    if is_torchvision(tensors):
        kind, by_suffix = "torchvision", True
        renamed = {to_detectron2(key): key for key in tensors}
        tensors = {new: tensors[key] for new, key in renamed.items()}
    elif _is_caffe2(tensors):
        kind, by_suffix = ("detectron1" if "blobs" in content else "caffe2"), True
        tensors, renamed = _from_caffe2(tensors, name)
    else:
        kind = "torchvision" if author == "torchvision" else "detectron2"
        by_suffix = bool(content.get("matching_heuristics")) or any(
            key.startswith(("stem.", "res2.")) for key in tensors
        )
        renamed = {key: key for key in tensors}
    original = {new: prefixed[key] for new, key in renamed.items()}
    return Source(
        kind=kind,
        tensors=tensors,
        original=original,
        by_suffix=by_suffix,
        author=author,
        skipped=sorted(skipped),
    )


def _state_dict(content: Any, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    if not isinstance(content, Mapping):
        raise UserError(
            f"{name} holds a {type(content).__name__}, not weights by name; expected a state dict"
        )
    content = {str(key): value for key, value in content.items()}
    for wrapper in WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return content, {str(key): value for key, value in content[wrapper].items()}
    return content, content


def to_tensor(value: Any) -> torch.Tensor | None:
    """A tensor or an array of numbers as a tensor; None for anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach()
    # numpy's 16-byte floats have no place in torch
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf" and value.itemsize <= 8:
        # torch wants the machine's byte order, and strides that are not negative
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(np.ascontiguousarray(native)).reshape(value.shape)
    return None


def _without_ddp(
    tensors: dict[str, torch.Tensor],
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Drop the "module." that a DistributedDataParallel model puts before every name."""
    prefix = "module." if all(key.startswith("module.") for key in tensors) else ""
    names = {key.removeprefix(prefix): key for key in tensors}
    return {new: tensors[key] for new, key in names.items()}, names


def _is_caffe2(tensors: Mapping[str, Any]) -> bool:
    # res2_0_branch2a_w; a Detectron2 name has dots
    return any(re.match(r"res\d_\d+_branch", key) for key in tensors)


def _from_caffe2(
    tensors: dict[str, torch.Tensor], name: str
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        return convert_c2_detectron_names(tensors)
    except (AssertionError, IndexError, ValueError, RuntimeError) as error:
        # Detectron2's renaming asserts that no two names become one.
        raise UserError(
            f"{name} looks like a Caffe2 model, but its names cannot be told apart "
            f"({type(error).__name__}: {error})"
        ) from error


def _names(state: Mapping[str, Any]) -> str:
    return ", ".join([repr(key) for key in state][:5]) + (" ..." if len(state) > 5 else "")
