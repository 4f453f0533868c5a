"""What a Mask R-CNN computes on the way from one image to its detections, stage by stage.

The model's own parts run one after the other, and what they hand on is kept; nothing is computed in
another way than in inference.

Letters: R RoIs, h, w the image as the network sees it, whose pixels are the frame of all boxes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN, ProposalNetwork
from detectron2.modeling.poolers import assign_boxes_to_levels
from detectron2.modeling.proposal_generator.proposal_utils import find_top_rpn_proposals
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from ..errors import UsageError
from ..modeling.roi_extractor import RoIExtractor
from ..ops import assign_levels
from .stage_records import (
    AnchorLevel,
    Candidates,
    MaskPair,
    PooledRoI,
    RoILayer,
    SampledRoIs,
    Stages,
)

_NO_NMS = 2.0  # no IoU is above it


def collect_stages(
    model: nn.Module,
    one_input: dict[str, Any],
    truth: Instances | None = None,
    *,
    detection: int = 0,
    seed: int = 0,
) -> Stages:
    """Run a model on one image and keep what its parts hand on.

    Args:
        model: an R-CNN or a proposal network, in evaluation mode
        one_input: "image" (3, h, w) and the original "height" and "width"
        truth: gt_boxes, gt_classes and, for masks, gt_masks, in the frame of "image"; RoIs are then
            sampled as in training, from the proposals of inference
        detection: the detection whose RoI is shown in the RoI layer; without detections it is the
            best proposal
        seed: of the sampling
    Raises:
        UsageError: a model of another kind; no such detection
    """
    if not isinstance(model, GeneralizedRCNN | ProposalNetwork) or model.proposal_generator is None:
        raise UsageError(
            f"inspect looks into R-CNNs with a region proposal network, not {type(model).__name__}"
        )
    with torch.no_grad():
        device = model.pixel_mean.device
        pixels = (one_input["image"].to(device) - model.pixel_mean) / model.pixel_std
        images = ImageList.from_tensors([pixels], model.backbone.size_divisibility)
        features = model.backbone(images.tensor)
        anchors, before, proposals, as_instances = _propose(
            model.proposal_generator, images, features
        )
        first = Stages(
            image=one_input["image"].cpu(),
            original_size=(one_input["height"], one_input["width"]),
            padded_size=tuple(images.tensor.shape[-2:]),
            anchors=anchors,
            before_nms=before,
            proposals=proposals,
        )
        if isinstance(model, ProposalNetwork):
            return first
        if truth is not None:
            truth = truth.to(device)
        return _second_stage(first, model.roi_heads, features, as_instances, truth, detection, seed)


def _propose(
    rpn: Any, images: ImageList, features: dict[str, torch.Tensor]
) -> tuple[list[AnchorLevel], Candidates, Candidates, Instances]:
    kept: list[Any] = []
    original = rpn.predict_proposals

    def keeping(*args: Any) -> Any:
        kept[:] = args
        return original(*args)

    rpn.predict_proposals = keeping  # an attribute of this object, which hides the method
    try:
        found = rpn(images, features, None)[0][0]
    finally:
        del rpn.predict_proposals
    anchors, logits, deltas, sizes = kept
    decoded = rpn._decode_proposals(anchors, deltas)
    levels = []
    shapes = [features[name].shape[-2:] for name in rpn.in_features]
    for name, stride, (rows, columns), boxes, scores in zip(
        rpn.in_features, rpn.anchor_generator.strides, shapes, anchors, logits, strict=True
    ):
        per_cell = len(boxes) // (rows * columns)
        levels.append(
            AnchorLevel(
                name,
                stride,
                boxes.tensor.reshape(rows, columns, per_cell, 4).cpu(),
                scores[0].reshape(rows, columns, per_cell).cpu(),
            )
        )
    before = _before_nms(rpn, decoded, logits, sizes)
    return levels, before, _with_levels(found, before), found


def _before_nms(
    rpn: Any, decoded: list[torch.Tensor], logits: list[torch.Tensor], sizes: Any
) -> Candidates:
    """What NMS gets: Detectron2's own choice, level by level, with a threshold that keeps all."""
    boxes, scores, levels = [], [], []
    for level, (some, their_logits) in enumerate(zip(decoded, logits, strict=True)):
        top = rpn.pre_nms_topk[False]
        one = find_top_rpn_proposals(
            [some], [their_logits], sizes, _NO_NMS, top, top, rpn.min_box_size, False
        )[0]
        boxes.append(one.proposal_boxes.tensor.cpu())
        scores.append(one.objectness_logits.cpu())
        levels.append(torch.full((len(one),), level))
    order = torch.cat(scores).argsort(descending=True, stable=True)
    return Candidates(torch.cat(boxes)[order], torch.cat(scores)[order], torch.cat(levels)[order])


def _with_levels(found: Instances, before: Candidates) -> Candidates:
    """The proposals, each with the level of the candidate that it is."""
    boxes, logits = found.proposal_boxes.tensor.cpu(), found.objectness_logits.cpu()
    rows = torch.cat([before.boxes, before.logits[:, None]], dim=1).tolist()
    level_of = {tuple(row): level for row, level in zip(rows, before.levels.tolist(), strict=True)}
    mine = torch.cat([boxes, logits[:, None]], dim=1).tolist()
    levels = torch.tensor([level_of[tuple(row)] for row in mine], dtype=torch.int64)
    return Candidates(boxes, logits, levels)


def _second_stage(
    first: Stages,
    heads: Any,
    features: dict[str, torch.Tensor],
    proposals: Instances,
    truth: Instances | None,
    detection: int,
    seed: int,
) -> Stages:
    found: Instances = heads(None, features, [proposals], None)[0][0]
    box_pooler, box_names = _pooler(heads, "box")
    mask_pooler, mask_names = _pooler(heads, "mask") if heads.mask_on else (None, ())
    sampled = None if truth is None else _sample(heads, proposals, truth, seed)
    rois = proposals if sampled is None else sampled
    boxes = rois.proposal_boxes
    pooler, names = (mask_pooler, mask_names) if mask_pooler else (box_pooler, box_names)
    chosen = _chosen(found, proposals, detection)
    return replace(
        first,
        box_layer=_layer(box_pooler, box_names),
        rois=SampledRoIs(
            boxes.tensor.cpu(),
            _levels(box_pooler, boxes).cpu(),
            None if sampled is None else sampled.gt_classes.cpu(),
            sampled.gt_boxes.tensor.cpu()
            if sampled is not None and sampled.has("gt_boxes")
            else None,
        ),
        mask_layer=_layer(mask_pooler, mask_names) if mask_pooler else None,
        pooled=None if chosen is None else _pool(pooler, [features[n] for n in names], chosen),
        sampled_masks=None if sampled is None else _sampled_masks(heads, features, sampled),
        detected_masks=_masks_of(found),
        detections=found.to("cpu"),
    )


def _sample(heads: Any, proposals: Instances, truth: Instances, seed: int) -> Instances:
    """Training's choice of RoIs; same seed, same choice."""
    with torch.random.fork_rng(), EventStorage():  # which Detectron2 tells the counts to
        torch.manual_seed(seed)
        chosen: Instances = heads.label_and_sample_proposals([proposals], [truth])[0]
    return chosen


def _sampled_masks(
    heads: Any, features: dict[str, torch.Tensor], sampled: Instances
) -> MaskPair | None:
    """The mask head on the foreground RoIs, for the classes that training would teach them."""
    if not heads.mask_on or not sampled.has("gt_masks"):
        return None
    classes = sampled.gt_classes
    foreground = sampled[(classes >= 0) & (classes < heads.num_classes)]
    if not len(foreground):
        return None
    # The model's own way to masks of given boxes.
    given = Instances(sampled.image_size)
    given.pred_boxes = foreground.proposal_boxes
    given.pred_classes = foreground.gt_classes
    keypoint_on = getattr(heads, "keypoint_on", False)
    try:
        heads.keypoint_on = False
        predicted = heads.forward_with_given_boxes(features, [given])[0]
    finally:
        heads.keypoint_on = keypoint_on
    pair = _masks_of(predicted)
    assert pair is not None, "a model with masks predicted none"
    side = pair.probabilities.shape[-1]
    targets = foreground.gt_masks.crop_and_resize(foreground.proposal_boxes.tensor, side).cpu()
    return MaskPair(pair.boxes, pair.classes, pair.probabilities, targets > 0.5)


def _masks_of(found: Instances) -> MaskPair | None:
    if not found.has("pred_masks"):
        return None
    return MaskPair(
        found.pred_boxes.tensor.cpu(), found.pred_classes.cpu(), found.pred_masks[:, 0].cpu(), None
    )


def _chosen(found: Instances, proposals: Instances, detection: int) -> Boxes | None:
    if len(found):
        if detection >= len(found):
            raise UsageError(f"there is no detection {detection}; the last one is {len(found) - 1}")
        return found.pred_boxes[detection]
    return proposals.proposal_boxes[:1] if len(proposals) else None


def _pooler(heads: Any, branch: str) -> tuple[Any, Sequence[str]]:
    """A branch's RoI layer and the names of the feature maps that it reads."""
    if hasattr(heads, f"{branch}_pooler"):
        return getattr(heads, f"{branch}_pooler"), getattr(heads, f"{branch}_in_features")
    return heads.pooler, heads.in_features  # branches that share res5


def _layer(pooler: Any, names: Sequence[str]) -> RoILayer:
    if isinstance(pooler, RoIExtractor):
        layer, aggregation, ratio = pooler.layer, pooler.aggregation, pooler.sampling_ratio
        strides = [1 / scale for scale in pooler.scales]
    else:  # Detectron2's own
        one = pooler.level_poolers[0]
        strides = [1 / each.spatial_scale for each in pooler.level_poolers]
        ratio = getattr(one, "sampling_ratio", 0)
        if hasattr(one, "aligned"):
            layer, aggregation = ("RoIAlignV2" if one.aligned else "RoIAlign"), "ave"
        else:
            layer, aggregation = "RoIPool", "max"
    return RoILayer(
        layer, aggregation, ratio, tuple(pooler.output_size), tuple(names), tuple(strides)
    )


def _levels(pooler: Any, boxes: Boxes) -> torch.Tensor:
    """(R,) int64, the level that the pooler assigns to each box."""
    tensor = boxes.tensor
    if isinstance(pooler, RoIExtractor):
        if len(pooler.scales) == 1:
            return torch.zeros(len(tensor), dtype=torch.int64)
        rois = torch.cat([torch.zeros_like(tensor[:, :1]), tensor], dim=1)
        return assign_levels(rois, pooler.scales, pooler.canonical_box_size, pooler.canonical_level)
    if len(pooler.level_poolers) == 1:
        return torch.zeros(len(tensor), dtype=torch.int64)
    return assign_boxes_to_levels(
        [boxes],
        pooler.min_level,
        pooler.max_level,
        pooler.canonical_box_size,
        pooler.canonical_level,
    )


def _pool(pooler: Any, maps: list[torch.Tensor], box: Boxes) -> PooledRoI:
    level = int(_levels(pooler, box)[0])
    pooled = pooler(maps, [box])[0].cpu()
    return PooledRoI(box.tensor[0].cpu(), level, maps[level][0].cpu(), pooled)
