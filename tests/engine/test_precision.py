"""Inference in bfloat16: close to float32, with results in float32."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.precision import (
    check_precision_keys,
    inference_context,
    inference_dtype,
    training_dtype,
)
from mask_rcnn_ext.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def _config(*overrides):
    return load_config(
        "quickstart/mask_rcnn_R_18_FPN_scenes.yaml",
        ["MODEL.DEVICE", "cpu", *map(str, overrides)],
    )


def test_which_arithmetic_training_has():
    assert training_dtype(_config(), CPU) is None
    assert training_dtype(_config("SOLVER.AMP.PRECISION", "bfloat16"), CPU) is None
    on = ("SOLVER.AMP.ENABLED", "True")
    assert training_dtype(_config(*on), CPU) is torch.bfloat16
    assert training_dtype(_config(*on), CUDA) is torch.float16  # as Detectron2
    half = ("SOLVER.AMP.PRECISION", "float16", "MODEL.DEVICE", "cuda")
    assert training_dtype(_config(*on, *half), CUDA) is torch.float16


def test_a_gpu_without_bfloat16_is_told(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **k: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old One")
    cfg = _config("SOLVER.AMP.ENABLED", "True", "SOLVER.AMP.PRECISION", "bfloat16")
    with pytest.raises(UsageError, match="AMP.PRECISION is bfloat16, which Old One.*float16"):
        training_dtype(cfg, CUDA)
    with pytest.raises(UsageError, match="TEST.PRECISION is bfloat16, which Old One"):
        inference_dtype(_config("TEST.PRECISION", "bfloat16"), CUDA)
    assert training_dtype(cfg, CPU) is torch.bfloat16


def test_float16_is_for_gpus():
    cfg = _config().clone()
    cfg.defrost()
    cfg.SOLVER.AMP.PRECISION = "float16"
    check_precision_keys(cfg)  # AMP is off
    cfg.SOLVER.AMP.ENABLED = True
    with pytest.raises(UsageError, match="AMP.PRECISION is float16.*'cpu': take bfloat16"):
        check_precision_keys(cfg)
    cfg.MODEL.DEVICE = "cuda:1"
    check_precision_keys(cfg)
    cfg.MODEL.DEVICE, cfg.SOLVER.AMP.ENABLED, cfg.TEST.PRECISION = "cpu", False, "float16"
    with pytest.raises(UsageError, match="TEST.PRECISION is float16"):
        check_precision_keys(cfg)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(2)
    cfg = _config(
        *("MODEL.KEYPOINT_ON", "True", "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 3),
        *("MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[16]"),
        *("MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0, "TEST.KEYPOINT_OKS_SIGMAS", "[.1,.1,.1]"),
    )
    return build_model(cfg).eval()


def _detect(model, cfg):
    image = torch.randint(0, 255, (3, 96, 128), generator=torch.Generator().manual_seed(1))
    sample = {"image": image.to(torch.uint8), "height": 96, "width": 128}
    with torch.no_grad(), inference_context(cfg, model):
        return model([sample])[0]["instances"]


def test_results_are_float32(model):
    seen = set()
    handle = model.backbone.register_forward_hook(
        lambda m, a, out: seen.update(x.dtype for x in out.values())
    )
    found = _detect(model, _config("TEST.PRECISION", "bfloat16"))
    handle.remove()
    assert seen == {torch.bfloat16}
    assert len(found) > 20
    for name in ("scores", "pred_keypoints", "pred_keypoint_heatmaps"):
        assert found.get(name).dtype == torch.float32, name
    # More than 8 bits: in bfloat16 a hundred scores near 0.1 would be a dozen values.
    assert len(found.scores.unique()) > 0.9 * len(found)
    points = found.pred_keypoints[..., 0].flatten()
    assert (points != points.bfloat16().float()).any()


def test_close_to_float32_and_without_a_trace(model):
    reference = _detect(model, _config())
    low = _detect(model, _config("TEST.PRECISION", "bfloat16"))
    assert float(low.scores[0]) == pytest.approx(float(reference.scores[0]), rel=0.05)
    again = _detect(model, _config())
    assert torch.equal(again.scores, reference.scores)
    assert torch.equal(again.pred_boxes.tensor, reference.pred_boxes.tensor)
    assert not any(module._forward_hooks for module in model.modules())


def test_hooks_go_when_inference_fails(model):
    cfg = _config("TEST.PRECISION", "bfloat16")
    with pytest.raises(KeyError), inference_context(cfg, model):
        assert sum(bool(m._forward_hooks) for m in model.modules()) == 6
        raise KeyError
    assert not any(module._forward_hooks for module in model.modules())
    assert not torch.is_autocast_enabled("cpu")
