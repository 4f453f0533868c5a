"""Averaged RoI features of all pyramid levels on a GPU: the launches around the Triton kernels.

Shape shorthand: L levels, N images, C channels, Hl x Wl cells of level l, R RoIs, PH x PW bins.

One launch forward. Nothing in either direction waits for the GPU or reads a value back: all shapes
follow from the arguments' shapes, so that the calls can be captured in a CUDA graph.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton

from . import DTYPES, MOST_LEVELS, is_interpreted
from .roi_backward_jit import average_backward_atomic, average_backward_ordered, axis_tables
from .roi_forward_jit import average_forward

LAYERS = ("RoIAlign", "RoIAlignV2", "RoIWarp")
_WARP_BYTES = 512  # 32 threads load 16 bytes each
_ATOMIC_PARTS = 8  # programs that share the rows of a RoI's window
# See roi_axis_jit: positions must round as PyTorch's do.
_OPTIONS = {"enable_fp_fusion": False}


class _Call(NamedTuple):
    """What a call is made of, beside its tensors."""

    output_size: tuple[int, int]
    scales: tuple[float, ...]
    sampling_ratio: int
    layer: str
    ordered: bool


def multilevel_roi_average(
    features: Sequence[torch.Tensor],
    rois: torch.Tensor,
    levels: torch.Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
    layer: str,
    *,
    ordered: bool,
) -> torch.Tensor:
    """Cut R RoIs out of a pyramid, each from its level; bins are means of bilinear samples.

    Args:
        features: 1 to 6 tensors (N, C, Hl, Wl), one dtype: float32, float16 or bfloat16; any
            strides, but a level that is not channels_last is copied
        rois: (R, 5) float32, (batch index, x0, y0, x1, y1), input pixels; R may be 0. The batch
            index must be in [0, N): it is not read on the CPU, so it cannot be refused. A RoI
            that breaks this gives zeros and no gradient, and never touches foreign memory
        levels: (R,) int32 or int64, index into `features`, in [0, L); the same holds for it
        output_size: (PH, PW), bins
        scales: cells an input pixel, 1 / stride, one a level
        sampling_ratio: samples a bin and axis; 0 is adaptive, ceil(size / bins)
        layer: RoIAlign, RoIAlignV2 or RoIWarp
        ordered: how the gradient is summed, always in float32. True: each cell adds its RoIs in
            their order, the same bits every time. False: atomic additions, in any order
    Returns:
        (R, C, PH, PW) in the features' dtype, channels_last. Differentiable in the features; a
        gradient that is not finite may spread to cells near its bin
    Raises:
        ValueError: shapes, dtypes or values that do not fit
    """
    call = _Call(
        (int(output_size[0]), int(output_size[1])),
        tuple(float(s) for s in scales),
        int(sampling_ratio),
        layer,
        bool(ordered),
    )
    _check(features, rois, levels, call)
    return _RoIAverage.apply(call, rois.detach().contiguous(), levels.contiguous(), *features)


def _check(
    features: Sequence[torch.Tensor], rois: torch.Tensor, levels: torch.Tensor, call: _Call
) -> None:
    if not 1 <= len(features) <= MOST_LEVELS or len(features) != len(call.scales):
        raise ValueError(
            f"got {len(features)} levels and {len(call.scales)} scales, expected equally many, "
            f"1 to {MOST_LEVELS}"
        )
    first = features[0]
    if first.dtype not in DTYPES:
        raise ValueError(
            f"got features of {first.dtype}, the Triton kernels take "
            f"{', '.join(str(d).removeprefix('torch.') for d in DTYPES)}"
        )
    for f in features:
        if f.dim() != 4 or f.shape[:2] != first.shape[:2]:
            raise ValueError(
                f"got a level of shape {tuple(f.shape)}, expected (N, C, H, W) with N, C = "
                f"{tuple(first.shape[:2])} as in the first"
            )
        if f.dtype != first.dtype or f.device != first.device:
            raise ValueError(f"levels differ: {first.dtype} {first.device}, {f.dtype} {f.device}")
        if f.shape[1] * f.shape[3] >= 2**31:
            raise ValueError(f"a row of a level of shape {tuple(f.shape)} has 2**31 values or more")
    if rois.dim() != 2 or rois.shape[1] != 5 or rois.dtype != torch.float32:
        raise ValueError(
            f"got RoIs of {rois.dtype}, shape {tuple(rois.shape)}, expected float32 (R, 5)"
        )
    if levels.shape != rois.shape[:1] or levels.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"got levels of {levels.dtype}, shape {tuple(levels.shape)}, expected int32 or int64 "
            f"({len(rois)},)"
        )
    if rois.device != first.device or levels.device != first.device:
        raise ValueError(
            f"features are on {first.device}, RoIs on {rois.device}, levels on {levels.device}"
        )
    if first.device.type != "cuda" and not is_interpreted():
        raise ValueError(f"features are on {first.device}, the Triton kernels need a CUDA device")
    if min(call.output_size) < 1 or call.sampling_ratio < 0:
        raise ValueError(
            f"got output_size {call.output_size} and sampling_ratio {call.sampling_ratio}, "
            "expected sizes of at least 1 and a ratio of 0 (adaptive) or more"
        )
    if call.layer not in LAYERS:
        raise ValueError(f"RoI layer is {call.layer!r}, expected one of {', '.join(LAYERS)}")


class _RoIAverage(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, call: _Call, rois: torch.Tensor, levels: torch.Tensor, *features: torch.Tensor
    ) -> torch.Tensor:
        ctx.call, ctx.dtype = call, features[0].dtype
        ctx.sizes = [tuple(f.shape) for f in features]
        ctx.save_for_backward(rois, levels)
        out = features[0].new_empty(len(rois), *call.output_size, features[0].shape[1])
        if out.numel():
            maps = [f.permute(0, 2, 3, 1).contiguous() for f in features]
            with _on(rois.device):
                _forward(call, rois, levels, maps, out)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        rois, levels = ctx.saved_tensors
        call, dtype = ctx.call, ctx.dtype
        shapes = [(n, h, w, c) for n, c, h, w in ctx.sizes]
        if not grad.numel():
            grads = [grad.new_zeros(shape) for shape in shapes]
        else:
            grad = grad.permute(0, 2, 3, 1).contiguous()
            with _on(rois.device):
                tables = _tables(call, rois, levels, shapes)
                backward = _backward_ordered if call.ordered else _backward_atomic
                grads = backward(call, rois, levels, tables, grad, shapes, dtype)
        return (None, None, None, *(g.permute(0, 3, 1, 2) for g in grads))


def _on(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Triton launches on the current device, which need not be the tensors' one."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


def _padded(values: Sequence[Any]) -> list[Any]:
    """One kernel argument for each of the six levels; those that there are not repeat the first."""
    return [*values, *[values[0]] * (MOST_LEVELS - len(values))]


def _sizes(shapes: Sequence[Sequence[int]]) -> list[int]:
    """h0..h5, w0..w5 of levels (N, H, W, C)."""
    return [*_padded([s[1] for s in shapes]), *_padded([s[2] for s in shapes])]


def _block(count: int, most: int) -> int:
    """Power of two that covers `count`, or `most`."""
    return min(triton.next_power_of_2(count), most)


def _geometry(call: _Call, levels: int) -> dict[str, Any]:
    bins_y, bins_x = call.output_size
    return {
        "LEVELS": levels,
        "PH": bins_y,
        "PW": bins_x,
        "LAYER": call.layer,
        "RATIO": call.sampling_ratio,
    }


def _forward(
    call: _Call,
    rois: torch.Tensor,
    levels: torch.Tensor,
    maps: list[torch.Tensor],
    out: torch.Tensor,
) -> None:
    """Write out (R, PH, PW, C) from maps (N, Hl, Wl, C)."""
    count, bins_y, bins_x, channels = out.shape
    block_p = _block(bins_x, 8)
    block_c = _block(channels, _WARP_BYTES // out.element_size())
    grid = (count * bins_y * triton.cdiv(bins_x, block_p), triton.cdiv(channels, block_c))
    average_forward[grid](
        *_padded(maps),
        *_sizes([m.shape for m in maps]),
        *_padded(call.scales),
        rois,
        levels,
        out,
        len(maps[0]),
        C=channels,
        BLOCK_P=block_p,
        BLOCK_C=block_c,
        **_geometry(call, len(maps)),
        num_warps=2,
        **_OPTIONS,
    )


def _tables(
    call: _Call,
    rois: torch.Tensor,
    levels: torch.Tensor,
    shapes: Sequence[Sequence[int]],
) -> list[Any]:
    """The arguments windows .. longest_x of the backward kernels, see `axis_tables`.

    R * (PH * longest column + PW * longest row) float32 values: 0.1 GB for 8192 RoIs, 7 x 7 bins
    and a finest level of 200 x 336 cells.
    """
    bins_y, bins_x = call.output_size
    longest_y, longest_x = max(s[1] for s in shapes), max(s[2] for s in shapes)
    tables = [
        rois.new_empty(len(rois), 4, dtype=torch.int32),
        rois.new_empty(len(rois), 4),
        rois.new_empty(len(rois), bins_y, longest_y),
        rois.new_empty(len(rois), bins_x, longest_x),
        longest_y,
        longest_x,
    ]
    block_p = triton.next_power_of_2(max(bins_y, bins_x))
    axis_tables[(len(rois), 2)](
        *_sizes(shapes),
        *_padded(call.scales),
        rois,
        levels,
        *tables,
        shapes[0][0],
        BLOCK_P=block_p,
        BLOCK_K=max(min(32, 1024 // block_p), 1),
        **_geometry(call, len(shapes)),
        num_warps=1,
        **_OPTIONS,
    )
    return tables


def _backward_atomic(
    call: _Call,
    rois: torch.Tensor,
    levels: torch.Tensor,
    tables: list[Any],
    grad: torch.Tensor,
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    """Gradients (N, Hl, Wl, C) of the features from grad (R, PH, PW, C), by atomic additions."""
    count, bins_y, bins_x, channels = grad.shape
    counts = [n * h * w * c for n, h, w, c in shapes]
    # One buffer, so that one launch fills it and one converts it.
    total = rois.new_zeros(sum(counts))
    block_c = _block(channels, _WARP_BYTES // total.element_size())
    average_backward_atomic[(count * _ATOMIC_PARTS, triton.cdiv(channels, block_c))](
        *_padded(total.split(counts)),
        *_sizes(shapes),
        rois,
        levels,
        *tables,
        grad,
        shapes[0][0],
        LEVELS=len(shapes),
        C=channels,
        PH=bins_y,
        PW=bins_x,
        PARTS=_ATOMIC_PARTS,
        BLOCK_X=4,
        BLOCK_C=block_c,
        num_warps=1,
        **_OPTIONS,
    )
    return [g.view(s) for g, s in zip(total.to(dtype).split(counts), shapes, strict=True)]


def _backward_ordered(
    call: _Call,
    rois: torch.Tensor,
    levels: torch.Tensor,
    tables: list[Any],
    grad: torch.Tensor,
    shapes: Sequence[tuple[int, ...]],
    dtype: torch.dtype,
) -> list[torch.Tensor]:
    """Gradients (N, Hl, Wl, C) of the features from grad (R, PH, PW, C), each cell in order."""
    _, bins_y, bins_x, channels = grad.shape
    images = shapes[0][0]
    segments = images * len(shapes)
    # RoIs by image and level, in their own order within; one of no image or level comes last.
    image, level = rois[:, 0], levels.to(torch.int64)
    exists = (image >= 0) & (image < images) & (level >= 0) & (level < len(shapes))
    key = torch.where(exists, image.to(torch.int64) * len(shapes) + level, segments)
    key, order = torch.sort(key, stable=True)
    starts = torch.searchsorted(key, torch.arange(segments + 1, device=key.device))

    block_x = 4
    block_c = _block(channels, _WARP_BYTES // grad.element_size())
    grads = [grad.new_empty(shape, dtype=dtype) for shape in shapes]
    ends: list[int] = []
    for n, h, w, _ in shapes:
        ends.append((ends[-1] if ends else 0) + n * h * triton.cdiv(w, block_x))
    starts_of_levels = [*ends[:-1], *[ends[-1]] * (MOST_LEVELS - len(ends))]
    if ends[-1]:
        average_backward_ordered[(ends[-1], triton.cdiv(channels, block_c))](
            *_padded(grads),
            *_sizes(shapes),
            *starts_of_levels,
            order,
            starts,
            *tables,
            grad,
            LEVELS=len(shapes),
            C=channels,
            PH=bins_y,
            PW=bins_x,
            BLOCK_X=block_x,
            BLOCK_C=block_c,
            num_warps=1,
            **_OPTIONS,
        )
    return grads
