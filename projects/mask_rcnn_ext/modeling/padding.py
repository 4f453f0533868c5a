"""Images padded alike in all processes: to the largest of the global batch.

Detectron2 pads the images of a batch to the largest of them. What lies beyond an image's edge is
seen by the layers near it, and the RPN takes some of its negatives there, so the losses depend on
which images share a process.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.utils import comm
from torch import nn
from torch.nn import functional as F

from .normalisers import is_shared_step


def pad_like_the_global_batch(model: nn.Module) -> None:
    """Let the backbone's images be as large in each process as in the largest of them.

    It acts in training with several processes, in forwards with gradients, and costs one exchange
    of two numbers between the hosts. The price is what Detectron2 avoids by padding in each process
    for itself: with images of many sizes each process computes on the largest.

    Args:
        model: with a `backbone` that takes the padded batch (N, C, H, W), as Detectron2's
    """
    model.get_submodule("backbone").register_forward_pre_hook(_pad)


@torch.compiler.disable
def _pad(backbone: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[Any, ...] | None:
    if not is_shared_step(backbone):
        return None
    images, *rest = inputs
    height, width = images.shape[-2:]
    heights, widths = zip(*comm.all_gather((height, width)), strict=True)
    missing = (0, max(widths) - width, 0, max(heights) - height)
    return (F.pad(images, missing) if any(missing) else images, *rest)
