"""RoIWarp as the paper reads MNC's (section 3, "RoIAlign"; table 2c): quantised, then bilinear."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .layer import RoILayer, one_level


def roi_warp(
    features: torch.Tensor,
    rois: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aggregation: str = "ave",
    backend: str = "auto",
) -> torch.Tensor:
    """Round the RoI to whole cells as RoIPool does, then sample its bins as RoIAlign does.

    The paper: RoIWarp "overlooked this alignment issue and was implemented as quantizing RoI just
    like RoIPool". So it has RoIAlign's smooth bins and RoIPool's shifts.

    Args:
        features: (N, C, H, W) float64, float32, float16 or bfloat16, any strides
        rois: (R, 5) float, (batch index, x0, y0, x1, y1), input pixels; or N tensors (Ri, 4)
        output_size: (PH, PW) bins, or one number for both
        spatial_scale: cells an input pixel, 1 / stride
        sampling_ratio: samples a bin and axis; 0 is adaptive: ceil(side in cells / bins)
        aggregation: "ave" or "max" of a bin's samples
        backend: "torch", "triton" or "auto"; see `multilevel`
    Returns:
        (R, C, PH, PW) of the features' dtype; differentiable in the features only
    Raises:
        ValueError: what does not fit, by name
    """
    return one_level(
        features, rois, output_size, spatial_scale, sampling_ratio, "RoIWarp", aggregation, backend
    )


class RoIWarp(RoILayer):
    """`roi_warp` as a module: call it with features and RoIs."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        aggregation: str = "ave",
        backend: str = "auto",
    ) -> None:
        """Args: as `roi_warp`."""
        super().__init__(
            output_size, spatial_scale, sampling_ratio, "RoIWarp", aggregation, backend
        )
