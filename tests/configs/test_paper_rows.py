"""The paper's rows: each has a config that names it, says what makes it the row it is, and runs.

Rows are those of tables 1 to 6, 8 and 9 of arXiv 1703.06870v3. The facts are written from the
paper (sections 3.1, 4.2, 5, appendix B), not from the configs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.solver import build_optimizer
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.modeling import RoIExtractor

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SEG, DET = "COCO-InstanceSegmentation", "COCO-Detection"
KEY, ABL = "COCO-Keypoints", "Ablations"

C4, FPN = f"{SEG}/mask_rcnn_R_50_C4_iccv", f"{SEG}/mask_rcnn_R_50_FPN_iccv"
C4_101, FPN_101 = f"{SEG}/mask_rcnn_R_101_C4_iccv", f"{SEG}/mask_rcnn_R_101_FPN_iccv"
X101, X101_NEW = f"{SEG}/mask_rcnn_X_101_64x4d_FPN_iccv", f"{SEG}/mask_rcnn_X_101_64x4d_FPN_updated"
E2E, IN5K = f"{SEG}/mask_rcnn_X_101_64x4d_FPN_e2e", f"{SEG}/mask_rcnn_X_101_64x4d_FPN_e2e_IN5k"
AUGM = f"{IN5K}_augm"
X152 = f"{SEG}/mask_rcnn_X_152_32x8d_FPN_e2e_IN5k_augm"
X152_NL = f"{X152}_nonlocal"
C5, C5_POOL = f"{ABL}/mask_rcnn_R_50_C5_iccv", f"{ABL}/mask_rcnn_R_50_C5_iccv_roipool"
SOFTMAX, AGNOSTIC = (
    f"{ABL}/mask_rcnn_R_50_C4_iccv_softmax",
    f"{ABL}/mask_rcnn_R_50_C4_iccv_cls_agnostic",
)
POOL = f"{ABL}/mask_rcnn_R_50_C4_iccv_roipool"
WARP_MAX, WARP_AVE = (f"{ABL}/mask_rcnn_R_50_C4_iccv_roiwarp_{how}" for how in ("max", "ave"))
ALIGN_MAX = f"{ABL}/mask_rcnn_R_50_C4_iccv_roialign_max"
MLP2, MLP3 = (f"{ABL}/mask_rcnn_R_50_FPN_iccv_mlp_{n}fc" for n in (2, 3))
FPN_POOL = f"{ABL}/mask_rcnn_R_50_FPN_iccv_roipool"
FASTER = f"{DET}/faster_rcnn_R_101_FPN_iccv"
KP, KP_MASK = f"{KEY}/keypoint_rcnn_R_50_FPN_iccv", f"{KEY}/keypoint_rcnn_R_50_FPN_iccv_mask"
KP_POOL = f"{ABL}/keypoint_rcnn_R_50_FPN_iccv_roipool"
PERSON_BOX, PERSON_MASK = f"{DET}/faster_rcnn_R_50_FPN_iccv_person", f"{FPN}_person"
KP_NEW = f"{KEY}/keypoint_rcnn_R_50_FPN_updated"
KP_101 = f"{KEY}/keypoint_rcnn_R_101_FPN_updated"
KP_X101 = f"{KEY}/keypoint_rcnn_X_101_64x4d_FPN_updated"

OTHERS = "another paper's"
LATER = "needs more than a model"

# (table or section, row as the head comments name it, the paper's main figure) -> config
ROWS: dict[tuple[str, str, str], str] = {
    ("table 1", "MNC", "24.6"): OTHERS,
    ("table 1", "FCIS +OHEM", "29.2"): OTHERS,
    ("table 1", "FCIS+++ +OHEM", "33.6"): OTHERS,
    ("table 1", "Mask R-CNN, ResNet-101-C4", "mask AP 33.1"): C4_101,
    ("table 1", "Mask R-CNN, ResNet-101-FPN", "mask AP 35.7"): FPN_101,
    ("table 1", "Mask R-CNN, ResNeXt-101-FPN", "mask AP 37.1"): X101,
    ("table 2a", "Mask R-CNN, ResNet-50-C4", "mask AP 30.3"): C4,
    ("table 2a", "Mask R-CNN, ResNet-101-C4", "mask AP 32.7"): C4_101,
    ("table 2a", "Mask R-CNN, ResNet-50-FPN", "mask AP 33.6"): FPN,
    ("table 2a", "Mask R-CNN, ResNet-101-FPN", "mask AP 35.4"): FPN_101,
    ("table 2a", "Mask R-CNN, ResNeXt-101-FPN", "mask AP 36.7"): X101,
    ("table 2b", "softmax", "mask AP 24.8"): SOFTMAX,
    ("table 2b", "sigmoid", "mask AP 30.3"): C4,
    ("table 2c", "RoIPool, max", "mask AP 26.9"): POOL,
    ("table 2c", "RoIWarp, max", "mask AP 27.2"): WARP_MAX,
    ("table 2c", "RoIWarp, ave", "mask AP 27.1"): WARP_AVE,
    ("table 2c", "RoIAlign, max", "mask AP 30.2"): ALIGN_MAX,
    ("table 2c", "RoIAlign, ave", "mask AP 30.3"): C4,
    ("table 2d", "RoIPool", "mask AP 23.6, box AP 28.2"): C5_POOL,
    ("table 2d", "RoIAlign", "mask AP 30.9, box AP 34.0"): C5,
    ("table 2e", "MLP fc: 1024->1024->80*28^2", "mask AP 31.5"): MLP2,
    ("table 2e", "MLP fc: 1024->1024->1024->80*28^2", "mask AP 31.5"): MLP3,
    ("table 2e", "FCN conv: 256->256->256->256->256->80", "mask AP 33.6"): FPN,
    ("table 3", "Faster R-CNN+++", "34.9"): OTHERS,
    ("table 3", "Faster R-CNN w FPN", "36.2"): OTHERS,
    ("table 3", "Faster R-CNN by G-RMI", "34.7"): OTHERS,
    ("table 3", "Faster R-CNN w TDM", "36.8"): OTHERS,
    ("table 3", "Faster R-CNN, RoIAlign", "box AP 37.3"): FASTER,
    ("table 3", "Mask R-CNN, ResNet-101-FPN", "box AP 38.2"): FPN_101,
    ("table 3", "Mask R-CNN, ResNeXt-101-FPN", "box AP 39.8"): X101,
    ("table 4", "CMU-Pose+++", "61.8"): OTHERS,
    ("table 4", "G-RMI", "62.4"): OTHERS,
    ("table 4", "Mask R-CNN, keypoint-only", "keypoint AP 62.7"): KP,
    ("table 4", "Mask R-CNN, keypoint & mask", "keypoint AP 63.1"): KP_MASK,
    ("table 5", "Faster R-CNN", "box AP 52.5"): PERSON_BOX,
    ("table 5", "Mask R-CNN, mask-only", "mask AP 45.8, box AP 53.6"): PERSON_MASK,
    ("table 5", "Mask R-CNN, keypoint-only", "keypoint AP 64.2, box AP 50.7"): KP,
    (
        "table 5",
        "Mask R-CNN, keypoint & mask",
        "keypoint AP 64.7, mask AP 45.1, box AP 52.0",
    ): KP_MASK,
    ("table 6", "RoIPool", "keypoint AP 59.8"): KP_POOL,
    ("table 6", "RoIAlign", "keypoint AP 64.2"): KP,
    ("table 8", "original baseline", "mask AP 36.7, box AP 39.6"): X101,
    ("table 8", "+ updated baseline", "mask AP 37.0, box AP 40.5"): X101_NEW,
    ("table 8", "+ e2e training", "mask AP 37.6, box AP 41.7"): E2E,
    ("table 8", "+ ImageNet-5k", "mask AP 38.6, box AP 42.7"): IN5K,
    ("table 8", "+ train-time augm.", "mask AP 39.2, box AP 43.5"): AUGM,
    ("table 8", "+ deeper", "mask AP 39.7, box AP 44.1"): X152,
    ("table 8", "+ Non-local", "mask AP 40.3, box AP 45.0"): X152_NL,
    ("table 8", "+ test-time augm.", "mask AP 41.8, box AP 47.3"): X152_NL,  # trained no further
    ("table 9", "original baseline", "keypoint AP 64.2"): KP,
    ("table 9", "+ updated baseline", "keypoint AP 65.1"): KP_NEW,
    ("table 9", "+ deeper", "keypoint AP 66.1"): KP_101,
    ("table 9", "+ ResNeXt", "keypoint AP 67.3"): KP_X101,
    ("table 9", "+ data distillation", "69.1"): LATER,
    ("table 9", "+ test-time augm.", "70.4"): LATER,
    ("section 4.2", "class-specific masks", "mask AP 30.3"): C4,
    ("section 4.2", "class-agnostic masks", "mask AP 29.7"): AGNOSTIC,
    ("section 4.2", "RoIPool with FPN", "1.5 mask AP and 0.5 box AP"): FPN_POOL,
}
OURS = {row: config for row, config in ROWS.items() if config not in (OTHERS, LATER)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What makes a row the row it is; the defaults are the ICCV protocol on ResNet-50-FPN."""

    kind: str = "FPN"  # C4, C5, FPN
    depth: int = 50
    groups: tuple[int, int] = (1, 64)  # cardinality, width of a group
    nonlocal_block: bool = False
    pretrained: str = "R-50"
    layer: str = "RoIAlign"
    aggregation: str = "ave"
    branches: str = "box mask"
    persons: bool = False
    mask: str = "FCN"  # or the hidden layers of an MLP
    mask_classes: int = 80
    loss: str = "sigmoid"
    rpn: str = "apart"  # joint, only
    images: int = 16
    lr: float = 0.02
    iterations: int = 160_000
    steps: tuple[int, ...] = (120_000,)
    scales: tuple[int, int] = (800, 800)  # from, to
    nms: float = 0.3


BASE = Facts()
_R50_C4 = dataclasses.replace(BASE, kind="C4")
_C5 = dataclasses.replace(BASE, kind="C5")
_101 = {"depth": 101, "pretrained": "R-101"}
_X101: dict[str, Any] = {
    "depth": 101,
    "groups": (64, 4),
    "pretrained": "X-101-64x4d",
    "images": 8,
    "lr": 0.01,
}
_UPDATED: dict[str, Any] = {"iterations": 180_000, "steps": (120_000, 160_000), "nms": 0.5}
_AUGM: dict[str, Any] = {
    "iterations": 260_000,
    "steps": (200_000, 240_000),
    "scales": (640, 800),
}
_KP = dataclasses.replace(
    BASE,
    branches="box keypoint",
    persons=True,
    mask_classes=1,
    iterations=90_000,
    steps=(60_000, 80_000),
    scales=(640, 800),
    nms=0.5,
)
_KP_UPDATED: dict[str, Any] = {"iterations": 130_000, "steps": (100_000, 120_000)}
_E2E = dataclasses.replace(BASE, rpn="joint", **_X101 | _UPDATED)
_X152 = _AUGM | {"depth": 152, "groups": (32, 8), "pretrained": "X-152-32x8d-IN5k"}
_with = dataclasses.replace

FACTS: dict[str, Facts] = {
    C4: _R50_C4,
    C4_101: _with(_R50_C4, **_101),
    SOFTMAX: _with(_R50_C4, loss="softmax"),
    AGNOSTIC: _with(_R50_C4, mask_classes=1),
    POOL: _with(_R50_C4, layer="RoIPool", aggregation="max"),
    WARP_MAX: _with(_R50_C4, layer="RoIWarp", aggregation="max"),
    WARP_AVE: _with(_R50_C4, layer="RoIWarp"),
    ALIGN_MAX: _with(_R50_C4, aggregation="max"),
    C5: _C5,
    C5_POOL: _with(_C5, layer="RoIPool", aggregation="max"),
    FPN: BASE,
    FPN_101: _with(BASE, **_101),
    X101: _with(BASE, **_X101),
    FPN_POOL: _with(BASE, layer="RoIPool", aggregation="max"),
    MLP2: _with(BASE, mask="1024 1024"),
    MLP3: _with(BASE, mask="1024 1024 1024"),
    FASTER: _with(BASE, branches="box", **_101),
    X101_NEW: _with(BASE, **_X101 | _UPDATED),
    E2E: _E2E,
    IN5K: _with(_E2E, pretrained="X-101-64x4d-IN5k"),
    AUGM: _with(_E2E, **_AUGM, pretrained="X-101-64x4d-IN5k"),
    X152: _with(_E2E, **_X152),
    X152_NL: _with(_E2E, **_X152, nonlocal_block=True),
    KP: _KP,
    KP_MASK: _with(_KP, branches="box mask keypoint"),
    KP_POOL: _with(_KP, layer="RoIPool", aggregation="max"),
    PERSON_BOX: _with(_KP, branches="box"),
    PERSON_MASK: _with(_KP, branches="box mask"),
    KP_NEW: _with(_KP, **_KP_UPDATED),
    KP_101: _with(_KP, **_KP_UPDATED | _101),
    KP_X101: _with(_KP, **_KP_UPDATED | _X101),
    # The networks whose proposals the rows above train on.
    f"{DET}/rpn_R_50_C4_iccv": _with(_R50_C4, rpn="only", branches=""),
    f"{DET}/rpn_R_101_C4_iccv": _with(_R50_C4, rpn="only", branches="", **_101),
    f"{DET}/rpn_R_50_C5_iccv": _with(_C5, rpn="only", branches=""),
    f"{DET}/rpn_R_50_FPN_iccv": _with(BASE, rpn="only", branches=""),
    f"{DET}/rpn_R_101_FPN_iccv": _with(BASE, rpn="only", branches="", **_101),
    f"{DET}/rpn_X_101_64x4d_FPN_iccv": _with(BASE, rpn="only", branches="", **_X101),
    f"{KEY}/rpn_R_50_FPN_iccv_person": _with(_KP, rpn="only", branches=""),
    f"{KEY}/rpn_R_101_FPN_iccv_person": _with(_KP, rpn="only", branches="", **_101),
    f"{KEY}/rpn_X_101_64x4d_FPN_iccv_person": _with(_KP, rpn="only", branches="", **_X101),
}
each_row = pytest.mark.parametrize("row", OURS, ids=lambda row: f"{row[0]}-{row[1]}")
each_config = pytest.mark.parametrize("name", FACTS)
STRIDES = {"C4": [16], "C5": [32], "FPN": [4, 8, 16, 32]}


@functools.cache
def _config(name: str) -> CfgNode:
    return load_config(CONFIGS / f"{name}.yaml", ["MODEL.DEVICE", "meta"])


@functools.cache
def _head_comment(name: str) -> str:
    lines = (CONFIGS / f"{name}.yaml").read_text().splitlines()
    head = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return " ".join(" ".join(line.lstrip("#") for line in head).split())


@functools.cache
def _model(name: str) -> nn.Module:
    """In full size, on the meta device: shapes and wiring without numbers."""
    with torch.device("meta"):
        return build_model(_config(name))


# --- rows and head comments


@each_row
def test_the_config_of_a_row_names_it_and_its_figure(row):
    where, what, figure = row
    where_and_what = f"{where}, row {what}" if "table" in where else f"{where}, {what}"
    text = _head_comment(OURS[row])
    assert where_and_what in text, text
    if "table" in where or "masks" in what:
        split = "test-dev" if where in ("table 1", "table 3", "table 4") else "minival"
        assert re.search(
            rf"{re.escape(figure)}, COCO {split}, {re.escape(where_and_what)}", text
        ), text
    else:
        assert figure in text


def test_every_config_of_the_paper_is_a_row_and_every_row_a_config():
    rpn = {name for name, facts in FACTS.items() if facts.rpn == "only"}
    assert set(FACTS) - rpn == set(OURS.values())
    paper = {
        str(path.relative_to(CONFIGS).with_suffix(""))
        for folder in (SEG, DET, KEY, ABL)
        for path in (CONFIGS / folder).glob("*.yaml")
        if not re.search(r"_(1x|3x|overfit_4)$", path.stem)
    }
    assert set(FACTS) == paper


@each_config
def test_the_head_comment_says_what_it_must(name):
    for field in ("hardware: 8 GPUs", "paper: ", "here: not run"):
        assert field in _head_comment(name)


# --- facts of the configuration


@each_config
def test_the_schedule_and_the_pictures(name):
    cfg, facts = _config(name), FACTS[name]
    assert facts.images == cfg.SOLVER.IMS_PER_BATCH
    assert facts.lr == cfg.SOLVER.BASE_LR
    assert facts.iterations == cfg.SOLVER.MAX_ITER
    assert tuple(cfg.SOLVER.STEPS) == facts.steps
    solver = (cfg.SOLVER.OPTIMIZER, cfg.SOLVER.GAMMA, cfg.SOLVER.MOMENTUM, cfg.SOLVER.WEIGHT_DECAY)
    assert solver == ("SGD", 0.1, 0.9, 0.0001)
    sizes, sampling = cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
    assert (min(sizes), max(sizes)) == facts.scales
    assert sampling == "range" or len(sizes) == 1
    assert cfg.INPUT.MIN_SIZE_TEST == 800
    prefix = "keypoints_" if facts.persons else ""
    assert (
        tuple(f"{prefix}coco_2014_{split}" for split in ("train", "valminusminival"))
        == cfg.DATASETS.TRAIN
    )
    assert (f"{prefix}coco_2014_minival",) == cfg.DATASETS.TEST


@each_config
def test_the_backbone_and_its_weights(name):
    cfg, facts = _config(name), FACTS[name]
    resnets = cfg.MODEL.RESNETS
    assert (
        facts.depth,
        facts.groups,
    ) == (resnets.DEPTH, (resnets.NUM_GROUPS, resnets.WIDTH_PER_GROUP))
    weights = re.search(r"([RX]-\d+\S*?)(?:\.pkl|\.pth)?$", cfg.MODEL.WEIGHTS)
    assert weights
    assert weights[1] == facts.pretrained
    # Where the weights come from settles these two: MSRA's ResNets have their stride in the first
    # 1x1; all of these were made for pixels without a division.
    assert facts.pretrained.startswith("R") == resnets.STRIDE_IN_1X1
    assert cfg.MODEL.PIXEL_STD == [1.0, 1.0, 1.0]
    assert resnets.NORM == "FrozenBN"
    assert resnets.RES5_DILATION == 1
    backbone = _model(name).backbone
    bottom_up = backbone.bottom_up if facts.kind == "FPN" else backbone
    blocks = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}[facts.depth]
    last = 3 if facts.kind == "C4" else 4
    found = [
        [type(block).__name__ for block in stage if type(block).__name__ != "NonLocalBlock"]
        for stage in bottom_up.stages
    ]
    assert found == [["BottleneckBlock"] * n for n in blocks[:last]]
    extra = [
        sum(type(m).__name__ == "NonLocalBlock" for m in stage.modules())
        for stage in bottom_up.stages
    ]
    assert extra == [0, 0, int(facts.nonlocal_block), 0][:last]
    conv = bottom_up.stages[0][0].conv2
    assert (conv.groups, conv.out_channels) == (facts.groups[0], facts.groups[0] * facts.groups[1])


def test_weights_named_by_catalog_are_in_it():
    from detectron2.checkpoint.catalog import ModelCatalog

    for name in FACTS:
        prefix, _, entry = _config(name).MODEL.WEIGHTS.partition("://")
        if prefix == "catalog":
            assert ModelCatalog.get(entry).endswith(".pkl")


@each_config
def test_the_rpn(name):
    cfg, facts = _config(name), FACTS[name]
    model = _model(name)
    assert (facts.rpn == "apart") == cfg.MODEL.LOAD_PROPOSALS
    assert (model.proposal_generator is None) == (facts.rpn == "apart")
    assert hasattr(model, "roi_heads") == (facts.rpn != "only")
    if facts.rpn == "apart":
        limit = 300 if facts.kind == "C4" else 1000
        assert limit == cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
        assert cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN == 2000
        return
    anchors = model.proposal_generator.anchor_generator
    levels = 5 if facts.kind == "FPN" else 1
    assert anchors.num_anchors == [15 // levels] * levels
    sizes = {size for level in cfg.MODEL.ANCHOR_GENERATOR.SIZES for size in level}
    assert sizes == {32, 64, 128, 256, 512}
    if facts.rpn == "joint":
        assert cfg.MODEL.RPN.POST_NMS_TOPK_TEST == 1000
        assert cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN == 2000
    else:
        assert cfg.MODEL.RPN.POST_NMS_TOPK_TEST == 2000  # enough for a second stage to train on


SECOND_STAGES = [name for name, facts in FACTS.items() if facts.rpn == "apart"]


@pytest.mark.parametrize("name", SECOND_STAGES)
def test_the_proposals_are_those_that_the_named_rpn_dumps(name):
    """The chain of docs/proposals.md: same backbone, same sets, the files where the dump goes."""
    cfg, facts = _config(name), FACTS[name]
    first = re.search(r"first: configs/(\S+)\.yaml \(docs/proposals\.md\)", _head_comment(name))
    assert first
    rpn, rpn_facts = _config(first[1]), FACTS[first[1]]
    for key in ("kind", "depth", "groups", "pretrained", "persons"):
        assert getattr(facts, key) == getattr(rpn_facts, key), key
    dump = _head_comment(first[1]).partition("--eval-only")[2]
    weights, out = re.search(r"MODEL\.WEIGHTS (\S+) .*?OUTPUT_DIR (\S+)", dump).groups()
    assert weights == f"{rpn.OUTPUT_DIR}/model_final.pth"
    sets = yaml.safe_load(
        "[" + re.search(r"DATASETS\.TEST \"\((.*?)\)\"", dump)[1].replace("\\", "") + "]"
    )
    assert (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) == tuple(sets)
    for split in ("TRAIN", "TEST"):
        assert tuple(cfg.DATASETS[f"PROPOSAL_FILES_{split}"]) == tuple(
            f"{out}/inference/{name}/box_proposals.pkl" for name in cfg.DATASETS[split]
        )


@pytest.mark.parametrize("name", [name for name, facts in FACTS.items() if facts.rpn != "only"])
def test_the_heads(name):
    cfg, facts = _config(name), FACTS[name]
    heads = _model(name).roi_heads
    assert type(heads).__name__ == (
        "MaskRCNNRes5ROIHeads" if facts.kind == "C4" else "MaskRCNNROIHeads"
    )
    assert heads.num_classes == (1 if facts.persons else 80)
    # 64 or 512 RoIs an image, one in four positive, at an IoU of 0.5
    assert heads.batch_size_per_image == (64 if facts.kind == "C4" else 512)
    assert heads.positive_fraction == 0.25
    assert cfg.MODEL.ROI_HEADS.IOU_THRESHOLDS == [0.5]
    assert facts.nms == cfg.MODEL.ROI_HEADS.NMS_THRESH_TEST
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 100

    extractors = {n: m for n, m in heads.named_modules() if isinstance(m, RoIExtractor)}
    wanted = (
        ["pooler"]
        if facts.kind == "C4"
        else [f"{branch}_pooler" for branch in facts.branches.split()]
    )
    assert sorted(extractors) == sorted(wanted)
    for branch, layer in extractors.items():
        assert layer.layer == facts.layer
        own = "max" if facts.layer == "RoIPool" else "ave"
        assert (layer.aggregation or own) == facts.aggregation
        assert layer.sampling_ratio == 2
        assert [round(1 / scale) for scale in layer.scales] == STRIDES[facts.kind]
        assert layer.output_size == ((7, 7) if branch == "box_pooler" else (14, 14))

    if facts.kind == "C4":
        assert len(heads.res5) == 3
    else:
        linear = [m.out_features for m in heads.box_head.modules() if isinstance(m, nn.Linear)]
        assert linear == [1024, 1024]
    assert bool(getattr(heads, "mask_on", False)) == ("mask" in facts.branches)
    assert bool(getattr(heads, "keypoint_on", False)) == ("keypoint" in facts.branches)


@pytest.mark.parametrize("name", [name for name, f in FACTS.items() if "mask" in f.branches])
def test_the_mask_head(name):
    cfg, facts = _config(name), FACTS[name]
    head = _model(name).roi_heads.mask_head
    # on res5's 7 x 7 for C4, figure 4 left; on the extractor's 14 x 14 otherwise
    channels, side = {"C4": (2048, 7), "C5": (2048, 14), "FPN": (256, 14)}[facts.kind]
    logits = head.layers(torch.empty(2, channels, side, side, device="meta"))
    background = facts.loss == "softmax"
    assert logits.shape == (2, facts.mask_classes + background, 2 * side, 2 * side)
    assert facts.loss == cfg.MODEL.ROI_MASK_HEAD.LOSS
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    linear = [m.out_features for m in head.modules() if isinstance(m, nn.Linear)]
    if facts.mask == "FCN":
        assert [conv.out_channels for conv in convs] == ([] if facts.kind == "C4" else [256] * 4)
        assert not linear
    else:
        assert linear == [*map(int, facts.mask.split()), 80 * 28 * 28]
        assert not convs


@pytest.mark.parametrize("name", [name for name, f in FACTS.items() if "keypoint" in f.branches])
def test_the_keypoint_head(name):
    head = _model(name).roi_heads.keypoint_head
    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d)]
    assert [(conv.out_channels, conv.kernel_size) for conv in convs] == [(512, (3, 3))] * 8
    assert head.layers(torch.empty(2, 256, 14, 14, device="meta")).shape == (2, 17, 56, 56)


# --- one step of each, shrunk

SIDE = 96
SHRUNK: dict[str, Any] = {
    "MODEL.DEVICE": "cpu",
    "MODEL.WEIGHTS": "",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.RESNETS.DEPTH": 50,  # the smallest of bottlenecks, which alone have groups
    "MODEL.RESNETS.NORM": "BN",  # random weights behind a norm that does nothing would explode
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 16,
    "MODEL.FPN.OUT_CHANNELS": 16,
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 32,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 30,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 20,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 16,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
    "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
    "MODEL.ROI_MASK_HEAD.CONV_DIM": 8,
    "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS": (8,) * 8,
    "TEST.DETECTIONS_PER_IMAGE": 10,
}


def _shrunk(name: str) -> CfgNode:
    cfg = _config(name).clone()
    cfg.defrost()
    cfg.merge_from_list([word for pair in SHRUNK.items() for word in pair])
    resnets = cfg.MODEL.RESNETS
    # An eighth of the groups, narrow ones: still several of them where there are.
    resnets.NUM_GROUPS, resnets.WIDTH_PER_GROUP = max(resnets.NUM_GROUPS // 8, 1), 4
    cfg.MODEL.ROI_MASK_HEAD.FC_DIMS = [16 for _ in cfg.MODEL.ROI_MASK_HEAD.FC_DIMS]
    return cfg


def _record(facts: Facts, num_classes: int) -> dict[str, Any]:
    """A picture with three objects, and proposals around them."""
    corners = torch.tensor([[8.0, 10, 50, 60], [30, 20, 90, 88], [4, 50, 30, 92]])
    objects = Instances((SIDE, SIDE))
    objects.gt_boxes = Boxes(corners)
    objects.gt_classes = torch.tensor([0, num_classes // 2, num_classes - 1])
    if "mask" in facts.branches:
        objects.gt_masks = PolygonMasks(
            [[[x0, y0, x1, y0, (x0 + x1) / 2, y1]] for x0, y0, x1, y1 in corners.tolist()]
        )
    if "keypoint" in facts.branches:
        t = torch.linspace(0.1, 0.9, 17)[None, :, None]
        places = corners[:, None, :2] * (1 - t) + corners[:, None, 2:] * t  # (3, 17, 2)
        objects.gt_keypoints = Keypoints(torch.cat([places, torch.full((3, 17, 1), 2.0)], dim=2))
    record = {
        "image": torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8),
        "height": SIDE,
        "width": SIDE,
        "instances": objects,
    }
    if facts.rpn == "apart":
        proposals = Instances((SIDE, SIDE))
        boxes = Boxes(corners.repeat(8, 1) + torch.randint(-12, 13, (24, 4)))
        boxes.clip((SIDE, SIDE))
        proposals.proposal_boxes = boxes[boxes.nonempty()]
        proposals.objectness_logits = torch.zeros(len(proposals.proposal_boxes))
        record["proposals"] = proposals
    return record


LOSSES = {
    "rpn": {"loss_rpn_cls", "loss_rpn_loc"},
    "box": {"loss_cls", "loss_box_reg"},
    "mask": {"loss_mask"},
    "keypoint": {"loss_keypoint"},
}


@each_config
def test_one_step_of_training_and_one_of_inference(name):
    facts, cfg = FACTS[name], _shrunk(name)
    model = build_model(cfg).train()
    record = _record(facts, cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    with EventStorage(0):
        losses = model([record])
    parts = facts.branches.split() + ([] if facts.rpn == "apart" else ["rpn"])
    assert set(losses) == set().union(*(LOSSES[part] for part in parts))
    assert all(torch.isfinite(loss) for loss in losses.values()), losses
    optimizer = build_optimizer(cfg, model)
    sum(losses.values()).backward()
    _check_gradients(model, facts)
    optimizer.step()

    model.eval()
    with torch.no_grad():
        if facts.rpn == "only":
            (output,) = model([record])
            assert 0 < len(output["proposals"]) <= 20
            assert torch.isfinite(output["proposals"].proposal_boxes.tensor).all()
            return
        (found,) = model.inference([record], do_postprocess=False)
    n = len(found)
    assert 0 < n <= 10
    assert torch.isfinite(found.pred_boxes.tensor).all()
    if "mask" in facts.branches:
        side = 14 if facts.kind == "C4" else 28
        assert found.pred_masks.shape == (n, 1, side, side)
        assert ((found.pred_masks >= 0) & (found.pred_masks <= 1)).all()
    if "keypoint" in facts.branches:
        assert found.pred_keypoints.shape == (n, 17, 3)
        assert found.pred_keypoint_heatmaps.shape == (n, 17, 56, 56)


def _check_gradients(model: nn.Module, facts: Facts) -> None:
    """Every trainable tensor took part; whatever is the row's own learned something."""
    gradients = {n: p.grad for n, p in model.named_parameters() if p.requires_grad}
    if facts.kind != "FPN" or facts.rpn != "apart":
        # (A picture this small gives the pyramid's upper levels no RoI.)
        absent = [n for n, g in gradients.items() if g is None]
        assert not absent
    assert all(torch.isfinite(g).all() for g in gradients.values() if g is not None)
    # What has a gradient of zeros: the inside of a non-local block, whose last norm starts at 0.
    moved = {n for n, g in gradients.items() if g is not None and g.any()}
    own = {n for n in gradients if n.startswith(("roi_heads.", "proposal_generator."))}
    assert own, "no heads"
    assert own <= moved, own - moved
    assert any(n.startswith("backbone.") and "stem" in n for n in moved)
    if facts.nonlocal_block:
        assert any("norm.weight" in n for n in moved & _nonlocal_names(model))


def _nonlocal_names(model: nn.Module) -> set[str]:
    return {
        f"{path}.{n}"
        for path, module in model.named_modules()
        if type(module).__name__ == "NonLocalBlock"
        for n, _ in module.named_parameters()
    }
