"""Stands for the compiled module detectron2._C, which a pure-Python build has not.

It is no `_C` itself: code that asks for `_C` (collect_env does) must find that there is none.
"""

import torch


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    _refuse(name)


def require_op(name):
    """Raise unless torch.ops.detectron2 has this operator; `_C` registers it, others may."""
    if not hasattr(torch.ops.detectron2, name):
        _refuse(name)


def _refuse(name):
    raise ImportError(
        f"{name} is in detectron2._C, the compiled part of Detectron2, which this pure-Python "
        "build does not have (rotated boxes need it). Uninstall this build and install Detectron2 "
        "from its source with a C++ compiler: see INSTALL.md of facebookresearch/detectron2."
    )
