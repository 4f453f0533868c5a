"""Detectron2's protocol and names, pycocotools' figures; nothing found is AP 0, not NaN."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.structures import Boxes, Instances
from pycocotools import mask as mask_util

from mask_rcnn_ext.errors import DataError
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
    perfect = CocoEvaluator("scenes_val")
    perfect.reset()
    for record, instances in outputs:
        evaluator.process([record], [{"instances": instances[:0]}])
    results = evaluator.evaluate()
    assert results["bbox"]["AP"] == results["segm"]["AP"] == 0.0
    # What has no ground truth stays NaN, and only that.
    for record, instances in outputs:
        perfect.process([record], [{"instances": instances}])
    for task, figures in perfect.evaluate().items():
        assert {k for k, v in figures.items() if math.isnan(v)} == {
            k for k, v in results[task].items() if math.isnan(v)
        }
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


def _worse(instances, seed):
    """Boxes and masks moved, scores with ties, some classes wrong."""
    generator = torch.Generator().manual_seed(seed)
    worse = Instances(instances.image_size)
    noise = torch.randn(len(instances), 4, generator=generator)
    worse.pred_boxes = Boxes(instances.pred_boxes.tensor + noise)
    worse.pred_masks = instances.pred_masks.roll(seed % 3, 2)
    worse.scores = (torch.rand(len(instances), generator=generator) * 10).round() / 10
    worse.pred_classes = instances.pred_classes.clone()
    worse.pred_classes[::5] = 0
    return worse


def _run(evaluator, outputs):
    evaluator.reset()
    for record, instances in outputs:
        evaluator.process([record], [{"instances": instances}])
    return evaluator.evaluate()


@pytest.fixture
def worse(scenes):
    """Outputs of an imperfect model on the training scenes."""
    perfect = enumerate(_ground_truth_as_outputs(scenes, "train"))
    return [(record, _worse(instances, seed)) for seed, (record, instances) in perfect]


@pytest.mark.parametrize("backend", ["auto", "pycocotools"])
def test_names_and_figures_are_detectron2_s(worse, tmp_path, backend):
    stock = COCOEvaluator("scenes_train", ("bbox", "segm"), False, use_fast_impl=False)
    theirs = _run(stock, worse)
    evaluator = CocoEvaluator("scenes_train", output_dir=str(tmp_path), backend=backend)
    ours = _run(evaluator, worse)
    assert list(ours) == list(theirs)
    for task in ours:
        assert list(ours[task]) == list(theirs[task])
        for name, value in theirs[task].items():
            assert ours[task][name] == value or math.isnan(value) and math.isnan(ours[task][name])
    written = json.loads((tmp_path / "coco_instances_results.json").read_text())
    assert len(written) == sum(len(instances) for _, instances in worse)


def test_run_lengths_instead_of_bitmaps(worse):
    expected = _run(CocoEvaluator("scenes_train"), worse)
    for _, instances in worse:
        masks = instances.pred_masks.permute(1, 2, 0).numpy().astype("uint8")
        instances.pred_mask_rles = mask_util.encode(np.asfortranarray(masks))
        instances.remove("pred_masks")
    assert _run(CocoEvaluator("scenes_train"), worse) == expected


def test_processes_that_each_saw_a_part(worse, monkeypatch):
    expected = _run(CocoEvaluator("scenes_train"), worse)
    parts = []
    for start in (0, 1):
        evaluator = CocoEvaluator("scenes_train")
        evaluator.reset()
        for record, instances in worse[start::2]:
            evaluator.process([record], [{"instances": instances}])
        parts.append(evaluator._predictions)
    monkeypatch.setattr("detectron2.utils.comm.gather", lambda part, dst: parts)
    assert evaluator.evaluate() == expected
    monkeypatch.setattr("detectron2.utils.comm.is_main_process", lambda: False)
    assert evaluator.evaluate() == {}


def test_a_model_with_more_classes_than_the_set(worse):
    worse[0][1].pred_classes[0] = 50
    with pytest.raises(DataError, match="the model found the class 50"):
        _run(CocoEvaluator("scenes_train"), worse)


def test_a_broken_score_is_not_written(worse, tmp_path):
    worse[0][1].scores[0] = math.nan
    with pytest.raises(DataError, match="scenes_train: entry 0 .* has the score nan"):
        _run(CocoEvaluator("scenes_train", output_dir=str(tmp_path)), worse)
    assert not list(tmp_path.iterdir())


def test_only_some_images(worse):
    image = worse[3][0]["image_id"]
    figures = []
    for evaluator in (
        CocoEvaluator("scenes_train"),
        COCOEvaluator("scenes_train", ("bbox", "segm"), False, use_fast_impl=False),
    ):
        evaluator.reset()
        for record, instances in worse:
            evaluator.process([record], [{"instances": instances}])
        figures.append(evaluator.evaluate([image]))
    for task in ("bbox", "segm"):
        assert figures[0][task] == pytest.approx(figures[1][task], nan_ok=True)


def test_no_image_at_all_and_a_set_without_annotations(worse, tmp_path, caplog):
    evaluator = CocoEvaluator("scenes_train", output_dir=str(tmp_path))
    evaluator.reset()
    assert evaluator.evaluate() == {}
    evaluator._do_evaluation = False
    assert _run(evaluator, worse) == {}
    assert (tmp_path / "coco_instances_results.json").stat().st_size > 1000


def test_the_log_shows_each_class(worse, caplog):
    caplog.set_level("INFO")
    results = _run(CocoEvaluator("scenes_train"), worse)
    name = next(key for key in results["segm"] if key.startswith("AP-"))
    assert name.removeprefix("AP-") in caplog.text
    assert f"{results['segm'][name]:.2f}" in caplog.text


def test_proposals_are_detectron2_s(worse):
    """An RPN on its own: average recall of boxes."""
    figures = []
    for evaluator in (CocoEvaluator("scenes_train"), COCOEvaluator("scenes_train", ("bbox",))):
        evaluator.reset()
        for record, instances in worse:
            proposals = Instances(instances.image_size)
            proposals.proposal_boxes = instances.pred_boxes
            proposals.objectness_logits = instances.scores
            evaluator.process([record], [{"proposals": proposals}])
        figures.append(evaluator.evaluate())
    ours, theirs = (one["box_proposals"] for one in figures)
    assert ours == pytest.approx(theirs, nan_ok=True)
    assert figures[0]["box_proposals"]["AR@100"] > 10
