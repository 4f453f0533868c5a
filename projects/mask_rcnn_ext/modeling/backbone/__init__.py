"""Backbones beside Detectron2's own; importing this package registers them in Detectron2."""

from .nonlocal_block import ChannelAffine, NonLocalBlock
from .nonlocal_resnet import build_nonlocal_resnet_backbone, build_nonlocal_resnet_fpn_backbone
from .short_fpn import build_short_resnet_fpn_backbone

__all__ = [
    "ChannelAffine",
    "NonLocalBlock",
    "build_nonlocal_resnet_backbone",
    "build_nonlocal_resnet_fpn_backbone",
    "build_short_resnet_fpn_backbone",
]
