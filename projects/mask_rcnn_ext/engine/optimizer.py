"""The optimizer: Detectron2's parameter groups, in torch's fused form where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from torch import nn
from torch.optim import Optimizer

from ..errors import UsageError

# SOLVER.OPTIMIZER -> class. A new one adds a line here and, if it has keys, in _keywords.
OPTIMIZERS: dict[str, type[Optimizer]] = {"SGD": torch.optim.SGD, "AdamW": torch.optim.AdamW}
_FUSED = {None: None, "auto": None, True: True, False: False}
# Of a parameter group: how the step is computed, not what it computes.
_FORMS = ("fused", "foreach")


def check_optimizer_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: SOLVER.OPTIMIZER or SOLVER.FUSED is not one that there is
    """
    if cfg.SOLVER.OPTIMIZER not in OPTIMIZERS:
        raise UsageError(
            f"SOLVER.OPTIMIZER is {cfg.SOLVER.OPTIMIZER!r}, expected {' or '.join(OPTIMIZERS)}"
        )
    if cfg.SOLVER.FUSED not in _FUSED:
        raise UsageError(f"SOLVER.FUSED is {cfg.SOLVER.FUSED!r}, expected True, False or None")


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """SOLVER.OPTIMIZER with Detectron2's groups, clipping and, by SOLVER.FUSED, one fused kernel.

    Args:
        cfg: reads SOLVER
        model: on its device and in its memory format
    Raises:
        UsageError: SOLVER.FUSED is True where torch has no fused form
    """
    params = get_default_optimizer_params(
        model,
        base_lr=cfg.SOLVER.BASE_LR,
        weight_decay_norm=cfg.SOLVER.WEIGHT_DECAY_NORM,
        bias_lr_factor=cfg.SOLVER.BIAS_LR_FACTOR,
        weight_decay_bias=cfg.SOLVER.WEIGHT_DECAY_BIAS,
    )
    plain = OPTIMIZERS[cfg.SOLVER.OPTIMIZER]
    keywords = _keywords(cfg)
    device = next(model.parameters()).device
    wanted = _FUSED[cfg.SOLVER.FUSED]
    if wanted is not False and has_fused(plain, device, keywords):
        keywords["fused"] = True
    elif wanted:
        raise UsageError(
            f"SOLVER.FUSED is True, but torch {torch.__version__} has no fused "
            f"{cfg.SOLVER.OPTIMIZER} for {device.type}; take None"
        )
    optimizer = maybe_add_gradient_clipping(cfg, plain)(params, **keywords)
    if keywords.get("fused") and keywords.get("momentum"):
        _start_momentum(optimizer)
    return optimizer


def _keywords(cfg: CfgNode) -> dict[str, Any]:
    solver = cfg.SOLVER
    keywords: dict[str, Any] = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
    if solver.OPTIMIZER == "SGD":
        keywords |= {"momentum": solver.MOMENTUM, "nesterov": solver.NESTEROV}
    return keywords


def has_fused(
    plain: Callable[..., Optimizer], device: torch.device, keywords: dict[str, Any]
) -> bool:
    """Whether this torch steps a parameter on this device in fused form: tried, not looked up.

    Args:
        plain: of OPTIMIZERS
        keywords: of its constructor
    """
    parameter = nn.Parameter(torch.zeros(1, device=device))
    parameter.grad = torch.zeros_like(parameter)
    try:
        plain([parameter], **keywords, fused=True).step()
    except (TypeError, RuntimeError):  # no such argument; no such kernel
        return False
    return True


def _start_momentum(optimizer: Optimizer) -> None:
    """Momentum of zero, which gives the first step that none gives.

    Fused SGD makes its buffers in the first step and leaves them uninitialized if that step is
    left out because of a gradient that is not finite, as a gradient scaler's first one often is.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def load_optimizer_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """`optimizer.load_state_dict`, but the step stays in the form that this optimizer has.

    torch would take fused or not from the checkpoint, and a step that is not fused ignores the
    mark of a gradient that is not finite. The state takes its parameter's memory order: torch's
    fused steps on a CPU read memory as it lies, whatever the strides say (torch 2.14), and are
    wrong without a word where a checkpoint was written in the other order.

    Args:
        state: of `state_dict()`, of an optimizer of the same class and groups
    """
    groups = [
        saved | {form: own[form] for form in _FORMS if form in own}
        for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict(state | {"param_groups": groups})
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
                kept[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
