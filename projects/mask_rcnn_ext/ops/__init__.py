"""The arithmetic: RoI layers, mask targets, pasted masks; on tensors, without any config."""

from .mask_paste import paste_masks_to_rle
from .multilevel import assign_levels, multilevel_roi_features
from .roi_align import RoIAlign, roi_align
from .roi_pool import RoIPool, roi_pool
from .roi_warp import RoIWarp, roi_warp

__all__ = [
    "RoIAlign",
    "RoIPool",
    "RoIWarp",
    "assign_levels",
    "multilevel_roi_features",
    "paste_masks_to_rle",
    "roi_align",
    "roi_pool",
    "roi_warp",
]
