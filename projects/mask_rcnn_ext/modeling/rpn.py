"""Detectron2's RPN, cheaper in training; its choice of anchors can depend on the image alone."""

from __future__ import annotations

import torch
from detectron2.modeling.proposal_generator import PROPOSAL_GENERATOR_REGISTRY
from detectron2.structures import Boxes, Instances

from .sampling import ANCHORS, each_image, next_image
from .speed.sampled_rpn import SampledRPN


@PROPOSAL_GENERATOR_REGISTRY.register()
class MaskRCNNRPN(SampledRPN):
    """As Detectron2's `RPN`; within `sampling.draws` it draws image by image."""

    @torch.jit.unused
    def label_and_sample_anchors(
        self, anchors: list[Boxes], gt_instances: list[Instances]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        with each_image(ANCHORS, len(gt_instances)):
            return super().label_and_sample_anchors(anchors, gt_instances)

    @torch.jit.unused
    def _subsample_labels(self, label: torch.Tensor) -> torch.Tensor:
        with next_image(label.device):
            return super()._subsample_labels(label)
