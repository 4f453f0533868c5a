"""RoI layers from torchvision's two kernels, level by level, on any device.

Shape shorthand: L levels, N images, C channels, Hl x Wl cells, R RoIs, PH x PW bins.

RoIWarp is RoIAlign of the quantised RoI, and a maximum over n x n samples a bin is a max pooling of
RoIAlign with n times as many bins of one sample each, at the same places.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torchvision.ops import roi_align, roi_pool

from .geometry import axis_extent, samples_per_bin


def roi_features(
    features: Sequence[torch.Tensor],
    rois: torch.Tensor,
    levels: torch.Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
    layer: str,
    aggregation: str,
) -> torch.Tensor:
    """See `multilevel.multilevel_roi_features`, whose arguments these are, checked by it."""
    if layer == "RoIPool" or aggregation == "ave" or not len(rois):
        # shape[0], not len(): a trace follows the one and freezes the other.
        groups = [(torch.arange(rois.shape[0], device=rois.device), (1, 1))]
    else:
        groups = _groups_of_equal_samples(rois, levels, output_size, scales, sampling_ratio, layer)
    pieces, places = [], []
    for members, sides in groups:
        for i, (feature, scale) in enumerate(zip(features, scales, strict=True)):
            # A group or level without RoIs still belongs to the graph: its gradient is zeros.
            pick = members[levels[members] == i]
            pieces.append(
                _one_level(
                    feature,
                    rois[pick],
                    output_size,
                    scale,
                    sampling_ratio,
                    layer,
                    aggregation,
                    sides,
                )
            )
            places.append(pick)
    if len(pieces) == 1:
        return pieces[0]
    if torch.jit.is_tracing():  # which knows torch's own operations only
        return torch.cat(pieces)[torch.cat(places).argsort()]
    return _InOrder.apply(places, *pieces)


class _InOrder(torch.autograd.Function):
    """Pieces put where they belong, copied once; autograd alone copies the whole once a piece."""

    @staticmethod
    def forward(ctx: Any, places: list[torch.Tensor], *pieces: torch.Tensor) -> torch.Tensor:
        """places: (Ri,) int64 each, the rows of the result that piece i, (Ri, ...), becomes."""
        ctx.places = places
        out = pieces[0].new_empty((sum(map(len, pieces)), *pieces[0].shape[1:]))
        for place, piece in zip(places, pieces, strict=True):
            out[place] = piece
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        return (None, *(grad[place] for place in ctx.places))


def _one_level(
    feature: torch.Tensor,
    rois: torch.Tensor,
    output_size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    layer: str,
    aggregation: str,
    sides: tuple[int, int],
) -> torch.Tensor:
    """(R', C, PH, PW) of the RoIs of one level; `sides` are a bin's samples for a maximum."""
    dtype = torch.promote_types(feature.dtype, torch.float32)  # the kernels know no bfloat16
    x, rois = feature.to(dtype), rois.to(dtype)
    if layer == "RoIPool":
        return roi_pool(x, rois, output_size, scale).to(feature.dtype)
    if layer == "RoIWarp":
        cells = []
        for low, high in ((1, 3), (2, 4)):
            unit = torch.full_like(rois[:, 0], scale)
            start, size = axis_extent(rois[:, low], rois[:, high], unit, layer)
            cells.append((start + 0.5, start + 0.5 + size))
        (x0, x1), (y0, y1) = cells
        rois, scale = torch.stack([rois[:, 0], x0, y0, x1, y1], dim=1), 1.0
    aligned = layer != "RoIAlign"
    if aligned and not sampling_ratio:
        # An inverted RoI has no samples; torchvision takes the product of two negative counts.
        x0y0, x1y1 = rois[:, 1:3], rois[:, 3:]
        rois = torch.cat([rois[:, :3], torch.maximum(x0y0, x1y1)], dim=1)
    if aggregation == "ave":
        out = roi_align(x, rois, output_size, scale, sampling_ratio, aligned)
    else:
        window = (max(sides[0], 1), max(sides[1], 1))
        finer = (output_size[0] * window[0], output_size[1] * window[1])
        out = F.max_pool2d(roi_align(x, rois, finer, scale, 1, aligned), window)
        out = out if min(sides) else out * 0  # a RoI without extent has no sample
    return out.to(feature.dtype)


def _groups_of_equal_samples(
    rois: torch.Tensor,
    levels: torch.Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
    layer: str,
) -> list[tuple[torch.Tensor, tuple[int, int]]]:
    """RoIs (indices) with equally many samples a bin, and how many on each axis."""
    scale = rois.new_tensor(scales)[levels.long()]
    counts = []
    for (low, high), bins in zip(((2, 4), (1, 3)), output_size, strict=True):
        _, size = axis_extent(rois[:, low], rois[:, high], scale, layer)
        counts.append(samples_per_bin(size, bins, sampling_ratio).long())
    sides, group = torch.unique(torch.stack(counts, 1), dim=0, return_inverse=True)
    return [((group == g).nonzero()[:, 0], (y, x)) for g, (y, x) in enumerate(sides.tolist())]
