"""Results files: what a model found gets into them exactly, and what is broken is named."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import Boxes, Instances
from pycocotools import mask as coco_mask

from mask_rcnn_ext.errors import DataError
from mask_rcnn_ext.evaluation import results as results_module
from mask_rcnn_ext.evaluation.coco_truth import GroundTruth, wrong_run_lengths
from mask_rcnn_ext.evaluation.results import read_results, to_coco_results, write_results
from mask_rcnn_ext.ops import paste_masks_to_rle

SIZE = (30, 40)


def rle_of(mask: np.ndarray) -> dict:
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def square(left: int = 5, top: int = 6, side: int = 10) -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[top : top + side, left : left + side] = True
    return mask


def result(**changes) -> dict:
    one = {"image_id": 7, "category_id": 3, "bbox": [5.0, 6.0, 10.0, 10.0], "score": 0.5}
    return one | {"segmentation": rle_of(square())} | changes


@pytest.fixture
def truth() -> GroundTruth:
    return GroundTruth.of(
        {
            "images": [{"id": 7, "height": 30, "width": 40}, {"id": 9, "height": 40, "width": 30}],
            "categories": [{"id": 3, "name": "cat"}, {"id": 8, "name": "dog"}],
            "annotations": [],
        }
    )


def found(count: int = 5) -> Instances:
    generator = torch.Generator().manual_seed(0)
    instances = Instances(SIZE)
    corner = torch.rand(count, 2, generator=generator) * 15
    instances.pred_boxes = Boxes(
        torch.cat([corner, corner + 2 + torch.rand(count, 2, generator=generator) * 12], dim=1)
    )
    instances.scores = torch.rand(count, generator=generator)
    instances.pred_classes = torch.arange(count) % 2
    return instances


def test_bitmaps_boxes_and_keypoints_are_those_of_detectron2():
    instances = found()
    instances.pred_masks = torch.rand(5, *SIZE) > 0.4
    instances.pred_keypoints = torch.rand(5, 4, 3) * 20
    assert to_coco_results(instances, 7) == instances_to_coco_json(instances, 7)


def test_reading_keypoints_leaves_the_model_s_output_alone():
    instances = found()
    instances.pred_keypoints = torch.ones(5, 4, 3)
    to_coco_results(instances, 7)
    assert instances.pred_keypoints.eq(1).all()


@pytest.mark.parametrize("raw", [True, False])
def test_masks_that_are_no_bitmaps(raw):
    """m x m masks, and run lengths that somebody made of them, in bytes."""
    instances, masks = found(), torch.rand(5, 1, 28, 28)
    rles = paste_masks_to_rle(masks, instances.pred_boxes.tensor, SIZE)
    if raw:
        instances.pred_masks = masks
    else:
        instances.pred_mask_rles = rles
    written = [one["segmentation"] for one in to_coco_results(instances, 7)]
    assert written == [{"size": r["size"], "counts": r["counts"].decode()} for r in rles]
    assert json.loads(json.dumps(written)) == written


def test_nothing_found():
    assert to_coco_results(found(0), 7) == []


def test_classes_become_the_file_s_categories():
    assert {r["category_id"] for r in to_coco_results(found(), 7, {0: 3, 1: 8})} == {3, 8}
    with pytest.raises(DataError, match=r"class 1, the data set has 1 \(0 to 0\).*NUM_CLASSES"):
        to_coco_results(found(), 7, {0: 3})


def test_written_and_read_again(tmp_path, truth):
    path = tmp_path / "r.json"
    results = [result(), result(image_id=9, segmentation=rle_of(square().T), score=1.0)]
    write_results(path, results)
    assert read_results(path, truth, ["bbox", "segm"]) == results
    write_results(path, [])
    assert read_results(path, truth, ["segm"]) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "r.json"
    write_results(path, [])
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_results(path, [result()])
    assert path.read_text() == "[]"
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_results(path, [result(score=float("nan"))])
    assert os.listdir(tmp_path) == ["r.json"]


BROKEN = [
    (result(image_id=8), r"entry 1 \(image 8\) has the image_id 8, which is not in"),
    (result(image_id="7"), "has the image_id '7', which is not in .*it has 7, 9"),
    (result(category_id=4), r"entry 1 \(image 7\) has the category_id 4"),
    (result(category_id=True), "has the category_id True"),
    (result(score=1.5), "has the score 1.5, expected a number from 0 to 1"),
    (result(score=-0.1), "has the score -0.1"),
    (result(score=float("nan")), "has the score nan"),
    (result(score="0.5"), "has the score '0.5'"),
    (result(bbox=[1, 2, 3]), "has the bbox"),
    (result(bbox=[1, 2, -3, 4]), "has the bbox"),
    (result(bbox=[1, 2, float("nan"), 4]), "has the bbox"),
    (result(keypoints=[1, 2]), "triples"),
    (result(segmentation=rle_of(square().T)), r"size \[40, 30\].*\[30, 40\].*height comes first"),
    (result(segmentation=rle_of(np.ones((5, 5), bool))), r"size \[5, 5\], its image is \[30, 40\]"),
    (result(segmentation=[[1, 1, 5, 1, 5, 5]]), "no RLE"),
    (result(segmentation={"size": [30, 40]}), "no RLE"),
    (result(segmentation={"size": "big", "counts": ""}), "RLE of the size 'big'"),
    (result(segmentation={"size": [30, 40], "counts": ""}), "does not add up to 30 x 40"),
    (result(segmentation={"size": [30, 40], "counts": [5, 6]}), "does not add up to 30 x 40"),
    (result(segmentation={"size": [30, 40], "counts": "ö"}), "does not add up to 30 x 40"),
    ({"image_id": 7, "score": 1}, r"lacks 'category_id'; it has image_id, score"),
    ({k: v for k, v in result().items() if k != "segmentation"}, "lacks 'segmentation'"),
    ("text", "entry 1 is a str"),
]


@pytest.mark.parametrize(("entry", "message"), BROKEN)
def test_a_broken_entry_is_named(tmp_path, truth, entry, message):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([result(), entry]))
    with pytest.raises(DataError, match=message) as caught:
        read_results(path, truth, ["bbox", "segm"])
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty; a results file without detections holds"),
        ("\n", "is empty"),
        (json.dumps([result()])[:-20], "is not JSON .*cut off"),
        ('{"annotations": []}', "is an annotation file, expected COCO results"),
        ('{"results": []}', "is a JSON object, expected COCO results"),
        ("3", "holds a JSON int"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_a_broken_file_is_named(tmp_path, truth, content, message):
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_results(path, truth)
    assert str(path) in str(caught.value)


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(DataError, match="cannot read .*no.json: No such file"):
        read_results(tmp_path / "no.json")
    path = tmp_path / "r.json"
    path.write_bytes(b"[\xff]")
    with pytest.raises(DataError, match="is not JSON"):
        read_results(path)


def test_masks_count_only_where_they_are_evaluated(tmp_path, truth):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([result(segmentation=None)]))
    assert len(read_results(path, truth, ["bbox"])) == 1
    with pytest.raises(DataError, match="lacks 'segmentation'"):
        read_results(path, truth, ["boundary"])


def test_keypoints_of_two_kinds(tmp_path, truth):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([result(keypoints=[1, 1, 1]), result(keypoints=[1, 1, 1] * 2)]))
    with pytest.raises(DataError, match="entry 1 .*has 2 keypoints, those before it 1"):
        read_results(path, truth, ["keypoints"])


def test_run_lengths_as_list_text_and_bytes():
    good = rle_of(square())
    runs = [5 * 30 + 6, 10]
    for _ in range(9):
        runs += [20, 10]
    runs.append(30 * 40 - sum(runs))
    shapes = [
        good,
        good | {"counts": good["counts"].encode()},
        {"size": [30, 40], "counts": runs},
        {"size": [30, 41], "counts": good["counts"]},
        {"size": [30, 40], "counts": [1200.0]},
        {"size": [30, 40], "counts": [1300, -100]},
        {"size": [30, 40], "counts": None},
    ]
    assert wrong_run_lengths(shapes) == [3, 4, 5, 6]
    assert coco_mask.frPyObjects(shapes[2], 30, 40)["counts"].decode() == good["counts"]


def test_many_masks_are_looked_at_in_parts(monkeypatch):
    monkeypatch.setattr("mask_rcnn_ext.evaluation.coco_truth._CHUNK", 3)
    shapes = [rle_of(square(side=side)) for side in range(1, 12)]
    shapes[7] = shapes[7] | {"size": [1, 1]}
    assert wrong_run_lengths(shapes) == [7]


def test_a_mask_goes_to_the_backend_without_its_box(truth):
    """COCO's code would take the box's area for the mask's."""
    one = results_module.for_backend([result()], truth, "segm")[0]
    assert set(one) == {"image_id", "category_id", "score", "segmentation"}
    assert (one["image_id"], one["category_id"]) == (1, 1)
    assert set(results_module.for_backend([result()], truth, "bbox")[0]) == {
        "image_id", "category_id", "score", "bbox"
    }  # fmt: skip
