"""Paired bootstrap over images and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from made_records import levels, made_matches

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.evaluation.analysis import PrecisionCurves, average_precision, paired_test
from mask_rcnn_ext.paper.matches_file import records_of
from mask_rcnn_ext.paper.resampling import DRAWS, Sample, _drawn, difference, sample

DRAWN = 59


def _records(mean, seed, images=60):
    return records_of(made_matches(levels(images, mean, seed)))


def _sample(*values, images="a set", num_images=60):
    return Sample(images, num_images, {"AP": values})


def test_draws_are_the_same_for_ever_and_even():
    """Numbers of a hash: no library may change them."""
    drawn = _drawn("400 images", 3, 400)
    expected = [[46, 304, 391, 75, 300], [264, 236, 214, 288, 314], [258, 28, 203, 390, 139]]
    assert drawn[:, :5].tolist() == expected
    many = _drawn("another", 2000, 7)
    assert np.bincount(many.ravel(), minlength=7) / many.size == pytest.approx(1 / 7, abs=0.01)
    assert _drawn("seeds", 4, 0).shape == (4, 0)


def test_a_sample_is_cocos_ap_of_all_images_and_of_drawn_ones():
    records = _records(5, 1)
    curves = PrecisionCurves(records)
    found = sample(records, "a set", DRAWN)
    drawn = [None, *(np.sort(one) for one in _drawn("60 images", DRAWN, 60))]
    for figure, rows in (("AP", slice(None)), ("AP50", slice(0, 1)), ("AP75", slice(5, 6))):
        expected = [100 * average_precision(curves.precision(one)[rows]) for one in drawn]
        assert found.figures[figure] == pytest.approx(expected, rel=1e-12), figure
    assert (found.images, found.num_images) == ("a set", 60)


def test_draws_without_objects_do_not_count():
    """One of two images has the only object; a quarter of draws are of the other one alone."""
    matches = made_matches([10, 0])
    one = records_of(
        type(matches)(
            **{
                **matches.__dict__,
                "object_starts": np.array([0, 1]),
                "object_image": np.array([0]),
                "object_count": np.array([1]),
            }
        )
    )
    found = sample(one, "a set", DRAWN)
    empty = sum(math.isnan(value) for value in found.figures["AP"])
    assert 5 < empty < 30
    assert difference("a", {1: found}, {1: found}).draws == DRAWN - empty


def test_progress_is_told():
    told = []
    sample(_records(5, 1, 4), "a set", 3, lambda done, of: told.append((done, of)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_both_stages_see_the_same_images():
    """So that what is right in the same images differs by nothing, however they are drawn."""
    runs = {seed: sample(_records(5, seed), "a set", DRAWN) for seed in (1, 2, 3)}
    found = difference("a", runs, runs)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    assert str(found.low) == "0.0"


def test_one_seed_agrees_with_the_analysis_of_two_runs():
    """Other draws of images, so about the same interval."""
    first, second = _records(6, 1, 120), _records(5, 2, 120)
    sides = [{1: sample(one, "a set")} for one in (first, second)]
    found = difference("a", *sides)
    expected = paired_test(second, first, draws=DRAWS).difference
    assert found.value == pytest.approx(100 * expected.value, abs=0.006)
    assert found.low == pytest.approx(100 * expected.low, abs=1.0)
    assert found.high == pytest.approx(100 * expected.high, abs=1.0)
    assert found.high - found.low > 3
    assert (found.seeds, found.images, found.draws) == ((1,), 120, DRAWS)


def test_seeds_are_drawn_in_pairs():
    """Differences 1, 2 and 6 on all images alike: ends are draws of one seed three times, which are
    4 % of all, as far from the mean again as three seeds are too close to it."""
    base = {1: 50.0, 2: 10.0, 3: 30.0}
    gains = {1: 1.0, 2: 2.0, 3: 6.0}
    first = {seed: _sample(*[base[seed] + gains[seed]] * (1 + DRAWS)) for seed in base}
    second = {seed: _sample(*[base[seed]] * (1 + DRAWS)) for seed in base}
    found = difference("a", first, second)
    assert (found.value, found.low, found.high) == (
        3.0,
        round(3 - 2 * math.sqrt(1.5), 2),
        round(3 + 3 * math.sqrt(1.5), 2),
    )
    assert found.seeds == (1, 2, 3)
    # Seeds that one side lacks are left out.
    assert difference("a", first, {2: second[2], 4: second[1]}).value == 2.0


def test_the_interval_is_around_the_value():
    """Draws that score 5 higher than the set itself, as copies of images do, shift nothing."""
    values = [5 + i / 100 for i in range(-100, 101)]
    found = difference("a", {1: _sample(0.0, *values)}, {1: _sample(*[0.0] * 202)})
    assert found.value == 0
    # (201 + 1) / 40: the fifth draw from either end
    assert (found.low, found.high) == (-0.96, 0.96)


def test_the_same_figures_on_every_machine():
    """If these change, so does every report: say so in docs/changes.md."""
    first, second = (
        {seed: sample(_records(mean, 10 * seed + mean), "a set") for seed in (1, 2, 3)}
        for mean in (6, 5)
    )
    found = difference("roialign_gain/mask_AP_gain", first, second)
    assert (found.value, found.low, found.high) == (9.78, 4.54, 15.15)
    # Another name draws other seeds of the same images.
    other = difference("another", first, second)
    assert other.value == found.value
    assert (other.low, other.high) != (found.low, found.high)


def test_other_images_are_refused():
    here = {1: _sample(1.0, 2.0)}
    for other in (_sample(1.0, 2.0, images="another"), _sample(1.0, 2.0, num_images=61)):
        with pytest.raises(UserError, match="gain: not measured on the same images"):
            difference("gain", here, {1: other})
    with pytest.raises(UserError, match=r"no seed that both have: 1 and 2, 3"):
        difference("gain", here, {2: here[1], 3: here[1]})
    with pytest.raises(UserError, match="without objects"):
        difference("gain", {1: _sample(math.nan, 1.0)}, {1: _sample(math.nan, 1.0)})
    with pytest.raises(UserError, match="no draw of images has objects"):
        difference("gain", {1: _sample(1.0, math.nan)}, {1: _sample(1.0, math.nan)})
