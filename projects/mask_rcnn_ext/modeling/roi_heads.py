"""Detectron2's RoI heads with this project's RoI layers in the box, mask and keypoint branch.

Shape shorthand: N images, R RoIs of all images, K classes.
Names of parameters, losses and outputs are Detectron2's; so are all defaults.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import (
    ROI_HEADS_REGISTRY,
    Res5ROIHeads,
    ROIHeads,
    StandardROIHeads,
    build_mask_head,
)
from detectron2.modeling.roi_heads.roi_heads import select_foreground_proposals
from detectron2.structures import Instances

from .box_predictor import SoftNMSBoxPredictor
from .config_keys import head_keys
from .normalisers import counts_of, is_shared_step, weigh_by_counts
from .roi_extractor import POOLER_TYPES, RoIExtractor
from .sampling import PROPOSALS, each_image, next_image

HEADS = ("ROI_BOX_HEAD", "ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD")


def extractor_from_config(cfg: CfgNode, head: str, scales: Sequence[float]) -> RoIExtractor:
    """The RoI layer that a head's keys describe.

    Args:
        cfg: reads MODEL.<head>.POOLER_{TYPE,AGGREGATION,RESOLUTION,SAMPLING_RATIO} and
            MODEL.ROI_HEADS.POOLER_BACKEND
        head: of HEADS
        scales: 1 / stride, one a level
    """
    keys = head_keys(cfg, head)
    return RoIExtractor(
        output_size=keys.POOLER_RESOLUTION,
        scales=scales,
        sampling_ratio=keys.POOLER_SAMPLING_RATIO,
        pooler_type=keys.POOLER_TYPE,
        aggregation=keys.POOLER_AGGREGATION,
        backend=cfg.MODEL.ROI_HEADS.POOLER_BACKEND,
    )


def _for_detectron2(cfg: CfgNode) -> CfgNode:
    """The same config with pooler types that Detectron2 knows, so that it builds the rest."""
    cfg = cfg.clone()
    cfg.defrost()
    for head in HEADS:
        if cfg.MODEL[head].POOLER_TYPE in POOLER_TYPES:
            cfg.MODEL[head].POOLER_TYPE = "ROIAlignV2"
    return cfg


class GlobalBatchROIHeads(ROIHeads):
    """RoI heads whose step is that of the global batch, whatever part of it this process has.

    Within `sampling.draws` proposals are sampled image by image, and with several processes the
    losses average to those of all RoIs (`normalisers`). A class names it before Detectron2's heads.
    """

    _sampled: list[Instances] | None = None  # for the time of a forward

    def label_and_sample_proposals(
        self, proposals: list[Instances], targets: list[Instances]
    ) -> list[Instances]:
        with each_image(PROPOSALS, len(targets)):
            self._sampled = super().label_and_sample_proposals(proposals, targets)
        return self._sampled

    def _sample_proposals(
        self, matched_idxs: torch.Tensor, *args: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with next_image(matched_idxs.device):
            return super()._sample_proposals(matched_idxs, *args)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        proposals, losses = super().forward(*args, **kwargs)
        if self._sampled is not None and is_shared_step(self):
            losses = weigh_by_counts(losses, counts_of(self, self._sampled))
        self._sampled = None
        return proposals, losses


@ROI_HEADS_REGISTRY.register()
class MaskRCNNROIHeads(GlobalBatchROIHeads, StandardROIHeads):
    """Separate branches on one level or a pyramid (paper figure 4 right; C5 of table 2d)."""

    @configurable
    def __init__(self, *, train_mask_rois_per_image: int = 0, **kwargs: Any) -> None:
        """
        Args:
            train_mask_rois_per_image: in training, at most this many positive RoIs of an image
                enter the mask branch; 0 is all of them
            kwargs: as in Detectron2's `StandardROIHeads`
        """
        super().__init__(**kwargs)
        self.train_mask_rois_per_image = train_mask_rois_per_image

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        limit = head_keys(cfg, "ROI_MASK_HEAD").TRAIN_ROIS_PER_IMAGE
        return super().from_config(cfg, input_shape) | {"train_mask_rois_per_image": limit}

    @classmethod
    def _init_box_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_box_head(_for_detectron2(cfg), input_shape)
        return _with_our_nms(_with_our_layer(parts, "box", cfg, input_shape), cfg)

    @classmethod
    def _init_mask_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_mask_head(_for_detectron2(cfg), input_shape)
        return _with_our_layer(parts, "mask", cfg, input_shape)

    @classmethod
    def _init_keypoint_head(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        parts = super()._init_keypoint_head(_for_detectron2(cfg), input_shape)
        return _with_our_layer(parts, "keypoint", cfg, input_shape)

    def _forward_mask(self, features: dict[str, torch.Tensor], instances: list[Instances]) -> Any:
        if self.training and self.mask_on and self.train_mask_rois_per_image:
            instances, _ = select_foreground_proposals(instances, self.num_classes)
            # They come in random order: Detectron2 has drawn them with a permutation.
            instances = [i[: self.train_mask_rois_per_image] for i in instances]
        return super()._forward_mask(features, instances)


def _with_our_layer(
    parts: dict[str, Any], branch: str, cfg: CfgNode, input_shape: dict[str, ShapeSpec]
) -> dict[str, Any]:
    """Put our RoI layer where Detectron2 has built its own; a branch without one keeps none."""
    head = f"ROI_{branch.upper()}_HEAD"
    if parts.get(f"{branch}_pooler") is not None and cfg.MODEL[head].POOLER_TYPE in POOLER_TYPES:
        strides = [input_shape[name].stride for name in parts[f"{branch}_in_features"]]
        parts[f"{branch}_pooler"] = extractor_from_config(cfg, head, [1 / s for s in strides])
    return parts


def _with_our_nms(parts: dict[str, Any], cfg: CfgNode) -> dict[str, Any]:
    """Exchange the box predictor if the config asks for another NMS than Detectron2's."""
    if cfg.MODEL.ROI_HEADS.NMS != "hard":
        channels = parts["box_predictor"].cls_score.in_features
        parts["box_predictor"] = SoftNMSBoxPredictor(cfg, ShapeSpec(channels=channels))
    return parts


@ROI_HEADS_REGISTRY.register()
class MaskRCNNRes5ROIHeads(GlobalBatchROIHeads, Res5ROIHeads):
    """Branches that share res5 on a C4 feature (paper figure 4 left).

    The box head's pooler keys count for both branches; the mask branch has no RoI layer of its own.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        stock = _for_detectron2(cfg)
        stock.MODEL.MASK_ON = False
        parts = super().from_config(stock, input_shape)
        if cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE in POOLER_TYPES:
            stride = input_shape[parts["in_features"][0]].stride
            parts["pooler"] = extractor_from_config(cfg, "ROI_BOX_HEAD", [1 / stride])
        if cfg.MODEL.MASK_ON:
            # Detectron2 announces the side before res5 halves it; a fully connected head needs
            # the one that it gets.
            side = (cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION + 1) // 2
            channels = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 8
            parts["mask_head"] = build_mask_head(
                cfg, ShapeSpec(channels=channels, height=side, width=side)
            )
        return _with_our_nms(parts, cfg)
