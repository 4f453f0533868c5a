"""Channels first or channels last: the order of images and weights in memory."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import nn

from ...errors import UsageError
from .compiling import require_compiler

_CHOICES = {None: None, "auto": None, True: True, False: False}


def wants_channels_last(setting: bool | str | None, device: str, *, half: bool = False) -> bool:
    """What MODEL.CHANNELS_LAST means on a device.

    None is True on a CPU: oneDNN's convolutions are faster then, and our RoI layers need no copy
    of the features. On a GPU it is True for half precision, which tensor cores read channels last,
    so that otherwise each convolution turns its input and output; in float32 it is False, as
    Detectron2 is.

    Args:
        setting: True, False, or None, which "auto" says too
        device: MODEL.DEVICE
        half: whether the arithmetic is float16 or bfloat16
    """
    wanted = _CHOICES[setting]
    if wanted is not None:
        return wanted
    return half or torch.device(device).type == "cpu"


def to_channels_last(model: nn.Module) -> None:
    """Turn the weights of the convolutions, in place; values and names stay.

    A convolution whose weights are channels last gives channels last, whatever it gets, so the
    images need not be turned.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.to(memory_format=torch.channels_last)


def check_speed_keys(cfg: CfgNode) -> None:
    """Refuse values of this package's keys that mean nothing, or that need what is not there.

    Raises:
        UsageError: the key, its value, what it may be
    """
    for key in ("CHANNELS_LAST", "COMPILE", "FOLD_NORMS"):
        value = cfg.MODEL[key]
        has_auto = key == "CHANNELS_LAST"
        if isinstance(value, bool) or (has_auto and value in (None, "auto")):
            continue
        expected = "True, False or None" if has_auto else "True or False"
        raise UsageError(f"MODEL.{key} is {value!r}, expected {expected}")
    if cfg.MODEL.COMPILE:
        require_compiler(cfg.MODEL.DEVICE)
