"""Arithmetic in 16 bits: which, where it can be had, and around what."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from torch import nn

from ..errors import UsageError
from ..modeling.speed import prepare_for_inference, wants_channels_last

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
TRAINING = ("auto", *_DTYPES)
INFERENCE = ("float32", *_DTYPES)
# Last layers of Detectron2's and our heads, by their names. From their outputs on, inference is in
# float32: bfloat16 has 8 bits, so scores would tie and a keypoint at 301.3 would be at 302.
_LAST_LAYERS = frozenset(
    ("objectness_logits", "anchor_deltas", "cls_score", "bbox_pred", "predictor", "score_lowres")
)


def check_precision_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: SOLVER.AMP.PRECISION or TEST.PRECISION is none that there is, or none for
            MODEL.DEVICE
    """
    on_cpu = torch.device(cfg.MODEL.DEVICE).type == "cpu"
    for key, value, choices in (
        ("SOLVER.AMP.PRECISION", cfg.SOLVER.AMP.PRECISION, TRAINING),
        ("TEST.PRECISION", cfg.TEST.PRECISION, INFERENCE),
    ):
        if value not in choices:
            raise UsageError(f"{key} is {value!r}, expected one of {', '.join(choices)}")
        counts = cfg.SOLVER.AMP.ENABLED or key.startswith("TEST")
        if on_cpu and counts and value == "float16":
            raise UsageError(
                f"{key} is float16, which is for GPUs; MODEL.DEVICE is {cfg.MODEL.DEVICE!r}: take "
                "bfloat16"
            )


def training_dtype(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """What SOLVER.AMP asks for; None is float32 throughout.

    Raises:
        UsageError: this GPU has no bfloat16
    """
    if not cfg.SOLVER.AMP.ENABLED:
        return None
    name = cfg.SOLVER.AMP.PRECISION
    if name == "auto":
        name = "bfloat16" if device.type == "cpu" else "float16"
    return _available(name, device, "SOLVER.AMP.PRECISION")


def inference_dtype(cfg: CfgNode, device: torch.device) -> torch.dtype | None:
    """What TEST.PRECISION asks for; None is float32.

    Raises:
        UsageError: this GPU has no bfloat16
    """
    if cfg.TEST.PRECISION == "float32":
        return None
    return _available(cfg.TEST.PRECISION, device, "TEST.PRECISION")


def _available(name: str, device: torch.device, key: str) -> torch.dtype:
    has_it = device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "bfloat16" and not has_it:
        raise UsageError(
            f"{key} is bfloat16, which {torch.cuda.get_device_name(device)} does not compute; "
            "take float16"
        )
    return _DTYPES[name]


def low_precision(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """torch's autocast in `dtype`; None switches it off."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def ready_for_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """A copy in evaluation mode that gives the same results to rounding, faster; see its keys.

    Args:
        cfg: reads MODEL.FOLD_NORMS, CHANNELS_LAST, COMPILE and DEVICE, TEST.PRECISION
        model: stays as it is
    """
    half = cfg.TEST.PRECISION != "float32"
    return prepare_for_inference(
        model,
        fold_norms=cfg.MODEL.FOLD_NORMS,
        channels_last=wants_channels_last(cfg.MODEL.CHANNELS_LAST, cfg.MODEL.DEVICE, half=half),
        compile=cfg.MODEL.COMPILE,
    )


@contextlib.contextmanager
def inference_context(cfg: CfgNode, model: nn.Module) -> Iterator[None]:
    """Inference within is in TEST.PRECISION, its results are float32.

    Enter it once around a loop: the weights are then turned once.

    Args:
        cfg: reads TEST.PRECISION
        model: any of Detectron2's, or one around it
    Raises:
        UsageError: this GPU has no bfloat16
    """
    device = next(model.parameters()).device
    dtype = inference_dtype(cfg, device)
    if dtype is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        for name, module in model.named_modules():
            if name.rpartition(".")[2] in _LAST_LAYERS:
                stack.enter_context(module.register_forward_hook(_to_float32))
        stack.enter_context(low_precision(device, dtype))
        yield


def _to_float32(module: nn.Module, inputs: object, output: object) -> object:
    return output.float() if isinstance(output, torch.Tensor) else output
