"""How sure a difference of two stages is: paired bootstrap over images and seeds.

Letters: B draws, I images, S seeds.

A draw takes I of the I images with replacement, the same ones for both stages, and S of the S pairs
of runs with equal seed. Which images, says a hash of I alone, so that a run's AP on drawn images
serves all differences that the run is part of; which seeds, says a hash of the difference's name.
Hashes and exact sums: the same numbers on every machine, with every version of numpy.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from .compare import DECIMALS

if TYPE_CHECKING:  # takes pycocotools along
    from ..evaluation.analysis import Records

# (B + 1) / 40 is a whole number: the interval's ends are values of draws.
DRAWS = 399
# Figure -> the IoU (for keypoints OKS) that it is of; None is all.
FIGURES = {"AP": None, "AP50": 0.5, "AP75": 0.75}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """One run, on all images and on the drawn ones.

    Attributes:
        images: fingerprint of what it was measured on
        num_images: I
        figures: figure -> (1 + B,) in percent, of all images first; NaN without objects
    """

    images: str
    num_images: int
    figures: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Difference:
    """Of AP in percent, first less second, rounded to DECIMALS.

    Attributes:
        value: mean over seeds, on all images
        low, high: 95 % interval over images and seeds
        seeds: that both have
        images, draws: how many
    """

    value: float
    low: float
    high: float
    seeds: tuple[int, ...]
    images: int
    draws: int


def sample(
    records: Records, images: str, draws: int = DRAWS, progress: Progress | None = None
) -> Sample:
    """
    Args:
        records: of the run, with IoU 0.5 and 0.75 among the thresholds
        images: fingerprint of what they were measured on
        draws: B
        progress: called with (draws done, of how many)
    """
    from ..evaluation.analysis import PrecisionCurves

    curves = PrecisionCurves(records)
    rows = {name: _rows(records.thresholds, iou) for name, iou in FIGURES.items()}
    figures: dict[str, list[float]] = {name: [] for name in FIGURES}
    drawn = _drawn(f"{records.num_images} images", draws, records.num_images)
    for done, chosen in enumerate([None, *drawn]):
        precision = curves.precision(None if chosen is None else np.sort(chosen))
        known = precision >= 0
        # (T,) exact sums, whatever order numpy would add them in.
        sums = [math.fsum(p[k].tolist()) for p, k in zip(precision, known, strict=True)]
        counts = known.sum(axis=(1, 2)).tolist()
        for name, chosen_rows in rows.items():
            count = sum(counts[t] for t in chosen_rows)
            total = math.fsum(sums[t] for t in chosen_rows)
            figures[name].append(100 * total / count if count else math.nan)
        if progress is not None and done:
            progress(done, draws)
    return Sample(images, records.num_images, {name: tuple(v) for name, v in figures.items()})


def difference(
    name: str, first: Mapping[int, Sample], second: Mapping[int, Sample], figure: str = "AP"
) -> Difference:
    """
    Draws of seeds vary less than seeds do, by (S - 1) / S; they are spread by its root. Of few
    seeds the interval says little all the same.

    Args:
        name: of the difference; decides which seeds are drawn
        first, second: seed -> sample, with the same number of draws
        figure: of FIGURES
    Raises:
        UserError: no seed that both have, samples of different images, images without objects
    """
    seeds = tuple(sorted(first.keys() & second.keys()))
    if not seeds:
        sides = (", ".join(map(str, sorted(side))) or "none" for side in (first, second))
        raise UserError(f"{name}: no seed that both have: {' and '.join(sides)}")
    used = [side[seed] for seed in seeds for side in (first, second)]
    if len({(one.images, one.num_images) for one in used}) > 1:
        raise UserError(
            f"{name}: not measured on the same images "
            f"({', '.join(sorted({one.images for one in used}))}); evaluate both on one data set"
        )
    pairs = [
        [a - b for a, b in zip(first[s].figures[figure], second[s].figures[figure], strict=True)]
        for s in seeds
    ]
    means = [math.fsum(values) / len(seeds) for values in zip(*pairs, strict=True)]  # (1 + B,)
    value = means[0]
    if math.isnan(value):
        raise UserError(f"{name}: measured on images without objects")
    drawn: list[float] = []
    wider = math.sqrt(len(seeds) / max(1, len(seeds) - 1))
    chosen = _drawn(name, len(means) - 1, len(seeds)).tolist()
    for draw, mean in enumerate(means[1:]):
        if not math.isnan(mean):
            of_seeds = math.fsum(pairs[s][1 + draw] for s in chosen[draw]) / len(seeds)
            drawn.append(mean + wider * (of_seeds - mean))
    if not drawn:
        raise UserError(f"{name}: no draw of images has objects")
    # Drawn sets score a little higher than the set itself, see `evaluation.analysis.Interval`.
    shift = math.fsum(m for m in means[1:] if not math.isnan(m)) / len(drawn) - value
    drawn.sort()
    end = max(1, (len(drawn) + 1) // 40)
    return Difference(
        value=_rounded(value),
        low=_rounded(drawn[end - 1] - shift),
        high=_rounded(drawn[-end] - shift),
        seeds=seeds,
        images=used[0].num_images,
        draws=len(drawn),
    )


def _drawn(name: str, draws: int, size: int) -> np.ndarray:
    """(draws, size) int64: each row numbers from 0 to size - 1, drawn with replacement."""
    stream = hashlib.shake_256(name.encode()).digest(8 * draws * size)
    # Of 2^64 values no number below millions is noticeably more frequent.
    numbers = np.frombuffer(stream, "<u8").reshape(draws, size) % np.uint64(max(size, 1))
    return numbers.astype(np.int64)


def _rows(thresholds: np.ndarray, iou: float | None) -> list[int]:
    if iou is None:
        return list(range(len(thresholds)))
    return np.flatnonzero(np.abs(thresholds - iou) < 1e-9).tolist()


def _rounded(points: float) -> float:
    return round(points, DECIMALS) + 0.0  # no -0.0
