"""torch.compile for the parts that are the same arithmetic for every picture."""

from __future__ import annotations

import importlib.util
import os
import shutil

import torch
from torch import nn

from ...errors import UsageError


def compile_dense_parts(model: nn.Module) -> list[str]:
    """Compile backbone and RPN head, in place; names of weights stay.

    The first pictures are slow. Heights and widths are free: one program serves them all.

    Args:
        model: of Detectron2's kind; parts that it has not are passed over
    Returns:
        names of the modules that will be compiled
    """
    compiled = []
    for name in ("backbone", "proposal_generator.rpn_head"):
        try:
            part = model.get_submodule(name)
        except AttributeError:
            continue
        part.compile(dynamic=True)
        compiled.append(name)
    return compiled


def missing_compiler(device: str) -> str | None:
    """What torch.compile lacks on this machine, or None.

    Args:
        device: MODEL.DEVICE
    """
    named = os.environ.get("CXX")
    names = [named] if named else ["g++", "clang++"]
    if not any(map(shutil.which, names)):
        return f"a C++ compiler ({' or '.join(names)}, or what CXX names)"
    if torch.device(device).type == "cuda" and importlib.util.find_spec("triton") is None:
        return "Triton (pip install triton)"
    return None


def require_compiler(device: str) -> None:
    """
    Raises:
        UsageError: torch.compile cannot work here
    """
    missing = missing_compiler(device)
    if missing:
        raise UsageError(
            f"MODEL.COMPILE is True, but torch.compile needs {missing}, which this machine has "
            "not; install it, or set MODEL.COMPILE False"
        )
