"""Backbones beside Detectron2's own.

Shape shorthand: N images, H x W pixels of the network input; a level of stride s is H/s x W/s.
"""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, build_resnet_backbone
from detectron2.modeling.backbone.fpn import LastLevelMaxPool


@BACKBONE_REGISTRY.register()
def build_short_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """A feature pyramid over the ResNet stages that FPN.IN_FEATURES names, be they fewer than four.

    For small pictures: at 128 pixels, res5 (stride 32) sees 4 x 4 cells and holds three quarters of
    a ResNet-18's weights. Detectron2's `build_resnet_fpn_backbone` takes the level on top (for the
    RPN alone) from "p5" whatever the stages; here it is taken from the last one.

    Args:
        cfg: reads MODEL.RESNETS and MODEL.FPN
        input_shape: of the picture
    Returns:
        the pyramid: p2 ... pL of FPN.OUT_CHANNELS for stages res2 ... resL, and p(L+1), every
        second cell of pL
    """
    in_features = cfg.MODEL.FPN.IN_FEATURES
    top_block = LastLevelMaxPool()
    top_block.in_feature = in_features[-1].replace("res", "p")
    return FPN(
        bottom_up=build_resnet_backbone(cfg, input_shape),
        in_features=in_features,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top_block,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
