"""Layers: deformable convolution without `_C`, rotated boxes that say what they need."""

import itertools

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("ours")


def _sample(image, y, x):
    """Bilinear value of image (H, W) at a pixel position, 0 outside."""
    value = 0.0
    for j, i in itertools.product(range(image.shape[0]), range(image.shape[1])):
        value += float(image[j, i]) * max(0.0, 1 - abs(y - j)) * max(0.0, 1 - abs(x - i))
    return value


def _deform_conv(x, offset, weight, mask, stride, padding, dilation, groups, offset_groups):
    """The definition, sample by sample: slow, and independent of torchvision."""
    n, channels, height, width = x.shape
    out_channels, _, kh, kw = weight.shape
    out_h = (height + 2 * padding - dilation * (kh - 1) - 1) // stride + 1
    out_w = (width + 2 * padding - dilation * (kw - 1) - 1) // stride + 1
    result = torch.zeros(n, out_channels, out_h, out_w, dtype=x.dtype)
    offset = offset.view(n, offset_groups, kh, kw, 2, out_h, out_w)
    mask = mask.view(n, offset_groups, kh, kw, out_h, out_w)
    inputs = channels // groups  # channels one output channel sees
    for b, o, c, u, v, p, q in itertools.product(
        *map(range, (n, out_channels, inputs, kh, kw, out_h, out_w))
    ):
        channel = o // (out_channels // groups) * inputs + c
        group = channel // (channels // offset_groups)
        dy, dx = offset[b, group, u, v, :, p, q].tolist()
        y = p * stride - padding + u * dilation + dy
        x_ = q * stride - padding + v * dilation + dx
        value = _sample(x[b, channel], y, x_) * mask[b, group, u, v, p, q]
        result[b, o, p, q] += weight[o, c, u, v] * value
    return result


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize(
    ("groups", "offset_groups", "stride", "padding", "dilation"),
    [(1, 1, 1, 1, 1), (2, 1, 2, 0, 1), (1, 2, 1, 1, 2)],
)
def test_deform_conv(modulated, groups, offset_groups, stride, padding, dilation):
    from detectron2.layers import DeformConv, ModulatedDeformConv

    torch.manual_seed(0)
    x = torch.randn(1, 2, 5, 4, dtype=torch.double)
    settings = {"stride": stride, "padding": padding, "dilation": dilation}
    layer = (ModulatedDeformConv if modulated else DeformConv)(
        2, 2, 2, groups=groups, deformable_groups=offset_groups, bias=False, **settings
    ).double()
    out = [(side + 2 * padding - dilation - 1) // stride + 1 for side in (5, 4)]
    offset = torch.randn(1, offset_groups * 2 * 4, *out, dtype=torch.double)
    mask = torch.ones(1, offset_groups * 4, *out, dtype=torch.double)
    if modulated:
        mask = torch.rand_like(mask)
    result = layer(x, offset, mask) if modulated else layer(x, offset)
    expected = _deform_conv(
        x, offset, layer.weight, mask, groups=groups, offset_groups=offset_groups, **settings
    )
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


def test_deform_conv_gradient():
    from detectron2.layers.deform_conv import deform_conv, modulated_deform_conv

    torch.manual_seed(0)
    x, offset, mask, weight, bias = (
        torch.randn(shape, dtype=torch.double, requires_grad=True)
        for shape in [(1, 2, 3, 3), (1, 8, 2, 2), (1, 4, 2, 2), (2, 2, 2, 2), (2,)]
    )
    assert torch.autograd.gradcheck(deform_conv, (x, offset, weight))
    assert torch.autograd.gradcheck(modulated_deform_conv, (x, offset, mask, weight, bias))


def test_deform_conv_empty_and_wrong_input():
    from detectron2.layers import DeformConv
    from detectron2.layers.deform_conv import deform_conv

    layer = DeformConv(2, 3, 3, padding=1)
    assert layer(torch.zeros(0, 2, 4, 4), torch.zeros(0, 18, 4, 4)).shape == (0, 3, 4, 4)
    with pytest.raises(RuntimeError):
        layer(torch.zeros(1, 2, 4, 4), torch.zeros(1, 9, 4, 4))
    with pytest.raises(ValueError, match="got 3D tensor"):
        deform_conv(torch.zeros(2, 4, 4), torch.zeros(1, 18, 4, 4), layer.weight)


def test_rotated_boxes_say_what_they_need():
    from detectron2.layers import ROIAlignRotated, batched_nms_rotated, nms_rotated
    from detectron2.structures import RotatedBoxes, pairwise_iou_rotated

    boxes = torch.tensor([[5.0, 5, 4, 2, 30]])
    rois = torch.cat([torch.zeros(1, 1), boxes], dim=1)
    one = torch.ones(1)
    rotated = RotatedBoxes(boxes)
    assert rotated.area().item() == 8  # what needs no `_C` works
    for call in (
        lambda: pairwise_iou_rotated(rotated, rotated),
        lambda: nms_rotated(boxes, one, 0.5),
        lambda: batched_nms_rotated(boxes, one, one.long(), 0.5),
        lambda: ROIAlignRotated((2, 2), 1.0, 0)(torch.zeros(1, 1, 8, 8), rois),
    ):
        with pytest.raises(ImportError, match=r"rotated.* is in detectron2\._C.* compiler: see"):
            call()


def test_paste_mask_by_pillow():
    from detectron2.layers.mask_ops import paste_mask_in_image_old

    pasted = paste_mask_in_image_old(torch.ones(4, 4), torch.tensor([2.0, 2, 6, 6]), 9, 9, 0.5)
    assert pasted[3:6, 3:6].all()
    assert not pasted[:, 8].any()


@pytest.mark.filterwarnings("error")
def test_anchors_are_silent_and_in_order():
    from detectron2.modeling.anchor_generator import DefaultAnchorGenerator

    make = DefaultAnchorGenerator(sizes=[[2]], aspect_ratios=[[1.0]], strides=[4], offset=0.0)
    (anchors,) = make([torch.zeros(1, 1, 2, 3)])
    centres = anchors.get_centers().tolist()
    assert centres == [[0, 0], [4, 0], [8, 0], [0, 4], [4, 4], [8, 4]]  # row by row


def test_box_transforms_can_be_scripted():
    from detectron2.modeling.box_regression import Box2BoxTransform, Box2BoxTransformRotated

    class Decode(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.transform = Box2BoxTransform((1.0, 1.0, 1.0, 1.0))

        def forward(self, deltas, boxes):
            return self.transform.apply_deltas(deltas, boxes)

    boxes = torch.tensor([[0.0, 0, 4, 2]])
    with pytest.warns() if _scripting_warns() else _nothing():
        decode = torch.jit.script(Decode())
    assert torch.equal(decode(torch.zeros(1, 4), boxes), boxes)
    assert Box2BoxTransformRotated((1.0,) * 5).weights == (1.0,) * 5


def _scripting_warns():
    import inspect

    return "is deprecated" in inspect.getsource(torch.jit.script)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_panoptic_deeplab_groups_pixels(monkeypatch):
    import sys
    from types import ModuleType

    utils = ModuleType("panopticapi.utils")  # not on the package index; not used here
    utils.rgb2id = None
    monkeypatch.setitem(sys.modules, "panopticapi", ModuleType("panopticapi"))
    monkeypatch.setitem(sys.modules, "panopticapi.utils", utils)
    from detectron2.projects.panoptic_deeplab.post_processing import group_pixels

    centres = torch.tensor([[0, 0], [0, 3]])  # (y, x)
    grouped = group_pixels(centres, torch.zeros(2, 2, 4))
    np.testing.assert_array_equal(grouped[0], [[1, 1, 2, 2]] * 2)
