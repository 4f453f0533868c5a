"""Mask head by fully connected layers, the one that the paper rejects (table 2e).

Shape shorthand: R RoIs in the minibatch, C channels, S side of the RoI feature, M mask side, L
channels of the logits, as in `mask_heads`.
"""

from __future__ import annotations

from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import ROI_MASK_HEAD_REGISTRY
from torch import nn
from torch.nn import functional as F

from ..errors import UsageError
from .config_keys import head_keys
from .mask_heads import CheckedMaskHead, mask_head_settings
from .mask_losses import num_mask_channels


@ROI_MASK_HEAD_REGISTRY.register()
class MLPMaskHead(CheckedMaskHead):
    """Predict each RoI's mask from a vector, without a notion of place (table 2e, "MLP").

    Its two forms there are fc 1024 -> 1024 -> 80 * 28^2 and fc 1024 -> 1024 -> 1024 -> 80 * 28^2:
    `fc_dims` of two or three widths, each layer followed by a ReLU, then the predictor. The inputs
    and the loss are those of `FCNMaskHead`.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        fc_dims: list[int],
        mask_side: int,
        loss: str = "sigmoid",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: one RoI feature, C x S x S, all of them needed
            num_classes: K, background not counted; 1 means class-agnostic, or one class
            fc_dims: width of each hidden layer
            mask_side: M, any
            loss: "sigmoid" or "softmax"
            kwargs: `loss_weight` and `vis_period`, as in Detectron2's `BaseMaskRCNNHead`
        Raises:
            UsageError: no layer, a count or width below 1, an unknown loss, no side
        """
        self._check_settings("MLPMaskHead", num_classes, loss)
        if not fc_dims or min(fc_dims) < 1:
            raise UsageError(
                f"MLPMaskHead needs hidden layers of at least one unit, got fc_dims={fc_dims}; set "
                "MODEL.ROI_MASK_HEAD.FC_DIMS ([1024, 1024] or three of them in table 2e)."
            )
        if mask_side < 1:
            raise UsageError(
                f"MLPMaskHead needs masks of at least one cell, got mask_side={mask_side}; set "
                "MODEL.ROI_MASK_HEAD.RESOLUTION to 0 (twice its input's side) or more."
            )
        side = _square_side(input_shape)
        super().__init__(**kwargs)
        self.out_shape = (num_mask_channels(num_classes, loss), mask_side, mask_side)
        widths = [input_shape.channels * side**2, *fc_dims]
        layers = zip(widths[:-1], widths[1:], strict=True)
        self.fcs = nn.ModuleList(nn.Linear(before, after) for before, after in layers)
        self.predictor = nn.Linear(widths[-1], self.out_shape[0] * mask_side**2)
        for fc in self.fcs:
            weight_init.c2_xavier_fill(fc)
        nn.init.normal_(self.predictor.weight, std=0.001)  # as Detectron2's mask predictor
        nn.init.zeros_(self.predictor.bias)
        self._expect(input_shape, num_classes, loss, input_side=side)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        keys = head_keys(cfg, "ROI_MASK_HEAD")
        return {
            **super().from_config(cfg, input_shape),
            **mask_head_settings(cfg),
            "input_shape": input_shape,
            "fc_dims": list(keys.FC_DIMS),
            "mask_side": keys.RESOLUTION or 2 * _square_side(input_shape),  # as the FCN's
        }

    def layers(self, x: torch.Tensor) -> torch.Tensor:
        """Logits (R, L, M, M) of RoI features (R, C, S, S)."""
        x = x.flatten(1)
        for fc in self.fcs:
            x = F.relu(fc(x))
        channels, height, width = self.out_shape
        return self.predictor(x).view(x.shape[0], channels, height, width)


def _square_side(input_shape: ShapeSpec) -> int:
    """S of a C x S x S feature."""
    side = input_shape.height
    if not side or side != input_shape.width:
        raise UsageError(
            f"MLPMaskHead got an input of height {side} and width {input_shape.width}, expected "
            "one known side; RoI heads announce it, from MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION or "
            "in the C4 form with MODEL.ROI_HEADS.NAME MaskRCNNRes5ROIHeads."
        )
    return side
