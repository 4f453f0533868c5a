"""A random crop that contains the middle of an object, where there is one."""

from __future__ import annotations

import numpy as np
from detectron2.data import transforms as T
from detectron2.data.detection_utils import gen_crop_transform_with_instance
from detectron2.structures import BoxMode


class InstanceCrop(T.RandomCrop):
    """Detectron2's `RandomCrop`, placed so that a randomly chosen object's centre is inside.

    An image without objects is cropped anywhere.
    """

    input_args = ("image", "boxes")

    def get_transform(self, image: np.ndarray, boxes: np.ndarray | None = None) -> T.Transform:
        """
        Args:
            image: (H, W, C)
            boxes: (N, 4) x0, y0, x1, y1 in pixels, or None
        """
        height, width = image.shape[:2]
        inside = np.zeros((0, 4)) if boxes is None else np.asarray(boxes).reshape(-1, 4)
        inside = np.clip(inside, 0, [width, height, width, height])
        inside = inside[(inside[:, 2:] > inside[:, :2]).all(axis=1)]
        if not len(inside):
            return super().get_transform(image)
        box = inside[np.random.randint(len(inside))]
        size = self.get_crop_size((height, width))
        return gen_crop_transform_with_instance(
            size, (height, width), {"bbox": box, "bbox_mode": BoxMode.XYXY_ABS}
        )
