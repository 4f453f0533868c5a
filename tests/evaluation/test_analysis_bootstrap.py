"""Intervals and the paired test: against drawing whole sets, and by what they must say."""

import math

import numpy as np
import pytest
from analysis_sets import comparison_of, official, random_set

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.evaluation.analysis import (
    PrecisionCurves,
    average_precision,
    bootstrap_ap,
    match_detections,
    paired_test,
)


def records_of(truth, results):
    return match_detections(comparison_of(truth, results))


def drawn_sets(truth, images, seed, draws):
    """The sets that the seed draws, as COCO files with a new id for each copy."""
    random = np.random.default_rng(seed)
    ids = sorted(image["id"] for image in truth["images"])
    for _ in range(draws):
        chosen = np.sort(random.integers(0, images, images))
        yield [ids[i] for i in chosen], random


def official_ap(truth, results, chosen):
    images, annotations, own = [], [], []
    for number, old in enumerate(chosen):
        images.append({"id": number, "file_name": "", "height": 48, "width": 64})
        for one in truth["annotations"]:
            if one["image_id"] == old:
                annotations.append({**one, "id": len(annotations) + 1, "image_id": number})
        own += [{**one, "image_id": number} for one in results if one["image_id"] == old]
    evaluation = official({**truth, "images": images, "annotations": annotations}, own)
    if evaluation is None:
        return 0.0 if annotations else math.nan
    precision = evaluation.eval["precision"]
    return precision[precision > -1].mean() if (precision > -1).any() else math.nan


def test_each_draw_is_cocos_ap_of_the_drawn_set():
    truth, results = random_set(3, images=6)
    got = bootstrap_ap(records_of(truth, results), draws=25, level=0.8, seed=7)
    values = [official_ap(truth, results, ids) for ids, _ in drawn_sets(truth, 6, 7, 25)]
    assert got.draws == np.isfinite(values).sum() == 25
    assert got.spread == pytest.approx(np.std(values), abs=1e-12)
    assert got.shift == pytest.approx(np.mean(values) - got.value, abs=1e-12)
    low, high = np.quantile(values, [0.1, 0.9]) - got.shift
    assert (got.low, got.high) == pytest.approx((low, high), abs=1e-12)
    assert got.value == official_ap(truth, results, sorted(i["id"] for i in truth["images"]))
    assert got.low < got.value < got.high
    assert got.level == 0.8


def test_the_paired_test_against_the_slow_way():
    truth, first = random_set(3, images=6)
    rng = np.random.default_rng(0)
    second = [{**one, "score": float(rng.integers(1, 10)) / 10} for one in first]
    second += [one for one in random_set(8, images=6)[1] if rng.random() < 0.3]
    got = paired_test(records_of(truth, first), records_of(truth, second), draws=20, seed=5)
    ids = sorted(image["id"] for image in truth["images"])

    def difference(one, two, chosen):
        return official_ap(truth, two, chosen) - official_ap(truth, one, chosen)

    seen = difference(first, second, ids)
    assert got.difference.value == pytest.approx(seen, abs=1e-12)
    values, larger = [], 1
    for chosen, random in drawn_sets(truth, 6, 5, 20):
        values.append(difference(first, second, chosen))
        swap = random.integers(0, 2, 6)
        swapped = [
            [r for r in mine if not swap[ids.index(r["image_id"])]]
            + [r for r in other if swap[ids.index(r["image_id"])]]
            for mine, other in ((first, second), (second, first))
        ]
        larger += abs(difference(*swapped, ids)) >= abs(seen) - 1e-12
    low, high = np.quantile(values, [0.025, 0.975]) - np.mean(values) + seen
    assert (got.difference.low, got.difference.high) == pytest.approx((low, high), abs=1e-12)
    assert got.p_value == larger / 21
    assert 1 < larger < 21


def test_the_seed_decides():
    records = records_of(*random_set(3))
    assert bootstrap_ap(records, 30, seed=1) == bootstrap_ap(records, 30, seed=1)
    assert bootstrap_ap(records, 30, seed=1) != bootstrap_ap(records, 30, seed=2)


def test_what_the_paired_test_must_say():
    truth, results = random_set(6, images=12)
    records = records_of(truth, results)
    same = paired_test(records, records, draws=40)
    assert same.p_value == 1.0
    assert same.difference.value == same.difference.low == same.difference.high == 0.0
    perfect = [
        {
            "image_id": one["image_id"],
            "category_id": one["category_id"],
            "segmentation": one["segmentation"],
            "bbox": one["bbox"],
            "score": 0.9,
        }
        for one in truth["annotations"]
    ]
    better = paired_test(records, records_of(truth, perfect), draws=200)
    assert better.difference.low > 0
    assert better.p_value == 1 / 201
    worse = paired_test(records_of(truth, perfect), records, draws=20)
    assert worse.difference.value == -better.difference.value


def test_progress_and_bad_calls():
    records = records_of(*random_set(3))
    told = []
    bootstrap_ap(records, 3, progress=lambda *state: told.append(state))
    assert told == [(1, 3), (2, 3), (3, 3)]
    for arguments in ((0, 0.95), (10, 0.0), (10, 1.0)):
        with pytest.raises(UsageError, match="draws=|level="):
            bootstrap_ap(records, *arguments)
    with pytest.raises(UsageError, match="same ground truth"):
        paired_test(records, records_of(*random_set(4)))


def test_nothing():
    truth, results = random_set(1)
    bare = bootstrap_ap(records_of({**truth, "annotations": []}, results), 5)
    assert bare.draws == 0
    assert all(map(math.isnan, (bare.value, bare.low, bare.high)))
    none = bootstrap_ap(records_of(truth, []), 5)
    assert (none.value, none.low, none.high) == (0.0, 0.0, 0.0)
    nothing = records_of({"images": [], "annotations": [], "categories": []}, [])
    assert math.isnan(bootstrap_ap(nothing, 5).value)
    assert math.isnan(paired_test(nothing, nothing, 5).p_value)


def test_one_image_has_no_spread():
    truth, results = random_set(2, images=1)
    records = records_of(truth, results)
    whole = average_precision(PrecisionCurves(records).precision())
    got = bootstrap_ap(records, 5)
    assert (got.value, got.low, got.high, got.spread) == (whole, whole, whole, 0.0)
