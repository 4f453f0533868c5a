"""The short pyramid: one level a named stage, and one on top for the RPN."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_backbone

from mask_rcnn_ext import load_config

SHORT = [
    *("MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64"),
    *("MODEL.FPN.OUT_CHANNELS", "32", "MODEL.RESNETS.NORM", "BN", "MODEL.BACKBONE.FREEZE_AT", "0"),
]


def _backbone(name: str, stages: list[str]):
    keys = ["MODEL.BACKBONE.NAME", name, "MODEL.RESNETS.OUT_FEATURES", str(stages)]
    return build_backbone(load_config("", [*SHORT, *keys, "MODEL.FPN.IN_FEATURES", str(stages)]))


@pytest.mark.parametrize("last", [3, 4, 5])
def test_levels_and_strides(last):
    stages = [f"res{i}" for i in range(2, last + 1)]
    backbone = _backbone("build_short_resnet_fpn_backbone", stages)
    image = torch.randn(2, 3, 128, 192)
    features = backbone(image)
    assert list(features) == [f"p{i}" for i in range(2, last + 2)]
    for name, shape in backbone.output_shape().items():
        stride = 2 ** int(name[1:])
        assert shape.stride == stride
        assert features[name].shape == (2, 32, 128 // stride, 192 // stride)
    top = features[f"p{last + 1}"]
    assert torch.equal(top, features[f"p{last}"][:, :, ::2, ::2])


def test_with_all_four_stages_it_is_detectron2s():
    stages = ["res2", "res3", "res4", "res5"]
    ours = _backbone("build_short_resnet_fpn_backbone", stages).eval()
    theirs = _backbone("build_resnet_fpn_backbone", stages).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    image = torch.randn(1, 3, 64, 64)
    expected = theirs(image)
    for name, feature in ours(image).items():
        assert torch.equal(feature, expected[name])
