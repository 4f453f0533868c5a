"""RoI features for any head: a drop-in for Detectron2's `ROIPooler`, with the paper's four layers.

Shape shorthand: L levels, N images, C channels, R RoIs of all images, PH x PW bins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from detectron2.modeling.poolers import convert_boxes_to_pooler_format
from detectron2.structures import Boxes
from torch import nn

from ..ops import assign_levels, multilevel_roi_features
from ..ops.geometry import resolve_aggregation

# What a config may say -> the layer of `ops`. Detectron2 writes ROI where the paper writes RoI.
POOLER_TYPES = {
    "RoIPool": "RoIPool",
    "RoIWarp": "RoIWarp",
    "RoIAlign": "RoIAlign",
    "RoIAlignV2": "RoIAlignV2",
    "ROIPool": "RoIPool",
    "ROIAlign": "RoIAlign",
    "ROIAlignV2": "RoIAlignV2",
}


class RoIExtractor(nn.Module):
    """Cut each image's boxes out of a feature map or pyramid, all levels in one call."""

    def __init__(
        self,
        output_size: int | Sequence[int],
        scales: Sequence[float],
        sampling_ratio: int,
        pooler_type: str,
        aggregation: str | None = None,
        canonical_box_size: float = 224,
        canonical_level: int = 4,
        backend: str = "auto",
    ) -> None:
        """
        Args:
            output_size: bins, one number or (PH, PW)
            scales: cells an input pixel, 1 / stride, one a level, each half of the one before
            sampling_ratio: samples a bin and axis; 0 is adaptive. RoIPool has none
            pooler_type: one of POOLER_TYPES
            aggregation: "ave" or "max"; None or "" is the layer's own: max for RoIPool, else ave
            canonical_box_size: side in pixels of a RoI that belongs on `canonical_level`
            canonical_level: k0 of FPN's Eq. 1; a RoI of twice the side goes one level up
            backend: "auto", "torch" or "triton", see `ops.multilevel`
        Raises:
            ValueError: an unknown type, an aggregation that it has not, or scales that are no
                pyramid of strides 2**k
        """
        super().__init__()
        if pooler_type not in POOLER_TYPES:
            raise ValueError(
                f"pooler_type is {pooler_type!r}, expected one of {', '.join(POOLER_TYPES)}"
            )
        levels = [-math.log2(scale) for scale in scales]
        if not levels or any(k != levels[0] + i or k % 1 for i, k in enumerate(levels)):
            raise ValueError(
                f"scales are {list(scales)}, expected 1/s, 1/2s, 1/4s ... for a stride s = 2**k"
            )
        height, width = (output_size, output_size) if isinstance(output_size, int) else output_size
        self.output_size = (int(height), int(width))
        self.scales = tuple(scales)
        self.sampling_ratio = sampling_ratio
        self.layer = POOLER_TYPES[pooler_type]
        self.aggregation = resolve_aggregation(self.layer, aggregation)
        self.canonical_box_size = canonical_box_size
        self.canonical_level = canonical_level
        self.backend = backend

    def forward(self, x: list[torch.Tensor], box_lists: list[Boxes]) -> torch.Tensor:
        """
        Args:
            x: L feature maps (N, C, Hl, Wl), from fine to coarse, as `scales`
            box_lists: one an image, (x0, y0, x1, y1), input pixels; any may be empty
        Returns:
            (R, C, PH, PW), image by image in the order of the boxes
        Raises:
            ValueError: numbers of maps or images that do not fit
        """
        if len(x) != len(self.scales):
            raise ValueError(f"got {len(x)} feature maps for {len(self.scales)} scales")
        if len(box_lists) != len(x[0]):
            raise ValueError(f"got boxes of {len(box_lists)} images, features of {len(x[0])}")
        if not box_lists:
            return x[0].new_zeros((0, x[0].shape[1], *self.output_size))
        rois = convert_boxes_to_pooler_format(box_lists)
        if len(x) == 1:
            levels = torch.zeros_like(rois[:, 0], dtype=torch.int64)
        else:
            levels = assign_levels(rois, self.scales, self.canonical_box_size, self.canonical_level)
        return multilevel_roi_features(
            x,
            rois,
            levels,
            self.output_size,
            self.scales,
            self.sampling_ratio,
            self.layer,
            self.aggregation,
            self.backend,
        )

    def extra_repr(self) -> str:
        strides = ", ".join(f"{1 / scale:g}" for scale in self.scales)
        return (
            f"{self.layer}, aggregation={self.aggregation}, strides=[{strides}], "
            f"output_size={self.output_size}, sampling_ratio={self.sampling_ratio}, "
            f"backend={self.backend}"
        )
