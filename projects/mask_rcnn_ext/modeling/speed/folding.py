"""Norms with fixed statistics, multiplied into the convolutions before them.

A norm in inference is y = scale x + shift, channel by channel, and a convolution before it can hold
both in its weights and bias: one pass over memory less a layer.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def fold_norms(model: nn.Module) -> int:
    """Fold each norm of a Detectron2 `Conv2d` into it, in place.

    Frozen norms, and batch norms that have running statistics; others (GN, LN) depend on the
    picture and stay. The convolutions get new parameters without gradient, so tensors that another
    model shares with this one are left as they are. The result is for inference only.

    Args:
        model: in evaluation mode where it has batch norms that are not frozen
    Returns:
        how many were folded
    """
    folded = 0
    for conv in model.modules():
        if not isinstance(conv, Conv2d) or conv.norm is None:
            continue
        affine = _scale_and_shift(conv.norm)
        if affine is None:
            continue
        scale, shift = affine
        weight, bias = conv.weight.detach(), conv.bias
        if bias is not None:
            shift = shift + bias.detach().double() * scale
        # Products in float64: one rounding, as the norm itself has.
        wide = weight.double() * scale[:, None, None, None]
        conv.weight = nn.Parameter(_like(wide, weight), requires_grad=False)
        conv.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)
        conv.norm = None
        folded += 1
    return folded


def _like(wide: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """In the dtype and the memory order of the weight."""
    return torch.empty_like(weight, memory_format=torch.preserve_format).copy_(wide)


def _scale_and_shift(norm: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """(C,) float64 each, or None for a norm that is no fixed scale and shift."""
    fixed = isinstance(norm, FrozenBatchNorm2d) or (
        isinstance(norm, _BatchNorm) and not norm.training and norm.running_mean is not None
    )
    if not fixed:
        return None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = (variance + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -mean * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    return scale, shift
