"""A mask head's last layer for the class of each RoI alone, which is all that its loss reads.

Shape shorthand: R RoIs, D channels, M mask side, K classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


def is_pointwise(layer: Any) -> bool:
    """Whether a layer is a plain 1 x 1 convolution, with a bias and with nothing after it."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.padding) == ((1, 1), (1, 1), (0, 0))
        and layer.groups == 1
        and layer.bias is not None
        and getattr(layer, "norm", None) is None
        and getattr(layer, "activation", None) is None
    )


def own_class_logits(predictor: nn.Conv2d, x: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """`predictor(x)[r, classes[r]]` of each RoI r, to rounding, without the other classes.

    Args:
        predictor: `is_pointwise(predictor)`, D -> K channels
        x: (R, D, M, M); R may be 0
        classes: (R,) int64, 0 ... K - 1
    Returns:
        (R, 1, M, M), differentiable in `x` and in the predictor's parameters
    """
    assert predictor.bias is not None
    # Its backward pass adds in the same order each time, which that of indexing does not on a CPU.
    weight = F.embedding(classes, predictor.weight.flatten(1))  # (R, D)
    bias = F.embedding(classes, predictor.bias[:, None])  # (R, 1)
    if x.is_contiguous():
        logits = torch.bmm(weight[:, None], x.flatten(2))
    else:  # channels last; the gradient comes out in the order of x
        logits = torch.bmm(x.permute(0, 2, 3, 1).flatten(1, 2), weight[:, :, None])
    return logits.view(len(x), 1, *x.shape[2:]) + bias[:, :, None, None].to(logits.dtype)
