"""Mask targets and losses: Detectron2's to the bit where it has them, plain loops elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference, mask_rcnn_loss
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch.nn import functional as F

from mask_rcnn_ext.modeling.mask_losses import (
    LOSSES,
    mask_loss,
    mask_probabilities,
    mask_targets,
    num_mask_channels,
)

SIDE = 64  # of the square test images, in pixels
K = 3
SCALARS = ("mask_rcnn/accuracy", "mask_rcnn/false_positive", "mask_rcnn/false_negative")
EMPTY = [(), (0,), (0, 0)]


def polygon_masks(count: int) -> PolygonMasks:
    """Random shapes of one to three polygons of three to eight corners."""
    return PolygonMasks(
        [
            [np.random.uniform(0, SIDE, 2 * np.random.randint(3, 9)) for _ in range(1 + i % 3)]
            for i in range(count)
        ]
    )


def bit_masks(count: int) -> BitMasks:
    return BitMasks(torch.rand(count, SIDE, SIDE) > 0.5)


def images_of(*counts: int, kinds: str = "polygon") -> list[Instances]:
    """Positive RoIs, one Instances an image; `kinds` names the masks of each image, in turn."""
    make = {"polygon": polygon_masks, "bitmask": bit_masks}
    images = []
    for number, count in enumerate(counts):
        low = torch.rand(count, 2) * SIDE / 2
        image = Instances((SIDE, SIDE))
        image.proposal_boxes = Boxes(torch.cat([low, low + 4 + torch.rand(count, 2) * 40], dim=1))
        image.gt_classes = torch.randint(0, K, (count,))
        names = kinds.split()
        image.gt_masks = make[names[number % len(names)]](count)
        images.append(image)
    return images


def detections(*classes: list[int]) -> list[Instances]:
    images = []
    for of_image in classes:
        image = Instances((SIDE, SIDE))
        image.pred_classes = torch.tensor(of_image, dtype=torch.int64)
        images.append(image)
    return images


def logits_for(images: list[Instances], channels: int, side: int = 14) -> torch.Tensor:
    rows = sum(len(image) for image in images)
    return 2 * torch.randn(rows, channels, side, side)


def logged(storage: EventStorage) -> dict[str, float]:
    return {name: value for name, (value, _) in storage.latest().items()}


def reference(logits: torch.Tensor, images: list[Instances], loss: str) -> tuple[float, list]:
    """The loss and the three scalars, cell by cell in Python's floats."""
    targets = mask_targets(images, logits.shape[-1])
    classes = torch.cat([image.gt_classes for image in images if len(image)]).tolist()
    total, wrong_in, wrong_out, inside, cells = 0.0, 0, 0, 0, 0
    for roi, target in enumerate(targets):
        own = 0 if logits.shape[1] == 1 else classes[roi]
        for row in range(target.shape[0]):
            for column in range(target.shape[1]):
                z = [float(v) for v in logits[roi, :, row, column].double()]
                covered = bool(target[row, column])
                if loss == "sigmoid":
                    p = 1 / (1 + math.exp(-z[own]))
                    total -= math.log(p if covered else 1 - p)
                else:
                    share = sum(math.exp(v) for v in z)
                    p = math.exp(z[own]) / share
                    total -= math.log(math.exp(z[own if covered else K]) / share)
                cells += 1
                inside += covered
                wrong_in += covered and p <= 0.5
                wrong_out += not covered and p > 0.5
    scalars = [1 - (wrong_in + wrong_out) / cells, wrong_out / (cells - inside), wrong_in / inside]
    return total / cells, scalars


@pytest.mark.parametrize("kinds", ["polygon", "bitmask", "polygon bitmask"])
@pytest.mark.parametrize("side", [7, 28])
def test_targets_are_detectron2s(kinds, side):
    images = images_of(3, 0, 2, 4, kinds=kinds)
    expected = [i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, side) for i in images]
    targets = mask_targets(images, side)
    assert targets.dtype == torch.bool
    assert torch.equal(targets, torch.cat(expected))
    assert 0.1 < targets.double().mean() < 0.9


def test_images_without_objects_need_no_masks():
    full, empty = images_of(2, 0)
    empty.remove("gt_masks")
    empty.remove("proposal_boxes")
    assert mask_targets([empty, full, empty], 7).shape == (2, 7, 7)


def test_targets_that_cannot_be_are_named():
    with pytest.raises(ValueError, match="got no object"):
        mask_targets(images_of(0), 7)

    class SoftMasks(BitMasks):
        def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
            return super().crop_and_resize(boxes, mask_size).float()

    (image,) = images_of(2, kinds="bitmask")
    image.gt_masks = SoftMasks(image.gt_masks.tensor)
    with pytest.raises(ValueError, match=r"float32 from SoftMasks.* INPUT\.MASK_FORMAT"):
        mask_targets([image], 7)


@pytest.mark.parametrize("kinds", ["polygon", "bitmask", "bitmask polygon"])
@pytest.mark.parametrize("channels", [1, K])
def test_sigmoid_is_detectron2s_to_the_bit(kinds, channels):
    images = images_of(3, 0, 2, kinds=kinds)
    ours = logits_for(images, channels, 28).requires_grad_()
    stock = ours.detach().clone().requires_grad_()
    with EventStorage() as our_storage:
        loss = mask_loss(ours, images, loss="sigmoid", vis_period=1)
    with EventStorage() as stock_storage:
        expected = mask_rcnn_loss(stock, images, vis_period=1)
    loss.backward()
    expected.backward()
    assert torch.equal(loss, expected)
    assert torch.equal(ours.grad, stock.grad)
    assert logged(our_storage) == logged(stock_storage)
    assert set(logged(our_storage)) == set(SCALARS)
    pictures, stock_pictures = our_storage._vis_data, stock_storage._vis_data
    assert len(pictures) == len(stock_pictures) == 5
    for mine, theirs in zip(pictures, stock_pictures, strict=True):
        assert mine[0] == theirs[0]
        assert torch.equal(mine[1], theirs[1])


@pytest.mark.parametrize(("loss", "channels"), [("sigmoid", 1), ("sigmoid", K), ("softmax", K + 1)])
def test_losses_are_those_of_plain_loops(loss, channels):
    images = images_of(2, 0, 2)
    logits = logits_for(images, channels)
    expected, scalars = reference(logits, images, loss)
    with EventStorage() as storage:
        value = mask_loss(logits, images, loss=loss)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert [logged(storage)[name] for name in SCALARS] == pytest.approx(scalars, rel=1e-12)


@pytest.mark.parametrize(("loss", "channels"), [("sigmoid", 1), ("sigmoid", K), ("softmax", K + 1)])
def test_gradcheck(loss, channels):
    images = images_of(2, 1)
    logits = logits_for(images, channels, 4).double().requires_grad_()
    with EventStorage():
        assert torch.autograd.gradcheck(lambda z: mask_loss(z, images, loss=loss), (logits,))


def test_softmax_is_cross_entropy_with_background_last():
    assert (num_mask_channels(K, "softmax"), num_mask_channels(K, "sigmoid")) == (K + 1, K)
    images = images_of(3, 2)
    logits = logits_for(images, K + 1)
    targets = mask_targets(images, 14)
    classes = torch.cat([image.gt_classes for image in images])
    labels = torch.where(targets, classes[:, None, None], K)  # (R, M, M)
    assert (labels == K).any()
    assert (labels < K).any()
    with EventStorage():
        loss = mask_loss(logits, images, loss="softmax")
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_softmax_gradients_compete():
    """In each cell the label's channel is pushed up, all others down, and the sum is zero."""
    images = images_of(2)
    logits = logits_for(images, K + 1).requires_grad_()
    with EventStorage():
        mask_loss(logits, images, loss="softmax").backward()
    targets = mask_targets(images, 14)
    labels = torch.where(targets, images[0].gt_classes[:, None, None], K)[:, None]
    assert (logits.grad.gather(1, labels) < 0).all()
    assert ((logits.grad > 0).sum(dim=1) == K).all()
    torch.testing.assert_close(logits.grad.sum(dim=1), torch.zeros(2, 14, 14), atol=1e-8, rtol=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_roi_learns_from_its_own_mask_only(loss):
    images = images_of(2, 1)
    logits = logits_for(images, num_mask_channels(K, loss)).requires_grad_()
    with EventStorage():
        together = mask_loss(logits, images, loss=loss)
        alone = [
            mask_loss(logits[rows], [image], loss=loss) * len(image)
            for rows, image in zip((slice(0, 2), slice(2, 3)), images, strict=True)
        ]
    torch.testing.assert_close(together, sum(alone) / 3)


def test_one_class_may_compete_with_the_background():
    images = images_of(2)
    images[0].gt_classes = torch.zeros(2, dtype=torch.int64)
    logits = logits_for(images, 2)
    with EventStorage():
        softmax = mask_loss(logits, images, loss="softmax")
        sigmoid = mask_loss(logits[:, :1] - logits[:, 1:], images, loss="sigmoid")
    torch.testing.assert_close(softmax, sigmoid)  # softmax of two is the sigmoid of a difference


@pytest.mark.parametrize("counts", EMPTY)
@pytest.mark.parametrize("loss", LOSSES)
def test_no_rois_cost_nothing_but_keep_the_graph(counts, loss):
    logits = torch.zeros(0, num_mask_channels(K, loss), 28, 28, requires_grad=True)
    with EventStorage() as storage:
        value = mask_loss(logits, images_of(*counts), loss=loss)
    value.backward()
    assert (value.item(), logits.grad.shape) == (0, logits.shape)
    assert not storage.latest()


@pytest.mark.parametrize("loss", LOSSES)
def test_large_logits_stay_finite(loss):
    images = images_of(2)
    logits = (logits_for(images, num_mask_channels(K, loss)) * 1e4).requires_grad_()
    with EventStorage():
        value = mask_loss(logits, images, loss=loss)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_half_precision_is_summed_in_single(loss):
    images = images_of(2)
    half = logits_for(images, num_mask_channels(K, loss)).bfloat16()
    with EventStorage(), torch.autocast("cpu", dtype=torch.bfloat16):
        value = mask_loss(half, images, loss=loss)
    with EventStorage():
        expected = mask_loss(half.float(), images, loss=loss)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("iteration", [3, 4])
def test_pictures_show_the_probability_beside_the_target(iteration):
    images = images_of(2)
    logits = logits_for(images, K + 1)
    with EventStorage(iteration) as storage:
        mask_loss(logits, images, loss="softmax", vis_period=4)
    if iteration % 4:
        assert not storage._vis_data
        return
    shown = torch.stack([picture for _, picture, _ in storage._vis_data])  # (R, 3, M, 2 M)
    rows = torch.arange(2)
    own = logits.softmax(dim=1)[rows, images[0].gt_classes]
    expected = torch.cat([own, mask_targets(images, 14).float()], dim=2)
    torch.testing.assert_close(shown, expected[:, None].expand(-1, 3, -1, -1))


@pytest.mark.parametrize(
    ("loss", "channels"), [("sigmoid", 1), ("sigmoid", K), ("softmax", K + 1), ("softmax", 2)]
)
def test_probabilities_of_the_predicted_class(loss, channels):
    classes = [[0, 0], [], [0]] if channels < K else [[2, 0], [], [1]]
    images = detections(*classes)
    logits = 2 * torch.randn(3, channels, 5, 5)
    mask_probabilities(logits, images, loss)
    assert [image.pred_masks.shape for image in images] == [(n, 1, 5, 5) for n in (2, 0, 1)]
    found = torch.cat([image.pred_masks for image in images])[:, 0]
    for roi, own in enumerate(sum(classes, [])):
        z = logits[roi].double()
        p = z[own].sigmoid() if loss == "sigmoid" else z[own].exp() / z.exp().sum(dim=0)
        torch.testing.assert_close(found[roi], p.float())


@pytest.mark.parametrize("channels", [1, K])
def test_sigmoid_probabilities_are_detectron2s_to_the_bit(channels):
    ours, stock = detections([2, 0], [1]), detections([2, 0], [1])
    logits = torch.randn(3, channels, 5, 5)
    mask_probabilities(logits, ours, "sigmoid")
    mask_rcnn_inference(logits, stock)
    for mine, theirs in zip(ours, stock, strict=True):
        assert torch.equal(mine.pred_masks, theirs.pred_masks)


@pytest.mark.parametrize("loss", LOSSES)
def test_probabilities_without_detections(loss):
    (image,) = detections([])
    mask_probabilities(torch.zeros(0, num_mask_channels(K, loss), 5, 5), [image], loss)
    assert image.pred_masks.shape == (0, 1, 5, 5)


@pytest.mark.parametrize(
    ("shape", "loss", "expected"),
    [
        ((2, K, 4, 5), "sigmoid", "4 x 5 cells, expected square"),
        ((2, K, 4, 4), "hinge", "loss='hinge', expected one of sigmoid, softmax"),
        ((2, 1, 4, 4), "softmax", "1 channel for the softmax"),
    ],
)
def test_wrong_arguments_are_named(shape, loss, expected):
    with pytest.raises(ValueError, match=expected):
        mask_loss(torch.zeros(shape), images_of(2), loss=loss)
