"""RoIExtractor in the place of Detectron2's ROIPooler."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes
from roi_cases import random_rois

from mask_rcnn_ext.modeling import RoIExtractor

SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def _boxes(*counts: int) -> list[Boxes]:
    return [Boxes(random_rois(n, 1, 320, 480, seed=i)[:, 1:].float()) for i, n in enumerate(counts)]


def _features(scales=SCALES, images: int = 2) -> list[torch.Tensor]:
    return [torch.randn(images, 4, int(320 * s), int(480 * s), requires_grad=True) for s in scales]


@pytest.mark.parametrize("theirs", ["ROIAlign", "ROIAlignV2", "ROIPool"])
@pytest.mark.parametrize("scales", [SCALES, (1 / 16,), (1 / 32,)])
@pytest.mark.parametrize("ratio", [0, 2])
def test_drop_in_for_roi_pooler(theirs: str, scales: tuple[float, ...], ratio: int):
    features, boxes = _features(scales), _boxes(40, 25)
    stock = ROIPooler(7, scales, ratio, theirs)(features, boxes)
    stock_grads = torch.autograd.grad(stock.square().sum(), features)
    for name in (theirs, theirs.replace("ROI", "RoI")):
        ours = RoIExtractor(7, scales, ratio, name)(features, boxes)
        torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)
        grads = torch.autograd.grad(ours.square().sum(), features)
        for a, b in zip(grads, stock_grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_canonical_level_and_size_are_settings():
    features, boxes = _features(), _boxes(40, 25)
    args = (7, SCALES, 0, "ROIAlignV2")
    stock = ROIPooler(*args, canonical_box_size=112, canonical_level=4)(features, boxes)
    ours = RoIExtractor(*args, canonical_box_size=112, canonical_level=4)(features, boxes)
    torch.testing.assert_close(ours, stock, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(RoIExtractor(*args)(features, boxes), stock)


def test_not_only_square():
    out = RoIExtractor((3, 5), SCALES, 0, "RoIWarp", aggregation="max")(_features(), _boxes(4, 3))
    assert out.shape == (7, 4, 3, 5)


@pytest.mark.parametrize("counts", [(0, 0), (3, 0), (0, 2)])
@pytest.mark.parametrize("layer", ["RoIPool", "RoIWarp", "RoIAlign"])
def test_images_without_boxes(counts: tuple[int, int], layer: str):
    features = _features()
    out = RoIExtractor(7, SCALES, 0, layer)(features, _boxes(*counts))
    assert out.shape == (sum(counts), 4, 7, 7)
    out.sum().backward()
    for i, count in enumerate(counts):
        assert bool(features[0].grad[i].any() or features[3].grad[i].any()) <= bool(count)


def test_no_images():
    out = RoIExtractor(7, SCALES, 0, "RoIAlign")([f[:0] for f in _features()], [])
    assert out.shape == (0, 4, 7, 7)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pooler_type": "ROIalign"}, "expected one of RoIPool, RoIWarp, RoIAlign, RoIAlignV2"),
        ({"scales": (1 / 4, 1 / 16)}, "1/s, 1/2s"),
        ({"scales": (1 / 12,)}, "s = 2"),
        ({"scales": ()}, "scales are"),
        ({"aggregation": "mean"}, "RoIAlign has ave and max"),
        ({"aggregation": "ave", "pooler_type": "ROIPool"}, "RoIPool has max"),
    ],
)
def test_bad_settings_are_named(kwargs, message):
    good = {"output_size": 7, "scales": SCALES, "sampling_ratio": 0, "pooler_type": "RoIAlign"}
    with pytest.raises(ValueError, match=message):
        RoIExtractor(**good | kwargs)


def test_numbers_of_maps_and_images_must_fit():
    extractor = RoIExtractor(7, SCALES, 0, "RoIAlign")
    with pytest.raises(ValueError, match="3 feature maps for 4 scales"):
        extractor(_features()[:3], _boxes(1, 1))
    with pytest.raises(ValueError, match="boxes of 1 images, features of 2"):
        extractor(_features(), _boxes(1))


def test_the_settings_are_shown():
    text = repr(RoIExtractor(7, SCALES, 2, "ROIPool"))
    assert "RoIPool, aggregation=max" in text
    assert "strides=[4, 8, 16, 32]" in text


@pytest.mark.parametrize("layer", ["RoIAlign", "RoIAlignV2", "RoIWarp", "RoIPool"])
@pytest.mark.parametrize("scales", [SCALES, (1 / 16,)])
@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.torch.jit.trace:FutureWarning"
)
def test_a_trace_takes_any_number_of_boxes(layer: str, scales: tuple[float, ...]):
    """As Detectron2's own pooler, which export needs."""
    extractor = RoIExtractor(7, scales, 0, layer)

    def call(boxes: torch.Tensor, *features: torch.Tensor) -> torch.Tensor:
        return extractor(list(features), [Boxes(boxes)])

    features = [f.detach() for f in _features(scales, images=1)]
    few, many, none = (b.tensor for b in _boxes(4, 9, 0))
    traced = torch.jit.trace(call, (few, *features), check_trace=False)
    for boxes in (few, many, none):
        out = traced(boxes, *features)
        torch.testing.assert_close(out, call(boxes, *features), rtol=1e-5, atol=1e-5)


@pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore:.torch.jit.trace:FutureWarning"
)
def test_what_cannot_be_traced_says_so():
    extractor = RoIExtractor(7, (1 / 16,), 0, "RoIAlign", aggregation="max")
    features, boxes = _features((1 / 16,), images=1)[0].detach(), _boxes(4)[0].tensor
    with pytest.raises(ValueError, match="RoIAlign with max .* cannot be traced"):
        torch.jit.trace(lambda f, b: extractor([f], [Boxes(b)]), (features, boxes))
