"""AP of parts: areas as COCO's own, counts as sets of their own, occlusion against pixels."""

import itertools
import math

import numpy as np
import pytest
from analysis_sets import (
    annotation,
    comparison_of,
    official,
    random_set,
    rectangle,
    result,
)
from pycocotools import mask as coco_mask

from mask_rcnn_ext.evaluation.analysis import (
    PrecisionCurves,
    average_precision,
    by_area,
    by_count,
    by_occlusion,
    match_detections,
)
from mask_rcnn_ext.evaluation.analysis.breakdown import (
    AREA_EDGES,
    detection_occlusion,
    object_occlusion,
)
from mask_rcnn_ext.evaluation.analysis.columns import mask_of

SIZE = (48, 64)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(4))
def test_areas_are_cocos(seed, iou_type):
    truth, results = random_set(seed, images=7)
    edges = (0, 60, 150, 400, 1e10)
    ranges = list(itertools.pairwise(edges))
    precision = official(truth, results, iou_type, area_ranges=ranges).eval["precision"]
    parts = by_area(comparison_of(truth, results, iou_type), edges)
    assert len(parts) == len(ranges)
    for a, (part, (low, high)) in enumerate(zip(parts, ranges, strict=True)):
        inside = [
            one for one in truth["annotations"] if not one["iscrowd"] and low <= one["area"] <= high
        ]
        assert (part.lowest, part.highest) == (low, high)
        assert part.objects == len(inside)
        assert part.images == len({one["image_id"] for one in inside})
        for got, own in (
            (part.ap, precision[:, :, :, a, 0]),
            (part.ap50, precision[0, :, :, a, 0]),
            (part.ap75, precision[5, :, :, a, 0]),
        ):
            expected = own[own > -1].mean() if (own > -1).any() else math.nan
            assert got == expected or (math.isnan(got) and math.isnan(expected))
    assert len({part.ap for part in parts}) > 2


def test_the_areas_of_coco_are_among_the_edges():
    assert {0, 32**2, 96**2, 1e10} <= set(AREA_EDGES)


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_sets_of_their_own(seed):
    truth, results = random_set(seed, images=9)
    starts = (0, 1, 3, 5)
    parts = by_count(match_detections(comparison_of(truth, results)), starts)
    assert [part.lowest for part in parts] == list(starts)
    assert [part.highest for part in parts] == [0, 2, 4, math.inf]
    for part in parts:
        number = {
            image["id"]: sum(
                a["image_id"] == image["id"] and not a["iscrowd"] for a in truth["annotations"]
            )
            for image in truth["images"]
        }
        ids = {key for key, count in number.items() if part.lowest <= count <= part.highest}
        kept = {
            **truth,
            "images": [one for one in truth["images"] if one["id"] in ids],
            "annotations": [one for one in truth["annotations"] if one["image_id"] in ids],
        }
        own = [one for one in results if one["image_id"] in ids]
        precision = PrecisionCurves(match_detections(comparison_of(kept, own))).precision()
        expected = average_precision(precision)
        assert part.ap == expected or math.isnan(part.ap) == math.isnan(expected) is True
        assert part.images == len(ids)
        assert part.objects == sum(number[key] for key in ids)
    assert math.isnan(parts[0].ap)


def box_pixels(box):
    rle = coco_mask.frPyObjects(np.array([box], float), *SIZE)[0]
    return coco_mask.decode(rle).astype(bool)


@pytest.mark.parametrize("iou_type", ["segm", "bbox"])
@pytest.mark.parametrize("seed", range(3))
def test_occlusion_against_pixels(seed, iou_type):
    truth, results = random_set(seed)
    comparison = comparison_of(truth, results, iou_type)
    shares, found = object_occlusion(comparison), detection_occlusion(comparison)
    for image, image_id in enumerate(comparison.image_ids):
        rows = comparison.objects.row[comparison.objects_of(image)]
        things = [truth["annotations"][row] for row in rows]
        assert all(one["image_id"] == image_id for one in things)
        pixels = [
            coco_mask.decode(mask_of(one["segmentation"], SIZE)).astype(bool)
            if iou_type == "segm"
            else box_pixels(one["bbox"])
            for one in things
        ]

        def covered(box, without, pixels=pixels):
            others = [mask for i, mask in enumerate(pixels) if i != without]
            inside = box_pixels(box)
            union = np.any([np.zeros(SIZE, bool), *others], axis=0)
            return (inside & union).sum() / inside.sum() if inside.any() else 0.0

        expected = [covered(one["bbox"], i) for i, one in enumerate(things)]
        np.testing.assert_allclose(shares[comparison.objects_of(image)], expected, atol=1e-12)
        iou = comparison.iou[image]
        for d, row in enumerate(comparison.detections.row[comparison.detections_of(image)]):
            best = int(np.argmax(iou[d])) if len(things) and iou[d].max() > 0 else None
            share = covered(results[row]["bbox"], best)
            place = comparison.detection_starts[image] + d
            assert found[place] == pytest.approx(share, abs=1e-12)
    assert 0 < shares.mean() < 1


def test_occlusion_bins_by_hand():
    truth, _ = random_set(0)
    truth["images"] = [{"id": 1, "file_name": "a", "height": SIZE[0], "width": SIZE[1]}]
    truth["annotations"] = [
        annotation(1, 1, 3, rectangle(SIZE, 0, 0, 10, 10)),
        annotation(2, 1, 3, rectangle(SIZE, 0, 8, 10, 2)),  # all of it lies in the first one's box
        annotation(3, 1, 7, rectangle(SIZE, 30, 30, 10, 10)),
    ]
    results = [
        result(1, 3, rectangle(SIZE, 0, 0, 10, 10), 0.9),
        result(1, 7, rectangle(SIZE, 30, 20, 5, 5), 0.95),  # wrong, on open ground
        result(1, 7, rectangle(SIZE, 30, 30, 10, 10), 0.9),
    ]
    comparison = comparison_of(truth, results)
    assert object_occlusion(comparison).tolist() == [0.2, 1.0, 0.0]
    free, low, high = by_occlusion(comparison, (0.0, 0.2, 1.0))
    assert [(p.lowest, p.highest, p.objects) for p in (free, low, high)] == [
        (0.0, 0.0, 1),
        (0.0, 0.2, 1),
        (0.2, 1.0, 1),
    ]
    assert free.ap == pytest.approx(0.5)
    assert low.ap == pytest.approx(1.0)
    assert high.ap == 0.0


def test_one_occlusion_bin_is_the_whole_set():
    truth, results = random_set(4)
    comparison = comparison_of(truth, results)
    whole = average_precision(PrecisionCurves(match_detections(comparison)).precision())
    assert by_occlusion(comparison, (1.0,))[0].ap == whole


def test_nothing():
    truth, results = random_set(1)
    bare = comparison_of({**truth, "annotations": []}, results)
    none = comparison_of(truth, [])
    for parts in (by_area(bare), by_occlusion(bare), by_count(match_detections(bare))):
        assert all(math.isnan(part.ap) and part.objects == 0 for part in parts)
    for parts in (by_area(none), by_occlusion(none), by_count(match_detections(none))):
        assert all(math.isnan(part.ap) if not part.objects else part.ap == 0 for part in parts)
        assert any(part.objects for part in parts)
