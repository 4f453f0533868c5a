"""What compat.py mends: red on stock Detectron2, the same figure where stock runs."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling.roi_heads import keypoint_head
from detectron2.structures import Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage

from mask_rcnn_ext.compat import mend_keypoint_loss  # the package calls it, too

ROIS, KEYPOINTS, SIDE = 3, 2, 8


@pytest.fixture
def instances() -> Instances:
    boxes = torch.tensor([[0.0, 0, 20, 30], [5, 5, 40, 40], [10, 0, 30, 50]])
    places = torch.rand(ROIS, KEYPOINTS, 3, generator=torch.Generator().manual_seed(1)) * 10 + 11
    places[..., 2] = 2
    return Instances((64, 64), proposal_boxes=Boxes(boxes), gt_keypoints=Keypoints(places))


@pytest.mark.parametrize("rois", [0, 1, ROIS])
def test_the_keypoint_loss_takes_channels_last_logits(instances, rois):
    some = instances[:rois]
    logits = torch.randn(rois, KEYPOINTS, SIDE, SIDE, generator=torch.Generator().manual_seed(2))
    plain = logits.clone().requires_grad_()
    other = logits.to(memory_format=torch.channels_last).requires_grad_()
    stock = keypoint_head.keypoint_rcnn_loss.__wrapped__
    with EventStorage():
        if rois > 1:
            with pytest.raises(RuntimeError, match="view size is not compatible"):
                stock(other, [some], None)
        expected = stock(plain, [some], None)
        found = keypoint_head.keypoint_rcnn_loss(other, [some], None)
    expected.backward()
    found.backward()
    assert torch.equal(found, expected)
    assert torch.equal(other.grad, plain.grad)


def test_it_is_mended_once():
    before = keypoint_head.keypoint_rcnn_loss
    mend_keypoint_loss()
    assert keypoint_head.keypoint_rcnn_loss is before
