"""The stages of a Mask R-CNN for one image, as tensors on the CPU; `stages.py` fills them.

Letters: L levels, A anchors a cell, P proposals, R RoIs, K classes, M the mask's side, h, w the
image as the network sees it. Frame of all boxes: pixels of that image, x0, y0, x1, y1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from detectron2.structures import Instances


@dataclass(frozen=True)
class Candidates:
    """Boxes with the RPN's scores, the best first.

    Attributes:
        boxes: (P, 4) float, clipped to the image
        logits: (P,) float, objectness
        levels: (P,) int64, index of the level that each comes from
    """

    boxes: torch.Tensor
    logits: torch.Tensor
    levels: torch.Tensor


@dataclass(frozen=True)
class AnchorLevel:
    """One feature map as the RPN sees it.

    Attributes:
        name: of the feature map
        stride: pixels a cell
        anchors: (H, W, A, 4) float
        logits: (H, W, A) float, objectness of each anchor
    """

    name: str
    stride: int
    anchors: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True)
class RoILayer:
    """How a RoI layer cuts its boxes out.

    Attributes:
        layer, aggregation, sampling_ratio: see docs/pixels.md
        output_size: bins, rows and columns
        feature_names: of its levels
        strides: of its levels, pixels a cell
    """

    layer: str
    aggregation: str
    sampling_ratio: int
    output_size: tuple[int, int]
    feature_names: tuple[str, ...]
    strides: tuple[float, ...]


@dataclass(frozen=True)
class SampledRoIs:
    """RoIs of the second stage.

    Attributes:
        boxes: (R, 4) float
        levels: (R,) int64, which level of `RoILayer` each is cut out of
        classes: (R,) int64, the class that training would teach each, K for background; None
            without annotations
        matched: (R, 4) float, each foreground RoI's object; None without annotations
    """

    boxes: torch.Tensor
    levels: torch.Tensor
    classes: torch.Tensor | None
    matched: torch.Tensor | None


@dataclass(frozen=True)
class PooledRoI:
    """One RoI and the feature map that it is cut out of.

    Attributes:
        box: (4,) float
        level: index of the level of `RoILayer`
        features: (C, H, W) float, that level
        pooled: (C, PH, PW) float, what the RoI layer returns
    """

    box: torch.Tensor
    level: int
    features: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True)
class MaskPair:
    """Masks of the mask head, beside what they should be.

    Attributes:
        boxes: (R, 4) float
        classes: (R,) int64
        probabilities: (R, M, M) float, of each RoI's class
        targets: (R, M, M) bool, as the loss takes them; None without annotations
    """

    boxes: torch.Tensor
    classes: torch.Tensor
    probabilities: torch.Tensor
    targets: torch.Tensor | None


@dataclass(frozen=True)
class Stages:
    """All stages of one image; None where the model or the annotations are missing.

    Attributes:
        image: (3, h, w) uint8 as the model takes it
        original_size: height and width before resizing
        padded_size: height and width of the network's input
        anchors: L levels, fine to coarse
        before_nms: the best of each level, all of them
        proposals: what goes to the second stage
        box_layer: the RoI layer of the box branch
        rois: the RoIs of the second stage
        mask_layer: the RoI layer of the mask branch
        pooled: one RoI in the mask branch's RoI layer, or in the box branch's
        sampled_masks: predictions for sampled foreground RoIs, with targets
        detected_masks: predictions for the detections
        detections: pred_boxes, scores, pred_classes, in the frame of `image`
    """

    image: torch.Tensor
    original_size: tuple[int, int]
    padded_size: tuple[int, int]
    anchors: list[AnchorLevel]
    before_nms: Candidates
    proposals: Candidates
    box_layer: RoILayer | None = None
    rois: SampledRoIs | None = None
    mask_layer: RoILayer | None = None
    pooled: PooledRoI | None = None
    sampled_masks: MaskPair | None = None
    detected_masks: MaskPair | None = None
    detections: Instances | None = None
