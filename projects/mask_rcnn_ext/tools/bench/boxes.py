"""Made-up RoIs of a stated distribution, for layers and heads whose speed depends on the sizes.

Frame: continuous pixels of the network input. Sides are log-uniform from 16 to 600 pixels (square
root of the area), aspect ratios log-uniform from 1/2 to 2, places uniform; what does not fit into
the picture is cut off, as proposals are.
"""

from __future__ import annotations

import math

import torch

DISTRIBUTION = (
    "sides log-uniform 16-600 px, aspect log-uniform 1/2-2, uniform places, cut to the picture"
)
_SIDES, _ASPECTS = (16.0, 600.0), (0.5, 2.0)


def random_boxes(count: int, height: int, width: int, seed: int) -> torch.Tensor:
    """(count, 4) float32, (x0, y0, x1, y1), inside [0, width] x [0, height], none empty."""
    generator = torch.Generator().manual_seed(seed)

    def log_uniform(low: float, high: float) -> torch.Tensor:
        share = torch.rand(count, generator=generator)
        return torch.exp(math.log(low) + share * math.log(high / low))

    side, aspect = log_uniform(*_SIDES), log_uniform(*_ASPECTS)
    # A side may exceed the picture, but a box's centre lies in it, so something is always left.
    half = torch.stack([side * aspect.sqrt(), side / aspect.sqrt()], 1) / 2
    size = torch.tensor([width, height], dtype=torch.float32)
    centre = torch.rand(count, 2, generator=generator) * size
    low = torch.minimum((centre - half).clamp(min=0), size - 1)
    return torch.cat([low, torch.minimum(torch.maximum(centre + half, low + 1), size)], 1)
