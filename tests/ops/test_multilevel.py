"""All levels in one call: the same as level by level, the level by Eq. 1, the backend by name."""

from __future__ import annotations

import logging

import pytest
import torch
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.structures import Boxes
from roi_cases import LAYERS, random_features, random_rois

from mask_rcnn_ext.ops import assign_levels, cell_sums, kernels, multilevel_roi_features, windows
from mask_rcnn_ext.ops import multilevel as multilevel_module
from mask_rcnn_ext.ops.reference import roi_layer_reference

SCALES = [1 / 4, 1 / 8, 1 / 16]
SIZES = [(24, 30), (12, 15), (6, 8)]


def _pyramid(dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [
        random_features(2, 3, h, w, seed=i).to(dtype).requires_grad_()
        for i, (h, w) in enumerate(SIZES)
    ]


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
@pytest.mark.parametrize("ratio", [0, 2])
def test_same_as_level_by_level(layer: str, aggregation: str, ratio: int):
    features, rois = _pyramid(), random_rois(30, 2, 96, 120)
    levels = torch.arange(30) % 3
    out = multilevel_roi_features(features, rois, levels, (3, 2), SCALES, ratio, layer, aggregation)
    grad_out = torch.rand_like(out)
    out.backward(grad_out)
    for i, scale in enumerate(SCALES):
        here = levels == i
        expected, grad = roi_layer_reference(
            features[i], rois[here], (3, 2), scale, ratio, layer, aggregation, grad_out[here]
        )
        torch.testing.assert_close(out[here].detach(), expected)
        torch.testing.assert_close(features[i].grad, grad)


@pytest.mark.parametrize(("layer", "aggregation"), LAYERS)
def test_a_level_without_rois_has_a_gradient_of_zeros(layer: str, aggregation: str):
    features, rois = _pyramid(), random_rois(4, 2, 96, 120)
    levels = torch.full((4,), 1)
    out = multilevel_roi_features(features, rois, levels, (2, 2), SCALES, 0, layer, aggregation)
    out.sum().backward()
    assert features[1].grad.any()
    for i in (0, 2):
        assert features[i].grad is not None
        assert not features[i].grad.any()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_few_channels_at_a_time(monkeypatch: pytest.MonkeyPatch, threads: int):
    """A level too large for the scratch memory is read in parts, by all threads that there are."""
    monkeypatch.setattr(cell_sums, "_MOST_CELLS", 0)
    rois, levels = random_rois(20, 2, 96, 120), torch.arange(20) % 3
    results = []
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for scratch in (1 << 20, 24 * 30 * 8 * 2):  # all channels; two, then the third
            monkeypatch.setattr(windows, "_SCRATCH_BYTES", scratch)
            features = _pyramid()
            out = multilevel_roi_features(features, rois, levels, (3, 2), SCALES)
            out.square().sum().backward()
            results.append((out.detach(), *(f.grad for f in features)))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for whole, parts in zip(*results, strict=True):
        torch.testing.assert_close(whole, parts)


def test_an_error_in_a_thread_is_not_swallowed(monkeypatch: pytest.MonkeyPatch):
    def broken(picture: torch.Tensor, memory: object) -> torch.Tensor:
        raise MemoryError("no room")

    monkeypatch.setattr(windows, "_channels_innermost", broken)
    monkeypatch.setattr(cell_sums, "_MOST_CELLS", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(MemoryError, match="no room"):
            multilevel_roi_features(
                _pyramid(), random_rois(4, 2, 96, 120), torch.arange(4) % 3, (2, 2), SCALES
            )
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_maximum_is_made_in_chunks(monkeypatch: pytest.MonkeyPatch):
    """However few RoIs a chunk holds, the result is the same."""
    features, rois = _pyramid(), random_rois(20, 2, 96, 120)
    args = (rois, torch.arange(20) % 3, (3, 3), SCALES, 0, "RoIAlign", "max")
    whole = multilevel_roi_features(features, *args)
    whole.sum().backward()
    grads = [f.grad for f in features]
    monkeypatch.setattr(multilevel_module, "_CHUNK", 200)
    again = _pyramid()
    parts = multilevel_roi_features(again, *args)
    parts.sum().backward()
    assert torch.equal(whole, parts)
    for grad, f in zip(grads, again, strict=True):
        torch.testing.assert_close(grad, f.grad)


def test_levels_are_detectron2s():
    rois = random_rois(500, 1, 900, 1400)
    rois[0, 1:] = torch.tensor([5.0, 5, 5, 9])  # no area
    rois[1, 1:] = torch.tensor([0.0, 0, 224, 224])  # on the edge between two levels
    rois[2, 1:] = torch.tensor([0.0, 0, 448, 448])
    scales = [1 / 4, 1 / 8, 1 / 16, 1 / 32]
    for box_size, level in ((224, 4), (112, 3)):
        theirs = assign_boxes_to_levels([Boxes(rois[:, 1:].float())], 2, 5, box_size, level)
        ours = assign_levels(rois.float(), scales, box_size, level)
        assert torch.equal(ours, theirs)
    assert set(assign_levels(rois, scales).tolist()) == {0, 1, 2, 3}
    assert assign_levels(rois[1:3], scales).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": torch.tensor([0, 3])}, "levels 0 to 3, of 3"),
        ({"levels": torch.tensor([0])}, r"\(1,\) levels for 2 RoIs"),
        ({"scales": [0.25]}, "3 feature maps for 1 scales"),
        ({"layer": "RoIalign"}, "RoIPool, RoIWarp, RoIAlign, RoIAlignV2"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    good = {
        "features": _pyramid(),
        "rois": random_rois(2, 2, 96, 120),
        "levels": torch.tensor([0, 2]),
        "output_size": (2, 2),
        "scales": SCALES,
    }
    multilevel_roi_features(**good)
    with pytest.raises(ValueError, match=message):
        multilevel_roi_features(**good | change)


def test_maps_of_two_kinds_are_refused():
    features = _pyramid()
    features[1] = features[1].float()
    with pytest.raises(ValueError, match="feature maps differ"):
        multilevel_roi_features(
            features, random_rois(1, 1, 9, 9), torch.zeros(1).long(), (2, 2), SCALES
        )


def test_the_backend_is_logged_once_and_never_falls_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    multilevel_module._log_once.cache_clear()
    call = (_pyramid(), random_rois(2, 2, 96, 120), torch.tensor([0, 1]), (2, 2), SCALES, 0)
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            multilevel_roi_features(*call, "RoIAlignV2", "ave")
    assert [r.message for r in caplog.records] == [
        "RoIAlignV2 (ave) on cpu: windowed matrix products"
    ]
    monkeypatch.setattr(kernels, "is_available", lambda: (False, "no GPU in this machine"))
    with pytest.raises(ValueError, match="does not run here: no GPU in this machine"):
        multilevel_roi_features(*call, "RoIAlignV2", "ave", "triton")

    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("out of registers")

    monkeypatch.setattr(kernels, "is_available", lambda: (True, ""))
    monkeypatch.setattr(kernels, "multilevel_roi_average", broken)
    with pytest.raises(RuntimeError, match="out of registers"):
        multilevel_roi_features(*call, "RoIAlignV2", "ave", "triton")


def test_half_precision_keeps_the_rois_exact():
    """1003.5 does not exist in bfloat16; RoIs must not be rounded to the features' dtype."""
    features = [f.detach().bfloat16() for f in _pyramid()]
    rois = torch.tensor([[0, 3.5, 3.5, 77.25, 77.25], [1, 61.25, 3.5, 99.5, 77.25]])
    out = multilevel_roi_features(features, rois, torch.tensor([0, 1]), (2, 2), SCALES)
    exact, _ = roi_layer_reference(features[0], rois[:1], (2, 2), SCALES[0], 0, "RoIAlignV2", "ave")
    torch.testing.assert_close(out[:1], exact.bfloat16(), rtol=8e-3, atol=1e-3)
