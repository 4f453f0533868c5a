"""How sure an AP is: images drawn again, and two runs compared on the same images.

The matching of an image does not depend on the others, so it is done once; each drawn set's AP is
then COCO's own of that set, a repeated image counting as so many images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...errors import UsageError
from .average_precision import PrecisionCurves, average_precision
from .matching import Records

# Called with (draws done, of how many).
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Interval:
    """AP or a difference of two, 0 to 1.

    Attributes:
        value: of the set itself
        low, high: percentiles of the draws with `level` of them in between, less `shift`
        level: e.g. 0.95
        spread: standard deviation of the draws
        shift: mean of the draws minus `value`. Drawn sets score a little higher, because copies of
            an image are right and wrong together, which the best precision at a recall gains from
        draws: number of draws with a value; a set without objects has none
    """

    value: float
    low: float
    high: float
    level: float
    spread: float
    shift: float
    draws: int


@dataclass(frozen=True)
class PairedTest:
    """Second run against first.

    Attributes:
        difference: second minus first, with its interval from images drawn for both alike
        p_value: share of random swaps of the two runs' predictions, image by image, whose
            difference is at least as large as the one seen (either sign), the one seen counted
            too; small if the difference is hardly chance
    """

    difference: Interval
    p_value: float


def bootstrap_ap(
    records: Records,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> Interval:
    """Interval for AP: as many images as the set has are drawn with replacement.

    Args:
        records: of the set
        draws: how often
        level: share of the draws inside the interval, between 0 and 1
        seed: the same one gives the same interval
        progress: told after each draw
    Raises:
        UsageError: draws or level out of range
    """
    _check(draws, level)
    curves = PrecisionCurves(records)
    random = np.random.default_rng(seed)
    values = np.zeros(draws)
    for draw in range(draws):
        values[draw] = average_precision(curves.precision(_drawn(random, records.num_images)))
        if progress is not None:
            progress(draw + 1, draws)
    return _interval(average_precision(curves.precision()), values, level)


def paired_test(
    first: Records,
    second: Records,
    draws: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> PairedTest:
    """Whether the second run's AP differs from the first's on the same images.

    Args:
        first, second: of the same set with the same thresholds
        draws: how often for the interval, and again for the test
        level, seed, progress: as in `bootstrap_ap`
    Raises:
        UsageError: draws or level out of range, records of different sets
    """
    _check(draws, level)
    _check_same_set(first, second)
    images = first.num_images
    one, two = PrecisionCurves(first), PrecisionCurves(second)

    def difference(drawn: np.ndarray | None) -> float:
        return average_precision(two.precision(drawn)) - average_precision(one.precision(drawn))

    random = np.random.default_rng(seed)
    seen = difference(None)
    values, larger = np.zeros(draws), 1
    both = PrecisionCurves(_side_by_side(first, second))
    place = np.arange(images)
    for draw in range(draws):
        values[draw] = difference(_drawn(random, images))
        swap = random.integers(0, 2, images) * images
        swapped = both.precision(place + images - swap), both.precision(place + swap)
        size = abs(average_precision(swapped[0]) - average_precision(swapped[1]))
        # Sums of the same numbers in another order may differ in their last bits.
        larger += bool(size >= abs(seen) - 1e-12)
        if progress is not None:
            progress(draw + 1, draws)
    p_value = larger / (draws + 1) if np.isfinite(seen) else float("nan")
    return PairedTest(_interval(seen, values, level), p_value)


def _drawn(random: np.random.Generator, images: int) -> np.ndarray:
    return np.sort(random.integers(0, images, images)) if images else np.zeros(0, np.int64)


def _interval(value: float, values: np.ndarray, level: float) -> Interval:
    known = values[~np.isnan(values)]
    if not len(known):
        nan = float("nan")
        return Interval(value, nan, nan, level, nan, nan, 0)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    shift = float(known.mean()) - value
    spread = float(known.std())
    return Interval(
        value, float(low) - shift, float(high) - shift, level, spread, shift, len(known)
    )


def _side_by_side(first: Records, second: Records) -> Records:
    """The second run's images as images of their own after the first's."""
    images = first.num_images
    return Records(
        thresholds=first.thresholds,
        image=np.concatenate([first.image, second.image + images]),
        category=np.concatenate([first.category, second.category]),
        score=np.concatenate([first.score, second.score]),
        match=np.concatenate([first.match, second.match], axis=1),
        ignored=np.concatenate([first.ignored, second.ignored], axis=1),
        counted_image=np.concatenate([first.counted_image, second.counted_image + images]),
        counted_category=np.concatenate([first.counted_category, second.counted_category]),
        num_images=2 * images,
        num_categories=first.num_categories,
    )


def _check(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise UsageError(
            f"got draws={draws}, level={level}; expected at least one draw and 0 < level < 1"
        )


def _check_same_set(first: Records, second: Records) -> None:
    def key(records: Records) -> list[object]:
        columns = (records.counted_image, records.counted_category, records.thresholds)
        return [records.num_images, records.num_categories, *(c.tolist() for c in columns)]

    if key(first) != key(second):
        raise UsageError(
            "the two runs were not compared with the same ground truth (images, objects, "
            "thresholds); evaluate both on one file"
        )
