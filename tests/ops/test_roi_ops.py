"""The RoI layers against loops in float64, against torchvision, and by gradcheck."""

from __future__ import annotations

import pytest
import torch
import torchvision
from hypothesis import HealthCheck, given, settings
from roi_cases import LAYERS, Case, cases, random_features, random_rois

from mask_rcnn_ext.ops import (
    RoIAlign,
    RoIPool,
    RoIWarp,
    by_level,
    cell_sums,
    multilevel,
    roi_align,
    roi_pool,
    roi_warp,
)
from mask_rcnn_ext.ops.multilevel import multilevel_roi_features
from mask_rcnn_ext.ops.reference import roi_layer_reference

ROUTES = ("windows", "levels")


@pytest.fixture
def windows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What large RoIs and large levels take, also for the small ones of a test."""
    monkeypatch.setattr(cell_sums, "_MOST_CELLS", 0)


def _run(case: Case, layer: str, aggregation: str, route: str = "windows") -> torch.Tensor:
    """The layer's features, by the route that a CPU takes or by the one that other devices do."""
    levels = torch.zeros(len(case.rois), dtype=torch.int64)
    settings_ = ([case.features], case.rois, levels, case.output_size, [case.scale], case.ratio)
    if route == "levels":
        return by_level.roi_features(*settings_, layer, aggregation)
    return multilevel_roi_features(*settings_, layer, aggregation)


def _assert_equals_reference(case: Case, layer: str, aggregation: str, route: str) -> None:
    features = case.features.requires_grad_()
    case = Case(features, case.rois, case.output_size, case.scale, case.ratio)
    out = _run(case, layer, aggregation, route)
    grad_out = torch.rand_like(out)
    out.backward(grad_out)
    expected, expected_grad = roi_layer_reference(
        features, case.rois, case.output_size, case.scale, case.ratio, layer, aggregation, grad_out
    )
    assert out.shape == expected.shape
    torch.testing.assert_close(out.detach(), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(features.grad, expected_grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_forward_and_gradient_equal_the_loops(layer: str, aggregation: str, case: Case):
    _assert_equals_reference(case, layer, aggregation, "windows")


@pytest.mark.parametrize("layer", ["RoIWarp", "RoIAlign", "RoIAlignV2"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(case=cases())
def test_averages_by_windows_equal_the_loops(windows_only: None, layer: str, case: Case):
    _assert_equals_reference(case, layer, "ave", "windows")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("output_size", [(7, 7), (3, 5)])
def test_sums_of_cells_are_the_products_of_windows(
    monkeypatch: pytest.MonkeyPatch, output_size: tuple[int, int], channels_last: bool
):
    """The two ways of an average, over levels; a level of no cells, one of no RoI, bits repeat."""
    sizes, scales = ((24, 30), (12, 15), (0, 8), (6, 8)), [1 / 4, 1 / 8, 1 / 16, 1 / 16]
    rois, levels = random_rois(30, 2, 96, 120), torch.arange(30) % 3
    taken, found = [], []
    real = multilevel.cell_sums
    for most in (0, 4096, 4096):
        monkeypatch.setattr(cell_sums, "_MOST_CELLS", most)
        monkeypatch.setattr(
            multilevel, "cell_sums", lambda *args: taken.append(real(*args)) or taken[-1]
        )
        features = [
            random_features(2, 3, max(h, 1), w, seed=i)[:, :, :h] for i, (h, w) in enumerate(sizes)
        ]
        order = torch.channels_last if channels_last else torch.contiguous_format
        features = [f.float().contiguous(memory_format=order).requires_grad_() for f in features]
        out = multilevel_roi_features(features, rois.float(), levels, output_size, scales)
        out.square().sum().backward()
        found.append((out.detach(), *(f.grad for f in features)))
    assert [sums is None for sums in taken] == [True, False, False]
    for by_windows, by_sums, again in zip(*found, strict=True):
        torch.testing.assert_close(by_sums, by_windows, rtol=1e-4, atol=1e-5)
        assert torch.equal(by_sums, again)
        if by_sums.numel():
            assert by_sums.stride() == by_windows.stride()
    assert not found[1][4].any()


def test_large_levels_and_large_rois_go_by_windows(monkeypatch: pytest.MonkeyPatch):
    features = random_features(1, 2, 40, 40)
    small, large = ([[0, 8.0, 8, 24, 24]], [[0, 0.0, 0, 40, 40]])
    taken = []
    real = multilevel.cell_sums
    monkeypatch.setattr(
        multilevel, "cell_sums", lambda *args: taken.append(real(*args)) or taken[-1]
    )
    level = torch.zeros(1, dtype=torch.int64)

    def run(roi: list[list[float]]) -> None:
        multilevel_roi_features([features], torch.tensor(roi).double(), level, (2, 2), [1.0])

    run(small)
    run(large)  # a bin of 20 x 20 cells: 4 * 21 * 21 with weights, still few
    monkeypatch.setattr(cell_sums, "_MOST_CELLS", 1000)
    run(large)
    monkeypatch.setattr(cell_sums, "_MOST_BYTES", 40 * 40 * 2 * 8 - 1)
    run(small)
    assert [sums is None for sums in taken] == [False, False, True, True]


@pytest.mark.parametrize("most", [0, 4096], ids=["windows", "sums"])
def test_autocast_changes_no_bit(monkeypatch: pytest.MonkeyPatch, most: int):
    """bfloat16 features are averaged in float32, within autocast and outside."""
    monkeypatch.setattr(cell_sums, "_MOST_CELLS", most)
    found = []
    for enabled in (False, True):
        features = random_features(2, 8, 24, 30).bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = roi_align(features, random_rois(20, 2, 96, 120).float(), (7, 7), 1 / 4, 0)
        out.float().square().sum().backward()
        found.append((out.detach(), features.grad))
    for outside, inside in zip(*found, strict=True):
        assert torch.equal(outside, inside)


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
def test_the_route_of_other_devices_equals_the_loops(layer: str, aggregation: str):
    for ratio in (0, 2):
        case = Case(random_features(2, 2, 7, 9), random_rois(12, 2, 56, 72), (3, 2), 1 / 8, ratio)
        _assert_equals_reference(case, layer, aggregation, "levels")
    # Without extent, inverted, outside, on the border.
    special = [[0, 8, 8, 8, 8], [1, 30, 30, 9, 12], [0, -90, 4, -60, 20], [1, 0, 0, 72, 56]]
    special += [[0, 4, 4, 20, 2], [1, 20, 4, 4, 30]]  # inverted on one axis
    rois = torch.tensor(special, dtype=torch.float64)
    case = Case(random_features(2, 2, 7, 9), rois, (2, 2), 1 / 8, 0)
    _assert_equals_reference(case, layer, aggregation, "levels")


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 2])
@settings(max_examples=40, deadline=None)
@given(case=cases())
def test_roi_align_is_torchvisions(aligned: bool, ratio: int, case: Case):
    """RoIs far larger than the level too. Inverted ones crash torchvision's adaptive sampling."""
    if not ratio:
        case.rois[:, 3:] = torch.maximum(case.rois[:, 1:3], case.rois[:, 3:])
    case.features.requires_grad_()
    args = (case.output_size, case.scale, ratio)
    ours = roi_align(case.features, case.rois, *args, aligned=aligned)
    theirs = torchvision.ops.roi_align(case.features, case.rois, *args, aligned=aligned)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    grad_out = torch.rand_like(ours)
    (grad,) = torch.autograd.grad(ours, case.features, grad_out)
    (their_grad,) = torch.autograd.grad(theirs, case.features, grad_out)
    torch.testing.assert_close(grad, their_grad, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(case=cases())
def test_the_reference_of_roi_pool_is_torchvisions(case: Case):
    """The loops themselves, ties included: whole numbers from 0 to 2 are full of them."""
    features = case.features.abs().floor().requires_grad_()
    theirs = torchvision.ops.roi_pool(features, case.rois, case.output_size, case.scale)
    grad_out = torch.rand_like(theirs)
    theirs.backward(grad_out)
    expected, grad = roi_layer_reference(
        features, case.rois, case.output_size, case.scale, 0, "RoIPool", "max", grad_out
    )
    torch.testing.assert_close(theirs.detach(), expected)
    torch.testing.assert_close(features.grad, grad)


def test_numbers_by_hand():
    """A 4 x 4 level of stride 16 whose cell (row i, column j) is 10 i + j.

    RoI x 12 to 44, y 8 to 40, so 0.75 to 2.75 and 0.5 to 2.5 cells from the edge, into 2 x 2 bins:

    - RoIAlignV2 samples each bin's centre, x 1.25 and 2.25, y 1 and 2 from the edge, at positions
      half a cell less: x 0.75, 1.75, y 0.5, 1.5. Value 10 y + x.
    - RoIAlign leaves the half out: x 1.25, 2.25, y 1, 2.
    - RoIPool rounds to columns 1 to 3 and rows 1 (half away from zero) to 3: bins of two columns
      and rows that share the middle one, whose last cells are (2, 2), (2, 3), (3, 2), (3, 3).
    - RoIWarp has the same cells, so x and y from 1 to 4 from the edge; bins of 1.5 cells are
      sampled twice, 0.375 and 1.125 cells in: positions 0.875 and 1.625, then 2.375 and 3.125,
      which reads the border, 3. Means 1.25 and 2.6875.
    """
    cells = 10 * torch.arange(4.0)[:, None] + torch.arange(4.0)
    rois = torch.tensor([[0, 12, 8, 44, 40.0]])
    call = {"output_size": 2, "spatial_scale": 1 / 16}
    by_hand = {
        "v2": (
            roi_align(cells[None, None], rois, **call, aligned=True),
            (5.75, 6.75, 15.75, 16.75),
        ),
        "v1": (roi_align(cells[None, None], rois, **call), (11.25, 12.25, 21.25, 22.25)),
        "pool": (roi_pool(cells[None, None], rois, **call), (22, 23, 32, 33)),
        "warp": (roi_warp(cells[None, None], rois, **call), (13.75, 15.1875, 28.125, 29.5625)),
    }
    for name, (out, expected) in by_hand.items():
        assert out.flatten().tolist() == pytest.approx(expected), name


def test_a_maximum_is_of_samples_not_of_cells():
    """One bin of a 2 x 2 level, sampled at 0.25 and 1 - 0.25 of the way between the cells."""
    cells = torch.tensor([[[[0.0, 4.0], [0.0, 4.0]]]])
    rois = torch.tensor([[0, 0.5, 0.5, 1.5, 1.5]])
    out = roi_align(cells, rois, 1, sampling_ratio=2, aggregation="max", aligned=True)
    assert out.item() == pytest.approx(3.0)


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
@pytest.mark.parametrize("ratio", [0, 2])
def test_gradcheck(layer: str, aggregation: str, ratio: int):
    features = random_features(2, 2, 5, 6, seed=3).requires_grad_()
    rois = random_rois(5, 2, 20, 24, seed=4)
    assert torch.autograd.gradcheck(
        lambda f: _run(Case(f, rois, (2, 3), 0.25, ratio), layer, aggregation), features
    )


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS[1:])
def test_a_second_gradient_is_refused(layer: str, aggregation: str):
    features = random_features(1, 1, 5, 5).requires_grad_()
    out = _run(Case(features, random_rois(2, 1, 20, 20), (2, 2), 0.25, 0), layer, aggregation)
    (grad,) = torch.autograd.grad(out.square().sum(), features, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.6e-2)],
)
def test_each_dtype(layer: str, aggregation: str, dtype: torch.dtype, tolerance: float):
    """Tolerance: a few roundings of the result's own precision; sums are in float32 at least."""
    features = random_features(2, 3, 12, 14).to(dtype)
    rois = random_rois(20, 2, 96, 112).float()
    case = Case(features.requires_grad_(), rois, (4, 4), 1 / 8, 0)
    out = _run(case, layer, aggregation)
    out.backward(torch.ones_like(out))
    expected, grad = roi_layer_reference(features, rois, (4, 4), 1 / 8, 0, layer, aggregation)
    assert out.dtype == features.grad.dtype == dtype
    torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(features.grad.double(), grad, rtol=tolerance, atol=2 * tolerance)


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
def test_strides_do_not_matter(layer: str, aggregation: str):
    plain = random_features(2, 4, 8, 8)
    rois = random_rois(6, 2, 32, 32)
    variants = {
        "contiguous": plain,
        "channels_last": plain.contiguous(memory_format=torch.channels_last),
        "transposed": plain.transpose(2, 3).contiguous().transpose(2, 3),
        "every second": torch.stack([plain, plain], dim=-1).flatten(3)[..., ::2],
        "expanded": plain[:1].expand(2, -1, -1, -1),
    }
    assert not variants["every second"].is_contiguous()
    for name, features in variants.items():
        features = features.detach().requires_grad_()
        case = Case(features, rois, (3, 3), 0.25, 0)
        out = _run(case, layer, aggregation)
        # A gradient of odd strides too, as a head's permute would send.
        out.backward(torch.ones_like(out).transpose(2, 3))
        expected, grad = roi_layer_reference(features, rois, (3, 3), 0.25, 0, layer, aggregation)
        torch.testing.assert_close(out.detach(), expected, msg=name)
        torch.testing.assert_close(features.grad, grad, msg=name)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
def test_nothing_to_do(layer: str, aggregation: str, route: str):
    none = torch.zeros(0, 5, dtype=torch.float64)
    features = random_features(2, 3, 4, 4).requires_grad_()
    out = _run(Case(features, none, (2, 5), 0.25, 0), layer, aggregation, route)
    assert out.shape == (0, 3, 2, 5)
    out.sum().backward()
    assert features.grad is not None
    assert not features.grad.any()


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
def test_no_cells_and_no_channels(layer: str, aggregation: str):
    rois = random_rois(3, 1, 32, 32)
    if layer != "RoIPool":  # torchvision's kernel, which has its own word on that
        empty = torch.zeros(1, 3, 0, 5, dtype=torch.float64)
        out = _run(Case(empty, rois, (2, 2), 0.25, 0), layer, aggregation)
        assert out.shape == (3, 3, 2, 2)
        assert not out.any()
        no_channels = torch.zeros(1, 0, 4, 4, dtype=torch.float64)
        assert _run(Case(no_channels, rois, (2, 2), 0.25, 0), layer, aggregation).shape[1] == 0


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
def test_two_backward_passes_give_the_same_bits(layer: str, aggregation: str):
    features = random_features(2, 8, 40, 40).float().requires_grad_()
    rois = random_rois(200, 2, 160, 160).float()
    grads = []
    for _ in range(2):
        out = _run(Case(features, rois, (7, 7), 0.25, 0), layer, aggregation)
        (grad,) = torch.autograd.grad(out, features, torch.ones_like(out))
        grads.append(grad)
    assert torch.equal(*grads)


def test_a_huge_roi_costs_no_more_than_the_level():
    """Its bins have millions of samples, of which the level holds a dozen."""
    features = random_features(1, 1, 6, 6).requires_grad_()
    rois = torch.tensor([[0, -1e7, -1e7, 1e7, 1e7], [0, -3e8, 2, 9, 20]], dtype=torch.float64)
    for layer, aggregation in LAYERS[1:]:
        out = _run(Case(features, rois, (2, 2), 1.0, 0), layer, aggregation)
        assert out.isfinite().all()
    whole = _run(Case(features.abs(), rois[:1], (1, 1), 1.0, 0), "RoIAlignV2", "max")
    assert 0 < whole.item() <= features.abs().max()


@pytest.mark.parametrize(
    ("module", "function", "extra"),
    [
        (RoIPool, roi_pool, {}),
        (RoIWarp, roi_warp, {"aggregation": "max"}),
        (RoIAlign, roi_align, {"aggregation": "max", "aligned": True}),
    ],
)
def test_modules_are_the_functions(module, function, extra):
    features, rois = random_features(2, 3, 8, 8), random_rois(4, 2, 32, 32)
    layer = module((2, 3), 0.25, 2, **extra)
    assert not list(layer.parameters())
    assert "output_size=(2, 3)" in repr(layer)
    expected = function(features, rois, (2, 3), 0.25, 2, **extra)
    assert torch.equal(layer(features, rois), expected)
    # As torchvision, a list of boxes an image.
    per_image = [rois[rois[:, 0] == i, 1:] for i in range(2)]
    order = torch.cat([(rois[:, 0] == i).nonzero()[:, 0] for i in range(2)])
    assert torch.equal(layer(features, per_image), expected[order])
    assert layer(features, [rois[:0, 1:], rois[:0, 1:]]).shape == (0, 3, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aggregation": "mean"}, "RoIAlign has ave and max"),
        ({"backend": "cuda"}, "auto, torch, triton"),
        ({"output_size": (0, 7)}, "output_size is"),
        ({"sampling_ratio": -1}, "sampling_ratio is -1"),
        ({"rois": torch.zeros(2, 4)}, r"shape \(2, 4\), expected floats \(R, 5\)"),
        ({"rois": torch.zeros(2, 5, dtype=torch.int64)}, "int64"),
        ({"rois": torch.tensor([[2.0, 0, 0, 1, 1]])}, "batch indices 2 to 2.* 2 images"),
        ({"rois": torch.tensor([[-1.0, 0, 0, 1, 1]])}, "batch indices -1"),
        ({"rois": torch.tensor([[0, 0, 0, torch.nan, 1]])}, "RoI 0 is not finite"),
        ({"features": torch.zeros(3, 4, 4)}, r"shape \(3, 4, 4\)"),
        ({"features": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, "uint8"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    good = {
        "features": torch.zeros(2, 3, 4, 4),
        "rois": torch.tensor([[0, 0, 0, 8, 8.0]]),
        "output_size": 7,
    }
    roi_align(**good)
    with pytest.raises(ValueError, match=message):
        roi_align(**good | change)


def test_roi_pool_has_no_average_and_no_kernel_of_triton():
    features, rois = torch.zeros(1, 1, 4, 4), torch.zeros(1, 5)
    with pytest.raises(ValueError, match="RoIPool has max"):
        roi_pool(features, rois, 2, aggregation="ave")
    with pytest.raises(ValueError, match="RoIPool has max"):
        RoIPool(2, aggregation="ave")
    with pytest.raises(ValueError, match="averages only, not RoIPool with max"):
        roi_pool(features, rois, 2, backend="triton")
