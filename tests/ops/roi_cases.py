"""RoIs and levels for the tests of the RoI layers: hypothesis strategies, and fixed random ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st

# Every layer with every aggregation that it has.
LAYERS = (
    ("RoIPool", "max"),
    ("RoIWarp", "ave"),
    ("RoIWarp", "max"),
    ("RoIAlign", "ave"),
    ("RoIAlign", "max"),
    ("RoIAlignV2", "ave"),
    ("RoIAlignV2", "max"),
)


@dataclass
class Case:
    """One call of a RoI layer on one level, float64."""

    features: torch.Tensor
    rois: torch.Tensor
    output_size: tuple[int, int]
    scale: float
    ratio: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Odd sizes; RoIs inside, across the border, outside, without extent, inverted, tiny, huge."""
    images, channels = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    scale = draw(st.sampled_from([1.0, 0.5, 0.25, 1 / 16]))
    # Eighths of a pixel: halves to round, equal edges, bins of whole cells all occur.
    eighths = st.integers(-40, int(8 * (max(height, width) / scale + 5)))
    coordinate = st.one_of(eighths, eighths, st.just(800)).map(lambda k: k / 8)
    roi = st.tuples(st.integers(0, images - 1), coordinate, coordinate, coordinate, coordinate).map(
        lambda r: (r[0], min(r[1], r[3]), min(r[2], r[4]), max(r[1], r[3]), max(r[2], r[4]))
    )
    inverted = st.tuples(st.integers(0, images - 1), *[eighths.map(lambda k: k / 8)] * 4)
    rois = draw(st.lists(st.one_of(roi, roi, inverted), max_size=4))
    return Case(
        features=random_features(images, channels, height, width, draw(st.integers(0, 99))),
        rois=torch.tensor(rois, dtype=torch.float64).reshape(-1, 5),
        output_size=(draw(st.integers(1, 4)), draw(st.integers(1, 4))),
        scale=scale,
        ratio=draw(st.integers(0, 3)),
    )


def random_features(n: int, c: int, h: int, w: int, seed: int = 0) -> torch.Tensor:
    """(n, c, h, w) float64, normal, no two values alike."""
    return torch.randn(n, c, h, w, dtype=torch.float64, generator=_generator(seed))


def random_rois(
    count: int, images: int, height: float, width: float, seed: int = 0
) -> torch.Tensor:
    """(count, 5) float64: boxes in a picture of this size, some of them partly outside."""
    generator = _generator(seed)
    corners = torch.rand(count, 2, 2, dtype=torch.float64, generator=generator) * 1.2 - 0.1
    corners = (corners * torch.tensor([width, height], dtype=torch.float64)).sort(dim=1).values
    batch = torch.randint(images, (count, 1), generator=generator).double()
    return torch.cat([batch, corners.flatten(1)], dim=1)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
