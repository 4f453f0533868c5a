"""Values that the RoI layers and heads cannot make fail before anything is built."""

from __future__ import annotations

import pytest

from mask_rcnn_ext import load_config
from mask_rcnn_ext.errors import UsageError

FPN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
C4 = "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml"
BOX, MASK = "MODEL.ROI_BOX_HEAD.", "MODEL.ROI_MASK_HEAD."
MLP = [MASK + "NAME", "MLPMaskHead"]

BAD = [
    # file, overrides, words of the message: the key, the value, the choices
    (FPN, [BOX + "POOLER_TYPE", "RoIalign"], [BOX + "POOLER_TYPE", "'RoIalign'", "RoIAlignV2"]),
    (FPN, [MASK + "POOLER_TYPE", "Crop"], [MASK + "POOLER_TYPE", "'Crop'", "RoIPool, RoIWarp"]),
    (FPN, [BOX + "POOLER_AGGREGATION", "mean"], [BOX + "POOLER_AGG", "'mean'", "ave and max"]),
    (
        FPN,
        [MASK + "POOLER_TYPE", "RoIPool", MASK + "POOLER_AGGREGATION", "ave"],
        [MASK + "POOLER_AGGREGATION", "'ave'", "RoIPool has max"],
    ),
    (C4, [MASK + "POOLER_AGGREGATION", "max"], [MASK + "POOLER_AGG", "ROI_BOX_HEAD"]),
    (FPN, ["MODEL.ROI_HEADS.POOLER_BACKEND", "cuda"], ["BACKEND", "'cuda'", "auto, torch, triton"]),
    (
        FPN,
        ["MODEL.ROI_HEADS.POOLER_BACKEND", "triton", BOX + "POOLER_TYPE", "RoIPool"],
        ["POOLER_BACKEND", "averages only", BOX + "POOLER_TYPE"],
    ),
    (
        FPN,
        ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", BOX + "POOLER_TYPE", "RoIWarp"],
        ["'RoIWarp'", "StandardROIHeads", "MaskRCNNROIHeads"],
    ),
    (
        C4,
        ["MODEL.ROI_HEADS.NAME", "Res5ROIHeads", BOX + "POOLER_AGGREGATION", "max"],
        ["'max'", "Res5ROIHeads", "MaskRCNNRes5ROIHeads"],
    ),
    (FPN, [BOX + "POOLER_RESOLUTION", "0"], [BOX + "POOLER_RESOLUTION is 0", "1 or more"]),
    (FPN, [BOX + "POOLER_SAMPLING_RATIO", "-1"], ["SAMPLING_RATIO is -1", "0 or more"]),
    (FPN, [MASK + "LOSS", "dice"], [MASK + "LOSS", "'dice'", "sigmoid, softmax"]),
    (
        FPN,
        [MASK + "LOSS", "softmax", MASK + "CLS_AGNOSTIC_MASK", "True"],
        [MASK + "LOSS is 'softmax'", MASK + "CLS_AGNOSTIC_MASK True", "sigmoid"],
    ),
    (
        FPN,
        [MASK + "LOSS", "softmax", MASK + "NAME", "MaskRCNNConvUpsampleHead"],
        ["'softmax'", "MaskRCNNConvUpsampleHead", "FCNMaskHead or MLPMaskHead"],
    ),
    (FPN, [*MLP, MASK + "FC_DIMS", "[]"], [MASK + "FC_DIMS is []", "at least one"]),
    (FPN, [*MLP, MASK + "FC_DIMS", "[1024, 0]"], [MASK + "FC_DIMS is [1024, 0]"]),
    (FPN, [MASK + "RESOLUTION", "30"], [MASK + "RESOLUTION", "30", "28, 56, 112"]),
    (C4, [MASK + "RESOLUTION", "30"], [MASK + "RESOLUTION", "30", "14, 28, 56"]),
    (FPN, [MASK + "RESOLUTION", "-1"], [MASK + "RESOLUTION is -1"]),
    (
        FPN,
        [MASK + "RESOLUTION", "56", MASK + "NAME", "MaskRCNNConvUpsampleHead"],
        [MASK + "RESOLUTION is 56", "MaskRCNNConvUpsampleHead"],
    ),
    (FPN, [MASK + "TRAIN_ROIS_PER_IMAGE", "-3"], ["TRAIN_ROIS_PER_IMAGE is -3", "0 or more"]),
    (C4, [MASK + "TRAIN_ROIS_PER_IMAGE", "8"], ["TRAIN_ROIS_PER_IMAGE is 8", "BATCH_SIZE_PER"]),
    (FPN, ["TEST.DETECTIONS_PER_IMAGE", "0"], ["TEST.DETECTIONS_PER_IMAGE is 0", "1 or more"]),
    (C4, ["MODEL.KEYPOINT_ON", "True"], ["MODEL.KEYPOINT_ON", "MaskRCNNROIHeads"]),
]


@pytest.mark.parametrize(("file", "overrides", "words"), BAD, ids=lambda v: None)
def test_bad_value(file: str, overrides: list[str], words: list[str]):
    with pytest.raises(UsageError) as caught:
        load_config(file, overrides)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("file", "overrides"),
    [
        (FPN, [MASK + "RESOLUTION", "56"]),
        (C4, [MASK + "RESOLUTION", "28"]),
        (FPN, [*MLP, MASK + "RESOLUTION", "30"]),
        (FPN, [MASK + "LOSS", "softmax"]),
        (C4, [BOX + "POOLER_TYPE", "RoIWarp", BOX + "POOLER_AGGREGATION", "max"]),
        (FPN, ["MODEL.MASK_ON", "False", MASK + "LOSS", "none of our business"]),
        (FPN, ["MODEL.ROI_HEADS.NAME", "StandardROIHeads", BOX + "POOLER_TYPE", "ROIPool"]),
        (FPN, ["MODEL.META_ARCHITECTURE", "ProposalNetwork"]),
    ],
)
def test_good_values_pass(file: str, overrides: list[str]):
    load_config(file, overrides)
