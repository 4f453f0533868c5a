"""Brightness, contrast, saturation and hue: torchvision's `ColorJitter` as an augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vF

from .resize import channels_first

_STEPS = {
    "brightness": vF.adjust_brightness,
    "contrast": vF.adjust_contrast,
    "saturation": vF.adjust_saturation,
    "hue": vF.adjust_hue,
}


class ColorJitterTransform(T.Transform):
    """Change colours by fixed factors, in a fixed order; moves nothing."""

    def __init__(self, steps: tuple[tuple[str, float], ...], image_format: str):
        """
        Args:
            steps: ("brightness" | "contrast" | "saturation" | "hue", factor), in their order
            image_format: "BGR" or "RGB", the order of the image's channels
        """
        super().__init__()
        self.steps = steps
        self.image_format = image_format

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 to the same shape and type."""
        rgb = img[:, :, ::-1] if self.image_format == "BGR" else img
        tensor = channels_first(rgb)
        for name, factor in self.steps:
            tensor = _STEPS[name](tensor, factor)
        changed = tensor.permute(1, 2, 0).numpy()
        return changed[:, :, ::-1] if self.image_format == "BGR" else changed

    def apply_coords(self, coords: np.ndarray) -> np.ndarray:
        return coords

    def apply_segmentation(self, segmentation: np.ndarray) -> np.ndarray:
        return segmentation

    def inverse(self) -> T.Transform:
        """Of the geometry, as for Detectron2's colour transforms: nothing moved."""
        return T.NoOpTransform()


class ColorJitter(T.Augmentation):
    """Factors and their order at random, drawn by torchvision's `v2.ColorJitter`."""

    def __init__(
        self,
        *,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        image_format: str = "BGR",
    ):
        """
        Args:
            brightness, contrast, saturation: s of a factor in [max(0, 1 - s), 1 + s]
            hue: largest turn of the colour circle, in turns, 0 to 0.5
            image_format: "BGR" or "RGB"
        """
        super().__init__()
        self.brightness, self.contrast = brightness, contrast
        self.saturation, self.hue = saturation, hue
        self.image_format = image_format
        self._jitter = v2.ColorJitter(brightness, contrast, saturation, hue)

    def get_transform(self, image: np.ndarray) -> T.Transform:
        params: dict[str, Any] = self._jitter.make_params([])
        names = list(_STEPS)
        order = params["fn_idx"]
        order = order.tolist() if isinstance(order, torch.Tensor) else list(order)
        drawn = [(names[i], params[f"{names[i]}_factor"]) for i in order]
        steps = tuple((name, float(factor)) for name, factor in drawn if factor is not None)
        return ColorJitterTransform(steps, self.image_format)
