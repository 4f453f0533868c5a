"""Soft-NMS in the RoI heads, by config."""

import pytest
import torch
from detectron2.modeling import build_model

from mask_rcnn_ext import load_config
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling.box_predictor import SoftNMSBoxPredictor
from mask_rcnn_ext.ops.soft_nms import soft_nms

WORDS = ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.02"]


def build(config, *words):
    torch.manual_seed(0)
    return build_model(load_config(config, [*WORDS, *words])).eval()


@pytest.mark.parametrize(
    "config",
    [
        "quickstart/mask_rcnn_R_18_FPN_scenes.yaml",
        "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    ],
)
def test_the_heads_take_it(config):
    model = build(config, "MODEL.ROI_HEADS.NMS", "soft_linear")
    assert isinstance(model.roi_heads.box_predictor, SoftNMSBoxPredictor)
    assert set(model.state_dict()) == set(build(config).state_dict())


def test_scores_are_those_of_soft_nms():
    config = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
    soft = build(
        config, "MODEL.ROI_HEADS.NMS", "soft_gaussian", "MODEL.ROI_HEADS.SOFT_NMS_SIGMA", "0.3"
    )
    every = build(
        config, "MODEL.ROI_HEADS.NMS_THRESH_TEST", "1.0", "TEST.DETECTIONS_PER_IMAGE", "100000"
    )
    every.load_state_dict(soft.state_dict())
    image = {"image": torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)}
    with torch.no_grad():
        found = soft([image])[0]["instances"]
        candidates = every([image])[0]["instances"]
    kept, scores = soft_nms(
        candidates.pred_boxes.tensor,
        candidates.scores,
        candidates.pred_classes,
        method="soft_gaussian",
        sigma=0.3,
        score_threshold=0.02,
        max_boxes=100,
    )
    assert len(found) == len(kept) > 0
    assert torch.allclose(found.scores, scores, atol=1e-6)
    assert torch.allclose(found.pred_boxes.tensor, candidates.pred_boxes.tensor[kept], atol=1e-3)
    assert (found.scores.diff() <= 0).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["MODEL.ROI_HEADS.NMS", "softer"], "NMS is 'softer', expected one of hard, soft_linear"),
        (["MODEL.ROI_HEADS.SOFT_NMS_SIGMA", "0.0"], "SIGMA is 0.0, expected a number above 0"),
        (
            ["MODEL.ROI_HEADS.NMS", "soft_linear", "MODEL.ROI_HEADS.NAME", "StandardROIHeads"],
            "StandardROIHeads does not know",
        ),
    ],
)
def test_what_is_refused(words, message):
    with pytest.raises(UsageError, match=message):
        load_config(None, words)
