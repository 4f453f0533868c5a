"""RoIAlign (paper section 3): no quantisation, bilinear samples, averaged or their maximum."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .layer import RoILayer, one_level


def roi_align(
    features: torch.Tensor,
    rois: torch.Tensor | Sequence[torch.Tensor],
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    aggregation: str = "ave",
    aligned: bool = False,
    backend: str = "auto",
) -> torch.Tensor:
    """Bilinear samples on a regular grid in each bin of the exact RoI (paper section 3, figure 3).

    Args:
        features: (N, C, H, W) float64, float32, float16 or bfloat16, any strides
        rois: (R, 5) float, (batch index, x0, y0, x1, y1), input pixels; or N tensors (Ri, 4)
        output_size: (PH, PW) bins, or one number for both
        spatial_scale: cells an input pixel, 1 / stride
        sampling_ratio: samples a bin and axis; 0 is adaptive: ceil(side in cells / bins)
        aggregation: "ave" (the paper's choice) or "max" of a bin's samples (table 2c)
        aligned: False is Detectron2's `ROIAlign`, half a cell off, with RoIs of a cell at least;
            True its `ROIAlignV2`, right by docs/pixels.md
        backend: "torch", "triton" or "auto"; see `multilevel`
    Returns:
        (R, C, PH, PW) of the features' dtype; differentiable in the features only
    Raises:
        ValueError: what does not fit, by name
    """
    layer = "RoIAlignV2" if aligned else "RoIAlign"
    return one_level(
        features, rois, output_size, spatial_scale, sampling_ratio, layer, aggregation, backend
    )


class RoIAlign(RoILayer):
    """`roi_align` as a module: call it with features and RoIs."""

    def __init__(
        self,
        output_size: int | tuple[int, int],
        spatial_scale: float = 1.0,
        sampling_ratio: int = 0,
        aggregation: str = "ave",
        aligned: bool = False,
        backend: str = "auto",
    ) -> None:
        """Args: as `roi_align`."""
        layer = "RoIAlignV2" if aligned else "RoIAlign"
        super().__init__(output_size, spatial_scale, sampling_ratio, layer, aggregation, backend)
