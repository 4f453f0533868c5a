"""The Triton kernels of the RoI layers on the CPU; test_roi_triton.py runs this file.

Triton decides when it is imported whether it interprets, so these tests need a process of their
own: TRITON_INTERPRET=1 pytest tests/ops/kernels/roi_triton_cases.py
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
from torchvision.ops import roi_align

from mask_rcnn_ext.ops.kernels import is_available, multilevel_roi_average
from mask_rcnn_ext.ops.reference import roi_layer_reference

pytestmark = pytest.mark.filterwarnings("ignore:(divide by zero|invalid value):RuntimeWarning")

LAYERS = ("RoIAlign", "RoIAlignV2", "RoIWarp")
SCALES = (1 / 4, 1 / 8)
# (level, image, x0, y0, x1, y1) for levels of 5 x 7 and 3 x 4 cells.
SPECIAL = (
    (0, 1, 1.0, 2.0, 27.5, 18.0),  # over the level
    (1, 0, -20.0, -9.0, 15.5, 60.0),  # across the border
    (0, 0, 100.0, 3.0, 120.0, 12.0),  # outside
    (1, 1, 8.0, 8.0, 8.0, 8.0),  # without extent
    (0, 1, 20.0, 16.0, 10.0, 4.0),  # inverted
    (1, 0, -8.0, -24.0, 8.0, 32.0),  # samples exactly at -1 and L
    (0, 0, 3.0, 1.0, 3.5, 1.25),  # much smaller than a cell
    (0, 1, -300.0, -200.0, 500.0, 300.0),  # bins of more samples than are looked at
)


@pytest.fixture(autouse=True)
def _unwritten_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns
    yield
    torch.use_deterministic_algorithms(False)


@dataclass
class Call:
    """Arguments, and what came of them."""

    layer: str
    ratio: int = 0
    output_size: tuple[int, int] = (2, 3)
    ordered: bool = True
    dtype: torch.dtype = torch.float32
    channels: int = 3
    rows: tuple[tuple[float, ...], ...] = SPECIAL
    sizes: tuple[tuple[int, int], ...] = ((5, 7), (3, 4))
    features: list[torch.Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(7)
        self.features = [
            torch.randn(2, self.channels, h, w, generator=generator).to(self.dtype)
            for h, w in self.sizes
        ]
        self.rois = torch.tensor([row[1:] for row in self.rows]).reshape(-1, 5)
        self.levels = torch.tensor([int(row[0]) for row in self.rows], dtype=torch.int64)
        shape = (len(self.rows), self.channels, *self.output_size)
        self.grad_out = torch.randn(shape, generator=generator).to(self.dtype)

    def forward(self) -> torch.Tensor:
        return multilevel_roi_average(
            self.features, self.rois, self.levels, self.output_size, SCALES[: len(self.features)],
            self.ratio, self.layer, ordered=self.ordered,
        )  # fmt: skip

    def run(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """(RoI features, gradient of each level)."""
        leaves = self.features = [f.detach().requires_grad_() for f in self.features]
        out = self.forward()
        self.features = [f.detach() for f in leaves]
        assert out.shape == self.grad_out.shape
        assert out.dtype == self.dtype
        assert out.is_contiguous(memory_format=torch.channels_last)
        grads = torch.autograd.grad(out, leaves, self.grad_out)
        assert [g.dtype for g in grads] == [self.dtype] * len(leaves)
        return out.detach(), list(grads)

    def reference(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The same in float64, by loops."""
        out = torch.zeros(self.grad_out.shape, dtype=torch.float64)
        grads = []
        for i, (feature, scale) in enumerate(zip(self.features, SCALES, strict=False)):
            here = self.levels == i
            out[here], grad = roi_layer_reference(
                feature, self.rois[here], self.output_size, scale, self.ratio, self.layer, "ave",
                self.grad_out[here],
            )  # fmt: skip
            grads.append(grad)
        return out, grads

    def check(self, tolerance: float = 2e-6) -> None:
        out, grads = self.run()
        expected, expected_grads = self.reference()
        close = {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(out.double(), expected, **close)
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad.double(), expected_grad, **close)


def test_the_interpreter_counts_as_available():
    runs, text = is_available()
    assert runs
    assert "interpreted" in text


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_forward_and_gradient_equal_the_loops(layer: str, ratio: int):
    Call(layer, ratio, rows=SPECIAL[2:7] if ratio else SPECIAL).check()


@pytest.mark.parametrize("layer", ["RoIAlignV2", "RoIWarp"])
def test_atomic_gradient_equals_the_loops(layer: str):
    Call(layer, ordered=False, rows=SPECIAL[:2] + SPECIAL[3:6]).check()
    Call(layer, 3, ordered=False, rows=SPECIAL[5:7]).check()


def test_blocks_of_channels_and_of_bins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mask_rcnn_ext.ops.kernels.roi_triton._WARP_BYTES", 16)
    for ordered in (True, False):  # 5 channels in blocks of 4, 9 bins in blocks of 8
        Call("RoIAlignV2", 0, (1, 9), ordered, channels=5, rows=SPECIAL[:2]).check()


@pytest.mark.parametrize("layer", ["RoIAlign", "RoIAlignV2"])
def test_equals_torchvision(layer: str):
    generator = torch.Generator().manual_seed(1)
    # Eighths of a pixel and scale 1/4: many samples fall on cells, edges and the border.
    corners = torch.randint(-60, 280, (6, 2, 2), generator=generator).sort(dim=1).values / 8
    rows = tuple((0.0, i % 2, *c) for i, c in enumerate(corners.flatten(1).tolist()))
    for ratio in (0, 1):
        call = Call(layer, ratio, (3, 2), rows=rows, sizes=((5, 7),))
        expected = roi_align(
            call.features[0], call.rois, (3, 2), SCALES[0], ratio, layer == "RoIAlignV2"
        )
        torch.testing.assert_close(call.forward(), expected, rtol=1e-6, atol=1e-6)


def test_samples_at_the_very_border_count():
    """Three samples a bin at -1, 0, 1: a division that is not exact would lose the first."""
    rows = ((0.0, 0.0, -6.0, -6.0, 30.0, 30.0),)  # start -1.5, bins of 3 cells with 3 samples
    call = Call("RoIAlign", 0, (3, 3), rows=rows)
    call.features[0].fill_(1.0)
    out = call.forward()
    # Per axis: -1, 0, 1 inside; 2, 3, 4 inside; 5 (and 6) at L inside in y (x), the rest outside.
    y, x = torch.tensor([1, 1, 1 / 3]), torch.tensor([1, 1, 1.0])
    torch.testing.assert_close(out[0, 0], y[:, None] * x)


def test_a_size_that_divides_exactly_has_no_sample_too_many():
    row = (0.0, 0.0, 0.0, 4.0, 84.0, 8.0)  # 21 cells, 7 bins: 3 samples, not 4
    call = Call("RoIAlign", 0, (1, 7), channels=1, rows=(row,), sizes=((3, 22),))
    call.features[0] = torch.arange(22.0).square().expand(2, 1, 3, 22)
    expected = [sum((3 * p + k) ** 2 + 3 * p + k + 0.5 for k in range(3)) / 3 for p in range(7)]
    assert call.forward().flatten().tolist() == pytest.approx(expected)


def test_half_a_cell_rounds_away_from_zero_and_less_does_not():
    cell = torch.arange(7.0).expand(5, 7)
    rows = []
    for x in (2.5, 1.5, 0.49999997):  # cells; image pixels are four times that
        rows.append((0.0, 0.0, 4 * x, 4.0, 4 * x, 4.0))
    call = Call("RoIWarp", 1, (1, 1), channels=1, rows=tuple(rows))
    call.features[0] = cell.expand(2, 1, 5, 7).contiguous()
    assert call.forward().flatten().tolist() == [3.0, 2.0, 0.0]


def test_no_rois():
    out, grads = Call("RoIAlignV2", rows=()).run()
    assert out.shape == (0, 3, 2, 3)
    assert [g.abs().max().item() for g in grads] == [0.0, 0.0]
    assert [g.shape for g in grads] == [(2, 3, 5, 7), (2, 3, 3, 4)]


def test_strides_of_the_features_do_not_matter():
    call = Call("RoIAlignV2", rows=SPECIAL[:2])
    expected = call.forward()
    wide = torch.zeros(2, 6, 5, 9)
    wide[:, ::2, :, 1:8] = call.features[0]
    call.features[0] = wide[:, ::2, :, 1:8]
    call.features[1] = call.features[1].contiguous(memory_format=torch.channels_last)
    assert torch.equal(call.forward(), expected)
    call.grad_out = call.grad_out[:, :1].expand(-1, 3, -1, -1)
    call.check()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_only_at_the_end(dtype: torch.dtype):
    # Half a unit in the last place, and a rounding of the float32 result that falls on the edge.
    Call("RoIAlignV2", dtype=dtype, rows=SPECIAL[:2]).check(0.51 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("ordered", [True, False])
def test_half_precision_gradient_adds_up_in_float32(ordered: bool, monkeypatch: pytest.MonkeyPatch):
    """1 + 32 times 1/512: in bfloat16 each addition would round back to 1."""
    monkeypatch.setattr("mask_rcnn_ext.ops.kernels.roi_triton._ATOMIC_PARTS", 1)  # faster here
    one = (0.0, 0.0, 0.0, 0.0, 4.0, 4.0)  # RoIAlignV2: one sample, at position 0
    call = Call("RoIAlignV2", 1, (1, 1), ordered, torch.bfloat16, 1, (one,) * 33, ((1, 1),))
    call.grad_out = torch.tensor([1.0] + [1 / 512] * 32, dtype=torch.bfloat16).view(33, 1, 1, 1)
    in_half = torch.zeros((), dtype=torch.bfloat16)
    for g in call.grad_out.flatten():
        in_half = in_half + g
    assert in_half == 1.0
    assert call.run()[1][0][0].item() == 1.0625


def test_ordered_gradient_is_atomic_gradient_and_repeats():
    rows = SPECIAL[:2] + SPECIAL[3:5]
    ordered = Call("RoIAlignV2", rows=rows).run()[1]
    atomic = Call("RoIAlignV2", ordered=False, rows=rows).run()[1]
    again = Call("RoIAlignV2", rows=rows).run()[1]
    for a, b, c in zip(ordered, atomic, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        assert torch.equal(a, c)


def test_ordered_gradient_scans_more_rois_than_one_step_holds():
    rows = tuple((0.0, float(i == 20), i % 5, 1, 9 + i % 7, 9) for i in range(36))
    Call("RoIAlign", 1, (1, 1), channels=1, rows=rows, sizes=((2, 3),)).check(1e-5)


@pytest.mark.parametrize("ordered", [True, False])
def test_a_roi_of_no_image_or_level_gives_zeros(ordered: bool):
    """A precondition that cannot be checked on the GPU; what matters is that no memory is hit."""
    bad = ((0, -1.0), (0, 2.0), (-1, 0.0), (2, 0.0), (10**9, 0.0), (0, float("nan")))
    rows = (SPECIAL[0], *((level, image, 1.0, 2.0, 20.0, 15.0) for level, image in bad))
    call = Call("RoIAlignV2", ordered=ordered, rows=rows)
    out, grads = call.run()
    alone = Call("RoIAlignV2", ordered=ordered, rows=rows[:1])
    alone.grad_out = call.grad_out[:1]
    expected, expected_grads = alone.run()
    assert torch.equal(out[:1], expected)
    assert not out[1:].any()
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        assert torch.equal(grad, expected_grad)


def test_numbers_that_are_not_finite_end():
    inf, nan = float("inf"), float("nan")
    rows = ((0, 0, nan, 1, 9, 9), (0, 0, 0, 0, inf, 9), (1, 0, -inf, -inf, inf, inf),
            (1, 0, -4e8, -4e8, 4e8, 4e8))  # fmt: skip
    assert Call("RoIWarp", output_size=(1, 1), rows=rows).forward().isfinite().all()
    assert Call("RoIAlignV2", output_size=(1, 1), rows=rows).run()[0].isfinite().all()


def test_cells_without_weight_are_not_read():
    # One sample, at position 1: cell 1 has all the weight, its neighbours have none.
    call = Call("RoIAlign", 0, (1, 1), rows=((0.0, 0.0, 2.0, 2.0, 6.0, 6.0),))
    call.features[0][:, :, :, 2:] = float("nan")
    call.features[0][:, :, 2:] = float("nan")
    call.features[0][1] = float("nan")
    assert call.forward().isfinite().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer": "RoIPool"}, "'RoIPool', expected one of RoIAlign, RoIAlignV2, RoIWarp"),
        ({"features": [torch.zeros(1, 1, 2, 2).double()]}, "float64, the Triton kernels take fl"),
        ({"features": [torch.zeros(1, 2, 2)]}, r"shape \(1, 2, 2\), expected \(N, C, H, W\)"),
        ({"features": []}, "0 levels and 1 scales"),
        ({"features": [torch.zeros(1, 1, 2, 2)] * 7, "scales": [1.0] * 7}, "1 to 6"),
        ({"rois": torch.zeros(1, 5).half()}, "RoIs of torch.float16"),
        ({"levels": torch.zeros(1)}, "levels of torch.float32"),
        ({"levels": torch.zeros(2, dtype=torch.int64)}, r"shape \(2,\), .* \(1,\)"),
        ({"output_size": (0, 1)}, r"output_size \(0, 1\)"),
        ({"sampling_ratio": -1}, "sampling_ratio -1"),
    ],
)
def test_arguments_that_do_not_fit(change: dict[str, object], message: str):
    arguments: dict[str, object] = {
        "features": [torch.zeros(1, 1, 2, 2)],
        "rois": torch.zeros(1, 5),
        "levels": torch.zeros(1, dtype=torch.int64),
        "output_size": (1, 1),
        "scales": [1.0],
        "sampling_ratio": 0,
        "layer": "RoIAlign",
    }
    with pytest.raises(ValueError, match=message):
        multilevel_roi_average(**{**arguments, **change}, ordered=True)  # type: ignore[arg-type]
