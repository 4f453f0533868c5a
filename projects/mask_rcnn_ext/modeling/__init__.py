"""The model parts that the paper compares; importing this package registers them in Detectron2."""

from .backbone import build_short_resnet_fpn_backbone
from .mask_heads import FCNMaskHead

__all__ = ["FCNMaskHead", "build_short_resnet_fpn_backbone"]
