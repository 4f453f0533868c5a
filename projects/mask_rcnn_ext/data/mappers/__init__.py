"""From a dataset record to what the model takes; INPUT.MAPPER names one of the registry."""

from .cityscapes import CityscapesMapper
from .coco import CocoMapper
from .keypoints import KeypointMapper
from .registry import MAPPER_REGISTRY, build_mapper

__all__ = ["MAPPER_REGISTRY", "CityscapesMapper", "CocoMapper", "KeypointMapper", "build_mapper"]
