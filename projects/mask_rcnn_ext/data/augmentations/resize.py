"""Resizing as Pillow does it, a few times faster, in Detectron2's classes."""

from __future__ import annotations

import numpy as np
import torch
from detectron2.data import transforms as T
from fvcore.transforms.transform import Transform
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F


class TensorResizeTransform(T.ResizeTransform):
    """Detectron2's `ResizeTransform`; bilinear on uint8 RGB or BGR runs in PyTorch.

    PyTorch's antialiased resize is Pillow's algorithm with weights of other rounding: a value
    differs by 1 of 255 at most. All else (coordinates, masks, other images) is the parent's.
    """

    def apply_image(self, img: np.ndarray, interp: int | None = None) -> np.ndarray:
        """
        Args:
            img: (H, W, 3) uint8 takes the fast way, anything else Detectron2's
            interp: of Pillow; the transform's own if None
        Returns:
            (new_h, new_w, 3) uint8; a plane of each channel in memory. A flipped view gives a
            flipped view: turning the values round is left to `channels_first`, once, at the end
        """
        interp = self.interp if interp is None else interp
        fast = img.dtype == np.uint8 and img.ndim == 3 and img.shape[2] == 3
        if not fast or interp != Image.Resampling.BILINEAR:
            return super().apply_image(img, interp)
        if img.shape[:2] != (self.h, self.w):
            raise ValueError(
                f"a resize made for an image of {(self.h, self.w)} got {img.shape[:2]} "
                "(height, width)"
            )
        flipped = flipped_axes(img)
        resized = F.interpolate(
            channels_first(np.flip(img, flipped))[None],
            (self.new_h, self.new_w),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
        return np.flip(resized[0].permute(1, 2, 0).numpy(), flipped)


def channels_first(image: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W, C) array, flipped views too, as a (C, H, W) tensor; copies where it must."""
    flipped = flipped_axes(image)
    image = np.flip(image, flipped)
    if not image.flags.writeable:  # a decoder's own memory; PyTorch knows no read-only tensors
        image = image.copy()
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    return tensor.flip([(axis + 1) % 3 for axis in flipped]) if flipped else tensor


def flipped_axes(image: np.ndarray) -> tuple[int, ...]:
    """The axes along which a view runs backwards."""
    return tuple(axis for axis, stride in enumerate(image.strides) if stride < 0)


def resize_fast(transform: Transform) -> Transform:
    """The same transform; Detectron2's resize becomes ours."""
    if type(transform) is not T.ResizeTransform:
        return transform
    # A long picture made very small would otherwise lose its last row.
    size = max(1, transform.new_h), max(1, transform.new_w)
    return TensorResizeTransform(transform.h, transform.w, *size, transform.interp)


class ResizeShortestEdge(T.ResizeShortestEdge):
    """Detectron2's multi-scale augmentation ("choice" or "range"), with our resize."""

    def get_transform(self, image: np.ndarray) -> Transform:
        return resize_fast(super().get_transform(image))


class ResizeScale(T.ResizeScale):
    """Detectron2's resize by a random factor, the first half of large-scale jitter; our resize."""

    def get_transform(self, image: np.ndarray) -> Transform:
        return resize_fast(super().get_transform(image))
