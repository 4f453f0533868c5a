"""ResNets with one non-local block in res4 (arXiv 1711.07971, section 6; Mask R-CNN's table 8)."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, FPN, Backbone, build_resnet_backbone
from detectron2.modeling.backbone import ResNet
from detectron2.modeling.backbone.fpn import LastLevelMaxPool
from torch import nn

from ...errors import UsageError
from .nonlocal_block import NonLocalBlock

_STAGE = "res4"
_NAME = "non_local"


@BACKBONE_REGISTRY.register()
def build_nonlocal_resnet_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> ResNet:
    """Detectron2's ResNet (or ResNeXt) with a non-local block before the last block of res4.

    The block is `res4.non_local`; every other parameter keeps its name, so published weights load
    and leave only the new block at its start, the identity. BACKBONE.FREEZE_AT freezes what such
    weights have filled: with 4 or more, res4 is frozen around the block and the block still learns.

    Args:
        cfg: reads MODEL.RESNETS and MODEL.BACKBONE.FREEZE_AT; RESNETS.NORM is the block's norm too
        input_shape: of the picture
    Returns:
        as `build_resnet_backbone` does: the stages that RESNETS.OUT_FEATURES names
    Raises:
        UsageError: OUT_FEATURES stops before res4
    """
    resnet: ResNet = build_resnet_backbone(cfg, input_shape)
    if _STAGE not in resnet.stage_names:
        raise UsageError(
            f"MODEL.RESNETS.OUT_FEATURES is {cfg.MODEL.RESNETS.OUT_FEATURES}, but the non-local "
            f"block is in {_STAGE}: name {_STAGE} or res5 as well, or choose another "
            "MODEL.BACKBONE.NAME"
        )
    index = resnet.stage_names.index(_STAGE)
    channels = resnet.stages[index][-1].out_channels
    stage = _insert_before_last(
        resnet.stages[index], NonLocalBlock(channels, norm=cfg.MODEL.RESNETS.NORM)
    )
    # A ResNet has its stages twice: registered by name, and in the list that forward() walks.
    setattr(resnet, _STAGE, stage)
    resnet.stages[index] = stage
    return resnet


@BACKBONE_REGISTRY.register()
def build_nonlocal_resnet_fpn_backbone(cfg: CfgNode, input_shape: ShapeSpec) -> Backbone:
    """Detectron2's `build_resnet_fpn_backbone` over `build_nonlocal_resnet_backbone`.

    Args:
        cfg: reads MODEL.RESNETS, MODEL.BACKBONE.FREEZE_AT and MODEL.FPN
        input_shape: of the picture
    Returns:
        the pyramid, p2 ... p6
    Raises:
        UsageError: OUT_FEATURES stops before res4
    """
    return FPN(
        bottom_up=build_nonlocal_resnet_backbone(cfg, input_shape),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def _insert_before_last(stage: nn.Sequential, block: nn.Module) -> nn.Sequential:
    """The blocks under their old names ("0", "1", ...), the new one between the last two."""
    names = [name for name, _ in stage.named_children()]
    longer = nn.Sequential()
    for name in names[:-1]:
        longer.add_module(name, stage.get_submodule(name))
    longer.add_module(_NAME, block)
    longer.add_module(names[-1], stage.get_submodule(names[-1]))
    return longer
