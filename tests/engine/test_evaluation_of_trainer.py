"""Trainer.test: one set or several, with test-time augmentation, with images that fail."""

import json

import pytest
import torch

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.trainer import Trainer

WORDS = [
    *("MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"),
    *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0", "TEST.DETECTIONS_PER_IMAGE", "5"),
    *("TEST.AUG.MIN_SIZES", "(48, 64)"),
]


@pytest.fixture
def evaluate(tmp_path, scenes):
    def run(*words):
        cfg = load_config(
            "quickstart/mask_rcnn_R_18_FPN_scenes.yaml",
            [*WORDS, "OUTPUT_DIR", str(tmp_path), *words],
        )
        torch.manual_seed(0)
        return Trainer.test(cfg, Trainer.build_model(cfg))

    return run


def test_one_set_has_its_figures_alone_and_several_their_names(evaluate):
    assert set(evaluate("DATASETS.TEST", "('scenes_val',)")) == {"bbox", "segm"}
    both = evaluate("DATASETS.TEST", "('scenes_val', 'scenes_train')")
    assert set(both) == {"scenes_val", "scenes_train"}
    assert set(both["scenes_val"]) == {"bbox", "segm"}
    assert both.failed == []


def test_with_test_time_augmentation(evaluate, tmp_path):
    results = evaluate("DATASETS.TEST", "('scenes_val',)", "TEST.AUG.ENABLED", "True")
    assert set(results) == {"bbox", "segm", "bbox_TTA", "segm_TTA"}
    files = [tmp_path / "inference" / f"scenes_val{s}" for s in ("", "_TTA")]
    plain, augmented = (
        json.loads((folder / "coco_instances_results.json").read_text()) for folder in files
    )
    assert len(plain) == len(augmented) == 20
    assert all(one["segmentation"]["size"] == [64, 64] for one in augmented)
    assert plain != augmented


def test_boundary_figures_by_a_key(evaluate):
    results = evaluate("DATASETS.TEST", "('scenes_val',)", "TEST.BOUNDARY_AP", "True")
    assert {"bbox", "segm", "boundary"} == set(results)
