"""The stages' tensors against others that were computed another way; FPN, C4, parts that miss."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.structures.boxes import pairwise_iou
from tiny_model import CLASSES, save_tiny_model
from torch.nn import functional as F
from torchvision.ops import nms

from mask_rcnn_ext.engine.stages import collect_stages
from mask_rcnn_ext.engine.trained import load_trained
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.visualization.inspect_numbers import numbers_of, plain

C4 = (
    *("MODEL.RESNETS.RES2_OUT_CHANNELS", 16, "MODEL.RESNETS.WIDTH_PER_GROUP", 4),
    *("MODEL.RESNETS.STEM_OUT_CHANNELS", 8, "MODEL.RESNETS.NORM", "BN", "MODEL.WEIGHTS", ""),
    *("MODEL.ROI_HEADS.NUM_CLASSES", 9, "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 32),
    *("MODEL.ROI_MASK_HEAD.CONV_DIM", 8, "MODEL.RPN.POST_NMS_TOPK_TEST", 50),
    *("INPUT.MIN_SIZE_TEST", 144, "INPUT.MAX_SIZE_TEST", 256),
    # Random offsets are large: boxes without width.
    *("MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS", "(1e6, 1e6, 1e6, 1e6)"),
)


def load(folder, overrides=(), **changes):
    config, weights = save_tiny_model(folder, overrides, **changes)
    return load_trained(config, weights, score_threshold=0.05, max_detections=6)


def truth(height: int, width: int, boxes: list[list[float]] | None = None) -> Instances:
    """Two rectangles, each its own mask."""
    boxes = boxes or [[20.0, 30.0, 90.0, 100.0], [100.0, 10.0, 150.0, 60.0]]
    masks = torch.zeros(2, height, width, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, torch.tensor(boxes).int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = True
    objects = Instances((height, width))
    objects.gt_boxes, objects.gt_classes = Boxes(torch.tensor(boxes)), torch.tensor([3, 7])
    objects.gt_masks = BitMasks(masks)
    return objects


@pytest.fixture(scope="module")
def fpn(tmp_path_factory):
    # Anchors that lie close together: suppression has something to do.
    sizes = ("MODEL.ANCHOR_GENERATOR.SIZES", "[[30], [40], [56], [72]]")
    return load(tmp_path_factory.mktemp("fpn"), sizes)


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (144, 190, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def objects(fpn, image):
    """Objects that some proposals hit: they lie where the largest proposals are."""
    proposals = collect_stages(fpn.model, fpn.input_of(image)).proposals.boxes
    large = proposals[Boxes(proposals).area().argsort(descending=True)].round()
    apart = large[pairwise_iou(Boxes(large), Boxes(large[:1]))[:, 0] < 0.1]
    return truth(144, 190, [large[0].tolist(), apart[0].tolist()])


@pytest.fixture(scope="module")
def stages(fpn, image, objects):
    return collect_stages(fpn.model, fpn.input_of(image), objects)


@pytest.fixture(scope="module")
def features(fpn, image):
    """Of the backbone, and the images, computed as `GeneralizedRCNN.inference` does."""
    with torch.no_grad():
        images = fpn.model.preprocess_image([fpn.input_of(image)])
        return images, fpn.model.backbone(images.tensor)


def test_sizes(stages):
    assert stages.original_size == (144, 190)
    assert stages.image.shape == (3, 144, 190)
    assert stages.padded_size == (144, 192)


def test_anchors_lie_around_their_cells(stages):
    sizes = [30, 40, 56, 72]
    for level, size in zip(stages.anchors, sizes, strict=True):
        rows, columns, per_cell, _ = level.anchors.shape
        assert level.logits.shape == (rows, columns, per_cell)
        middle = (level.anchors[..., :2] + level.anchors[..., 2:]) / 2
        expected = torch.tensor([5 % columns, 2 % rows]) * float(level.stride)
        assert torch.allclose(middle[2 % rows, 5 % columns], expected.expand(per_cell, 2))
        extent = level.anchors[0, 0, :, 2:] - level.anchors[0, 0, :, :2]
        assert torch.allclose(extent.prod(dim=1), torch.full((per_cell,), size**2.0))


def test_objectness_is_the_rpn_heads(fpn, features, stages):
    _, maps = features
    rpn = fpn.model.proposal_generator
    with torch.no_grad():
        logits, _ = rpn.rpn_head([maps[name] for name in rpn.in_features])
    for level, one in zip(stages.anchors, logits, strict=True):
        assert torch.equal(level.logits, one[0].permute(1, 2, 0))


def test_proposals_are_the_candidates_that_survive_nms(fpn, features, stages):
    images, maps = features
    with torch.no_grad():
        found = fpn.model.proposal_generator(images, maps, None)[0][0]
    assert torch.equal(stages.proposals.boxes, found.proposal_boxes.tensor)
    assert torch.equal(stages.proposals.logits, found.objectness_logits)

    before, after = stages.before_nms, stages.proposals
    candidates = sum(min(300, level.logits.numel()) for level in stages.anchors)
    assert candidates * 0.95 < len(before.logits) <= candidates, "all but those outside the image"
    assert (before.logits.diff() <= 0).all()
    kept = []
    for level in range(len(stages.anchors)):
        mine = (before.levels == level).nonzero()[:, 0]
        kept.append(mine[nms(before.boxes[mine], before.logits[mine], 0.7)])
    kept = torch.cat(kept)
    kept = kept[before.logits[kept].argsort(descending=True, stable=True)][: len(after.logits)]
    assert torch.equal(before.logits[kept], after.logits)
    assert torch.equal(before.levels[kept].bincount(), after.levels.bincount())


def test_candidates_are_decoded_anchors(fpn, features, stages):
    """The best candidate: its anchor, moved by the deltas by hand."""
    _, maps = features
    rpn = fpn.model.proposal_generator
    level = int(stages.before_nms.levels[0])
    with torch.no_grad():
        logits, deltas = rpn.rpn_head([maps[name] for name in rpn.in_features])
    flat = logits[level][0].permute(1, 2, 0).flatten()
    best = int(flat.argmax())
    assert flat[best] == stages.before_nms.logits[0]
    anchor = stages.anchors[level].anchors.reshape(-1, 4)[best]
    per_cell, (rows, columns) = stages.anchors[level].anchors.shape[2], logits[level].shape[2:]
    moved = deltas[level][0].reshape(per_cell, 4, rows, columns).permute(2, 3, 0, 1)
    dx, dy, dw, dh = moved.reshape(-1, 4)[best]
    size, middle = anchor[2:] - anchor[:2], (anchor[2:] + anchor[:2]) / 2
    middle = middle + torch.stack([dx, dy]) * size
    size = size * torch.stack([dw, dh]).exp()
    expected = torch.cat([middle - size / 2, middle + size / 2])
    limit = torch.tensor([190.0, 144, 190, 144])
    expected = expected.clamp(min=torch.zeros(4), max=limit)
    assert torch.allclose(stages.before_nms.boxes[0], expected, atol=1e-3)


def test_rois_are_sampled_as_in_training(stages, objects):
    rois = stages.rois
    assert len(rois.boxes) == 32
    foreground = rois.classes < 9
    assert 2 < foreground.sum() <= 16
    overlaps = pairwise_iou(Boxes(rois.boxes), objects.gt_boxes)
    best, which = overlaps.max(dim=1)
    assert torch.equal(foreground, best >= 0.5)
    assert torch.equal(rois.classes[foreground], objects.gt_classes[which[foreground]])
    assert torch.equal(rois.matched[foreground], objects.gt_boxes.tensor[which[foreground]])


def test_levels_follow_the_rois_size(stages):
    extent = stages.rois.boxes[:, 2:] - stages.rois.boxes[:, :2]
    side = extent.prod(dim=1).sqrt()
    level = torch.floor(4 + torch.log2(side / 224 + 1e-8)).clamp(2, 4) - 2
    assert torch.equal(stages.rois.levels, level.long())
    assert stages.box_layer.feature_names == ("p2", "p3", "p4")
    assert stages.box_layer.strides == (4.0, 8.0, 16.0)


def test_the_same_seed_gives_the_same_rois(fpn, image, stages, objects):
    state = torch.get_rng_state()
    again = collect_stages(fpn.model, fpn.input_of(image), objects)
    assert torch.equal(again.rois.boxes, stages.rois.boxes)
    assert torch.equal(torch.get_rng_state(), state)
    other = collect_stages(fpn.model, fpn.input_of(image), objects, seed=1)
    assert not torch.equal(other.rois.boxes, stages.rois.boxes)


def read_at(features: torch.Tensor, layer: dict) -> torch.Tensor:
    """(C, PH, PW): the mean of `grid_sample` at the page's points of each bin."""
    height, width = layer["cells"]
    result = torch.zeros(len(features), *layer["bins"])
    for py, ys in enumerate(layer["samples_y"]):
        for px, xs in enumerate(layer["samples_x"]):
            points = torch.tensor([[[x, y] for x in xs] for y in ys]) / layer["stride"]
            # grid_sample's frame is -1 to 1 from edge to edge; beyond the last centre it repeats.
            grid = points / torch.tensor([width, height]) * 2 - 1
            values = F.grid_sample(
                features[None], grid[None].float(), "bilinear", "border", align_corners=False
            )
            result[:, py, px] = values[0].mean(dim=(1, 2))
    return result


def test_the_points_on_the_page_are_those_that_the_roi_layer_reads(stages):
    layer = numbers_of(stages, CLASSES, top=5, masks=5)["roi_layer"]
    assert layer["branch"] == "mask"
    assert layer["bins"] == [14, 14]
    assert torch.allclose(read_at(stages.pooled.features, layer), stages.pooled.pooled, atol=1e-4)


def test_the_points_on_a_coarser_level(tmp_path, image):
    trained = load(tmp_path)
    heads = trained.model.roi_heads
    heads.box_pooler.canonical_box_size = heads.mask_pooler.canonical_box_size = 10
    found = collect_stages(trained.model, trained.input_of(image))
    assert found.pooled.level > 0
    assert found.rois.levels.max() > 0
    layer = numbers_of(found, CLASSES, top=5, masks=5)["roi_layer"]
    assert layer["level"] == found.mask_layer.feature_names[found.pooled.level]
    assert torch.allclose(read_at(found.pooled.features, layer), found.pooled.pooled, atol=1e-4)


def test_masks_of_sampled_rois_beside_their_targets(fpn, features, stages):
    _, maps = features
    pair, heads = stages.sampled_masks, fpn.model.roi_heads
    foreground = stages.rois.classes < 9
    assert torch.equal(pair.boxes, stages.rois.boxes[foreground])
    assert torch.equal(pair.classes, stages.rois.classes[foreground])
    with torch.no_grad():
        pooled = heads.mask_pooler([maps[n] for n in heads.mask_in_features], [Boxes(pair.boxes)])
        logits = heads.mask_head.layers(pooled)
    expected = logits[torch.arange(len(pair.classes)), pair.classes].sigmoid()
    assert torch.equal(pair.probabilities, expected)

    assert pair.targets.shape == pair.probabilities.shape
    matched = stages.rois.matched[foreground]
    for target, box, object_box in zip(pair.targets, pair.boxes, matched, strict=True):
        # The objects are rectangles: a cell whose middle is well inside one is 1, well outside 0.
        x = box[0] + (torch.arange(28) + 0.5) / 28 * (box[2] - box[0])
        y = box[1] + (torch.arange(28) + 0.5) / 28 * (box[3] - box[1])
        x0, y0, x1, y1 = object_box
        inside = ((y > y0 + 2) & (y < y1 - 2))[:, None] & ((x > x0 + 2) & (x < x1 - 2))
        outside = ((y < y0 - 2) | (y > y1 + 2))[:, None] | ((x < x0 - 2) | (x > x1 + 2))
        assert target[inside].all()
        assert not target[outside].any()


def test_detections_are_the_models(fpn, image, stages):
    with torch.no_grad():
        found = fpn.model.inference([fpn.input_of(image)], do_postprocess=False)[0]
    assert len(found) == 6
    assert torch.equal(stages.detections.pred_boxes.tensor, found.pred_boxes.tensor)
    assert torch.equal(stages.detections.scores, found.scores)
    assert torch.equal(stages.detected_masks.probabilities, found.pred_masks[:, 0])
    assert torch.equal(stages.pooled.box, found.pred_boxes.tensor[0])


def test_another_detection_can_be_chosen(fpn, image):
    chosen = collect_stages(fpn.model, fpn.input_of(image), detection=2)
    assert torch.equal(chosen.pooled.box, chosen.detections.pred_boxes.tensor[2])
    with pytest.raises(UsageError, match="the last one is 5"):
        collect_stages(fpn.model, fpn.input_of(image), detection=6)


def test_without_annotations_the_rois_are_the_proposals(fpn, image):
    bare = collect_stages(fpn.model, fpn.input_of(image))
    assert bare.rois.classes is None
    assert torch.equal(bare.rois.boxes, bare.proposals.boxes)
    assert bare.sampled_masks is None
    assert bare.detected_masks.targets is None


def test_an_image_without_objects(fpn, image):
    nothing = Instances((144, 190))
    nothing.gt_boxes, nothing.gt_classes = Boxes(torch.zeros(0, 4)), torch.zeros(0).long()
    nothing.gt_masks = BitMasks(torch.zeros(0, 144, 190, dtype=torch.bool))
    found = collect_stages(fpn.model, fpn.input_of(image), nothing)
    assert (found.rois.classes == 9).all()
    assert found.sampled_masks is None
    levels = numbers_of(found, CLASSES, top=5, masks=5)["rois"]["levels"]
    assert sum(level["background"] for level in levels) == 32


def test_nothing_detected_shows_the_best_proposal(tmp_path, image):
    config, weights = save_tiny_model(tmp_path)
    strict = load_trained(config, weights, score_threshold=1.0)
    found = collect_stages(strict.model, strict.input_of(image))
    assert len(found.detections) == 0
    assert torch.equal(found.pooled.box, found.proposals.boxes[0])


def test_c4(tmp_path, image):
    trained = load(tmp_path, C4, config="COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml")
    found = collect_stages(trained.model, trained.input_of(image), truth(144, 190))
    assert [level.name for level in found.anchors] == ["res4"]
    assert found.box_layer.strides == (16.0,)
    assert (found.rois.levels == 0).all()
    assert found.pooled.pooled.shape[1:] == (14, 14)
    assert len(found.sampled_masks.boxes) > 0
    assert found.sampled_masks.probabilities.shape[1:] == (14, 14)
    layer = numbers_of(found, CLASSES, top=5, masks=5)["roi_layer"]
    assert torch.allclose(
        read_at(found.pooled.features, layer), found.pooled.pooled, rtol=1e-4, atol=1e-3
    )


def test_detectron2s_own_heads(tmp_path, image):
    trained = load(tmp_path, ["MODEL.ROI_HEADS.NAME", "StandardROIHeads"])
    found = collect_stages(trained.model, trained.input_of(image), truth(144, 190))
    assert found.mask_layer.layer == "RoIAlignV2"
    layer = numbers_of(found, CLASSES, top=5, masks=5)["roi_layer"]
    assert torch.allclose(read_at(found.pooled.features, layer), found.pooled.pooled, atol=1e-4)
    side = (found.rois.boxes[:, 2:] - found.rois.boxes[:, :2]).prod(dim=1).sqrt()
    assert torch.equal(
        found.rois.levels, torch.zeros_like(found.rois.levels) + (side >= 112).long()
    )


def test_parts_that_are_missing(tmp_path, image):
    boxes_only = load(tmp_path, ["MODEL.MASK_ON", False])
    found = collect_stages(boxes_only.model, boxes_only.input_of(image), truth(144, 190))
    assert found.mask_layer is found.sampled_masks is found.detected_masks is None
    assert found.pooled.pooled.shape[1:] == (7, 7)
    assert numbers_of(found, CLASSES, top=5, masks=5)["roi_layer"]["branch"] == "box"

    rpn_only = load(tmp_path, ["MODEL.META_ARCHITECTURE", "ProposalNetwork"])
    found = collect_stages(rpn_only.model, rpn_only.input_of(image))
    assert found.detections is found.rois is found.pooled is None
    assert len(found.proposals.logits) > 0
    with pytest.raises(UsageError, match="region proposal network"):
        collect_stages(torch.nn.Identity(), {})


def test_keypoints_are_left_as_they_are(tmp_path, image):
    head = ("MODEL.KEYPOINT_ON", True, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", "[8]")
    trained = load(tmp_path, head)
    found = collect_stages(trained.model, trained.input_of(image), truth(144, 190))
    assert found.detections.pred_keypoints.shape[1:] == (17, 3)
    assert trained.model.roi_heads.keypoint_on
    assert len(found.sampled_masks.boxes) > 0


def test_numbers_are_the_tensors(stages):
    numbers = numbers_of(stages, CLASSES, top=10, masks=3)
    assert numbers["before_nms"]["count"] == len(stages.before_nms.logits)
    shown = numbers["proposals"]["shown"]
    assert len(shown) == 10
    boxes = torch.tensor([one["box"] for one in shown])
    assert torch.allclose(boxes, stages.proposals.boxes[:10], rtol=1e-6)
    logits = torch.tensor([one["logit"] for one in shown])
    assert torch.allclose(logits, stages.proposals.logits[:10], rtol=1e-6)
    masks = numbers["sampled_masks"]
    assert len(masks) == min(3, len(stages.sampled_masks.boxes)) > 1
    for one, probabilities, target in zip(
        masks, stages.sampled_masks.probabilities, stages.sampled_masks.targets, strict=False
    ):
        assert torch.allclose(torch.tensor(one["probabilities"]), probabilities, rtol=1e-6)
        assert torch.equal(torch.tensor(one["target"]).bool(), target)
        predicted = probabilities >= 0.5
        union = (predicted | target).sum()
        assert one["iou"] == pytest.approx(((predicted & target).sum() / union).item(), rel=1e-5)
    counts = sum(level["count"] for level in numbers["rois"]["levels"])
    assert counts == numbers["rois"]["count"] == 32


def test_plain_keeps_what_float32_has():
    values = torch.tensor([1 / 3, 123456.7])
    assert torch.allclose(torch.tensor(plain(values)), values, rtol=1e-7)
    assert plain(np.array([1, 2])) == [1, 2]
    assert plain(((1.0, 2.0), ())) == [[1.0, 2.0], []]
