"""What a model found in one image, as plain arrays.

Letters: R detections, K keypoints, H, W the image's height and width. Frame: pixels of the image
that was given, x to the right, y down, edges continuous.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..errors import UserError


@dataclass(frozen=True)
class Prediction:
    """The detections of one image, the best first.

    Attributes:
        image_size: (H, W)
        boxes: (R, 4) float32, x0, y0, x1, y1
        scores: (R,) float32, 0 to 1
        classes: (R,) int64, indices into `class_names`
        class_names: of all K classes of the model
        category_ids: what the data set's annotation file calls them
        rles: R masks as COCO run lengths, {"size": [H, W], "counts": str}; None for a model that
            has no masks
        keypoints: (R, K, 3) float32, x, y, score; None for a model that has none
        skeleton: pairs of keypoint indices that belong together
    """

    image_size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    class_names: Sequence[str]
    category_ids: Sequence[int]
    rles: list[dict[str, Any]] | None = None
    keypoints: np.ndarray | None = None
    skeleton: Sequence[tuple[int, int]] = field(default=())

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def labels(self) -> list[str]:
        """The class name of each detection."""
        return [self.class_names[index] for index in self.classes.tolist()]

    def masks(self) -> np.ndarray:
        """(R, H, W) bool; made anew at each call, R x H x W bytes."""
        if self.rles is None:
            raise UserError("this model predicts no masks (MODEL.MASK_ON is False)")
        if not self.rles:
            return np.zeros((0, *self.image_size), bool)
        return coco_mask.decode(self.rles).transpose(2, 0, 1).astype(bool)

    def instance_map(self) -> np.ndarray:
        """(H, W) uint16: 0 is nothing, k is detection k - 1; masks that overlap: the better."""
        instances = np.zeros(self.image_size, np.uint16)
        if self.rles is None:
            raise UserError("this model predicts no masks (MODEL.MASK_ON is False)")
        for number in range(len(self), 0, -1):
            instances[coco_mask.decode(self.rles[number - 1]).astype(bool)] = number
        return instances

    def to_coco(self, image_id: int | str) -> list[dict[str, Any]]:
        """Entries of a results file in COCO's format; boxes become x, y, width, height."""
        entries = []
        for number in range(len(self)):
            x0, y0, x1, y1 = self.boxes[number].tolist()
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": self.category_ids[int(self.classes[number])],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": float(self.scores[number]),
            }
            if self.rles is not None:
                entry["segmentation"] = self.rles[number]
            if self.keypoints is not None:
                # COCO's keypoints are pixel indices, ours continuous (docs/pixels.md).
                points = self.keypoints[number].astype(float)
                points[:, :2] -= 0.5
                entry["keypoints"] = points.ravel().tolist()
            entries.append(entry)
        return entries

    def to_supervision(self) -> Any:
        """A `supervision.Detections`, with masks if there are some.

        Raises:
            UserError: the package supervision is not installed
        """
        try:
            import supervision
        except ModuleNotFoundError as error:
            raise UserError(
                "to_supervision() needs the package supervision: pip install supervision"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes,
            mask=None if self.rles is None else self.masks(),
            confidence=self.scores,
            class_id=self.classes.astype(int),
            data={"class_name": np.array(self.labels, dtype=str)},
        )
