"""Cityscapes: street scenes of 2048 x 1024 whose objects hide each other."""

from __future__ import annotations

from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image

from ...errors import UsageError
from .coco import CocoMapper
from .registry import MAPPER_REGISTRY


@MAPPER_REGISTRY.register()
class CityscapesMapper(CocoMapper):
    """`CocoMapper` for pictures and masks as Cityscapes has them.

    The pixels of a file are taken as they lie: labels were drawn on them, and an EXIF tag that some
    tool left must not turn the picture. Masks are bitmasks or nothing: an object seen through
    another one has holes, which polygons cannot hold, and one learns that before training starts.
    `group` regions come as crowds (`iscrowd` 1) and are, as COCO's crowds, no training instances.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        if cfg.MODEL.MASK_ON and cfg.INPUT.MASK_FORMAT != "bitmask":
            raise UsageError(
                f"INPUT.MASK_FORMAT is {cfg.INPUT.MASK_FORMAT!r}; CityscapesMapper needs 'bitmask'"
            )
        return super().from_config(cfg, is_train)

    def _read_image(self, path: str) -> np.ndarray:
        with PathManager.open(path, "rb") as file, Image.open(file) as image:
            return utils.convert_PIL_to_numpy(image, self.image_format)
