"""The RPN that computes its losses at the sampled anchors: Detectron2's losses and gradients."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext.modeling.speed import SampledRPN
from mask_rcnn_ext.modeling.speed.sampled_rpn import head_at, reads_single_cells

CHANNELS, SIZE = 6, (40, 56)


def rpns(*, ratios=(0.5, 1.0), conv_dims=(-1,), **settings) -> tuple[RPN, RPN]:
    """Detectron2's and ours, with the same weights."""
    torch.manual_seed(0)
    head = StandardRPNHead(in_channels=CHANNELS, num_anchors=len(ratios), conv_dims=list(conv_dims))
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.3)

    def build(kind: type[RPN]) -> RPN:
        return kind(
            in_features=["p2", "p3"],
            head=copy.deepcopy(head),
            anchor_generator=DefaultAnchorGenerator(
                sizes=[[8], [20]], aspect_ratios=[list(ratios)], strides=[4, 8]
            ),
            anchor_matcher=Matcher([0.3, 0.7], [0, -1, 1], allow_low_quality_matches=True),
            box2box_transform=Box2BoxTransform(weights=(1.0, 1.0, 1.0, 1.0)),
            batch_size_per_image=24,
            positive_fraction=0.5,
            pre_nms_topk=(60, 60),
            post_nms_topk=(20, 20),
            **settings,
        ).train()

    return build(RPN), build(SampledRPN)


def batch(objects=(3, 1)):
    torch.manual_seed(1)
    n = len(objects)
    maps = {f"p{k}": torch.randn(n, CHANNELS, SIZE[0] >> k, SIZE[1] >> k) for k in (2, 3)}
    truth = []
    for count in objects:
        corner = torch.rand(count, 2) * 25
        boxes = torch.cat((corner, corner + 5 + torch.rand(count, 2) * 10), 1)
        truth.append(Instances(SIZE, gt_boxes=Boxes(boxes)))
    return ImageList(torch.zeros(n, 3, *SIZE), [SIZE] * n), maps, truth


def run(rpn: RPN, images, maps, truth, *, channels_last=False):
    """Losses, proposals, gradients of maps and weights, and what was logged."""
    order = torch.channels_last if channels_last else torch.contiguous_format
    maps = {k: v.contiguous(memory_format=order).requires_grad_() for k, v in maps.items()}
    torch.manual_seed(2)
    with EventStorage(0) as storage:
        proposals, losses = rpn(images, maps, truth)
        # Unequal shares, so that one loss cannot stand in for the other.
        (losses["loss_rpn_cls"] + 3 * losses["loss_rpn_loc"]).backward()
        logged = {name: value for name, (value, _) in storage.latest().items()}
    grads = {k: v.grad for k, v in maps.items()} | {k: p.grad for k, p in rpn.named_parameters()}
    return losses, proposals, grads, logged


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"box_reg_loss_type": "giou"},
        {"smooth_l1_beta": 0.5, "loss_weight": {"loss_rpn_cls": 2.0, "loss_rpn_loc": 0.5}},
        {"ratios": (1.0,)},
        {"conv_dims": (9,)},
        {"anchor_boundary_thresh": 0},
    ],
    ids=["plain", "giou", "weights", "one anchor", "wide", "inside only"],
)
def test_losses_gradients_and_proposals_are_detectron2s(settings, channels_last):
    images, maps, truth = batch()
    stock, ours = (
        run(r, images, maps, truth, channels_last=channels_last) for r in rpns(**settings)
    )
    for expected, found in ((stock[0], ours[0]), (stock[2], ours[2])):
        assert list(expected) == list(found)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)
            assert value.abs().max() > 0, name
    assert stock[3] == ours[3]
    assert stock[3]["rpn/num_pos_anchors"] > 0
    for expected, found in zip(stock[1], ours[1], strict=True):
        torch.testing.assert_close(found.proposal_boxes.tensor, expected.proposal_boxes.tensor)
        torch.testing.assert_close(found.objectness_logits, expected.objectness_logits)
        assert not found.proposal_boxes.tensor.requires_grad


@pytest.mark.parametrize("objects", [(0, 0), (0, 2), (1,)])
def test_images_without_objects(objects):
    images, maps, truth = batch(objects)
    stock, ours = (run(r, images, maps, truth) for r in rpns())
    for name, value in stock[0].items():
        torch.testing.assert_close(ours[0][name], value)
    for name, value in stock[2].items():
        torch.testing.assert_close(ours[2][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_every_anchor_is_read_at_its_place():
    """Edges and corners too, in any order within an image."""
    _, ours = rpns()
    _, maps, _ = batch()
    levels = list(maps.values())
    logits, deltas = ours.rpn_head(levels)
    dense = torch.cat([x.permute(0, 2, 3, 1).flatten(1) for x in logits], 1)
    dense_deltas = torch.cat(
        [x.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3) for x in deltas], 1
    )
    image = torch.arange(2).repeat_interleave(dense.shape[1])
    anchor = torch.cat([torch.randperm(dense.shape[1]) for _ in range(2)])
    found, found_deltas = head_at(ours.rpn_head, levels, image, anchor, 2)
    torch.testing.assert_close(found, dense[image, anchor], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found_deltas, dense_deltas[image, anchor], rtol=1e-4, atol=1e-5)


def test_the_dense_pass_keeps_nothing_for_a_gradient():
    _, ours = rpns()
    seen = []
    ours.rpn_head.register_forward_hook(lambda m, i, out: seen.extend([*out[0], *out[1]]))
    run(ours, *batch())
    assert seen
    assert not any(out.requires_grad for out in seen)


def test_gradients_are_the_same_bits_each_time():
    torch.manual_seed(3)
    maps = torch.randn(2, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    head = StandardRPNHead(in_channels=64, num_anchors=1)
    image = torch.arange(2).repeat_interleave(600)
    anchor = torch.randint(0, 32 * 32, (1200,))
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 2, 2):
            torch.set_num_threads(threads)
            level = maps.clone().requires_grad_()
            head_at(head, [level], image, anchor, 1)[0].square().sum().backward()
            found.append(level.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[1], other) for other in found[2:])
    torch.testing.assert_close(found[0], found[1])


def test_inference_is_detectron2s():
    images, maps, _ = batch()
    with torch.no_grad():
        (stock, _), (ours, losses) = (r.eval()(images, maps) for r in rpns())
    assert losses == {}
    for expected, found in zip(stock, ours, strict=True):
        assert torch.equal(found.proposal_boxes.tensor, expected.proposal_boxes.tensor)


def test_another_head_goes_detectron2s_way():
    stock, ours = rpns(conv_dims=(-1, -1))
    assert not reads_single_cells(ours.rpn_head)
    images, maps, truth = batch()
    expected, found = (run(r, images, maps, truth) for r in (stock, ours))
    for name, value in expected[0].items():
        assert torch.equal(found[0][name], value)

    class Other(StandardRPNHead):
        pass

    assert not reads_single_cells(Other(in_channels=4, num_anchors=1))
    assert not reads_single_cells(nn.Identity())
    head = StandardRPNHead(in_channels=4, num_anchors=1)
    assert reads_single_cells(head)
    head.conv.dilation = (2, 2)
    assert not reads_single_cells(head)


def test_proposals_in_training_are_detectron2s():
    """Scores that tie, boxes that vanish at the border, images of different sizes."""
    theirs, ours = rpns(nms_thresh=0.5)
    sizes = [(40, 56), (33, 41)]
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        maps = [torch.zeros(2, CHANNELS, 10, 14), torch.zeros(2, CHANNELS, 5, 7)]
        anchors = theirs.anchor_generator(maps)
        logits = [torch.randint(0, 40, (2, len(a)), generator=generator) / 4 for a in anchors]
        deltas = [torch.randn(2, len(a), 4, generator=generator) * 0.8 for a in anchors]
        deltas[1][:, ::3, 0] += 9  # far to the right: nothing is left of them in the image
        expected = theirs.predict_proposals(anchors, logits, deltas, sizes)
        found = ours.predict_proposals(anchors, logits, deltas, sizes)
        assert len(found) == 2
        for a, b in zip(expected, found, strict=True):
            assert a.image_size == b.image_size
            assert 0 < len(a) <= 20
            assert torch.equal(a.objectness_logits, b.objectness_logits)
            torch.testing.assert_close(a.proposal_boxes.tensor, b.proposal_boxes.tensor)


def test_no_box_is_left():
    _, ours = rpns(nms_thresh=0.5)
    ours.min_box_size = 1000.0
    maps = [torch.zeros(1, CHANNELS, 10, 14), torch.zeros(1, CHANNELS, 5, 7)]
    anchors = ours.anchor_generator(maps)
    logits, deltas = ([torch.zeros(1, len(a), *s) for a in anchors] for s in ((), (4,)))
    (found,) = ours.predict_proposals(anchors, logits, deltas, [SIZE])
    assert len(found) == 0
    assert found.proposal_boxes.tensor.shape == (0, 4)


@pytest.mark.parametrize("where", ["logits", "deltas"])
def test_proposals_that_are_not_finite_are_an_error(where):
    _, ours = rpns(nms_thresh=0.5)
    maps = [torch.zeros(1, CHANNELS, 10, 14), torch.zeros(1, CHANNELS, 5, 7)]
    anchors = ours.anchor_generator(maps)
    logits, deltas = ([torch.zeros(1, len(a), *s) for a in anchors] for s in ((), (4,)))
    (logits if where == "logits" else deltas)[1][:, :] = torch.nan
    with pytest.raises(FloatingPointError, match="diverged"):
        ours.predict_proposals(anchors, logits, deltas, [SIZE])
