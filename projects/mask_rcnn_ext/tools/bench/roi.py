"""Our RoI layers beside Detectron2's: time, peak memory and difference, in one process.

Shape shorthand: R RoIs of all images, C channels, P x P bins.

Each turn runs ours, then stock, forward and backward; see `timing.py`. Stock has neither a maximum
over bilinear samples nor RoIWarp; there the nearest thing that it has is the measure of the speed,
and no difference is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes

from ...modeling import RoIExtractor
from .boxes import DISTRIBUTION, random_boxes
from .timing import Spread, clock, environment, megabytes, peak_memory, say, table

Pooler = Callable[[list[torch.Tensor], list[Boxes]], torch.Tensor]

_SEED = 0
_PYRAMID = (4, 8, 16, 32)


@dataclass(frozen=True)
class Case:
    """A layer of ours and what stock has to set against it.

    comparable: both compute the same function
    strides: of the levels; channels, rois: of each level, of each image
    """

    key: str
    layer: str
    aggregation: str
    stock: str
    comparable: bool
    strides: tuple[int, ...] = _PYRAMID
    channels: int = 256
    rois: int = 512

    @property
    def name(self) -> str:
        where = "P2-P5" if len(self.strides) > 1 else f"stride {self.strides[0]}"
        return f"{self.layer} {self.aggregation}, {where}"


# The paper trains with 512 RoIs an image on the pyramid and with 64 on one level (section 3.1).
CASES = (
    Case("v2", "RoIAlignV2", "ave", "ROIAlignV2", True),
    Case("align", "RoIAlign", "ave", "ROIAlign", True),
    Case("max", "RoIAlign", "max", "ROIAlign", False),
    Case("pool", "RoIPool", "max", "ROIPool", True),
    Case("warp", "RoIWarp", "ave", "ROIAlign", False),
    Case("c4", "RoIAlignV2", "ave", "ROIAlignV2", True, (16,), 1024, 64),
    Case("c5", "RoIAlignV2", "ave", "ROIAlignV2", True, (32,), 2048, 64),
)


@dataclass(frozen=True)
class Scale:
    """How large the workload is; `most_*` cap what a case asks for."""

    images: int = 2
    height: int = 800
    width: int = 1216
    most_channels: int = 1 << 30
    most_rois: int = 1 << 30
    warm_up: int = 1


FULL = Scale()
QUICK = Scale(height=96, width=128, most_channels=8, most_rois=16)


@dataclass
class Side:
    """What one of the two did: seconds of each repeat, peak bytes of one forward and backward."""

    forward: list[float] = field(default_factory=list)
    backward: list[float] = field(default_factory=list)
    memory: float | None = None

    @property
    def both(self) -> list[float]:
        return [f + b for f, b in zip(self.forward, self.backward, strict=True)]

    def as_json(self) -> dict[str, Any]:
        answer: dict[str, Any] = {"peak_bytes": self.memory}
        for name in ("forward", "backward", "both"):
            seconds = getattr(self, name)
            answer[name] = {"seconds": seconds, **Spread.of(seconds).as_json()}
        return answer


@dataclass
class Result:
    """One row pair of the table; differences are largest absolute ones, None if not comparable."""

    case: Case
    size: int
    dtype: torch.dtype
    rois: int
    channels: int
    ours: Side
    stock: Side
    output_difference: float | None = None
    gradient_difference: float | None = None

    def ratio(self, what: str) -> Spread:
        """Stock's time over ours, turn by turn; above 1 ours is faster."""
        pairs = zip(getattr(self.stock, what), getattr(self.ours, what), strict=True)
        return Spread.of([stock / ours for stock, ours in pairs])

    def as_json(self) -> dict[str, Any]:
        return {
            "case": self.case.key,
            "name": self.case.name,
            "stock": self.case.stock,
            "same_function": self.case.comparable,
            "output_size": self.size,
            "dtype": dtype_name(self.dtype),
            "rois_per_image": self.rois,
            "channels": self.channels,
            "ours": self.ours.as_json(),
            "stock_side": self.stock.as_json(),
            "ratio": {w: self.ratio(w).as_json() for w in ("forward", "backward", "both")},
            "max_output_difference": self.output_difference,
            "max_gradient_difference": self.gradient_difference,
        }


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@dataclass
class _Work:
    """Inputs of a case, the same for both sides."""

    features: list[torch.Tensor]
    boxes: list[Boxes]
    grad: torch.Tensor
    autocast: Callable[[], contextlib.AbstractContextManager[Any]]

    def forward(self, pooler: Pooler) -> torch.Tensor:
        with self.autocast():
            return pooler(self.features, self.boxes)

    def backward(self, out: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.autograd.grad(out, self.features, self.grad.to(out.dtype))


def compare(
    case: Case, size: int, dtype: torch.dtype, device: torch.device, repeats: int, scale: Scale
) -> Result:
    """Time and measure both sides of one case.

    Args:
        case: of CASES
        size: P
        dtype: of the features; float16 and bfloat16 run under autocast, as in training
        device: where
        repeats: turns after the warm-up
        scale: FULL, or QUICK for a smoke test
    """
    rois, channels = min(case.rois, scale.most_rois), min(case.channels, scale.most_channels)
    scales = tuple(1 / s for s in case.strides)
    work = _work(case.strides, channels, rois, size, dtype, device, scale)
    poolers: tuple[Pooler, Pooler] = (
        RoIExtractor(size, scales, 0, case.layer, case.aggregation),
        ROIPooler(size, scales, 0, case.stock),
    )
    result = Result(case, size, dtype, rois, channels, Side(), Side())
    sides = (result.ours, result.stock)
    for turn in range(-scale.warm_up * (10 if device.type == "cuda" else 1), repeats):
        for pooler, side in zip(poolers, sides, strict=True):
            forward, out = clock(lambda p=pooler: work.forward(p), device)  # type: ignore[misc]
            backward, grads = clock(lambda o=out: work.backward(o), device)  # type: ignore[misc]
            if turn >= 0:
                side.forward.append(forward)
                side.backward.append(backward)
            del out, grads  # else one side's result would be in memory while the other runs
    for pooler, side in zip(poolers, sides, strict=True):
        side.memory = peak_memory(lambda p=pooler: _once(work, p), device)  # type: ignore[misc]
    if case.comparable:
        (ours, our_grads), (stock, stock_grads) = (_once(work, pooler) for pooler in poolers)
        result.output_difference = _difference([ours], [stock])
        result.gradient_difference = _difference(our_grads, stock_grads)
    return result


def _work(
    strides: Sequence[int],
    channels: int,
    rois: int,
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    scale: Scale,
) -> _Work:
    generator = torch.Generator().manual_seed(_SEED)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    features = [
        normal(scale.images, channels, scale.height // s, scale.width // s).requires_grad_()
        for s in strides
    ]
    boxes = [
        Boxes(random_boxes(rois, scale.height, scale.width, _SEED + i).to(device))
        for i in range(scale.images)
    ]
    low_precision = dtype in (torch.float16, torch.bfloat16)
    return _Work(
        features,
        boxes,
        normal(scale.images * rois, channels, size, size),
        lambda: torch.autocast(device.type, dtype) if low_precision else contextlib.nullcontext(),
    )


def _once(work: _Work, pooler: Pooler) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    out = work.forward(pooler)
    return out.detach(), work.backward(out)


def _difference(ours: Sequence[torch.Tensor], stock: Sequence[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ours, stock, strict=True))


def run_cases(
    cases: Sequence[Case],
    sizes: Sequence[int],
    dtypes: Sequence[torch.dtype],
    device: torch.device,
    repeats: int,
    scale: Scale,
) -> tuple[list[Result], dict[str, Any]]:
    """All combinations, and the facts that go with them."""
    results = []
    for case in cases:
        for size in sizes:
            for dtype in dtypes:
                say(f"{case.name}, {size}x{size}, {dtype_name(dtype)}")
                results.append(compare(case, size, dtype, device, repeats, scale))
    facts = {
        **environment(device),
        "repeats": repeats,
        "images": scale.images,
        "image_size": [scale.height, scale.width],
        "rois": DISTRIBUTION,
        "seed": _SEED,
        "sampling_ratio": 0,
        "quick": scale is QUICK,
    }
    return results, facts


def as_text(results: Sequence[Result], facts: dict[str, Any]) -> str:
    """The table, two rows a case, and what one must know to read it."""
    header = ["layer", "out", "dtype", "whose", "forward, ms", "backward, ms", "both, ms"]
    header += ["stock / ours", "peak MB", "max |diff| out, grad"]
    rows = []
    for result in results:
        for whose, side in (("ours", result.ours), ("stock", result.stock)):
            ours = whose == "ours"
            difference = "-"
            if result.output_difference is not None and result.gradient_difference is not None:
                difference = f"{result.output_difference:.1e}, {result.gradient_difference:.1e}"
            rows.append(
                [
                    result.case.name if ours else f"  {result.case.stock}",
                    f"{result.size}x{result.size}" if ours else "",
                    dtype_name(result.dtype) if ours else "",
                    whose,
                    *(
                        Spread.of(times).text(1e3)
                        for times in (side.forward, side.backward, side.both)
                    ),
                    result.ratio("both").text(digits=2) if ours else "",
                    megabytes(side.memory),
                    difference if ours else "",
                ]
            )
    counts = sorted({(r.case.strides, r.rois, r.channels) for r in results})
    sizes = "; ".join(
        f"{n} RoIs an image, {c} channels at stride{'s' if len(s) > 1 else ''} "
        + ", ".join(map(str, s))
        for s, n, c in counts
    )
    height, width = facts["image_size"]
    return "\n".join(
        [
            f"{facts['device_name']}, {facts['device']}, {facts['threads']} threads, torch "
            f"{facts['torch']}; {facts['repeats']} repeats, ours and stock in turns",
            f"{facts['images']} images of {height}x{width}; {sizes}",
            f"RoIs: {facts['rois']}; seed {facts['seed']}; adaptive sampling",
            table(header, rows),
            "Times are medians (quartiles); the ratio is taken turn by turn, forward and backward "
            "together.",
            "Peak: memory beyond the inputs of one forward and backward, result and gradients "
            "included.",
            "A difference is given where both compute the same. Stock has no maximum over bilinear "
            "samples and no RoIWarp: its ROIAlign, an average, stands in for the speed.",
            *_low_precision_note(results),
        ]
    )


def _low_precision_note(results: Sequence[Result]) -> list[str]:
    if all(r.dtype in (torch.float32, torch.float64) for r in results):
        return []
    return [
        "In float16 and bfloat16 (autocast) stock rounds the RoIs themselves to the features' "
        "dtype before its RoIAlign, so that the difference is mostly its own."
    ]
