"""Config: defaults leave Detectron2 as it is; mistakes are named with their remedy."""

from __future__ import annotations

from pathlib import Path

import pytest
from detectron2.config import get_cfg

from mask_rcnn_ext import add_mask_rcnn_ext_config, finalize_config, load_config
from mask_rcnn_ext.config import find_config, flatten
from mask_rcnn_ext.errors import UsageError


def test_our_keys_overwrite_no_default_of_detectron2():
    ours, theirs = get_cfg(), get_cfg()
    add_mask_rcnn_ext_config(ours)
    for section in theirs:
        if not isinstance(theirs[section], dict):
            assert ours[section] == theirs[section]
    ours_flat, theirs_flat = ({k: repr(v) for k, v in flatten(cfg)} for cfg in (ours, theirs))
    assert theirs_flat.items() <= ours_flat.items()
    assert set(ours_flat) - set(theirs_flat) == {
        "DATALOADER.PAD_TO_GLOBAL_BATCH",
        "DATASETS.CHECK",
        "DATASETS.MAX_IMAGES",
        "DATASETS.REGISTRY",
        "INPUT.COLOR_JITTER.BRIGHTNESS",
        "INPUT.COLOR_JITTER.CONTRAST",
        "INPUT.COLOR_JITTER.HUE",
        "INPUT.COLOR_JITTER.SATURATION",
        "INPUT.COPY_PASTE.MAX_OBJECTS",
        "INPUT.COPY_PASTE.PROBABILITY",
        "INPUT.CROP.INSTANCE_AWARE",
        "INPUT.LSJ.ENABLED",
        "INPUT.LSJ.MAX_SCALE",
        "INPUT.LSJ.MIN_SCALE",
        "INPUT.LSJ.SIZE",
        "INPUT.MAPPER",
        "LOG.PERIOD",
        "LOG.PROJECT",
        "LOG.RUN_NAME",
        "LOG.WRITERS",
        "MODEL.CHANNELS_LAST",
        "MODEL.CLASS_TRANSFER",
        "MODEL.COMPILE",
        "MODEL.EMA.DECAY",
        "MODEL.EMA.ENABLED",
        "MODEL.FOLD_NORMS",
        "MODEL.ROI_BOX_HEAD.POOLER_AGGREGATION",
        "MODEL.ROI_HEADS.NMS",
        "MODEL.ROI_HEADS.POOLER_BACKEND",
        "MODEL.ROI_HEADS.SOFT_NMS_SIGMA",
        "MODEL.ROI_KEYPOINT_HEAD.POOLER_AGGREGATION",
        "MODEL.ROI_MASK_HEAD.FC_DIMS",
        "MODEL.ROI_MASK_HEAD.LOSS",
        "MODEL.ROI_MASK_HEAD.POOLER_AGGREGATION",
        "MODEL.ROI_MASK_HEAD.RESOLUTION",
        "MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE",
        "SOLVER.ACCUMULATION_STEPS",
        "SOLVER.AMP.PRECISION",
        "SOLVER.CHECKPOINTS_KEPT",
        "SOLVER.EARLY_STOP_MIN_DELTA",
        "SOLVER.EARLY_STOP_PATIENCE",
        "SOLVER.FUSED",
        "SOLVER.NONFINITE_LIMIT",
        "SOLVER.ON_NONFINITE",
        "SOLVER.OPTIMIZER",
        "SOLVER.REFERENCE_BATCH",
        "TEST.ALLOW_FAILED_IMAGES",
        "TEST.BEST_METRIC",
        "TEST.BEST_MODE",
        "TEST.BOUNDARY_AP",
        "TEST.CITYSCAPES_SUBMISSION",
        "TEST.COCO_BACKEND",
        "TEST.ENCODING_PROCESSES",
        "TEST.PRECISION",
        "TEST.SAMPLE_PICTURES",
        "TEST.SAMPLE_SCORE_THRESH",
        "TEST.VALIDATION_LOSS",
    }


def test_overrides_win_over_the_file_and_the_result_is_frozen(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SOLVER:\n  BASE_LR: 0.5\n  MAX_ITER: 7\nVERSION: 2\n")
    cfg = load_config(path, ["SOLVER.BASE_LR", "0.25"])
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER) == (0.25, 7)
    assert cfg.is_frozen()


@pytest.mark.parametrize(
    ("opts", "expected"),
    [
        (["SOLVER.BASE_LRR", "1"], "unknown config key SOLVER.BASE_LRR; nearest: SOLVER.BASE_LR"),
        (["MODEL.NUM_CLASSES", "1"], "MODEL.ROI_HEADS.NUM_CLASSES"),
        (["solver.max_iter", "1"], "SOLVER.MAX_ITER"),
        (["SOLVER.MAX_ITER"], "KEY VALUE"),
        (["SOLVER.MAX_ITER", "5", "--resume", "x"], "options go before"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
        (["SOLVER.MAX_ITER", "0"], "SOLVER.MAX_ITER is 0"),
        (["SOLVER.BASE_LR", "-0.1"], "SOLVER.BASE_LR is -0.1"),
        (["SOLVER.IMS_PER_BATCH", "0"], "SOLVER.IMS_PER_BATCH is 0"),
        (["DATASETS.MAX_IMAGES", "-1"], "DATASETS.MAX_IMAGES is -1"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "0"], "background not counted"),
        (["SOLVER.OPTIMIZER", "Adam"], "expected SGD or AdamW"),
        (["INPUT.MASK_FORMAT", "png"], "'polygon' or 'bitmask'"),
        (["MODEL.ROI_MASK_HEAD.NAME", "FCNMaskHed"], "known: .*FCNMaskHead"),
        (["MODEL.BACKBONE.NAME", "resnet"], "known: .*build_resnet_fpn_backbone"),
        (["DATASETS.TRAIN", "coco_2017_train"], "DATASETS.TRAIN"),
    ],
)
def test_wrong_overrides_are_named(opts, expected):
    with pytest.raises(UsageError, match=expected):
        load_config("", opts)


def test_unknown_key_in_a_file_names_file_and_neighbour(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("SOLVER:\n  MAX_ITERS: 7\nVERSION: 2\n")
    with pytest.raises(UsageError, match=r"a\.yaml: unknown config key SOLVER.MAX_ITERS; near"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SOLVER: [", "not a YAML"),
        ("just words", "not a config"),
        ("", "not a config"),
        ("_BASE_: nowhere.yaml", "_BASE_ .*nowhere.yaml does not exist"),
        ("SOLVER: 3\n", "SOLVER"),
        ("DATASETS:\n  TRAIN: (coco,)\n", "DATASETS.TRAIN"),
        ("OUTPUT_DIR: !!python/object/apply:os.getcwd []\n", "not a YAML"),
    ],
)
def test_broken_files_are_named(tmp_path, text, expected):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=expected) as caught:
        load_config(path)
    assert "broken.yaml" in str(caught.value)


def test_missing_file_names_the_nearest_config():
    with pytest.raises(UsageError, match=r"does not exist; did you mean .*mask_rcnn_R_50_FPN_1x"):
        load_config("configs/COCO-InstanceSegmentation/mask_rcnn_R50_FPN_1x.yaml")


def test_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
    assert find_config("configs/" + name) == find_config(name)
    assert find_config(name).is_file()


def test_a_file_at_the_path_wins_over_the_packaged_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("Base-RCNN-FPN.yaml").write_text("VERSION: 2\n")
    assert find_config("Base-RCNN-FPN.yaml").resolve() == tmp_path / "Base-RCNN-FPN.yaml"


def test_finalize_accepts_the_defaults():
    cfg = get_cfg()
    add_mask_rcnn_ext_config(cfg)
    finalize_config(cfg)


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["TEST.COCO_BACKEND", "coco"], "COCO_BACKEND is 'coco', expected one of auto, hotcoco"),
        (["TEST.BOUNDARY_AP", "True"], r"BOUNDARY_AP is True, but MODEL\.MASK_ON False"),
        (["TEST.ENCODING_PROCESSES", "-2"], "ENCODING_PROCESSES is -2, expected -1 or more"),
        (["INPUT.LSJ.ENABLED", "True", "INPUT.LSJ.MIN_SCALE", "3.0"], "INPUT.LSJ.MIN_SCALE is 3.0"),
    ],
)
def test_values_of_data_and_evaluation_that_cannot_be(opts, message):
    with pytest.raises(UsageError, match=message):
        load_config(None, opts)
