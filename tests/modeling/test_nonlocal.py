"""The non-local block against loops, and where it sits in a ResNet."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_backbone
from detectron2.solver import build_optimizer

from mask_rcnn_ext import load_config
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling.backbone import ChannelAffine, NonLocalBlock

NORMS = ["FrozenBN", "BN", "GN", ""]


def _config(name: str, *keys: str):
    return load_config("", ["MODEL.BACKBONE.NAME", name, *keys])


def _random_block(channels: int, subsample: bool, dtype: torch.dtype) -> NonLocalBlock:
    block = NonLocalBlock(channels, subsample=subsample).to(dtype)
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter)
    return block


def _by_loops(block: NonLocalBlock, x: torch.Tensor) -> torch.Tensor:
    """The definition, a cell at a time, in float64."""
    x = x.double()
    weights = {n: getattr(block, n).weight.double()[..., 0, 0] for n in ("theta", "phi", "g")}
    out = x.clone()
    height, width = x.shape[-2:]
    for n, image in enumerate(x):
        cell = {n: {} for n in weights}
        for i in range(height):
            for j in range(width):
                for name, weight in weights.items():
                    cell[name][i, j] = weight @ image[:, i, j]
        if block.subsample:
            for name in ("phi", "g"):
                groups: dict[tuple[int, int], list[torch.Tensor]] = {}
                for (i, j), value in cell[name].items():
                    groups.setdefault((i // 2, j // 2), []).append(value)
                cell[name] = {k: torch.stack(v).amax(0) for k, v in groups.items()}
        for (i, j), query in cell["theta"].items():
            products = {k: torch.dot(query, key) for k, key in cell["phi"].items()}
            largest = max(products.values())
            shares = {k: torch.exp(p - largest) for k, p in products.items()}
            y = sum(share * cell["g"][k] for k, share in shares.items()) / sum(shares.values())
            z = block.out.weight.double()[..., 0, 0] @ y
            out[n, :, i, j] += z * block.norm.weight.double() + block.norm.bias.double()
    return out


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("subsample", [True, False])
def test_a_new_block_is_the_identity_bit_for_bit(norm, training, subsample):
    block = NonLocalBlock(64, norm=norm, subsample=subsample).train(training)
    x = 100 * torch.randn(2, 64, 5, 6)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize("subsample", [True, False])
@pytest.mark.parametrize("size", [(4, 6), (5, 3), (1, 1), (1, 4)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_equals_the_definition(subsample, size, dtype, tolerance):
    block = _random_block(6, subsample, dtype)
    x = torch.randn(2, 6, *size, dtype=dtype)
    expected = _by_loops(block, x)
    assert (expected - x).abs().max() > 0.1
    torch.testing.assert_close(block(x).double(), expected, rtol=tolerance, atol=tolerance)


def test_strided_input_and_no_images():
    block = _random_block(6, True, torch.float64)
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64).permute(0, 3, 1, 2)
    torch.testing.assert_close(block(x), block(x.contiguous()), rtol=0, atol=1e-12)
    assert block(x[:0]).shape == (0, 6, 5, 7)


@pytest.mark.parametrize("subsample", [True, False])
def test_gradients(subsample):
    block = _random_block(4, subsample, torch.float64)
    names = [name for name, _ in block.named_parameters()]

    def forward(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(2, 4, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(forward, (x, *block.parameters()))


@pytest.mark.parametrize("norm", NORMS)
def test_it_learns_whatever_the_norm(norm):
    block = NonLocalBlock(64, norm=norm)
    start = copy.deepcopy(block.state_dict())
    optimizer = torch.optim.SGD(block.parameters(), lr=10.0)
    x = torch.randn(2, 64, 4, 4)
    for _ in range(3):  # first the norm moves, then what is behind it
        optimizer.zero_grad()
        (block(x) - x.flip(0)).square().mean().backward()
        optimizer.step()
    for name, _ in block.named_parameters():
        assert not torch.equal(block.state_dict()[name], start[name]), name


def test_odd_channels_are_refused():
    with pytest.raises(ValueError, match="5, which is odd"):
        NonLocalBlock(5)


def test_half_precision_stays_half():
    affine = ChannelAffine(4)
    assert affine(torch.randn(1, 4, 2, 2).bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("depth", ["50", "101", "152"])
def test_only_the_block_is_new_and_nothing_changes_at_first(norm, depth):
    keys = ["MODEL.RESNETS.NORM", norm, "MODEL.RESNETS.DEPTH", depth]
    keys += ["MODEL.RESNETS.OUT_FEATURES", "['res2', 'res3', 'res4', 'res5']"]
    if depth != "50":
        # the bigger ones: names only, no numbers
        with torch.device("meta"):
            plain = build_backbone(_config("build_resnet_backbone", *keys))
            ours = build_backbone(_config("build_nonlocal_resnet_backbone", *keys))
    else:
        plain = build_backbone(_config("build_resnet_backbone", *keys))
        ours = build_backbone(_config("build_nonlocal_resnet_backbone", *keys))
        missing, unexpected = ours.load_state_dict(plain.state_dict(), strict=False)
        assert unexpected == []
        assert missing
        image = torch.randn(1, 3, 64, 96)
        expected = plain.eval()(image)
        for name, feature in ours.eval()(image).items():
            assert torch.equal(feature, expected[name])
    new = [n for n in ours.state_dict() if n not in plain.state_dict()]
    assert new
    assert all(name.startswith("res4.non_local.") for name in new)
    assert ours.output_shape() == plain.output_shape()
    count = {"50": 6, "101": 23, "152": 36}[depth]
    names = [name for name, _ in ours.res4.named_children()]
    assert names == [*map(str, range(count - 1)), "non_local", str(count - 1)]
    added = sum(p.numel() for p in ours.res4.non_local.parameters())
    assert added == 4 * 1024 * 512 + 2 * 1024


def test_the_block_has_its_place_in_forward():
    backbone = build_backbone(_config("build_nonlocal_resnet_backbone")).eval()
    block = backbone.res4.non_local
    image = torch.randn(1, 3, 64, 64)
    before = backbone(image)["res4"]
    seen = {}
    block.register_forward_hook(lambda _m, inputs, _o: seen.update(input=inputs[0]))
    torch.nn.init.ones_(block.norm.bias)
    after = backbone(image)["res4"]
    assert not torch.equal(before, after)
    assert torch.equal(backbone.res4[-1](seen["input"] + 1), after)


@pytest.mark.parametrize("freeze_at", [0, 2, 4, 5])
@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
def test_freeze_at_leaves_the_new_block_trainable(freeze_at, norm):
    keys = ["MODEL.BACKBONE.FREEZE_AT", str(freeze_at), "MODEL.RESNETS.NORM", norm]
    keys += ["MODEL.RESNETS.OUT_FEATURES", "['res2', 'res3', 'res4', 'res5']"]
    cfg = _config("build_nonlocal_resnet_backbone", *keys)
    with torch.device("meta"):
        backbone = build_backbone(cfg)
    assert all(p.requires_grad for p in backbone.res4.non_local.parameters())
    assert not isinstance(backbone.res4.non_local.norm, FrozenBatchNorm2d)
    for index, name in enumerate(["stem", "res2", "res3", "res4", "res5"], start=1):
        rest = [
            p
            for n, p in getattr(backbone, name).named_parameters()
            if not n.startswith("non_local")
        ]
        assert all(p.requires_grad == (index > freeze_at) for p in rest), name
    trained = {
        id(p) for group in build_optimizer(cfg, backbone).param_groups for p in group["params"]
    }
    assert {id(p) for p in backbone.res4.non_local.parameters()} <= trained


def test_the_pyramid_is_detectron2s_with_the_block():
    stages = "['res2', 'res3', 'res4', 'res5']"
    keys = ["MODEL.RESNETS.OUT_FEATURES", stages, "MODEL.FPN.IN_FEATURES", stages]
    theirs = build_backbone(_config("build_resnet_fpn_backbone", *keys)).eval()
    ours = build_backbone(_config("build_nonlocal_resnet_fpn_backbone", *keys)).eval()
    missing, unexpected = ours.load_state_dict(theirs.state_dict(), strict=False)
    assert unexpected == []
    assert all(name.startswith("bottom_up.res4.non_local.") for name in missing)
    image = torch.randn(1, 3, 64, 64)
    expected = theirs(image)
    features = ours(image)
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    for name, feature in features.items():
        assert torch.equal(feature, expected[name])


def test_a_network_that_ends_before_res4_is_refused():
    cfg = _config("build_nonlocal_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", "['res3']")
    with pytest.raises(UsageError, match=r"OUT_FEATURES is \['res3'\].*res4"):
        build_backbone(cfg)
