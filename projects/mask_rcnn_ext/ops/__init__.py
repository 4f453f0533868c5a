"""The arithmetic: RoI layers and mask targets, on torch tensors, without any config."""

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
    "roi_align",
    "roi_pool",
    "roi_warp",
]
