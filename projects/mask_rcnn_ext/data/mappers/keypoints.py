"""People with keypoints, whatever MODEL.KEYPOINT_ON says, mirrored rightly by every flip."""

from __future__ import annotations

from typing import Any

from detectron2.config import CfgNode
from detectron2.data import transforms as T

from .annotations import keypoints_of
from .coco import CocoMapper, _flip_indices
from .registry import MAPPER_REGISTRY


@MAPPER_REGISTRY.register()
class KeypointMapper(CocoMapper):
    """`CocoMapper` that always delivers `gt_keypoints`.

    `CocoMapper` does so when MODEL.KEYPOINT_ON is set, and swaps left and right after horizontal
    flips only, as Detectron2 does. But a vertical flip mirrors as well: a left hand in it looks
    like a right hand upside down. Here both swap by the schema's `keypoint_flip_map`, and both
    together, a half turn, do not.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        arguments = super().from_config(cfg, is_train)
        arguments["use_keypoint"] = True
        if is_train:
            arguments["keypoint_hflip_indices"] = _flip_indices(cfg.DATASETS.TRAIN)
        return arguments

    def _keypoints(
        self, annotations: list[dict[str, Any]], transforms: T.TransformList, size: tuple[int, int]
    ) -> Any:
        indices = self.keypoint_hflip_indices
        return keypoints_of(annotations, transforms, size, indices, swap_if_vertical=True)
