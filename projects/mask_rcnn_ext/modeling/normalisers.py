"""Losses of several processes that are together the loss of the global batch.

Most RoI losses are means over the RoIs of a process, and data parallel training averages the
processes: a process with few RoIs then counts as much as one with many. Each loss times its
process's share of the count, times the number of processes, averages to the mean over all RoIs.

The RPN's losses, and the keypoint loss that is not normalised by visible keypoints, divide by the
number of images, which is the same in all processes: nothing to do.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.roi_heads import BaseKeypointRCNNHead, FastRCNNOutputLayers
from detectron2.modeling.roi_heads.mask_head import BaseMaskRCNNHead
from detectron2.structures import Instances
from detectron2.utils import comm
from torch import distributed, nn

from .mask_heads import CheckedMaskHead

# The forwards whose loss is the mean over positive RoIs; other layers do not change that.
_MASK_FORWARDS = (BaseMaskRCNNHead.forward, CheckedMaskHead.forward)
# Any side does: whether a keypoint lies in its RoI does not depend on it.
_HEATMAP_SIDE = 56


def is_shared_step(module: nn.Module) -> bool:
    """Whether this forward is one of several that processes do together, as in data parallel."""
    return module.training and torch.is_grad_enabled() and comm.get_world_size() > 1


def weigh_by_counts(
    losses: dict[str, torch.Tensor], counts: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Make the mean over processes of each loss the mean over what all processes count.

    All processes call it together; one small sum over them, and no wait for a GPU.

    Args:
        losses: scalars, each a mean over its count; 0 where that is 0
        counts: by name of a loss, scalars; the same names, in the same order, in all processes.
            Losses that are not among them stay as they are
    Returns:
        all `losses`
    """
    if not counts:
        return losses
    own = torch.stack([count.to(torch.float32) for count in counts.values()])
    total = own.clone()
    distributed.all_reduce(total)
    factors = own * comm.get_world_size() / total.clamp(min=1)
    weighed = {name: losses[name] * factor for name, factor in zip(counts, factors, strict=True)}
    return losses | weighed


def counts_of(heads: Any, proposals: list[Instances]) -> dict[str, torch.Tensor]:
    """What each loss of Detectron2's RoI heads is a mean over.

    Heads that compute their losses themselves may divide by anything; they have no count here.

    Args:
        heads: `StandardROIHeads` or `Res5ROIHeads`
        proposals: one an image, sampled for training, at least one image
    Returns:
        by name of a loss, float32 scalars on the device of the proposals
    """
    counts: dict[str, torch.Tensor] = {}
    device = proposals[0].gt_classes.device
    if type(heads.box_predictor).losses is FastRCNNOutputLayers.losses:
        rois = sum(map(len, proposals))
        # A number that is filled in on the GPU; a copy from the host could wait for it.
        counts["loss_cls"] = counts["loss_box_reg"] = torch.full((), float(rois), device=device)
    if heads.mask_on and type(heads.mask_head).forward in _MASK_FORWARDS:
        limit = getattr(heads, "train_mask_rois_per_image", 0)
        positives = torch.stack([_foreground(heads, one).sum() for one in proposals])
        counts["loss_mask"] = (positives.clamp(max=limit) if limit else positives).sum()
    if _normalised_by_visible(heads):
        counts["loss_keypoint"] = _visible_keypoints(heads, proposals)
    return counts


def _foreground(heads: Any, one: Instances) -> torch.Tensor:
    return (one.gt_classes >= 0) & (one.gt_classes < heads.num_classes)


def _normalised_by_visible(heads: Any) -> bool:
    if not getattr(heads, "keypoint_on", False):  # Res5ROIHeads has no such branch
        return False
    head = heads.keypoint_head
    known = type(head).forward is BaseKeypointRCNNHead.forward
    return known and head.loss_normalizer == "visible"


def _visible_keypoints(heads: Any, proposals: list[Instances]) -> torch.Tensor:
    counts = [torch.zeros((), device=proposals[0].gt_classes.device)]
    for one in proposals:
        if one.has("gt_keypoints"):  # an image without objects has none
            _, valid = one.gt_keypoints.to_heatmap(one.proposal_boxes.tensor, _HEATMAP_SIDE)
            counts.append((valid * _foreground(heads, one)[:, None]).sum())
    return torch.stack(counts).sum()
