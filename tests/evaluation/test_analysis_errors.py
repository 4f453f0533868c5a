"""Kinds of errors and what they cost: by hand, and against plain counting, from COCO's matches."""

import numpy as np
import pytest
from analysis_sets import annotation, comparison_of, official, random_set, rectangle, result

from mask_rcnn_ext.evaluation.analysis import error_report
from mask_rcnn_ext.evaluation.analysis.errors import KINDS, NO_ERROR

SIZE = (48, 64)


def one_image(annotations):
    truth, _ = random_set(0)
    truth["images"] = [{"id": 1, "file_name": "a", "height": SIZE[0], "width": SIZE[1]}]
    truth["annotations"] = [annotation(i + 1, 1, *one) for i, one in enumerate(annotations)]
    return truth


def box(x, y, w, h):
    return rectangle(SIZE, x, y, w, h)


RING = box(0, 0, 20, 20) & ~box(2, 2, 16, 16)

# name -> (predicted category, mask, kind or None, its object); the objects are a cat of 20 x 20 at
# the corner, found, and a dog of 10 x 10 at (40, 20).
CASES = {
    "right": (3, box(0, 0, 20, 20), None, None),
    "duplicate": (3, box(0, 0, 20, 19), "duplicate", 0),
    "wrong name": (20, box(40, 20, 10, 9), "classification", 1),
    "box right, mask wrong": (3, RING, "mask", 0),
    "too small": (7, box(40, 20, 10, 4), "localisation", 1),
    "wrong name and place": (20, box(40, 20, 10, 4), "both", 1),
    "grass": (20, box(20, 40, 8, 8), "background", None),
    "nearly nothing": (7, box(48, 28, 5, 5), "background", None),
}


@pytest.mark.parametrize("name", [name for name in CASES if name != "right"])
def test_each_kind(name):
    truth = one_image([(3, box(0, 0, 20, 20)), (7, box(40, 20, 10, 10))])
    category, mask, kind, target = CASES[name]
    results = [result(1, 3, box(0, 0, 20, 20), 0.9), result(1, category, mask, 0.8)]
    comparison = comparison_of(truth, results)
    report = error_report(comparison)
    at = int(np.flatnonzero(comparison.detections.row == 1)[0])
    assert KINDS[report.kind[at]] == kind
    assert report.kind[1 - at] == NO_ERROR
    assert report.target[at] == (-1 if target is None else target)
    assert sum(int(count.sum()) for key, count in report.counts.items() if key != "missed") == 1
    assert report.counts[kind][(3, 7, 20).index(category)] == 1
    dog_is_missed = kind not in ("classification", "localisation")
    assert report.missed.tolist() == [False, dog_is_missed]
    assert report.counts["missed"].tolist() == [0, int(dog_is_missed), 0]


def test_boxes_have_no_mask_errors():
    truth = one_image([(3, box(0, 0, 20, 20))])
    results = [result(1, 3, RING, 0.8)]
    by_box = error_report(comparison_of(truth, results, "bbox"))
    assert by_box.kind.tolist() == [NO_ERROR]
    assert KINDS[error_report(comparison_of(truth, results)).kind[0]] == "mask"


def test_of_several_errors_at_one_object_the_best_is_mended():
    truth = one_image([(7, box(0, 0, 20, 20))])
    results = [
        result(1, 3, box(0, 0, 20, 20), 0.3),
        result(1, 20, box(0, 0, 20, 20), 0.9),
        result(1, 7, box(40, 20, 10, 10), 0.5),
    ]
    report = error_report(comparison_of(truth, results))
    assert report.counts["classification"].tolist() == [1, 0, 1]
    assert report.mended_ap["classification"] == pytest.approx(1.0)


def test_crowds_are_no_targets_and_what_lies_in_them_no_error():
    truth = one_image([(3, box(0, 0, 20, 20), 1)])
    inside = result(1, 3, box(2, 2, 10, 10), 0.9)
    other = result(1, 7, box(0, 0, 20, 20), 0.9)
    report = error_report(comparison_of(truth, [inside, other]))
    assert sorted(report.kind.tolist()) == [NO_ERROR, KINDS.index("background")]
    assert not report.missed.any()
    assert np.isnan(report.ap)


def slow_kind(comparison, image, d, k, found, near):
    """The docstring's list, read aloud."""
    things = comparison.objects_of(image)
    objects = [
        (g, comparison.objects.category[things][g] == k)
        for g in range(things.stop - things.start)
        if not comparison.objects.crowd[things][g]
    ]
    masks, boxes = comparison.iou[image][d], comparison.box_iou(image)[d]
    same = {g: masks[g] for g, own in objects if own}
    other = {g: masks[g] for g, own in objects if not own}
    of_box = {g: boxes[g] for g, own in objects if own}
    for kind, overlaps, least in (
        ("duplicate", same, found),
        ("classification", other, found),
        ("mask", of_box, found),
        ("localisation", same, near),
        ("both", other, near),
    ):
        if overlaps and max(overlaps.values()) >= least:
            return kind, things.start + max(overlaps, key=overlaps.get)
    return "background", -1


@pytest.mark.parametrize("seed", range(8))
def test_kinds_and_costs_against_the_slow_way(seed):
    truth, results = random_set(seed, images=7)
    found, near = (0.5, 0.1) if seed % 2 else (0.75, 0.3)
    comparison = comparison_of(truth, results)
    report = error_report(comparison, found, near)
    evaluation = official(truth, results)
    t = evaluation.params.iouThrs.tolist().index(found)
    expected = evaluation.eval["precision"][t, :, :, 0, 0]
    assert report.ap == expected[expected > -1].mean()

    right, wrong = {}, []
    for cell in filter(None, evaluation.evalImgs):
        for one, match, ignore in zip(
            cell["dtIds"], cell["dtMatches"][t], cell["dtIgnore"][t], strict=True
        ):
            if not ignore and match:
                right[one - 1] = int(match)
            elif not ignore:
                wrong.append(one - 1)
    kinds, targets = {}, {}
    for d, row in enumerate(comparison.detections.row.tolist()):
        image, k = int(comparison.detections.image[d]), int(comparison.detections.category[d])
        if row in wrong:
            place = d - int(comparison.detection_starts[image])
            kinds[row], target = slow_kind(comparison, image, place, k, found, near)
            targets[row] = target if target < 0 else int(comparison.objects.row[target])
            assert KINDS[report.kind[d]] == kinds[row]
            assert report.target[d] == target
        else:
            assert report.kind[d] == NO_ERROR
            assert report.target[d] == -1
    assert len(set(kinds.values())) >= 4

    found_rows = {match - 1 for match in right.values()}
    tried = {
        targets[row] for row in wrong if kinds[row] in ("classification", "mask", "localisation")
    }
    objects = [i for i, a in enumerate(truth["annotations"]) if not a["iscrowd"]]
    missed = set(objects) - found_rows - tried
    assert set(comparison.objects.row[report.missed].tolist()) == missed

    place = {int(row): d for d, row in enumerate(comparison.detections.row)}
    for kind in KINDS:
        rows = [row for row in wrong if kinds[row] == kind]
        mended = {}
        for row in sorted(rows, key=lambda row: (-results[row]["score"], place[row])):
            target = targets[row]
            if kind in ("classification", "mask", "localisation") and target not in found_rows:
                mended.setdefault(target, row)
        slow = plain_ap(truth, results, place, right, set(wrong) - set(rows), mended, objects)
        assert report.mended_ap[kind] == pytest.approx(slow, abs=1e-12), kind
    slow = plain_ap(truth, results, place, right, set(), {}, objects)
    assert report.mended_ap["false_positives"] == pytest.approx(slow, abs=1e-12)
    for name, gone in (("missed", missed), ("false_negatives", set(objects) - found_rows)):
        rest = [i for i in objects if i not in gone]
        slow = plain_ap(truth, results, place, right, set(wrong), {}, rest)
        assert report.mended_ap[name] == pytest.approx(slow, abs=1e-12)
        assert report.mended_ap[name] >= report.ap


def plain_ap(truth, results, place, right, wrong, mended, objects):
    """COCO's AP from plain lists: 101 recall levels, best precision from there on.

    place: where a result comes among equal scores
    """
    category_of = {i: truth["annotations"][i]["category_id"] for i in objects}
    every = {a["category_id"] for a in truth["annotations"] if not a["iscrowd"]}
    hits = {category: [] for category in every}
    for row, category, bad in (
        *((row, results[row]["category_id"], 0) for row in right),
        *((row, category_of[target], 0) for target, row in mended.items()),
        *((row, results[row]["category_id"], 1) for row in wrong),
    ):
        hits.setdefault(category, []).append((-results[row]["score"], place[row], bad))
    values = []
    for category in sorted(every):
        total = sum(one == category for one in category_of.values())
        if not total:
            values.append(1.0)
            continue
        points, good = [], 0
        for n, (_, _, bad) in enumerate(sorted(hits[category]), 1):
            good += not bad
            points.append((good / total, good / n))
        levels = np.linspace(0, 1, 101)
        values.append(np.mean([max([p for r, p in points if r >= x], default=0) for x in levels]))
    return np.mean(values)


def test_nothing():
    truth, results = random_set(1)
    none = error_report(comparison_of(truth, []))
    assert none.ap == 0
    assert none.counts["missed"].sum() == sum(not a["iscrowd"] for a in truth["annotations"])
    assert none.mended_ap["missed"] == none.mended_ap["false_negatives"] == 1.0
    assert none.mended_ap["background"] == 0
    bare = error_report(comparison_of({**truth, "annotations": []}, results))
    assert set(bare.kind) == {KINDS.index("background")}
    assert np.isnan(bare.ap)
    assert all(np.isnan(value) for value in bare.mended_ap.values())
    assert bare.counts["background"].sum() == len(results)
