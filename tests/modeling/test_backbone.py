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


# Parameters of torchvision's trunk without the classifier: its published `num_params` less
# 2048 * 1000 + 1000. torchvision has no 152-layer ResNeXt; its own ResNet class, built with blocks
# [3, 8, 36, 3] and 32 groups of width 8, has 122,372,392 with the classifier.
RESNEXTS = [
    ("101", "64", "4", 83_455_272 - 2_049_000),
    ("101", "32", "8", 88_791_336 - 2_049_000),
    ("152", "32", "8", 122_372_392 - 2_049_000),
]
NON_LOCAL = 4 * 1024 * 512 + 2 * 1024  # four 1 x 1 convolutions and a norm


@pytest.mark.parametrize(("depth", "groups", "width", "expected"), RESNEXTS)
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_resnexts_have_the_published_number_of_parameters(depth, groups, width, expected, norm):
    stages = "['res2', 'res3', 'res4', 'res5']"
    keys = ["MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.NUM_GROUPS", groups]
    keys += ["MODEL.RESNETS.WIDTH_PER_GROUP", width, "MODEL.RESNETS.NORM", norm]
    keys += ["MODEL.RESNETS.OUT_FEATURES", stages, "MODEL.RESNETS.STRIDE_IN_1X1", "False"]
    for name, more in (
        ("build_resnet_backbone", 0),
        ("build_nonlocal_resnet_backbone", NON_LOCAL),
    ):
        with torch.device("meta"):
            backbone = build_backbone(load_config("", ["MODEL.BACKBONE.NAME", name, *keys]))
        # A frozen norm holds the same weights and biases, as buffers.
        found = sum(
            value.numel()
            for key, value in backbone.state_dict().items()
            if key.endswith(("weight", "bias"))
        )
        assert found == expected + more
