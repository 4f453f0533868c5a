"""The Triton kernels of the RoI layers on a GPU, at the sizes of a Mask R-CNN."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torchvision.ops import roi_align

from mask_rcnn_ext.ops.kernels import is_available, is_interpreted, multilevel_roi_average
from mask_rcnn_ext.ops.reference import roi_layer_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device"),
    pytest.mark.skipif(is_interpreted(), reason="TRITON_INTERPRET is set: nothing runs on the GPU"),
]

LAYERS = ("RoIAlign", "RoIAlignV2", "RoIWarp")
STRIDES = (4, 8, 16, 32)
SCALES = tuple(1 / s for s in STRIDES)


@pytest.fixture(autouse=True)
def _no_memory_of_earlier_tests() -> Iterator[None]:
    runs, why_not = is_available()
    assert runs, why_not
    yield
    torch.cuda.empty_cache()


def _pyramid(
    images: int = 2,
    channels: int = 256,
    size: tuple[int, int] = (800, 1344),
    dtype: torch.dtype = torch.float32,
) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [
        torch.randn(images, channels, size[0] // s, size[1] // s, device="cuda", dtype=dtype)
        .contiguous(memory_format=torch.channels_last)
        .requires_grad_()
        for s in STRIDES
    ]


def _rois(
    count: int, images: int = 2, size: tuple[int, int] = (800, 1344)
) -> tuple[torch.Tensor, torch.Tensor]:
    """RoIs of all sizes, some over the border, and their levels by FPN's rule."""
    generator = torch.Generator().manual_seed(1)
    side = 16 * 60 ** torch.rand(count, 2, generator=generator)
    centre = torch.rand(count, 2, generator=generator) * torch.tensor([size[1], size[0]])
    image = torch.randint(images, (count, 1), generator=generator)
    level = (4 + (side.prod(1).sqrt() / 224).log2()).floor().clamp(2, 5).long() - 2
    rois = torch.cat([image, centre - side / 2, centre + side / 2], dim=1)
    return rois.cuda(), level.cuda()


def _by_level(
    features: list[torch.Tensor],
    rois: torch.Tensor,
    levels: torch.Tensor,
    output_size: tuple[int, int],
    ratio: int,
    layer: str,
) -> torch.Tensor:
    """torchvision's kernel, in float32."""
    out = features[0].new_zeros(len(rois), features[0].shape[1], *output_size, dtype=torch.float32)
    for i, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
        here = levels == i
        out[here] = roi_align(
            feature.float(), rois[here], output_size, scale, ratio, layer == "RoIAlignV2"
        )
    return out


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("layer", ["RoIAlign", "RoIAlignV2"])
@pytest.mark.parametrize("output_size", [(7, 7), (14, 14)])
def test_equals_torchvision(output_size: tuple[int, int], layer: str, ratio: int, ordered: bool):
    features, (rois, levels) = _pyramid(), _rois(300)
    out = multilevel_roi_average(
        features, rois, levels, output_size, SCALES, ratio, layer, ordered=ordered
    )
    expected = _by_level(features, rois, levels, output_size, ratio, layer)
    # Far from the origin float32 positions are 3e-5 cells apart.
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=5e-4)
    grad_out = torch.randn_like(out)
    grads = torch.autograd.grad(out, features, grad_out)
    expected_grads = torch.autograd.grad(expected, features, grad_out)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("layer", LAYERS)
def test_equals_the_loops(layer: str, ratio: int):
    size = (96, 160)
    features, (rois, levels) = _pyramid(channels=5, size=size), _rois(12, size=size)
    rois[3, 3:] = rois[3, 1:3]  # without extent
    rois[5, 1:] = rois[5, [3, 4, 1, 2]]  # inverted
    rois[7, 1:] += 1000  # outside
    for ordered in (True, False):
        out = multilevel_roi_average(
            features, rois, levels, (3, 11), SCALES, ratio, layer, ordered=ordered
        )
        grad_out = torch.randn_like(out)
        grads = torch.autograd.grad(out, features, grad_out)
        for i, (feature, scale) in enumerate(zip(features, SCALES, strict=True)):
            here = levels == i
            expected, expected_grad = roi_layer_reference(
                feature, rois[here], (3, 11), scale, ratio, layer, "ave", grad_out[here]
            )
            close = {"rtol": 1e-5, "atol": 2e-5}
            torch.testing.assert_close(out[here].cpu().double(), expected, **close)
            torch.testing.assert_close(grads[i].cpu().double(), expected_grad, **close)


def test_equal_sizes_and_borders_are_exact():
    """Divisions round to nearest: sizes of whole bins, samples at exactly -1 and L."""
    feature = torch.ones(1, 8, 64, 64, device="cuda")
    multiples = torch.arange(1, 9, device="cuda").float()
    for bins in range(1, 15):  # bins of 1 to 8 cells, first sample at -1, last at L - 2
        rois = multiples.new_zeros(8, 5)
        rois[:, 1:3] = -1.5
        rois[:, 3:] = -1.5 + (multiples * bins)[:, None]
        zeros = torch.zeros(8, dtype=torch.int64, device="cuda")
        for scale in (1.0, 1 / 3, 1 / 16):
            out = multilevel_roi_average(
                [feature], rois * torch.tensor([1, *[1 / scale] * 4], device="cuda"), zeros,
                (bins, bins), [scale], 0, "RoIAlign", ordered=True,
            )  # fmt: skip
            if scale != 1 / 3:  # whose product with a coordinate is not exact
                # Samples at -1.5 + 0.5 = -1, 0, 1, ...: all inside as long as the level goes.
                inside = (rois[:, 3] <= 64).nonzero()[:, 0]
                assert torch.equal(out[inside], torch.ones_like(out[inside]))
            assert out.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_only_at_the_end(dtype: torch.dtype):
    features, (rois, levels) = _pyramid(dtype=dtype), _rois(300)
    for ordered in (True, False):
        out = multilevel_roi_average(
            features, rois, levels, (7, 7), SCALES, 0, "RoIAlignV2", ordered=ordered
        )
        exact = [f.detach().float().requires_grad_() for f in features]
        expected = _by_level(exact, rois, levels, (7, 7), 0, "RoIAlignV2")
        tolerance = 0.51 * torch.finfo(dtype).eps
        torch.testing.assert_close(out.float(), expected, rtol=tolerance, atol=5e-4)
        grad_out = torch.randn_like(out)
        grads = torch.autograd.grad(out, features, grad_out)
        expected_grads = torch.autograd.grad(expected, exact, grad_out.float())
        for grad, expected_grad in zip(grads, expected_grads, strict=True):
            torch.testing.assert_close(grad.float(), expected_grad, rtol=tolerance, atol=1e-3)


@pytest.mark.parametrize("ordered", [True, False])
def test_half_precision_gradient_adds_up_in_float32(ordered: bool):
    """1 + 32 times 1/512: in bfloat16 each addition would round back to 1."""
    feature = torch.zeros(1, 8, 1, 1, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    rois = torch.tensor([[0.0, 0, 0, 1, 1]] * 33, device="cuda")
    levels = torch.zeros(33, dtype=torch.int64, device="cuda")
    out = multilevel_roi_average(
        [feature], rois, levels, (1, 1), [1.0], 1, "RoIAlignV2", ordered=ordered
    )
    grad_out = torch.full_like(out, 1 / 512)
    grad_out[0] = 1.0
    (grad,) = torch.autograd.grad(out, feature, grad_out)
    assert (grad == 1.0625).all()


def test_ordered_gradient_has_the_same_bits_each_time():
    features, (rois, levels) = _pyramid(dtype=torch.bfloat16), _rois(1000)
    rois[:, 1:] = rois[:1, 1:] + torch.rand_like(rois[:, 1:]) * 8  # all on one spot
    grad_out, first = None, None
    for _ in range(5):
        out = multilevel_roi_average(
            features, rois, levels, (7, 7), SCALES, 0, "RoIAlignV2", ordered=True
        )
        grad_out = torch.randn_like(out) if grad_out is None else grad_out
        grads = torch.autograd.grad(out, features, grad_out)
        first = grads if first is None else first
        assert all(torch.equal(a, b) for a, b in zip(grads, first, strict=True))


@pytest.mark.parametrize("ordered", [True, False])
def test_nothing_waits_for_the_gpu(ordered: bool):
    features, (rois, levels) = _pyramid(), _rois(100)

    def step() -> None:
        out = multilevel_roi_average(
            features, rois, levels, (7, 7), SCALES, 0, "RoIAlignV2", ordered=ordered
        )
        torch.autograd.grad(out, features, torch.ones_like(out))

    step()  # compiles, which may wait
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("ordered", [True, False])
def test_runs_in_a_cuda_graph(ordered: bool):
    features, (rois, levels) = _pyramid(), _rois(100)

    def step() -> tuple[torch.Tensor, ...]:
        out = multilevel_roi_average(
            features, rois, levels, (7, 7), SCALES, 0, "RoIAlignV2", ordered=ordered
        )
        return (out.detach(), *torch.autograd.grad(out, features, out.detach()))

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()
    rois[:, 1:] += 3.5  # the graph reads the RoIs where they are
    levels.copy_((levels + 1) % 4)
    graph.replay()
    for got, expected in zip(results, step(), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_features_of_more_than_two_to_the_31_values():
    images = 2**31 // (256 * 200 * 336) + 2
    need = images * 256 * 200 * 336 * 2 * 4  # features, gradient, and room
    if torch.cuda.mem_get_info()[0] < need:
        pytest.skip(f"needs {need / 2**30:.0f} GiB of free GPU memory")
    feature = torch.zeros(images, 256, 200, 336, device="cuda", dtype=torch.bfloat16).contiguous(
        memory_format=torch.channels_last
    )
    feature[-1] = 2.0
    feature.requires_grad_()
    rois = torch.tensor([[images - 1, 8.0, 8, 64, 64]], device="cuda")
    levels = torch.zeros(1, dtype=torch.int64, device="cuda")
    out = multilevel_roi_average(
        [feature], rois, levels, (7, 7), [0.25], 0, "RoIAlign", ordered=True
    )
    assert (out == 2.0).all()
    (grad,) = torch.autograd.grad(out, feature, torch.ones_like(out))
    assert grad[-1].float().sum().item() == pytest.approx(49 * 256, rel=1e-2)
    assert not grad[0].any()


def test_features_on_the_cpu_are_refused():
    features = [torch.zeros(1, 1, 2, 2)]
    rois, levels = torch.zeros(1, 5), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(ValueError, match="need a CUDA device"):
        multilevel_roi_average(features, rois, levels, (1, 1), [1.0], 0, "RoIAlign", ordered=True)
