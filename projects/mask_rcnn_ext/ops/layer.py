"""What the RoI layers have in common when there is one feature map: arguments and module.

Shape shorthand: N images, C channels, H x W cells, R RoIs, PH x PW bins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from .geometry import resolve_aggregation
from .multilevel import multilevel_roi_features


def one_level(
    features: torch.Tensor,
    rois: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    layer: str,
    aggregation: str,
    backend: str,
) -> torch.Tensor:
    """`multilevel_roi_features` of a single level; arguments as `roi_align`, and the layer."""
    rois = with_batch_index(rois)
    levels = torch.zeros(rois.shape[:1], dtype=torch.int64, device=rois.device)
    return multilevel_roi_features(
        [features],
        rois,
        levels,
        pair(output_size),
        [spatial_scale],
        sampling_ratio,
        layer,
        aggregation,
        backend,
    )


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """7 -> (7, 7); (7, 14) as it is."""
    if isinstance(size, int):
        return size, size
    height, width = size
    return int(height), int(width)


def with_batch_index(rois: torch.Tensor | Sequence[torch.Tensor]) -> torch.Tensor:
    """N tensors (Ri, 4), one an image, -> (R, 5) with the batch index first; (R, 5) stays."""
    if isinstance(rois, torch.Tensor):
        return rois
    if not rois:
        return torch.zeros(0, 5)
    index = [torch.full_like(boxes[:, :1], i) for i, boxes in enumerate(rois)]
    return torch.cat([torch.cat(index), torch.cat(list(rois))], dim=1)


class RoILayer(nn.Module):
    """A RoI layer with its settings; it has no parameters."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float,
        sampling_ratio: int,
        layer: str,
        aggregation: str,
        backend: str,
    ) -> None:
        """
        Args:
            as `one_level`
        Raises:
            ValueError: an aggregation that the layer has not
        """
        super().__init__()
        self.output_size = pair(output_size)
        self.spatial_scale = spatial_scale
        self.sampling_ratio = sampling_ratio
        self.layer = layer
        self.aggregation = resolve_aggregation(layer, aggregation)
        self.backend = backend

    def forward(
        self, features: torch.Tensor, rois: torch.Tensor | Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """
        Args:
            features: (N, C, H, W) float
            rois: (R, 5) float, (batch index, x0, y0, x1, y1), input pixels; or N tensors (Ri, 4)
        Returns:
            (R, C, PH, PW)
        """
        return one_level(
            features,
            rois,
            self.output_size,
            self.spatial_scale,
            self.sampling_ratio,
            self.layer,
            self.aggregation,
            self.backend,
        )

    def extra_repr(self) -> str:
        return (
            f"output_size={self.output_size}, spatial_scale={self.spatial_scale}, "
            f"sampling_ratio={self.sampling_ratio}, layer={self.layer}, "
            f"aggregation={self.aggregation}, backend={self.backend}"
        )
