"""Averaged RoI features on a CPU where RoIs are small: every bin a weighted sum of a few cells.

Shape shorthand: L levels, N images, C channels, R RoIs, A x B bins, J x K cells of a bin, P cells
of all pictures together, S = R A B bins of all RoIs.

A RoI of ten cells takes less time to compute than the calls of windows.py take to make. Here all
RoIs of all levels are one sum by bins, of cells; and the backward pass one sum by cells, of bins,
which a sort by cells prepares. Each sum goes in one order, so the same bits every time, with any
number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from .geometry import AxisWeights

# Cells that a RoI reads, those of overlapping bins again: above, windows.py is the faster way.
_MOST_CELLS = 4096
# Bytes of all levels in one piece, and of all weights; what the C library keeps and reuses.
_MOST_BYTES = (32 << 20) - 4096


class CellSums:
    """Which cells R RoIs sum up, with which weights."""

    def __init__(self, sizes: Sequence[torch.Size], cells: torch.Tensor, weights: torch.Tensor):
        """
        Args:
            sizes: (N, C, H, W) of each level
            cells: (R, A, B, J * K) int64, rows of the P cells: level, image, row, column
            weights: (R, A, B, J * K), in the dtype to compute in; 0 where a bin has fewer cells
        """
        self.sizes = sizes
        self.shape = cells.shape[:3]
        self.cells, self.weights = cells.flatten(0, 2), weights.flatten(0, 2)  # (S, J K)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """
        Args:
            features: a level (N, C, H, W) each, any strides and float dtype
        Returns:
            (R, C, A, B), channels_last, of the weights' dtype; zeros where a RoI sees no cell
        """
        rows = [f.permute(0, 2, 3, 1).flatten(0, 2).to(self.weights.dtype) for f in features]
        out = F.embedding_bag(
            self.cells, torch.cat(rows), per_sample_weights=self.weights, mode="sum"
        )
        return out.view(*self.shape, -1).permute(0, 3, 1, 2)

    def backward(self, grad_out: torch.Tensor) -> list[torch.Tensor]:
        """
        Args:
            grad_out: (R, C, A, B) of any strides, of the weights' dtype
        Returns:
            the gradient of each level (N, C, H, W), channels_last
        """
        used = self.weights.flatten().nonzero()[:, 0]
        cells, order = torch.sort(self.cells.flatten()[used], stable=True)
        used = used[order]
        lengths = [n * h * w for n, _, h, w in self.sizes]
        counts = torch.bincount(cells, minlength=sum(lengths))
        grads = F.embedding_bag(
            used // self.cells.shape[1],
            grad_out.permute(0, 2, 3, 1).flatten(0, 2).contiguous(),
            counts.cumsum(0) - counts,  # where each cell's bins begin
            per_sample_weights=self.weights.flatten()[used],
            mode="sum",
        )
        return [
            grad.view(n, h, w, c).permute(0, 3, 1, 2)
            for grad, (n, c, h, w) in zip(grads.split(lengths), self.sizes, strict=True)
        ]


def cell_sums(
    sizes: Sequence[torch.Size],
    levels: torch.Tensor,
    images: torch.Tensor,
    y: AxisWeights,
    x: AxisWeights,
) -> CellSums | None:
    """The sums of R RoIs, or None if windows.py is the faster way.

    Args:
        sizes: (N, C, H, W) of each level
        levels, images: (R,) int, where each RoI looks
        y, x: its weights
    """
    if sum(size.numel() for size in sizes) * y.weights.itemsize > _MOST_BYTES:
        return None
    rows, wy = y.by_bin()  # (R, A, J)
    columns, wx = x.by_bin()  # (R, B, K)
    of_roi = wy.shape[1:].numel() * wx.shape[1:].numel()
    if of_roi > _MOST_CELLS or of_roi * len(wy) * wy.itemsize > _MOST_BYTES:
        return None
    table, first = [], 0
    for n, _, height, width in sizes:
        table.append((first, height * width, width))
        first += n * height * width
    begin, area, across = torch.tensor(table)[levels.long()].unbind(1)  # (R,) each
    rows = (begin + area * images.long())[:, None, None] + rows * across[:, None, None]
    cells = rows[:, :, None, :, None] + columns[:, None, :, None, :]  # (R, A, B, J, K)
    weights = wy[:, :, None, :, None] * wx[:, None, :, None, :]
    # A RoI that sees nothing, on a level without cells, would point behind the last one.
    return CellSums(sizes, cells.flatten(3).clamp_(max=first - 1), weights.flatten(3))
