"""A model as inference wants it, beside the one that goes on training."""

from __future__ import annotations

import copy
from itertools import chain

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from .compiling import compile_dense_parts
from .folding import fold_norms as fold
from .memory_format import to_channels_last


def prepare_for_inference(
    model: nn.Module, *, fold_norms: bool, channels_last: bool, compile: bool = False
) -> nn.Module:
    """A copy in evaluation mode that gives the same results to rounding, faster.

    The model itself stays as it is: its weights, their order in memory and its mode. What is not
    changed is shared with it, so the copy costs little memory, and is of no use after the next
    training step: make it anew for each evaluation.

    Args:
        model: any; of one wrapped for several processes, the inner one is copied
        fold_norms: multiply fixed norms into the convolutions before them
        channels_last: weights of convolutions in that memory order
        compile: torch.compile for backbone and RPN head; needs a compiler, see `missing_compiler`
    """
    if isinstance(model, DistributedDataParallel):
        model = model.module
    shared = chain(model.parameters(), model.buffers())
    ready = copy.deepcopy(model, {id(tensor): tensor for tensor in shared}).eval()
    if fold_norms:
        fold(ready)
    if channels_last:
        # Turning a parameter would turn the one that training has, too.
        for module in ready.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                module.weight = nn.Parameter(module.weight.detach(), requires_grad=False)
        to_channels_last(ready)
    if compile:
        compile_dense_parts(ready)
    return ready
