"""The analyses' foundation: IoU, matching and AP are pycocotools', to the last bit."""

import json

import numpy as np
import pytest
from analysis_sets import (
    CATEGORIES,
    annotation,
    comparison_of,
    official,
    random_set,
    rectangle,
    result,
    table_of,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from mask_rcnn_ext.errors import DataError, UsageError
from mask_rcnn_ext.evaluation.analysis import (
    PrecisionCurves,
    average_precision,
    compare,
    match_detections,
)
from mask_rcnn_ext.evaluation.analysis.average_precision import RECALL_LEVELS
from mask_rcnn_ext.evaluation.analysis.columns import mask_of
from mask_rcnn_ext.evaluation.analysis.matching import IOU_THRESHOLDS, NOTHING, _match_cell

SIZE = (48, 64)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(12))
def test_ap_is_pycocotools(seed, iou_type):
    truth, results = random_set(seed, images=7)
    max_dets = 100 if seed % 3 else 2
    evaluation = official(truth, results, iou_type, max_dets)
    records = match_detections(comparison_of(truth, results, iou_type, max_dets))
    precision = PrecisionCurves(records).precision()
    np.testing.assert_array_equal(precision, evaluation.eval["precision"][..., 0, 0])
    expected = evaluation.eval["precision"][..., 0, 0]
    assert average_precision(precision) == expected[expected > -1].mean()
    assert 0.01 < average_precision(precision) < 0.95


def test_parameters_are_pycocotools():
    evaluation = official(*random_set(0))
    np.testing.assert_array_equal(IOU_THRESHOLDS, evaluation.params.iouThrs)
    np.testing.assert_array_equal(RECALL_LEVELS, evaluation.params.recThrs)


@pytest.mark.parametrize("seed", range(4))
def test_matches_are_pycocotools(seed):
    truth, results = random_set(seed)
    evaluation = official(truth, results)
    comparison = comparison_of(truth, results)
    records = match_detections(comparison)
    table = table_of(truth)
    checked = 0
    for cell in filter(None, evaluation.evalImgs):
        image = comparison.image_ids.index(cell["image_id"])
        category = comparison.category_ids.index(cell["category_id"])
        own = np.flatnonzero((records.image == image) & (records.category == category))
        rows = comparison.detections.row[own]
        assert [row + 1 for row in rows] == cell["dtIds"]  # loadRes numbers results from 1
        match = records.match[:, own]
        objects = np.array([*table.annotation_ids[comparison.objects.row], 0])
        np.testing.assert_array_equal(objects[match], cell["dtMatches"])
        np.testing.assert_array_equal(records.ignored[:, own], cell["dtIgnore"])
        checked += len(own)
    assert checked == len(results)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_hundreds_in_one_image(iou_type):
    truth, _ = random_set(0, images=1)
    truth["annotations"] = [
        annotation(i + 1, 1, 3, rectangle(SIZE, i % 50, i % 30, 9, 9)) for i in range(300)
    ]
    results = [result(1, 3, rectangle(SIZE, i % 50, i % 31, 9, 8), i / 300) for i in range(300)]
    evaluation = official(truth, results, iou_type, 290)
    records = match_detections(comparison_of(truth, results, iou_type, 290))
    precision = PrecisionCurves(records).precision()
    np.testing.assert_array_equal(precision, evaluation.eval["precision"][..., 0, 0])
    assert len(records.score) == 290


@pytest.mark.parametrize("empty", ["results", "annotations", "images", "all"])
def test_empty_sets(empty):
    truth, results = random_set(1)
    if empty in ("images", "all"):
        truth["images"], truth["annotations"], results = [], [], []
    if empty in ("results", "all"):
        results = []
    if empty in ("annotations", "all"):
        truth["annotations"] = []
    if empty == "all":
        truth["categories"] = []
    for iou_type in ("segm", "bbox"):
        records = match_detections(comparison_of(truth, results, iou_type))
        precision = PrecisionCurves(records).precision()
        ap = average_precision(precision)
        if empty == "results":
            assert ap == 0.0
        else:
            assert np.isnan(ap)
        assert precision.shape == (10, 101, len(truth["categories"]))


def test_one_category():
    truth, results = random_set(3, categories=CATEGORIES[:1])
    evaluation = official(truth, results)
    precision = PrecisionCurves(match_detections(comparison_of(truth, results))).precision()
    np.testing.assert_array_equal(precision, evaluation.eval["precision"][..., 0, 0])
    assert (precision[..., 1:] == -1).all()


def slow_match(iou, least, ignore, crowd):
    """One threshold, one detection, one object at a time, as COCO's paper says it."""
    match = np.full((len(least), len(iou)), NOTHING)
    for t, threshold in enumerate(least):
        taken = set()
        for d in range(len(iou)):
            for group in (False, True):
                best = None
                for g in range(iou.shape[1]):
                    allowed = ignore[g] == group and (g not in taken or crowd[g])
                    high = best is None or iou[d, g] >= iou[d, best]
                    if allowed and iou[d, g] >= threshold and high:
                        best = g
                if best is not None:
                    match[t, d] = best
                    taken.add(best)
                    break
    return match


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_one_cell_against_the_slow_way(data):
    found, things = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 5))
    level = st.sampled_from([0, 0.4, 0.5, 0.6, 0.6 + 2e-16, 0.75, 1.0])
    iou = np.array(data.draw(st.lists(level, min_size=found * things, max_size=found * things)))
    crowd = np.array(data.draw(st.lists(st.booleans(), min_size=things, max_size=things)))
    left_out = np.array(data.draw(st.lists(st.booleans(), min_size=things, max_size=things)))
    iou = iou.reshape(found, things).astype(float)
    least = np.array([0.5, 0.6, 0.95])
    arguments = (iou, least, crowd | left_out, crowd)
    np.testing.assert_array_equal(_match_cell(*arguments), slow_match(*arguments))


def test_what_is_left_out_and_outside():
    truth = {
        "images": [{"id": 1, "file_name": "a", "height": 48, "width": 64}],
        "categories": [{"id": 3, "name": "cat"}],
        "annotations": [
            annotation(1, 1, 3, rectangle(SIZE, 0, 0, 10, 10)),
            annotation(2, 1, 3, rectangle(SIZE, 20, 0, 10, 10)),
        ],
    }
    results = [
        result(1, 3, rectangle(SIZE, 0, 0, 10, 10), 0.9),
        result(1, 3, rectangle(SIZE, 20, 0, 10, 10), 0.8),
        result(1, 3, rectangle(SIZE, 40, 0, 10, 10), 0.7),
    ]
    comparison = comparison_of(truth, results)
    records = match_detections(
        comparison,
        np.array([0.5]),
        left_out=np.array([False, True]),
        outside=np.array([False, False, True]),
    )
    assert records.right.tolist() == [[True, False, False]]
    assert records.ignored.tolist() == [[False, True, True]]
    assert records.totals().tolist() == [1]


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_iou_of_all_pairs(kind):
    truth, results = random_set(5)
    comparison = comparison_of(truth, results, kind)
    masks = [coco_mask.decode(mask_of(one["segmentation"], SIZE)) for one in truth["annotations"]]
    for image in range(comparison.num_images):
        things = comparison.objects_of(image)
        for d, row in enumerate(comparison.detections.row[comparison.detections_of(image)]):
            mine = coco_mask.decode(results[row]["segmentation"]).astype(bool)
            for g, annotation_row in enumerate(comparison.objects.row[things]):
                theirs = masks[annotation_row].astype(bool)
                union = mine if comparison.objects.crowd[things][g] else mine | theirs
                expected = (mine & theirs).sum() / max(union.sum(), 1)
                if kind == "segm":
                    assert comparison.iou[image][d, g] == pytest.approx(expected, abs=1e-12)
                else:
                    assert comparison.box_iou(image) is comparison.iou[image]


def test_boxes_beside_masks_are_the_files():
    truth, results = random_set(2)
    segm, bbox = (comparison_of(truth, results, kind) for kind in ("segm", "bbox"))
    for image in range(segm.num_images):
        np.testing.assert_array_equal(segm.box_iou(image), bbox.box_iou(image))
    for one in results:
        del one["bbox"]
    assert len(comparison_of(truth, results).detections) == len(results)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(1, 6))
def test_any_images_are_a_set_of_their_own(seed, count):
    """Repeated images too: a set with copies under other ids gives the same array."""
    truth, results = random_set(seed, images=4, objects=4)
    rng = np.random.default_rng(seed)
    comparison = comparison_of(truth, results)
    drawn = np.sort(rng.integers(0, comparison.num_images, count))
    copies = {**truth, "images": [], "annotations": []}
    copied = []
    for number, image in enumerate(drawn):
        old = comparison.image_ids[image]
        copies["images"].append({"id": number, "file_name": "", "height": 48, "width": 64})
        for one in truth["annotations"]:
            if one["image_id"] == old:
                one = {**one, "id": len(copies["annotations"]) + 1, "image_id": number}
                copies["annotations"].append(one)
        copied += [{**one, "image_id": number} for one in results if one["image_id"] == old]
    got = PrecisionCurves(match_detections(comparison)).precision(drawn)
    expected = PrecisionCurves(match_detections(comparison_of(copies, copied))).precision()
    np.testing.assert_array_equal(got, expected)
    if copied:
        evaluation = official(copies, copied)
        np.testing.assert_array_equal(got, evaluation.eval["precision"][..., 0, 0])


def test_bad_input():
    truth, results = random_set(0)
    table = table_of(truth)
    one = results[0]
    for change, message in (
        ({"image_id": 999}, "result 1 .*image_id 999 is not in the ground truth"),
        ({"category_id": 1}, "result 1 .*category_id 1 is not"),
        ({"segmentation": {"size": [9, 9], "counts": "1"}}, r"result 1 .*size is \[9, 9\]"),
        ({"segmentation": 3}, "result 1 .*neither polygons nor run lengths"),
        ({"bbox": [1, 2]}, "result 1 "),
        ({"score": "high"}, "result 1 "),
        ({"score": float("nan")}, "result 1 has no"),
    ):
        with pytest.raises(DataError, match=message):
            compare(table, [one, {**one, **change}])
    with pytest.raises(DataError, match="it has no 'segmentation'"):
        compare(table, [{key: one[key] for key in one if key != "segmentation"}])
    with pytest.raises(DataError, match="result 0 has no box"):
        compare(table, [{key: one[key] for key in one if key != "bbox"}], "bbox")
    with pytest.raises(UsageError, match="iou_type='mask'"):
        compare(table, results, "mask")
    truth["annotations"][0]["segmentation"] = [[1, 2]]
    number = truth["annotations"][0]["id"]
    with pytest.raises(DataError, match=f"annotation {number} cannot be read"):
        compare(table_of(truth), results)
    truth["annotations"][0]["segmentation"] = None
    with pytest.raises(DataError, match=f"annotation {number} cannot be read"):
        compare(table_of(truth), results)
    assert len(compare(table_of(truth), results, "bbox").objects) == len(truth["annotations"])
    truth["images"][0]["id"] = "one"
    with pytest.raises(DataError, match="mixes kinds of ids"):
        compare(table_of(truth), [])


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
def test_real_annotations_as_predictions(coco_images, iou_type):
    """Perfect ones give 1; noisy ones what pycocotools gives, crowds and polygons included."""
    path = coco_images / "coco" / "annotations" / "instances_val2017.json"
    truth = json.loads(path.read_text())
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    rng = np.random.default_rng(0)
    perfect, noisy = [], []
    for one in truth["annotations"]:
        height, width = sizes[one["image_id"]]
        mask = coco_mask.decode(mask_of(one["segmentation"], (height, width))).astype(bool)
        if not mask.any():
            continue
        exact = result(one["image_id"], one["category_id"], mask, 1.0)
        exact["segmentation"] = mask_of(one["segmentation"], (height, width))
        perfect.append({**exact, "bbox": one["bbox"]})
        moved = np.roll(mask, rng.integers(-3, 4, 2), (0, 1))
        score = float(rng.integers(1, 100)) / 100
        noisy.append(result(one["image_id"], one["category_id"], moved, score))
    records = match_detections(comparison_of(truth, perfect, iou_type))
    assert average_precision(PrecisionCurves(records).precision()) == pytest.approx(1.0)
    records = match_detections(comparison_of(truth, noisy, iou_type))
    expected = official(truth, noisy, iou_type).eval["precision"][..., 0, 0]
    np.testing.assert_array_equal(PrecisionCurves(records).precision(), expected)
    assert 0.2 < average_precision(expected) < 0.95
