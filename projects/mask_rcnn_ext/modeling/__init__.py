"""The model parts that the paper compares; importing this package registers them in Detectron2."""

from .backbone import (
    build_nonlocal_resnet_backbone,
    build_nonlocal_resnet_fpn_backbone,
    build_short_resnet_fpn_backbone,
)
from .mask_heads import FCNMaskHead
from .mlp_mask_head import MLPMaskHead
from .roi_extractor import RoIExtractor
from .roi_heads import MaskRCNNRes5ROIHeads, MaskRCNNROIHeads
from .rpn import MaskRCNNRPN

__all__ = [
    "FCNMaskHead",
    "MLPMaskHead",
    "MaskRCNNROIHeads",
    "MaskRCNNRPN",
    "MaskRCNNRes5ROIHeads",
    "RoIExtractor",
    "build_nonlocal_resnet_backbone",
    "build_nonlocal_resnet_fpn_backbone",
    "build_short_resnet_fpn_backbone",
]
