"""Crop what is too large and pad what is too small: large-scale jitter's second half."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import transforms as T


class ColorPadTransform(T.PadTransform):
    """Detectron2's `PadTransform` with a colour instead of one value for all channels."""

    def __init__(
        self,
        x0: int,
        y0: int,
        x1: int,
        y1: int,
        orig_w: int | None = None,
        orig_h: int | None = None,
        pad_value: Sequence[float] = (0.0,),
        seg_pad_value: int = 0,
    ):
        """
        Args:
            x0, y0, x1, y1: pixels added at the left, top, right, bottom
            orig_w, orig_h: size before, for the inverse
            pad_value: one number a channel, in the image's order; rounded for uint8
            seg_pad_value: of segmentations; 0 is no object
        """
        super().__init__(x0, y0, x1, y1, orig_w, orig_h, pad_value, seg_pad_value)

    def apply_image(self, img: np.ndarray) -> np.ndarray:
        """(H, W, C) to (y0 + H + y1, x0 + W + x1, C), planar in memory as our resize makes it."""
        if img.ndim != 3 or img.shape[2] != len(self.pad_value):
            raise ValueError(
                f"padding with {len(self.pad_value)} channels got an image of shape {img.shape}"
            )
        height, width, channels = img.shape
        shape = (channels, self.y0 + height + self.y1, self.x0 + width + self.x1)
        padded = np.empty(shape, img.dtype).transpose(1, 2, 0)
        color = np.asarray(self.pad_value)
        padded[:] = np.rint(color) if img.dtype == np.uint8 else color
        padded[self.y0 : self.y0 + height, self.x0 : self.x0 + width] = img
        return padded


class CropOrPad(T.Augmentation):
    """Each axis by itself: a random crop if it is too long, padding at its end if too short."""

    def __init__(self, size: tuple[int, int], pad_value: Sequence[float]):
        """
        Args:
            size: (height, width) of the result
            pad_value: one number a channel, in the image's order
        """
        super().__init__()
        self.size = size
        self.pad_value = tuple(pad_value)

    def get_transform(self, image: np.ndarray) -> T.TransformList:
        given = image.shape[:2]
        # Detectron2's FixedSizeCrop has one random number for both axes; these are independent.
        y0, x0 = (
            np.random.randint(max(have - want, 0) + 1)
            for have, want in zip(given, self.size, strict=True)
        )
        height, width = (min(pair) for pair in zip(given, self.size, strict=True))
        transforms: list[T.Transform] = []
        if (height, width) != given:
            transforms.append(T.CropTransform(x0, y0, width, height, given[1], given[0]))
        if (height, width) != self.size:
            below, right = self.size[0] - height, self.size[1] - width
            transforms.append(ColorPadTransform(0, 0, right, below, width, height, self.pad_value))
        return T.TransformList(transforms)
