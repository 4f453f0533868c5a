"""Where RoI layers look: a RoI's side, its samples, and the weights that cells get from them.

Shape shorthand: R RoIs, P bins of an axis, J samples a bin, L cells of a level on the axis.
Everything is per axis, for all RoIs and pyramid levels at once; `scale` and `cells` are therefore
one value a RoI. Positions are in cell indices (docs/pixels.md). The truth is `reference.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

LAYERS = ("RoIPool", "RoIWarp", "RoIAlign", "RoIAlignV2")
AGGREGATIONS = {layer: ("max",) if layer == "RoIPool" else ("ave", "max") for layer in LAYERS}


def resolve_aggregation(layer: str, aggregation: str | None) -> str:
    """The aggregation that is meant: None or "" is the layer's own, the first of AGGREGATIONS.

    Raises:
        ValueError: an unknown layer, or an aggregation that it has not
    """
    if layer not in LAYERS:
        raise ValueError(f"RoI layer is {layer!r}, expected one of {', '.join(LAYERS)}")
    if aggregation and aggregation not in AGGREGATIONS[layer]:
        raise ValueError(
            f"aggregation is {aggregation!r}, {layer} has {' and '.join(AGGREGATIONS[layer])}"
        )
    return aggregation or AGGREGATIONS[layer][0]


def round_half_away(x: torch.Tensor) -> torch.Tensor:
    """C's round(), which RoIPool and RoIWarp quantise with; torch.round takes halves to even."""
    whole = x.abs().floor()
    # Not floor(|x| + 0.5): adding to the largest number below a half gives one.
    return torch.copysign(whole + (x.abs() - whole >= 0.5), x)


def axis_extent(
    low: torch.Tensor, high: torch.Tensor, scale: torch.Tensor, layer: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """(start, size) of each RoI's side, in cell positions and cells.

    Args:
        low, high: (R,) float, input pixels
        scale: (R,) float, cells an input pixel
        layer: RoIWarp, RoIAlign or RoIAlignV2
    Returns:
        (R,) and (R,); the size is at least 1 but for RoIAlignV2, where it may be 0 or negative
    """
    low, high = low * scale, high * scale
    if layer == "RoIWarp":
        low, high = round_half_away(low), round_half_away(high)
        # The quantised RoI covers whole cells, from the first one's edge to the last one's.
        return low - 0.5, (high - low + 1).clamp(min=1)
    if layer == "RoIAlign":
        return low, (high - low).clamp(min=1)
    return low - 0.5, (high - 0.5) - (low - 0.5)


@dataclass
class AxisWeights:
    """One axis of all RoIs as matrices: values at rows = weights @ cells of the window.

    first: (R,) int64, first cell of each RoI's window
    count: (R,) int64, cells in it; 0 if the RoI sees none
    weights: (R, rows, longest window) float; columns from `count` on are 0
    """

    first: torch.Tensor
    count: torch.Tensor
    weights: torch.Tensor

    def halves(self) -> tuple[AxisWeights, AxisWeights]:
        """Those of the first R / 2 and those of the others."""
        first, count, weights = (x.chunk(2) for x in (self.first, self.count, self.weights))
        return (
            AxisWeights(first[0], count[0], weights[0]),
            AxisWeights(first[1], count[1], weights[1]),
        )

    def by_bin(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The cells of each row alone, without the zeros around them.

        Returns:
            (R, rows, J) int64, cells, and (R, rows, J), their weights; J is the most that a row
            has. A row with fewer has zeros, at cells that its RoI sees (cell 0 if it sees none)
        """
        longest = self.weights.shape[2]
        column = torch.arange(longest, device=self.weights.device)
        # A level without cells counts none, whatever the weights say.
        used = (self.weights != 0) & (column < self.count[:, None, None])
        start = torch.where(used, column, longest).amin(2)  # (R, rows)
        end = torch.where(used, column + 1, 0).amax(2)
        most = max(int((end - start).max()), 1)
        column = start[..., None] + column[:most]
        weights = self.weights.gather(2, column.clamp(max=longest - 1))
        weights = torch.where(column < end[..., None], weights, 0)
        seen = torch.minimum(column, self.count[:, None, None] - 1).clamp(min=0)
        return self.first[:, None, None] + seen, weights


def samples_per_bin(size: torch.Tensor, bins: int, ratio: int) -> torch.Tensor:
    """(R,) float, whole numbers: samples of a bin on this axis; 0 for a RoI without extent."""
    if ratio > 0:
        return torch.full_like(size, ratio)
    return torch.ceil(size / bins).clamp(min=0)


def samples_that_matter(
    size: torch.Tensor, bins: int, ratio: int, cells: torch.Tensor
) -> torch.Tensor:
    """(R,) int64: how many consecutive samples of any one bin can be inside or next to the level.

    At most `samples_per_bin`. A RoI of a million pixels has a hundred thousand samples in a bin,
    all but a few of them outside; those are 0 and need no row of their own.
    """
    n = samples_per_bin(size, bins, ratio)
    if ratio > 0:
        return n.long()
    # A bin has a sample for each cell that it is long, so they are at least half a cell apart.
    return torch.minimum(n, 2 * cells + 6).long()


def axis_weights(
    start: torch.Tensor,
    size: torch.Tensor,
    cells: torch.Tensor,
    bins: int,
    ratio: int,
    *,
    average: bool,
) -> AxisWeights:
    """Bilinear weights of every cell for every bin (their mean) or for every sample.

    Args:
        start, size: (R,) float, of `axis_extent`; finite
        cells: (R,) L of each RoI's level, float
        bins: P
        ratio: samples a bin, 0 is adaptive
        average: rows are the P bins, each the mean of its samples. Otherwise rows are P * J
            samples, bin by bin, J the largest of `samples_that_matter`; where a bin has fewer, its
            last one is repeated, which no maximum notices
    Returns:
        the matrices; samples outside [-1, L] have empty rows, positions in [-1, 0] and [L - 1, L]
        read the border cell
    """
    n = samples_per_bin(size, bins, ratio)[:, None, None]
    rows = max(int(samples_that_matter(size, bins, ratio, cells).max()), 1)
    length = (size / bins)[:, None, None]
    bin_start = start[:, None, None] + torch.arange(bins, device=start.device)[:, None] * length
    step = length / n.clamp(min=1)
    # The first sample of the rows: the last one before the level, or the bin's first.
    skipped = torch.where(step == 0, 0, torch.floor((-1 - bin_start) / step - 0.5))
    skipped = torch.minimum(skipped, n - rows).clamp(min=0)  # (R, P, 1)
    i = torch.arange(rows, device=start.device) + skipped  # (R, P, J)
    exists = i < n
    i = torch.minimum(i, (n - 1).clamp(min=0))
    # As torchvision orders it, so that floats round alike.
    u = bin_start + (i + 0.5) * length / n.clamp(min=1)

    last = cells[:, None, None] - 1
    inside = (u >= -1) & (u <= last + 1) & (n > 0)
    if average:
        inside &= exists
    u = torch.minimum(u.clamp(min=0), last)
    below = torch.minimum(torch.floor(u), (last - 1).clamp(min=0))
    above = torch.minimum(below + 1, last)
    fraction = u - below

    none = torch.full_like(u, torch.inf)
    first = torch.where(inside, below, none).amin((1, 2))
    end = torch.where(inside, above, -1).amax((1, 2)) + 1
    count = torch.where(end > 0, end - first, 0).long()
    first = torch.where(end > 0, first, 0).long()
    longest = max(int(count.max()), 1)

    share = inside / n.clamp(min=1) if average else inside.to(u.dtype)
    shape = (len(start), bins, rows)
    weights = u.new_zeros(len(start), bins if average else bins * rows, longest)
    by_row = (len(start), bins, -1) if average else (len(start), bins * rows, 1)
    for cell, weight in ((below, 1 - fraction), (above, fraction)):
        column = (cell.long() - first[:, None, None]).clamp(0, longest - 1)
        weights.scatter_add_(
            2,
            column.expand(shape).reshape(by_row),
            (weight * share).expand(shape).reshape(by_row),
        )
    return AxisWeights(first, count, weights)
