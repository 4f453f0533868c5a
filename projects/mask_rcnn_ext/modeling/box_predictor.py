"""Detectron2's box predictor with soft non-maximum suppression."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.fast_rcnn import fast_rcnn_inference
from detectron2.structures import Instances

from ..ops.soft_nms import METHODS, soft_nms

NMS_CHOICES = ("hard", *METHODS)
_SUPPRESS_NOTHING = 1.0  # as an IoU threshold


class SoftNMSBoxPredictor(FastRCNNOutputLayers):
    """The same layers and losses; in inference boxes that overlap lose score."""

    @configurable
    def __init__(self, *, nms: str, soft_nms_sigma: float, **kwargs: Any) -> None:
        """
        Args:
            nms: "soft_linear" (beyond `test_nms_thresh`) or "soft_gaussian"
            soft_nms_sigma: of the Gaussian
            kwargs: as in Detectron2's `FastRCNNOutputLayers`
        """
        super().__init__(**kwargs)
        self.nms = nms
        self.soft_nms_sigma = soft_nms_sigma

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        return super().from_config(cfg, input_shape) | {
            "nms": cfg.MODEL.ROI_HEADS.NMS,
            "soft_nms_sigma": cfg.MODEL.ROI_HEADS.SOFT_NMS_SIGMA,
        }

    def inference(
        self, predictions: tuple[torch.Tensor, torch.Tensor], proposals: list[Instances]
    ) -> tuple[list[Instances], list[torch.Tensor]]:
        """As Detectron2's; `scores` are the lowered ones, in falling order."""
        candidates, kept = fast_rcnn_inference(
            self.predict_boxes(predictions, proposals),
            self.predict_probs(predictions, proposals),
            [one.image_size for one in proposals],
            self.test_score_thresh,
            _SUPPRESS_NOTHING,
            -1,
        )
        found, origins = [], []
        for image, indices in zip(candidates, kept, strict=True):
            picked, scores = soft_nms(
                image.pred_boxes.tensor,
                image.scores,
                image.pred_classes,
                method=self.nms,
                iou_threshold=self.test_nms_thresh,
                sigma=self.soft_nms_sigma,
                score_threshold=self.test_score_thresh,
                max_boxes=self.test_topk_per_image,
            )
            image = image[picked]
            image.scores = scores
            found.append(image)
            origins.append(indices[picked])
        return found, origins
