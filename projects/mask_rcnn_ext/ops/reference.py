"""The RoI layers as plain loops in float64: the truth that the fast versions are tested against.

Shape shorthand: N images, C channels, H x W cells of the level, R RoIs, PH x PW bins.
Frame: docs/pixels.md. A *position* on an axis is in cell indices: cell k's value sits at k, so its
centre, at k + 0.5 cells from the edge, has position k.

One description serves forward and backward: `bin_samples` lists what each bin looks at, as
samples of weighted cells. Nothing here is fast and nothing should be.
"""

from __future__ import annotations

import math

import numpy as np
import torch

Sample = list[tuple[int, int, float]]  # (row, column, weight) of the cells that make one value


def round_half_away(x: float) -> int:
    """C's round(), which RoIPool quantises with: 0.5 -> 1, -0.5 -> -1."""
    whole = math.floor(abs(x))
    return int(math.copysign(whole + (abs(x) - whole >= 0.5), x))


def axis_extent(low: float, high: float, scale: float, layer: str) -> tuple[float, float]:
    """(start, size) of a RoI's side, in cell positions and cells.

    Args:
        low, high: of the RoI on this axis, input pixels
        scale: cells an input pixel (1 / stride)
        layer: RoIWarp, RoIAlign or RoIAlignV2
    """
    if layer == "RoIWarp":
        first, last = round_half_away(low * scale), round_half_away(high * scale)
        return first - 0.5, float(max(last - first + 1, 1))
    if layer == "RoIAlign":
        return low * scale, max(high * scale - low * scale, 1.0)
    assert layer == "RoIAlignV2", layer
    return low * scale - 0.5, high * scale - low * scale


def axis_samples(
    low: float, high: float, scale: float, bins: int, cells: int, ratio: int, layer: str
) -> list[list[list[tuple[int, float]]]]:
    """For each bin of an axis its samples, each a list of (cell, weight); [] is a sample outside.

    Args:
        ratio: samples a bin; 0 is one for each cell that the bin is long, rounded up
    """
    start, size = axis_extent(low, high, scale, layer)
    length = size / bins
    count = ratio if ratio > 0 else math.ceil(size / bins)
    result = []
    for p in range(bins):
        samples: list[list[tuple[int, float]]] = []
        for i in range(max(count, 0)):
            u = start + p * length + (i + 0.5) * length / count
            if u < -1 or u > cells:
                samples.append([])
                continue
            u = max(u, 0.0)
            below = int(u)
            if below >= cells - 1:
                samples.append([(cells - 1, 1.0)])
            else:
                samples.append([(below, 1 - (u - below)), (below + 1, u - below)])
        result.append(samples)
    return result


def pool_bins(low: float, high: float, scale: float, bins: int, cells: int) -> list[range]:
    """RoIPool's bins of an axis: ranges of cells, clipped to the level; some may be empty."""
    first, last = round_half_away(low * scale), round_half_away(high * scale)
    size = max(last - first + 1, 1)
    result = []
    for p in range(bins):
        begin = math.floor(p * size / bins) + first
        end = math.ceil((p + 1) * size / bins) + first
        result.append(range(min(max(begin, 0), cells), min(max(end, 0), cells)))
    return result


def bin_samples(
    roi: tuple[float, float, float, float],
    output_size: tuple[int, int],
    level_size: tuple[int, int],
    scale: float,
    ratio: int,
    layer: str,
) -> list[list[list[Sample]]]:
    """[bin row][bin column] -> the samples of that bin, in row-major order."""
    x0, y0, x1, y1 = roi
    (bins_y, bins_x), (height, width) = output_size, level_size
    if layer == "RoIPool":
        rows = pool_bins(y0, y1, scale, bins_y, height)
        columns = pool_bins(x0, x1, scale, bins_x, width)
        return [[[[(y, x, 1.0)] for y in ys for x in xs] for xs in columns] for ys in rows]
    along_y = axis_samples(y0, y1, scale, bins_y, height, ratio, layer)
    along_x = axis_samples(x0, x1, scale, bins_x, width, ratio, layer)
    return [
        [
            [
                [(y, x, wy * wx) for y, wy in sample_y for x, wx in sample_x]
                for sample_y in samples_y
                for sample_x in samples_x
            ]
            for samples_x in along_x
        ]
        for samples_y in along_y
    ]


def roi_layer_reference(
    features: torch.Tensor,
    rois: torch.Tensor,
    output_size: tuple[int, int],
    spatial_scale: float,
    sampling_ratio: int,
    layer: str,
    aggregation: str,
    grad_output: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a RoI layer returns, and the gradient that it sends back.

    Args:
        features: (N, C, H, W)
        rois: (R, 5), (batch index, x0, y0, x1, y1), input pixels
        output_size: (PH, PW)
        spatial_scale: cells an input pixel
        sampling_ratio: samples a bin and axis, 0 is adaptive; RoIPool has none
        layer: RoIPool, RoIWarp, RoIAlign or RoIAlignV2
        aggregation: ave or max, of a bin's samples
        grad_output: (R, C, PH, PW); None is all ones
    Returns:
        (R, C, PH, PW) float64, and the gradient of the features, (N, C, H, W) float64
    """
    x = features.detach().double().cpu().numpy()
    bins_y, bins_x = output_size
    out = np.zeros((len(rois), x.shape[1], bins_y, bins_x))
    grad_out = np.ones_like(out) if grad_output is None else grad_output.double().cpu().numpy()
    grad = np.zeros_like(x)
    for r, (batch, *roi) in enumerate(rois.double().tolist()):
        picture, into = x[int(batch)], grad[int(batch)]
        samples = bin_samples(
            tuple(roi), output_size, x.shape[2:], spatial_scale, sampling_ratio, layer
        )
        for py in range(bins_y):
            for px in range(bins_x):
                _one_bin(
                    samples[py][px],
                    aggregation,
                    picture,
                    out[r, :, py, px],
                    grad_out[r, :, py, px],
                    into,
                )
    return torch.from_numpy(out), torch.from_numpy(grad)


def _one_bin(
    samples: list[Sample],
    aggregation: str,
    picture: np.ndarray,
    out: np.ndarray,
    grad_out: np.ndarray,
    into: np.ndarray,
) -> None:
    """One bin of one RoI: write its value (C,) into `out`, add its gradient to `into` (C, H, W)."""
    for c in range(len(picture)):
        values = [sum(w * picture[c, y, x] for y, x, w in sample) for sample in samples]
        if not values:
            continue  # 0, and no gradient
        if aggregation == "ave":
            out[c] = sum(values) / len(values)
            for sample in samples:
                for y, x, w in sample:
                    into[c, y, x] += w * grad_out[c] / len(values)
        else:
            best = values.index(max(values))  # the first of equals
            out[c] = values[best]
            for y, x, w in samples[best]:
                into[c, y, x] += w * grad_out[c]
