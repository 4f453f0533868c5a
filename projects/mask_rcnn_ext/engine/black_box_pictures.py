"""A batch's images with their targets drawn on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.structures import BitMasks, Instances, PolygonMasks
from detectron2.structures.masks import polygons_to_bitmask

from ..files import atomic_write
from ..visualization.draw import Drawn, draw_instances

_MOST = 16  # pictures
_SMALLEST_SIDE = 480  # pixels; a smaller image is enlarged, so that its labels can be read


def draw_batch(
    batch: Sequence[dict[str, Any]], folder: Path, class_names: Sequence[str], *, is_bgr: bool
) -> None:
    """Write image_0.jpg, image_1.jpg, ... at most 16.

    Args:
        batch: as the model got it: "image" (3, H, W), values 0 to 255, and "instances", if any
        folder: where
        class_names: of the numbers in gt_classes; a missing one is written as a number
        is_bgr: the order of the image's channels
    """
    for number, one in enumerate(batch[:_MOST]):
        pixels = torch.nan_to_num(one["image"].detach().cpu().float(), 0.0, 255.0, 0.0)
        image = pixels.clamp(0, 255).byte().permute(1, 2, 0).numpy()  # (H, W, 3)
        if image.shape[2] != 3:
            image = np.repeat(image[:, :, :1], 3, axis=2)
        image = np.ascontiguousarray(image[:, :, ::-1] if is_bgr else image)
        scale = max(1.0, _SMALLEST_SIDE / max(image.shape[:2]))
        picture = draw_instances(image, _drawn(one.get("instances"), class_names), scale=scale)
        encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        with atomic_write(folder / f"image_{number}.jpg") as file:
            file.write(encoded.tobytes())


def _drawn(instances: Instances | None, class_names: Sequence[str]) -> list[Drawn]:
    if instances is None or not instances.has("gt_boxes"):
        return []
    boxes = instances.gt_boxes.tensor.detach().cpu().float()
    classes = [0] * len(boxes)
    if instances.has("gt_classes"):
        classes = [int(number) for number in instances.gt_classes.tolist()]
    drawn = []
    for number, (box, one) in enumerate(zip(boxes, classes, strict=True)):
        name = class_names[one] if 0 <= one < len(class_names) else f"class {one}"
        finite = bool(torch.isfinite(box).all())
        keypoints = None
        if instances.has("gt_keypoints"):
            keypoints = np.nan_to_num(instances.gt_keypoints.tensor[number].cpu().numpy())
        drawn.append(
            Drawn(
                mask=_mask(instances, number),
                box=torch.nan_to_num(box).tolist(),
                label=f"{number} {name}" + ("" if finite else ", box not finite"),
                class_index=max(one, 0),
                keypoints=keypoints,
            )
        )
    return drawn


def _mask(instances: Instances, number: int) -> np.ndarray | None:
    masks = instances.gt_masks if instances.has("gt_masks") else None
    if isinstance(masks, BitMasks):
        return masks.tensor[number].cpu().numpy().astype(bool)
    if isinstance(masks, PolygonMasks):
        polygons = masks.polygons[number]
        if all(np.isfinite(points).all() for points in polygons):
            height, width = instances.image_size
            return np.asarray(polygons_to_bitmask(polygons, height, width), dtype=bool)
    return None
