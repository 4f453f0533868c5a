"""Each known mistake is found, with its key; no config of this project has one."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.recipe_lints import lint, report

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXPERIMENTS = sorted(
    path
    for path in CONFIGS.rglob("*.yaml")
    if not path.name.startswith("Base-") and path.parent.name != "paper"
)
BEST = ["TEST.EVAL_PERIOD", "5000", "TEST.VALIDATION_LOSS", "True", "TEST.BEST_METRIC"]
ONE_X = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
C4 = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
SCENES = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
ZOO = (
    "detectron2://COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x/137849600/model_final_f10217.pkl"
)
CAFFE2 = "catalog://Caffe2Detectron/COCO/35861858/e2e_mask_rcnn_R-101-FPN_2x"
TORCHVISION = "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
GROUPED = "detectron2://ImageNetPretrained/FAIR/X-101-32x8d.pkl"
STREETS = ["DATASETS.TEST", "('cityscapes_fine_instance_seg_val',)"]
RGB = ["MODEL.PIXEL_MEAN", "[123.675, 116.28, 103.53]"]


def _keys(config, *opts, **kwargs):
    return [finding.key for finding in lint(load_config(config, list(opts)), **kwargs)]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_config_of_ours_has_a_finding(path):
    assert lint(load_config(path)) == []


def test_there_are_configs_to_look_at():
    assert len(EXPERIMENTS) >= 50


@pytest.mark.parametrize("name", ["Base-RCNN-FPN.yaml", "Base-RCNN-C4.yaml", "Base-RCNN-C5.yaml"])
def test_the_bases_lack_weights_only(name):
    assert _keys(name, "MODEL.WEIGHTS", "detectron2://ImageNetPretrained/MSRA/R-50.pkl") == []


@pytest.mark.parametrize(
    ("config", "opts", "keys"),
    [
        # sizes
        (ONE_X, STREETS, ["INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST"]),
        (
            ONE_X,
            [*STREETS, "INPUT.MIN_SIZE_TEST", "1024"],
            ["INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST"],
        ),
        (ONE_X, [*STREETS, "INPUT.MIN_SIZE_TEST", "1024", "INPUT.MAX_SIZE_TEST", "2048"], []),
        (ONE_X, ["INPUT.MIN_SIZE_TEST", "400"], ["INPUT.MIN_SIZE_TEST"]),
        (ONE_X, ["INPUT.MIN_SIZE_TEST", "1200"], ["INPUT.MIN_SIZE_TEST"]),
        (ONE_X, ["INPUT.MIN_SIZE_TEST", "1000"], []),
        (ONE_X, ["INPUT.MIN_SIZE_TEST", "0"], []),
        (ONE_X, ["INPUT.MIN_SIZE_TEST", "400", "INPUT.LSJ.ENABLED", "True"], []),
        # figures
        (ONE_X, ["TEST.DETECTIONS_PER_IMAGE", "300"], ["TEST.DETECTIONS_PER_IMAGE"]),
        (SCENES, ["TEST.DETECTIONS_PER_IMAGE", "300"], []),
        (
            ONE_X,
            ["MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.5"],
            ["MODEL.ROI_HEADS.SCORE_THRESH_TEST"],
        ),
        # pixels and order
        (ONE_X, ["INPUT.FORMAT", "RGB"], ["MODEL.PIXEL_MEAN", "INPUT.FORMAT"]),
        (ONE_X, [*RGB, "INPUT.FORMAT", "RGB"], ["INPUT.FORMAT", "MODEL.PIXEL_MEAN"]),
        (
            ONE_X,
            ["MODEL.PIXEL_STD", "[57.375, 57.12, 58.395]"],
            ["MODEL.PIXEL_STD"],
        ),
        (
            ONE_X,
            ["MODEL.WEIGHTS", TORCHVISION],
            [
                "MODEL.RESNETS.STRIDE_IN_1X1",
                "INPUT.FORMAT",
                "MODEL.PIXEL_MEAN",
                "MODEL.PIXEL_STD",
            ],
        ),
        (
            ONE_X,
            ["MODEL.WEIGHTS", GROUPED],
            [
                "MODEL.RESNETS.NUM_GROUPS",
                "MODEL.RESNETS.WIDTH_PER_GROUP",
                "MODEL.RESNETS.STRIDE_IN_1X1",
            ],
        ),
        (SCENES, ["INPUT.FORMAT", "RGB"], []),  # its mean is no ImageNet's
        # RoI layers
        (ONE_X, ["MODEL.WEIGHTS", ZOO], []),
        (
            ONE_X,
            ["MODEL.WEIGHTS", ZOO, "MODEL.ROI_MASK_HEAD.POOLER_TYPE", "RoIAlign"],
            ["MODEL.ROI_MASK_HEAD.POOLER_TYPE"],
        ),
        (
            ONE_X,
            ["MODEL.WEIGHTS", CAFFE2, "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlign"],
            ["MODEL.ROI_MASK_HEAD.POOLER_TYPE"],
        ),
        (
            ONE_X,
            ["MODEL.WEIGHTS", CAFFE2, "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "RoIAlign"]
            + ["MODEL.MASK_ON", "False"],
            [],
        ),
        (C4, ["MODEL.WEIGHTS", CAFFE2], ["MODEL.ROI_BOX_HEAD.POOLER_TYPE"]),
        # frozen
        (
            ONE_X,
            ["MODEL.WEIGHTS", ""],
            ["MODEL.BACKBONE.FREEZE_AT", "MODEL.RESNETS.NORM"],
        ),
        (SCENES, ["MODEL.BACKBONE.FREEZE_AT", "1"], ["MODEL.BACKBONE.FREEZE_AT"]),
        # rate
        (ONE_X, ["SOLVER.WARMUP_ITERS", "0"], ["SOLVER.WARMUP_ITERS"]),
        (ONE_X, ["SOLVER.WARMUP_FACTOR", "1.0"], ["SOLVER.WARMUP_FACTOR"]),
        (ONE_X, ["SOLVER.IMS_PER_BATCH", "2"], ["SOLVER.BASE_LR"]),
        (ONE_X, ["SOLVER.IMS_PER_BATCH", "2", "SOLVER.BASE_LR", "0.0025"], []),
        (ONE_X, ["SOLVER.BASE_LR", "0.0001"], ["SOLVER.BASE_LR"]),
        (ONE_X, ["SOLVER.BASE_LR", "0.002"], []),  # to fine-tune
        (ONE_X, ["SOLVER.OPTIMIZER", "AdamW"], ["SOLVER.BASE_LR"]),
        # schedule
        (ONE_X, ["SOLVER.MAX_ITER", "70000"], ["SOLVER.STEPS"]),
        (ONE_X, ["SOLVER.MAX_ITER", "80000"], ["SOLVER.STEPS"]),
        (ONE_X, ["SOLVER.MAX_ITER", "80001"], []),
        (SCENES, ["SOLVER.STEPS", "(9000,)"], []),  # a cosine has none
        (
            ONE_X,
            ["SOLVER.MAX_ITER", "900", "SOLVER.STEPS", "(600,)"],
            ["SOLVER.WARMUP_ITERS"],
        ),
        (ONE_X, ["TEST.EVAL_PERIOD", "90001"], ["TEST.EVAL_PERIOD"]),
        (ONE_X, ["TEST.EVAL_PERIOD", "9000", "DATASETS.TEST", "()"], ["TEST.EVAL_PERIOD"]),
        # best
        (ONE_X, [*BEST, "validation/loss_mask"], ["TEST.BEST_MODE"]),
        (ONE_X, [*BEST, "validation/loss_mask", "TEST.BEST_MODE", "min"], []),
        (ONE_X, [*BEST, "segm/AP", "TEST.BEST_MODE", "min"], ["TEST.BEST_MODE"]),
    ],
)
def test_a_mistake_has_its_finding(config, opts, keys):
    assert sorted(_keys(config, *opts)) == sorted(keys)


def test_an_evaluation_has_no_rate_and_no_schedule():
    opts = ["MODEL.WEIGHTS", ZOO, "SOLVER.WARMUP_ITERS", "0", "INPUT.MIN_SIZE_TEST", "400"]
    assert _keys(ONE_X, *opts, training=False) == ["INPUT.MIN_SIZE_TEST"]


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (["MODEL.PIXEL_MEAN", "[1.0, 2.0, 3.0]"], "MODEL.PIXEL_MEAN"),
        (["MODEL.PIXEL_STD", "[57.0, 57.0, 57.0]"], "MODEL.PIXEL_STD"),
        (["MODEL.RESNETS.STRIDE_IN_1X1", "False"], "MODEL.RESNETS.STRIDE_IN_1X1"),
        (["MODEL.ROI_BOX_HEAD.POOLER_TYPE", "RoIPool"], "MODEL.ROI_BOX_HEAD.POOLER_TYPE"),
        (["MODEL.ROI_MASK_HEAD.POOLER_TYPE", "ROIAlign"], "MODEL.ROI_MASK_HEAD.POOLER_TYPE"),
        (["MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE", "RoIPool"], None),  # there is no such head
        (["MODEL.ROI_MASK_HEAD.POOLER_TYPE", "RoIAlignV2"], None),  # another name of ROIAlignV2
        ([], None),
    ],
)
def test_a_checkpoint_beside_its_config(tmp_path, change, key):
    (tmp_path / "config.yaml").write_text(load_config(ONE_X).dump())
    words = ["MODEL.WEIGHTS", str(tmp_path / "model_final.pth"), *change]
    assert _keys(ONE_X, *words) == ([key] if key else [])


@pytest.mark.parametrize("content", ["", "[1, 2]", "a: [", "MODEL: 3"])
def test_a_config_beside_the_weights_that_is_none(tmp_path, content):
    (tmp_path / "config.yaml").write_text(content)
    assert _keys(ONE_X, "MODEL.WEIGHTS", str(tmp_path / "model_final.pth")) == []


def test_a_finding_says_what_why_and_what_to_do(caplog):
    with caplog.at_level(logging.WARNING):
        report(load_config(ONE_X, ["SOLVER.IMS_PER_BATCH", "2"]))
    (record,) = caplog.records
    assert record.getMessage() == (
        "SOLVER.BASE_LR is 0.02: by the linear rule (0.02 for 16 images) 2 images a step go with "
        "0.0025; higher ones diverge. Set SOLVER.BASE_LR 0.0025, or leave it to "
        "SOLVER.REFERENCE_BATCH"
    )
