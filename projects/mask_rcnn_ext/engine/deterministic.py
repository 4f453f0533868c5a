"""Two runs, the same bits: what is switched for that, and what stays in the way on a GPU.

On a CPU nothing stays. One operation of torch sums in any order there with two threads or more, the
backward pass of `tensor[index]`; the switch gives it an order.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
from detectron2.config import CfgNode

from ..modeling.roi_extractor import POOLER_TYPES
from ..ops import kernels

_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACES = (":4096:8", ":16:8")


class Source(NamedTuple):
    """One thing by which two runs on a GPU may differ."""

    operation: str
    reason: str
    remedy: str  # "" where there is none


def make_deterministic(device: str) -> None:
    """Choose the form of each operation that gives the same bits every time.

    On a CPU an operation without one raises. On a GPU it warns: `remaining_sources` lists those
    that a training meets. To be called before anything runs on a GPU.

    Args:
        device: MODEL.DEVICE
    """
    on_cpu = torch.device(device).type == "cpu"
    # cuBLAS reads it when the first handle is made.
    if os.environ.get(_WORKSPACE) not in _FIXED_WORKSPACES:
        os.environ[_WORKSPACE] = _FIXED_WORKSPACES[0]
    torch.use_deterministic_algorithms(True, warn_only=not on_cpu)
    # Filling new memory costs time, and hides only what would be a bug: reading it unwritten.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


def remaining_sources(cfg: CfgNode, processes: int = 1) -> list[Source]:
    """What can differ between two runs of a config after `make_deterministic`.

    Args:
        cfg: the run's, complete
        processes: how many train together
    Returns:
        empty on a CPU
    """
    if torch.device(cfg.MODEL.DEVICE).type == "cpu":
        return []
    model = cfg.MODEL
    found = [source for head in _heads_of(cfg) for source in _of_pooler(cfg, head)]
    if any(model.RESNETS.DEFORM_ON_PER_STAGE):
        found.append(
            Source(
                "deformable convolution, backward",
                "atomic additions, and there is no other form",
                "MODEL.RESNETS.DEFORM_ON_PER_STAGE [False, False, False, False]",
            )
        )
    if model.COMPILE:
        found.append(
            Source("torch.compile", "kernels are chosen by timing them", "MODEL.COMPILE False")
        )
    if processes > 1:
        found.append(
            Source(
                "sums over several GPUs",
                "NCCL chooses their order by the machine's connections and the message's size",
                "the same GPUs of the same machine, and NCCL_ALGO=Ring in the environment",
            )
        )
    return found


def _heads_of(cfg: CfgNode) -> list[str]:
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        return []
    heads = ["ROI_BOX_HEAD"]
    heads += ["ROI_MASK_HEAD"] * cfg.MODEL.MASK_ON
    return heads + ["ROI_KEYPOINT_HEAD"] * cfg.MODEL.KEYPOINT_ON


def _of_pooler(cfg: CfgNode, head: str) -> list[Source]:
    keys = cfg.MODEL[head]
    layer = POOLER_TYPES.get(keys.POOLER_TYPE, keys.POOLER_TYPE)
    where = f"{layer} of MODEL.{head}, backward"
    if layer == "RoIPool":
        return [
            Source(
                where,
                "torchvision's kernel sums with atomic additions, and there is no other form",
                f"MODEL.{head}.POOLER_TYPE RoIAlignV2",
            )
        ]
    runs, why_not = kernels.is_available()
    # With Triton both our kernel and torchvision's compiled form have an order.
    if not runs:
        return [
            Source(
                where,
                f"torchvision's kernel sums with atomic additions; its form with an order, and "
                f"ours, need Triton ({why_not})",
                "pip install triton",
            )
        ]
    return []
