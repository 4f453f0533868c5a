"""`bench eval`: both sides answer the same question, the table holds what was measured."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mask_rcnn_ext.evaluation.coco_truth import GroundTruth
from mask_rcnn_ext.evaluation.results import check_results
from mask_rcnn_ext.tools.bench import evaluation as bench_evaluation
from mask_rcnn_ext.tools.bench.evaluation import as_text, made_up, run_evaluation
from mask_rcnn_ext.tools.cli import main


def test_ours_and_stock_have_the_same_arrays(capsys):
    results, facts = run_evaluation(3, [20, 30], ["keypoints"], 2)
    results += run_evaluation(3, [30], ["segm"], 2)[0]
    text = as_text(results, facts)
    for word in ("segm", "keypoints", "stock / ours", "peak MB", "2 repeats", "30"):
        assert word in text
    assert "keypoints: 30 detections on 3 images" in capsys.readouterr().err  # progress
    cases = [(one.task, one.detections) for one in results]
    assert cases == [("keypoints", 20), ("keypoints", 30), ("segm", 30)]
    for one in results:
        assert one.differences == {"precision": 0, "recall": 0, "scores": 0}
        assert len(one.ours.seconds) == len(one.stock.seconds) == 2
        ratios = sorted(s / o for s, o in zip(one.stock.seconds, one.ours.seconds, strict=True))
        assert one.ratio.maximum == pytest.approx(ratios[1])
    measured = json.loads(json.dumps({**facts, "results": [one.as_json() for one in results]}))
    assert measured["results"][2]["task"] == "segm"


def test_a_difference_is_shown(monkeypatch):
    stock = bench_evaluation.stock

    def other(*words):
        arrays = stock(*words)
        arrays.recall[0, 0, 0, 0] += 0.25
        return arrays

    monkeypatch.setattr(bench_evaluation, "stock", other)
    results, facts = run_evaluation(4, [30], ["bbox"], 1)
    assert results[0].differences["recall"] == pytest.approx(0.25)
    assert "2.5e-01" in as_text(results, facts)


@pytest.mark.parametrize("keypoints", [False, True])
def test_made_up_data_are_sound_and_the_same_each_time(keypoints):
    truth, found = made_up(30, 400, keypoints=keypoints, seed=5)
    again = made_up(30, 400, keypoints=keypoints, seed=5)
    assert (truth, found) == again
    assert len(found) == 400
    assert len(truth["annotations"]) == 219
    tasks = ["bbox", "segm", *(["keypoints"] if keypoints else [])]
    check_results(found, GroundTruth.of(truth), tasks)
    assert {one["iscrowd"] for one in truth["annotations"]} == {0, 1}
    areas = np.array([one["area"] for one in truth["annotations"]])
    assert all(areas[a].any() for a in (areas < 32**2, areas > 96**2))
    assert len(truth["categories"]) == (1 if keypoints else 80)


def test_the_command_measures_masks_and_figures(tmp_path, capsys):
    target = tmp_path / "a.json"
    words = ["bench", "eval", "--images", "6", "--detections", "30", "--tasks", "bbox"]
    words += ["--image-size", "40x60", "--masks", "3", "--repeats", "1", "--json", str(target)]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "same RLE" in text
    assert "largest difference" in text
    measured = json.loads(target.read_text())
    assert {len(measured[part]["results"]) for part in ("masks", "figures")} == {1}
    assert main([*words[:-2], "--masks"]) == 0
    assert "same RLE" not in capsys.readouterr().out
