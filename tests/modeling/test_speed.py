"""Folding, memory order, compiling and the copy for inference: same results, model untouched."""

from __future__ import annotations

import shutil

import pytest
import torch
from detectron2.layers import Conv2d, FrozenBatchNorm2d, get_norm
from detectron2.modeling import build_model
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling.speed import (
    check_speed_keys,
    compile_dense_parts,
    fold_norms,
    missing_compiler,
    prepare_for_inference,
    to_channels_last,
    wants_channels_last,
)

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


def conv_with(norm: nn.Module | None, bias: bool) -> Conv2d:
    conv = Conv2d(3, 4, 3, padding=1, bias=bias, norm=norm, activation=nn.ReLU())
    if norm is not None:
        for name in ("weight", "bias", "running_mean"):
            tensor = getattr(norm, name, None)
            if tensor is not None:
                tensor.data.normal_()
        if getattr(norm, "running_var", None) is not None:
            norm.running_var.uniform_(0.01, 4)
    if bias:
        conv.bias.data.normal_()
    return conv


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "norm",
    [
        FrozenBatchNorm2d(4, eps=0.01),
        nn.BatchNorm2d(4, eps=0.01),
        nn.BatchNorm2d(4, affine=False),
        nn.SyncBatchNorm(4),
    ],
    ids=["frozen", "batch", "not affine", "sync"],
)
def test_a_fixed_norm_goes_into_its_convolution(norm, bias):
    conv = conv_with(norm, bias).eval()
    x = torch.randn(2, 3, 5, 6)
    before = conv(x)
    assert fold_norms(nn.Sequential(conv)) == 1
    assert conv.norm is None
    assert not conv.weight.requires_grad
    torch.testing.assert_close(conv(x), before)


@pytest.mark.parametrize(
    "norm",
    [get_norm("GN", 32), nn.BatchNorm2d(32).train(), nn.BatchNorm2d(32, track_running_stats=False)],
    ids=["group", "in training", "no statistics"],
)
def test_a_norm_that_reads_the_picture_stays(norm):
    conv = Conv2d(3, 32, 1, norm=norm)
    weight = conv.weight.clone()
    assert fold_norms(nn.Sequential(conv)) == 0
    assert conv.norm is norm
    assert torch.equal(conv.weight, weight)


def test_folding_keeps_dtype_and_memory_order():
    conv = conv_with(FrozenBatchNorm2d(4), True).to(torch.bfloat16)
    conv.to(memory_format=torch.channels_last)
    fold_norms(nn.Sequential(conv))
    assert conv.weight.dtype == conv.bias.dtype == torch.bfloat16
    assert conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(5)
    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cpu", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.05"])
    model = build_model(cfg)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3)
            module.running_var.uniform_(0.5, 2)
    return model.train()


def detections(model: nn.Module) -> torch.Tensor:
    torch.manual_seed(1)
    sample = {"image": torch.randint(0, 256, (3, 96, 130)), "height": 96, "width": 130}
    with torch.no_grad():
        (found,) = model.inference([sample], do_postprocess=False)
    assert len(found) > 10
    return torch.cat(
        (found.pred_boxes.tensor, found.scores[:, None], found.pred_masks.mean((2, 3))), 1
    )


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("folds", [False, True])
def test_the_copy_detects_the_same_and_the_model_is_untouched(model, folds, channels_last):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    strides = {name: tensor.stride() for name, tensor in model.state_dict().items()}
    grads = [p.requires_grad for p in model.parameters()]
    ready = prepare_for_inference(model, fold_norms=folds, channels_last=channels_last)
    assert not ready.training
    assert type(ready) is type(model)
    last = ready.backbone.bottom_up.res2[0].conv1.weight
    assert last.is_contiguous(memory_format=torch.channels_last) is channels_last
    assert any(isinstance(m, nn.BatchNorm2d) for m in ready.modules()) is not folds
    same = detections(ready)
    assert all(module.training for module in model.modules())
    after = model.state_dict()
    assert list(after) == list(before)
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
        assert after[name].stride() == strides[name], name
    assert [p.requires_grad for p in model.parameters()] == grads
    model.eval()
    try:
        torch.testing.assert_close(same, detections(model), rtol=1e-4, atol=1e-4)
    finally:
        model.train()


def test_the_copy_shares_what_it_does_not_change(model):
    ready = prepare_for_inference(model, fold_norms=True, channels_last=False)
    assert ready.roi_heads.box_head.fc1.weight is model.roi_heads.box_head.fc1.weight
    assert ready.pixel_mean is model.pixel_mean
    assert ready.backbone.bottom_up.res2[0].conv1.weight is not (
        model.backbone.bottom_up.res2[0].conv1.weight
    )


def test_a_model_wrapped_for_several_processes_is_unwrapped(model, monkeypatch):
    from mask_rcnn_ext.modeling.speed import inference

    class Wrapped(nn.Module):
        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

    monkeypatch.setattr(inference, "DistributedDataParallel", Wrapped)
    ready = prepare_for_inference(Wrapped(model), fold_norms=False, channels_last=False)
    assert type(ready) is type(model)


def test_channels_last_weights_give_channels_last_features():
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2), nn.Flatten())
    x = torch.randn(2, 3, 9, 7)
    before = layers(x)
    to_channels_last(layers)
    out = layers[:3](x)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(layers(x), before)


@pytest.mark.parametrize(
    ("setting", "device", "half", "expected"),
    [
        (None, "cpu", False, True),
        ("auto", "cpu", False, True),
        ("auto", "cuda", False, False),
        ("auto", "cuda:1", True, True),
        (True, "cuda", False, True),
        (False, "cpu", True, False),
    ],
)
def test_what_auto_means(setting, device, half, expected):
    assert wants_channels_last(setting, device, half=half) is expected


def config(*words: object):
    cfg = load_config(CONFIG, ["MODEL.DEVICE", "cpu"]).clone()
    cfg.defrost()
    for key, value in zip(words[::2], words[1::2], strict=True):
        cfg.MODEL[key] = value
    return cfg


@pytest.mark.parametrize(
    "words",
    [("CHANNELS_LAST", "yes"), ("CHANNELS_LAST", 1), ("COMPILE", "auto"), ("FOLD_NORMS", "auto")],
)
def test_a_wrong_value_is_named(words):
    with pytest.raises(UsageError, match=f"MODEL.{words[0]} is {words[1]!r}, expected True"):
        check_speed_keys(config(*words))


@pytest.mark.parametrize("value", [True, False, None, "auto"])
def test_the_values_there_are(value):
    check_speed_keys(config("CHANNELS_LAST", value))


def test_compiling_without_a_compiler_is_refused(monkeypatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError, match=r"a C\+\+ compiler .*MODEL.COMPILE False"):
        check_speed_keys(config("COMPILE", True))
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "clang++" else None)
    check_speed_keys(config("COMPILE", True))
    monkeypatch.setenv("CXX", "mycc")
    assert "mycc" in str(missing_compiler("cpu"))


def test_a_gpu_needs_triton_too(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: name)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "Triton" in str(missing_compiler("cuda"))
    assert missing_compiler("cpu") is None


def test_compiled_are_backbone_and_rpn_head_in_place(model, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: compiled.append((self, how)))
    names = list(model.state_dict())
    ready = prepare_for_inference(model, fold_norms=False, channels_last=False, compile=True)
    assert [part for part, _ in compiled] == [ready.backbone, ready.proposal_generator.rpn_head]
    assert all(how == {"dynamic": True} for _, how in compiled)
    assert list(ready.state_dict()) == names
    assert compile_dense_parts(nn.Linear(1, 1)) == []


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True])
def test_the_copy_detects_the_same_on_a_gpu(model, half):
    import copy

    there = copy.deepcopy(model).cuda().eval()
    ready = prepare_for_inference(there, fold_norms=True, channels_last=True)
    sample = {"image": torch.randint(0, 256, (3, 96, 130)), "height": 96, "width": 130}
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=half):
        ours, plain = (m.inference([sample], do_postprocess=False)[0] for m in (ready, there))
    tolerance = 0.05 if half else 1e-3
    torch.testing.assert_close(ours.scores[:5], plain.scores[:5], rtol=tolerance, atol=tolerance)
