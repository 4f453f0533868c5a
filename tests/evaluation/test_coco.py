"""The figures are pycocotools' own; nothing found is AP 0, not NaN."""

from __future__ import annotations

import json
import math

import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util

from mask_rcnn_ext.evaluation.coco import CocoEvaluator


def _ground_truth_as_outputs(scenes, split="val"):
    records = DatasetCatalog.get(f"scenes_{split}")
    for record in records:
        annotations = [a for a in record["annotations"] if not a["iscrowd"]]
        size = (record["height"], record["width"])
        instances = Instances(size)
        xywh = torch.tensor([a["bbox"] for a in annotations], dtype=torch.float32).reshape(-1, 4)
        instances.pred_boxes = Boxes(torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1))
        instances.pred_classes = torch.tensor([a["category_id"] for a in annotations]).long()
        instances.scores = torch.ones(len(annotations))
        masks = [torch.from_numpy(mask_util.decode(a["segmentation"])) for a in annotations]
        instances.pred_masks = (
            torch.stack(masks).bool() if masks else torch.zeros((0, *size), dtype=torch.bool)
        )
        yield record, instances


def test_ground_truth_scores_100(scenes, tmp_path):
    outputs = list(_ground_truth_as_outputs(scenes))  # loading the set fills its metadata
    evaluator = CocoEvaluator("scenes_val", output_dir=str(tmp_path))
    evaluator.reset()
    for record, instances in outputs:
        evaluator.process([record], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == pytest.approx(100)
    assert results["segm"]["AP"] == pytest.approx(100)


def test_nothing_found_is_zero_not_nan(scenes, tmp_path):
    outputs = list(_ground_truth_as_outputs(scenes))  # loading the set fills its metadata
    evaluator = CocoEvaluator("scenes_val", output_dir=str(tmp_path))
    evaluator.reset()
    for record, instances in outputs:
        evaluator.process([record], [{"instances": instances[:0]}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 0.0
    assert not any(math.isnan(value) for value in results["segm"].values())
    assert json.loads((tmp_path / "coco_instances_results.json").read_text()) == []


@pytest.mark.parametrize(("limit", "counted"), [(1, 1), (100, 100), (150, 120)])
def test_the_cap_on_detections_reaches_the_figures(scenes, tmp_path, caplog, limit, counted):
    """One image with 120 objects: as many are found as count, and a higher cap says so."""
    outputs = list(_ground_truth_as_outputs(scenes))
    evaluator = CocoEvaluator("scenes_val", output_dir=str(tmp_path), max_dets_per_image=limit)
    assert ("not comparable" in caplog.text) == (limit > 100)
    record, instances = outputs[0]
    many = Instances(instances.image_size)
    x0 = torch.arange(120.0)[:, None] % 12 * 5
    y0 = torch.arange(120.0)[:, None] // 12 * 5
    many.pred_boxes = Boxes(torch.cat([x0, y0, x0 + 4, y0 + 4], dim=1))
    many.pred_classes = torch.zeros(120, dtype=torch.int64)
    many.scores = torch.linspace(1, 0.5, 120)
    many.pred_masks = torch.zeros(120, *instances.image_size, dtype=torch.bool)
    api = evaluator._coco_api
    image = record["image_id"]
    boxes = many.pred_boxes.tensor.tolist()
    api.dataset["annotations"] = [
        {"id": i + 1, "image_id": image, "category_id": 1, "iscrowd": 0, "area": 16.0,
         "bbox": [x, y, 4, 4], "segmentation": [[x, y, x + 4, y, x + 4, y + 4]]}
        for i, (x, y, _, _) in enumerate(boxes)
    ]  # fmt: skip
    api.createIndex()
    evaluator.reset()
    evaluator.process([record], [{"instances": many}])
    precision_until_recall = evaluator.evaluate()["bbox"]["AP"]
    # 101 recall points, precision 1 until the share that counts has been found.
    points = int(100 * counted / 120) + 1
    assert precision_until_recall == pytest.approx(100 * points / 101, abs=1.0)
