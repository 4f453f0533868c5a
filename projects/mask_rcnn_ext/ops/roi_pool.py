"""RoIPool (Fast R-CNN; paper section 3, table 2c): quantised RoI, quantised bins, maximum."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .layer import RoILayer, one_level


def roi_pool(
    features: torch.Tensor,
    rois: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aggregation: str = "max",
    backend: str = "auto",
) -> torch.Tensor:
    """Round the RoI to whole cells, cut it into bins of whole cells, take each bin's maximum.

    Args:
        features: (N, C, H, W) float64, float32, float16 or bfloat16, any strides
        rois: (R, 5) float, (batch index, x0, y0, x1, y1), input pixels; or N tensors (Ri, 4)
        output_size: (PH, PW) bins, or one number for both
        spatial_scale: cells an input pixel, 1 / stride
        sampling_ratio: not used; here so that the three layers are called alike
        aggregation: "max", the only one that RoIPool has
        backend: "torch" or "auto"; see `multilevel`
    Returns:
        (R, C, PH, PW) of the features' dtype; a bin without a cell of the level is 0.
        Differentiable in the features only
    Raises:
        ValueError: what does not fit, by name
    """
    return one_level(
        features, rois, output_size, spatial_scale, sampling_ratio, "RoIPool", aggregation, backend
    )


class RoIPool(RoILayer):
    """`roi_pool` as a module: call it with features and RoIs."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        aggregation: str = "max",
        backend: str = "auto",
    ) -> None:
        """Args: as `roi_pool`."""
        super().__init__(
            output_size, spatial_scale, sampling_ratio, "RoIPool", aggregation, backend
        )
