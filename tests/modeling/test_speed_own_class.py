"""The mask predictor of the true class alone: the same logits, loss and gradients as of all."""

from __future__ import annotations

import pytest
import torch
from detectron2.layers import Conv2d
from torch import nn

from mask_rcnn_ext.modeling.speed.own_class import is_pointwise, own_class_logits


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rois", [0, 1, 5])
def test_logits_and_gradients_are_those_of_all_classes(rois: int, channels_last: bool):
    torch.manual_seed(0)
    predictor = nn.Conv2d(6, 4, 1).double()
    order = torch.channels_last if channels_last else torch.contiguous_format
    x = torch.randn(rois, 6, 3, 3).double().contiguous(memory_format=order)
    classes = torch.tensor([2, 0, 2, 3, 0])[:rois]
    found = []
    for alone in (True, False):
        predictor.zero_grad()
        given = x.clone().requires_grad_()
        if alone:
            own = own_class_logits(predictor, given, classes)
        else:
            own = predictor(given)[torch.arange(rois), classes][:, None]
        assert own.shape == (rois, 1, 3, 3)
        own.square().sum().backward()
        found.append((own.detach(), given.grad, predictor.weight.grad, predictor.bias.grad))
        if rois > 1:
            assert given.grad.is_contiguous(memory_format=order)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("layer", "expected"),
    [
        (nn.Conv2d(2, 3, 1), True),
        (Conv2d(2, 3, 1), True),
        (Conv2d(2, 3, 1, activation=torch.relu), False),
        (Conv2d(2, 3, 1, norm=nn.BatchNorm2d(3)), False),
        (nn.Conv2d(2, 3, 3, padding=1), False),
        (nn.Conv2d(2, 3, 1, bias=False), False),
        (nn.Conv2d(2, 2, 1, groups=2), False),
        (nn.Linear(2, 3), False),
    ],
)
def test_what_counts_as_pointwise(layer: nn.Module, expected: bool):
    assert is_pointwise(layer) is expected
