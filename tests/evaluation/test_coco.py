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
