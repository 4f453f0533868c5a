"""Curves, operating points, confusion matrix and empty images against slow, plain counting."""

import numpy as np
import pytest
from analysis_sets import annotation, comparison_of, random_set, rectangle, result
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.evaluation.analysis import (
    confusion_matrix,
    match_detections,
    negative_images,
    precision_recall_curves,
)
from mask_rcnn_ext.evaluation.analysis.curves import _curve

SIZE = (48, 64)


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.5, 0.7, 0.9]), st.booleans()), max_size=8),
    st.integers(0, 3),
)
def test_curve_against_counting(detections, missed):
    score = np.array([one[0] for one in detections], float)
    right = np.array([one[1] for one in detections], bool)
    total = int(right.sum()) + missed
    curve = _curve(score, right, total)
    assert curve.score.tolist() == sorted(set(score.tolist()), reverse=True)
    points = []
    for i, level in enumerate(curve.score):
        kept = score >= level
        hits = int((kept & right).sum())
        assert curve.precision[i] == hits / kept.sum()
        if total:
            assert curve.recall[i] == hits / total
            assert curve.f1[i] == pytest.approx(2 * hits / (kept.sum() + total))
            points.append((curve.f1[i], level))
        else:
            assert np.isnan(curve.recall[i])
            assert np.isnan(curve.f1[i])
        at = curve.at(level)
        assert (at.score, at.precision) == (level, curve.precision[i])
        assert curve.at(level - 0.01).precision == at.precision
    best = curve.best()
    if points and max(points)[0] > 0:
        assert (best.f1, best.score) == max(points)
        assert curve.at(best.score) == best
    else:
        assert np.isnan(best.score)
        assert best.f1 == 0 if total else np.isnan(best.f1)
    above = curve.at(0.95)
    assert np.isnan(above.precision)
    assert above.recall == 0 if total else np.isnan(above.recall)


def test_lower_scores_do_not_change_the_matches_of_higher_ones():
    """So a point of a curve is what the detections from its score on give alone."""
    for seed in range(4):
        truth, results = random_set(seed)
        curves = precision_recall_curves(match_detections(comparison_of(truth, results)), 3)
        for level in curves.pooled.score:
            kept = [one for one in results if one["score"] >= level]
            records = match_detections(comparison_of(truth, kept))
            point = curves.pooled.at(level)
            right, wrong = records.right[3].sum(), records.wrong[3].sum()
            assert point.recall == right / records.totals().sum()
            if right + wrong:
                assert point.precision == right / (right + wrong)


def test_curves_by_category():
    truth, results = random_set(2)
    records = match_detections(comparison_of(truth, results))
    curves = precision_recall_curves(records)
    assert len(curves.categories) == 3
    assert sum(one.total for one in curves.categories) == curves.pooled.total
    assert sum(one.right[-1] for one in curves.categories) == curves.pooled.right[-1]
    for k, category in enumerate((3, 7, 20)):
        own = {
            **truth,
            "annotations": [a for a in truth["annotations"] if a["category_id"] == category],
        }
        kept = [one for one in results if one["category_id"] == category]
        alone = precision_recall_curves(match_detections(comparison_of(own, kept))).pooled
        np.testing.assert_array_equal(alone.f1, curves.categories[k].f1)
        np.testing.assert_array_equal(alone.score, curves.categories[k].score)


def test_curves_of_nothing():
    truth, _ = random_set(1)
    for truth_part in (truth, {**truth, "annotations": []}):
        curves = precision_recall_curves(match_detections(comparison_of(truth_part, [])))
        assert len(curves.pooled.score) == 0
        best = curves.pooled.best()
        assert np.isnan(best.score)
        assert np.isnan(best.f1) == (not truth_part["annotations"])


def slow_confusion(comparison, results, truth, least_score, least_iou):
    """One detection at a time, over plain lists."""
    k = comparison.num_categories
    counts = [[0] * (k + 1) for _ in range(k + 1)]
    for image, image_id in enumerate(comparison.image_ids):
        things = [a for a in truth["annotations"] if a["image_id"] == image_id]
        places = {
            int(row): i
            for i, row in enumerate(comparison.objects.row[comparison.objects_of(image)])
        }
        columns = [places[truth["annotations"].index(a)] for a in things]
        rows = comparison.detections.row[comparison.detections_of(image)].tolist()
        taken = set()
        for row in sorted(rows, key=lambda row: (-results[row]["score"], row)):
            one = results[row]
            if one["score"] < least_score:
                continue
            predicted = comparison.category_ids.index(one["category_id"])
            overlaps = [comparison.iou[image][rows.index(row), c] for c in columns]
            choices = [
                (overlaps[i], a["category_id"] == one["category_id"], -i)
                for i, a in enumerate(things)
                if not a["iscrowd"] and i not in taken and overlaps[i] >= least_iou
            ]
            if choices:
                i = -max(choices)[2]
                taken.add(i)
                counts[comparison.category_ids.index(things[i]["category_id"])][predicted] += 1
            elif not any(
                a["iscrowd"] and a["category_id"] == one["category_id"] and overlaps[i] >= least_iou
                for i, a in enumerate(things)
            ):
                counts[k][predicted] += 1
        for i, a in enumerate(things):
            if not a["iscrowd"] and i not in taken:
                counts[comparison.category_ids.index(a["category_id"])][k] += 1
    return np.array(counts)


@pytest.mark.parametrize("seed", range(8))
def test_confusion_against_the_slow_way(seed):
    truth, results = random_set(seed)
    comparison = comparison_of(truth, results, "bbox" if seed == 7 else "segm")
    for least_score, least_iou in ((0.0, 0.5), (0.5, 0.5), (0.3, 0.8)):
        got = confusion_matrix(comparison, least_score, least_iou)
        expected = slow_confusion(comparison, results, truth, least_score, least_iou)
        np.testing.assert_array_equal(got, expected)
        objects = comparison.objects.category[~comparison.objects.crowd]
        assert got[:-1].sum(axis=1).tolist() == np.bincount(objects, minlength=3).tolist()
        assert got[3, 3] == 0


def test_confusion_uses_the_mask_not_the_box():
    truth, _ = random_set(0)
    truth["annotations"] = [annotation(1, 1, 3, rectangle(SIZE, 0, 0, 20, 20))]
    ring = rectangle(SIZE, 0, 0, 20, 20) & ~rectangle(SIZE, 1, 1, 18, 18)
    found = [result(1, 7, ring, 0.9)]
    by_mask = confusion_matrix(comparison_of(truth, found))
    by_box = confusion_matrix(comparison_of(truth, found, "bbox"))
    assert by_mask[0, 3] == by_mask[3, 1] == 1
    assert by_box[0, 1] == 1


def test_confusion_prefers_its_own_category_where_the_iou_is_equal():
    truth, _ = random_set(0)
    mask = rectangle(SIZE, 0, 0, 20, 20)
    truth["annotations"] = [annotation(i + 1, 1, k, mask) for i, k in enumerate((3, 7, 20))]
    got = confusion_matrix(comparison_of(truth, [result(1, 7, mask, 0.9)]))
    assert got[1, 1] == 1
    assert got[:, 3].tolist() == [1, 0, 1, 0]


def test_confusion_of_nothing():
    truth, results = random_set(1)
    bare = {**truth, "annotations": []}
    assert confusion_matrix(comparison_of(bare, []), 0.0).tolist() == [[0] * 4] * 4
    got = confusion_matrix(comparison_of(bare, results), 0.0)
    assert got[3].sum() == got.sum() == len(results)
    assert confusion_matrix(comparison_of(truth, []), 0.0)[:, 3].sum() > 0


def test_negative_images():
    for seed in range(5):
        truth, results = random_set(seed, images=8, objects=2)
        got = negative_images(comparison_of(truth, results), [0.0, 0.45, 0.95])
        used = {a["image_id"] for a in truth["annotations"]}
        empty = {image["id"] for image in truth["images"]} - used
        assert got.images == len(empty)
        for s, score in enumerate(got.scores):
            false = [r for r in results if r["image_id"] in empty and r["score"] >= score]
            assert got.with_detections[s] == len({r["image_id"] for r in false})
            by_category = [sum(r["category_id"] == c for r in false) for c in (3, 7, 20)]
            assert got.detections[s].tolist() == by_category
            if empty:
                assert got.per_image[s] == len(false) / len(empty)


def test_negative_images_of_nothing():
    truth, results = random_set(1)
    whole = negative_images(comparison_of({**truth, "annotations": []}, results), [0.0])
    assert whole.images == 5
    assert whole.detections.sum() == len(results)
    nothing = {"images": [], "annotations": [], "categories": []}
    none = negative_images(comparison_of(nothing, []))
    assert none.images == 0
    assert np.isnan(none.per_image).all()
    assert none.detections.shape == (5, 0)
