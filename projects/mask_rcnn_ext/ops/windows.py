"""Averaged RoI features on a CPU: two small matrix products a RoI, over the window it touches.

Shape shorthand: N images, C channels, H x W cells of a level, R RoIs, A x B rows of the axes'
weights (bins, or samples for a maximum), h x w cells of a RoI's window.

A grid aligned with the axes makes bilinear averaging linear and separable:
`out = Wy (A, h) . F (h, w, C) . Wx^T (w, B)`. Channels are innermost, so that a window is a matrix
(h, w * C) with a row stride and needs no copy. The backward pass is the transposed products, added
to the feature gradient RoI after RoI: the same order, so the same bits, every time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .geometry import AxisWeights


class Window(NamedTuple):
    """The cells that RoI `roi` reads of picture `image` of its level."""

    roi: int
    image: int
    top: int
    left: int
    height: int
    width: int

    def of(self, level: torch.Tensor) -> torch.Tensor:
        """This window of a level (N, H, W, C) as a matrix (h, w * C), a view."""
        _, rows, columns, channels = level.shape
        return level.as_strided(
            (self.height, self.width * channels),
            (columns * channels, 1),
            ((self.image * rows + self.top) * columns + self.left) * channels,
        )


class Windows:
    """Windows of R RoIs in L levels, and the weights of their cells."""

    def __init__(
        self,
        levels: torch.Tensor,
        images: torch.Tensor,
        y: AxisWeights,
        x: AxisWeights,
        num_levels: int,
    ) -> None:
        """
        Args:
            levels, images: (R,) int, where each RoI looks
            y, x: weights of rows and columns; RoIs without a cell get no window
            num_levels: L
        """
        self.y, self.x = y.weights, x.weights
        self.of_level: list[list[Window]] = [[] for _ in range(num_levels)]
        # One conversion to Python numbers for all RoIs.
        columns = (images.long(), y.first, x.first, y.count, x.count)
        table = torch.stack(columns, dim=1).tolist()
        for r, (level, row) in enumerate(zip(levels.tolist(), table, strict=True)):
            window = Window(r, *row)
            if window.height and window.width:
                self.of_level[level].append(window)


def channels_innermost(feature: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """(N, C, H, W) of any strides -> (N, H, W, C) contiguous; no copy if it is that already."""
    return feature.permute(0, 2, 3, 1).to(dtype).contiguous()


def average_forward(
    level: torch.Tensor, picks: Sequence[Window], windows: Windows, out: torch.Tensor
) -> None:
    """Write the RoI features of one level's windows.

    Args:
        level: (N, H, W, C), contiguous
        picks: the windows in it, of `windows`
        out: (R, A, B, C), contiguous
    """
    channels = out.shape[3]
    for window in picks:
        rows = windows.y[window.roi, :, : window.height] @ window.of(level)  # (A, w * C)
        torch.matmul(
            windows.x[window.roi, :, : window.width],
            rows.view(-1, window.width, channels),
            out=out[window.roi],
        )


def average_backward(
    grad_out: torch.Tensor, picks: Sequence[Window], windows: Windows, grad_level: torch.Tensor
) -> None:
    """Add the gradient of one level.

    Args:
        grad_out: (R, A, B, C), contiguous
        picks: the windows in this level, of `windows`
        grad_level: (N, H, W, C), contiguous, added to in place
    """
    for window in picks:
        rows = windows.x[window.roi, :, : window.width].T @ grad_out[window.roi]  # (A, w, C)
        window.of(grad_level).addmm_(windows.y[window.roi, :, : window.height].T, rows.flatten(1))
