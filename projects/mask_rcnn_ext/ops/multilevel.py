"""RoI features from all levels of a feature pyramid in one call (FPN, arXiv 1612.03144, Eq. 1).

Shape shorthand: L levels, N images, C channels, Hl x Wl cells of level l, R RoIs, PH x PW bins,
A x B samples of a RoI. RoIs are (batch index, x0, y0, x1, y1) in input pixels (docs/pixels.md).

A backend is chosen by name and never falls back: `torch` runs everywhere, on a CPU as windowed
matrix products (windows.py) or as sums of few cells (cell_sums.py), elsewhere level by level with
torchvision's kernels (by_level.py); `triton` is one kernel for all levels on a GPU, averages only;
`auto` takes triton where it runs.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from . import by_level, kernels, windows
from .cell_sums import cell_sums
from .geometry import (
    AxisWeights,
    axis_extent,
    axis_weights,
    resolve_aggregation,
    samples_that_matter,
)

BACKENDS = ("auto", "torch", "triton")
# Values of one chunk of a maximum's samples; bounds the memory beside the result to 64 MB.
_CHUNK = 1 << 24


def assign_levels(
    rois: torch.Tensor,
    scales: Sequence[float],
    canonical_box_size: float = 224,
    canonical_level: int = 4,
) -> torch.Tensor:
    """FPN Eq. 1: k = floor(k0 + log2(sqrt(area) / 224)), clamped to the levels that there are.

    Args:
        rois: (R, 5) float, (batch index, x0, y0, x1, y1), input pixels
        scales: cells an input pixel, one a level, from fine to coarse: 2**-k
        canonical_box_size: side in pixels of the RoI that goes to `canonical_level`
        canonical_level: k0
    Returns:
        (R,) int64, index into `scales`
    """
    finest, coarsest = (-int(torch.tensor(s).log2()) for s in (scales[0], scales[-1]))
    side = torch.sqrt((rois[:, 3] - rois[:, 1]) * (rois[:, 4] - rois[:, 2]))
    # The 1e-8 is Detectron2's: a RoI without area must not give log2(0).
    level = torch.floor(canonical_level + torch.log2(side / canonical_box_size + 1e-8))
    return level.clamp(finest, coarsest).to(torch.int64) - finest


def multilevel_roi_features(
    features: Sequence[torch.Tensor],
    rois: torch.Tensor,
    levels: torch.Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int = 0,
    layer: str = "RoIAlignV2",
    aggregation: str | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Cut R RoIs out of a pyramid, each from its level.

    Args:
        features: L tensors (N, C, Hl, Wl), one dtype: float64, float32, float16 or bfloat16; any
            strides. Channels innermost (torch.channels_last) saves a copy
        rois: (R, 5) float, (batch index, x0, y0, x1, y1), input pixels; R may be 0
        levels: (R,) int, index into `features`
        output_size: (PH, PW), bins
        scales: cells an input pixel, 1 / stride, one a level
        sampling_ratio: samples a bin and axis; 0 is adaptive, one for each cell that the bin is
            long, rounded up. RoIPool has none and ignores it
        layer: RoIPool, RoIWarp, RoIAlign or RoIAlignV2
        aggregation: ave or max of a bin's samples; None is the layer's own, max for RoIPool, ave
            for the others
        backend: torch, triton or auto
    Returns:
        (R, C, PH, PW) of the features' dtype, computed in float32 at least. Differentiable in the
        features, not in the RoIs. Two backward passes give the same bits on a CPU, and on a GPU
        with triton while `torch.use_deterministic_algorithms` is on
    Raises:
        ValueError: shapes, values or names that do not fit
    """
    aggregation = resolve_aggregation(layer, aggregation)
    _check(features, rois, levels, output_size, scales, sampling_ratio)
    route = _choose(backend, features, layer, aggregation)
    # Half precision has no room for positions: 1215.5 does not exist in bfloat16.
    rois = rois.detach().to(torch.promote_types(rois.dtype, torch.float32))
    if route == "triton":
        ordered = torch.are_deterministic_algorithms_enabled()
        return kernels.multilevel_roi_average(
            features,
            rois.float(),
            levels,
            output_size,
            scales,
            sampling_ratio,
            layer,
            ordered=ordered,
        )
    if route == "levels":
        return by_level.roi_features(
            features, rois, levels, output_size, scales, sampling_ratio, layer, aggregation
        )
    settings = _Settings(rois, levels, output_size, tuple(scales), sampling_ratio, layer)
    function = _WindowAverage if aggregation == "ave" else _WindowMaximum
    # Autocast would round weights and sums to half precision on the way.
    with torch.autocast("cpu", enabled=False):
        return function.apply(settings, *features)


def _choose(backend: str, features: Sequence[torch.Tensor], layer: str, aggregation: str) -> str:
    """triton, levels or windows; raises ValueError for what the named backend cannot do."""
    if backend not in BACKENDS:
        raise ValueError(f"backend is {backend!r}, expected one of {', '.join(BACKENDS)}")
    device, dtype = features[0].device.type, features[0].dtype
    route = "windows" if device == "cpu" and layer != "RoIPool" else "levels"
    if torch.jit.is_tracing():
        if backend == "triton" or (aggregation == "max" and layer != "RoIPool"):
            raise ValueError(
                f"{layer} with {aggregation} on backend {backend} cannot be traced; averages and "
                "RoIPool can, on backend torch or auto"
            )
        route = "levels"  # windows are Python numbers, which a trace would freeze
    elif backend == "triton":
        if aggregation != "ave":
            raise ValueError(
                f"the triton backend has averages only, not {layer} with {aggregation}; "
                "use backend torch or auto"
            )
        runs, why_not = kernels.is_available()
        if not runs:
            raise ValueError(f"the triton backend does not run here: {why_not}; use torch or auto")
        route = "triton"
    elif backend == "auto" and device == "cuda" and aggregation == "ave":
        known = dtype in kernels.DTYPES and len(features) <= kernels.MOST_LEVELS
        if known and kernels.is_available()[0]:
            route = "triton"
    _log_once(layer, aggregation, device, route)
    return route


@functools.cache
def _log_once(layer: str, aggregation: str, device: str, route: str) -> None:
    text = {
        "triton": "one Triton kernel for all levels",
        "levels": "torchvision's kernels, level by level",
        "windows": "windowed matrix products",
    }[route]
    logging.getLogger(__name__).info("%s (%s) on %s: %s", layer, aggregation, device, text)


def _check(
    features: Sequence[torch.Tensor],
    rois: torch.Tensor,
    levels: torch.Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
) -> None:
    if len(output_size) != 2 or min(output_size) < 1:
        raise ValueError(f"output_size is {output_size}, expected (height, width) of at least 1")
    if sampling_ratio < 0:
        raise ValueError(f"sampling_ratio is {sampling_ratio}, expected 0 (adaptive) or more")
    if not features or len(features) != len(scales):
        raise ValueError(f"got {len(features)} feature maps for {len(scales)} scales")
    first = features[0]
    for f in features:
        if f.dim() != 4 or f.shape[:2] != first.shape[:2] or not f.is_floating_point():
            raise ValueError(
                f"got a feature map of {f.dtype}, shape {tuple(f.shape)}, expected floats "
                f"(N, C, H, W) with N, C = {tuple(first.shape[:2])} as in the first"
            )
        if f.dtype != first.dtype or f.device != first.device:
            raise ValueError(
                f"feature maps differ: {first.dtype} on {first.device}, {f.dtype} on {f.device}"
            )
    if rois.dim() != 2 or rois.shape[1] != 5 or not rois.is_floating_point():
        raise ValueError(
            f"got RoIs of {rois.dtype}, shape {tuple(rois.shape)}, expected floats (R, 5): "
            "(batch index, x0, y0, x1, y1)"
        )
    if levels.shape != rois.shape[:1]:
        raise ValueError(f"got {tuple(levels.shape)} levels for {len(rois)} RoIs")
    # Reading values of a GPU's tensors would stop it; torchvision does not check there either.
    if first.device.type == "cpu" and len(rois) and not torch.jit.is_tracing():
        if not bool(torch.isfinite(rois).all()):
            bad = int((~torch.isfinite(rois).all(1)).nonzero()[0])
            raise ValueError(f"RoI {bad} is not finite: {rois[bad].tolist()}")
        low, high = rois[:, 0].aminmax()
        if low < 0 or high >= len(first):
            raise ValueError(
                f"RoIs have batch indices {low:g} to {high:g}, the features hold {len(first)} "
                "images"
            )
        lowest, highest = levels.aminmax()
        if lowest < 0 or highest >= len(features):
            raise ValueError(f"RoIs have levels {lowest} to {highest}, of {len(features)}")


class _Settings(NamedTuple):
    """A call's arguments beside the features; as `multilevel_roi_features`."""

    rois: torch.Tensor
    levels: torch.Tensor
    output_size: tuple[int, int]
    scales: tuple[float, ...]
    sampling_ratio: int
    layer: str


def _axes(
    settings: _Settings, sizes: list[torch.Size], pick: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """(start, size, cells) of axis y and of axis x, each (R',), of the R' picked RoIs."""
    rois, levels = settings.rois[pick], settings.levels[pick].long()
    scale = rois.new_tensor(settings.scales)[levels]
    axes = []
    for low, high, dim in ((2, 4, 2), (1, 3, 3)):
        cells = rois.new_tensor([size[dim] for size in sizes])[levels]
        axes.append((*axis_extent(rois[:, low], rois[:, high], scale, settings.layer), cells))
    return axes


def _weights(
    settings: _Settings,
    sizes: list[torch.Size],
    pick: torch.Tensor,
    dtype: torch.dtype,
    *,
    average: bool,
) -> tuple[AxisWeights, AxisWeights]:
    """The picked RoIs' weights of rows and of columns, in the dtype that they are used in."""
    axes = _axes(settings, sizes, pick)
    bins, ratio = settings.output_size, settings.sampling_ratio
    with windows.one_thread():
        if average and bins[0] == bins[1]:
            # Both axes are rows of one call: small tensors cost their calls. Rows of a maximum are
            # as many as the axis has samples.
            start, size, cells = (torch.cat(pair) for pair in zip(*axes, strict=True))
            y, x = axis_weights(start, size, cells, bins[0], ratio, average=True).halves()
        else:
            y, x = (
                axis_weights(*axis, count, ratio, average=average)
                for axis, count in zip(axes, bins, strict=True)
            )
    y.weights, x.weights = y.weights.to(dtype), x.weights.to(dtype)
    return y, x


def _compute_dtype(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _empty(settings: _Settings, sizes: list[torch.Size]) -> bool:
    """No RoI, no channel or no cell anywhere: the features are zeros and nothing is computed."""
    return not len(settings.rois) or not any(size.numel() for size in sizes)


def _format_of(features: Sequence[torch.Tensor]) -> torch.memory_format:
    """What RoI features and gradients come in: channels_last if the features do."""
    last = torch.channels_last
    first = features[0]
    # A map of one channel or one cell is both.
    if first.is_contiguous(memory_format=last) and not first.is_contiguous():
        return last
    return torch.contiguous_format


class _WindowAverage(torch.autograd.Function):
    """RoIAlign, RoIAlignV2 and RoIWarp with `ave` on a CPU."""

    @staticmethod
    def forward(ctx: Any, settings: _Settings, *features: torch.Tensor) -> torch.Tensor:
        first, rois = features[0], settings.rois
        ctx.sizes, ctx.dtype = [f.shape for f in features], first.dtype
        ctx.format = _format_of(features)
        dtype = _compute_dtype(first.dtype)
        shape = (len(rois), first.shape[1], *settings.output_size)
        ctx.windows, ctx.sums = None, None
        if _empty(settings, ctx.sizes):
            return torch.zeros(shape, dtype=first.dtype)
        y, x = _weights(settings, ctx.sizes, torch.arange(len(rois)), dtype, average=True)
        ctx.sums = cell_sums(ctx.sizes, settings.levels, rois[:, 0], y, x)
        if ctx.sums is not None:
            return ctx.sums.forward(features).to(first.dtype).contiguous(memory_format=ctx.format)
        ctx.windows = windows.Windows(settings.levels, rois[:, 0], y, x)
        out = torch.empty(shape, dtype=dtype, memory_format=ctx.format)
        windows.average_forward(features, ctx.windows, out)
        return out.to(first.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # an error is better than a second gradient of 0
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        dtype = _compute_dtype(ctx.dtype)
        if ctx.sums is not None:
            grads = ctx.sums.backward(grad.to(dtype))
            return (None, *(g.to(ctx.dtype).contiguous(memory_format=ctx.format) for g in grads))
        pictures = ctx.windows.of if ctx.windows is not None else {}
        into = []
        for level, size in enumerate(ctx.sizes):
            grads = torch.empty(size, dtype=dtype, memory_format=ctx.format)
            for image in range(size[0]):
                # Zeros are fresh memory touched twice; most pictures are overwritten whole.
                added_to = windows.is_channels_innermost(grads[image])
                if added_to or (level, image) not in pictures:
                    grads[image] = 0
            into.append(grads)
        if pictures:
            windows.average_backward(_dense(grad, dtype), ctx.windows, into)
        return (None, *(g.to(ctx.dtype) for g in into))


class _WindowMaximum(torch.autograd.Function):
    """RoIAlign, RoIAlignV2 and RoIWarp with `max` on a CPU.

    Samples are linear as averages are; their maximum is pooled in chunks of RoIs that have equally
    many samples, and only its place is kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, settings: _Settings, *features: torch.Tensor) -> torch.Tensor:
        first, rois, bins = features[0], settings.rois, settings.output_size
        ctx.settings, ctx.sizes, ctx.dtype = settings, [f.shape for f in features], first.dtype
        ctx.format = _format_of(features)
        dtype, channels = _compute_dtype(first.dtype), first.shape[1]
        out = torch.zeros((len(rois), channels, *bins), dtype=dtype)
        out = out.contiguous(memory_format=ctx.format)
        ctx.chunks = []
        if not _empty(settings, ctx.sizes):
            # Every chunk reads every level: turned once.
            features = tuple(
                f.to(dtype).contiguous(memory_format=torch.channels_last) for f in features
            )
            for pick, sides in _chunks(settings, ctx.sizes, channels):
                y, x = _weights(settings, ctx.sizes, pick, dtype, average=False)
                found = windows.Windows(settings.levels[pick], rois[pick, 0], y, x)
                # Channels innermost: what max_pool2d vectorises.
                shape = (len(pick), channels, bins[0] * sides[0], bins[1] * sides[1])
                samples = torch.empty(shape, dtype=dtype, memory_format=torch.channels_last)
                windows.average_forward(features, found, samples)
                out[pick], place = F.max_pool2d(samples, sides, return_indices=True)
                # (R', PH, PW, C), index into the RoI's A x B samples
                ctx.chunks.append((pick, sides, found, place.permute(0, 2, 3, 1).int()))
        return out.to(first.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable  # an error is better than a second gradient of 0
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        dtype, bins = _compute_dtype(ctx.dtype), ctx.settings.output_size
        grad = grad.to(dtype).permute(0, 2, 3, 1)
        into = [
            torch.empty(size, dtype=dtype, memory_format=torch.channels_last).zero_()
            for size in ctx.sizes
        ]
        for pick, sides, found, place in ctx.chunks:
            rows, columns, channels = bins[0] * sides[0], bins[1] * sides[1], grad.shape[3]
            samples = torch.zeros(len(pick), rows * columns, channels, dtype=dtype)
            samples.scatter_(1, place.flatten(1, 2).long(), grad[pick].flatten(1, 2))
            samples = samples.view(len(pick), rows, columns, channels).permute(0, 3, 1, 2)
            windows.average_backward(samples, found, into)
        return (None, *(g.to(ctx.dtype).contiguous(memory_format=ctx.format) for g in into))


def _dense(grad: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The gradient as it is if it is contiguous in one of the two formats; a copy otherwise."""
    grad = grad.to(dtype)
    return grad if grad.is_contiguous(memory_format=torch.channels_last) else grad.contiguous()


def _chunks(
    settings: _Settings, sizes: list[torch.Size], channels: int
) -> list[tuple[torch.Tensor, tuple[int, int]]]:
    """RoIs with equally many samples a bin: their indices, ascending, and the bin's samples."""
    output_size, ratio = settings.output_size, settings.sampling_ratio
    axes = _axes(settings, sizes, torch.arange(len(settings.rois)))
    per_bin = torch.stack(
        [
            samples_that_matter(size, bins, ratio, cells).clamp(min=1)
            for (_, size, cells), bins in zip(axes, output_size, strict=True)
        ],
        dim=1,
    )
    sides, group = torch.unique(per_bin, dim=0, return_inverse=True)
    result = []
    for g, (side_y, side_x) in enumerate(sides.tolist()):
        values = output_size[0] * side_y * output_size[1] * side_x * channels
        members = (group == g).nonzero()[:, 0]
        for part in members.split(max(1, _CHUNK // max(values, 1))):
            result.append((part, (side_y, side_x)))
    return result
