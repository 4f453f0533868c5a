"""Which source pixel each pixel of a transformed segmentation comes from, one axis at a time.

Resizing, flips, crops and padding move columns and rows independently of each other. A whole chain
of them is therefore two short index vectors, and a mask goes through all of them in one gather.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from detectron2.data import transforms as T
from fvcore.transforms.transform import BlendTransform, NoOpTransform
from numpy.typing import NDArray
from PIL import Image

from .augmentations.color import ColorJitterTransform
from .augmentations.pad import ColorPadTransform
from .augmentations.resize import TensorResizeTransform

Axis = NDArray[np.int64]
PADDED = -1

# By exact type: a subclass of a user may do anything to a segmentation.
_RESIZES = (T.ResizeTransform, TensorResizeTransform)
_PADS = (T.PadTransform, ColorPadTransform)
_IN_PLACE = (
    T.NoOpTransform,
    NoOpTransform,
    T.BlendTransform,
    BlendTransform,
    T.ColorTransform,
    T.PILColorTransform,
    ColorJitterTransform,
)


@dataclass(frozen=True)
class AxisMaps:
    """rows: (H,) source row of each output row; columns: (W,) likewise; PADDED where there is none.

    Between padding at its ends, each of them rises or falls without a gap larger than the scale.
    """

    rows: Axis
    columns: Axis

    @property
    def padded(self) -> bool:
        return bool((self.rows == PADDED).any() or (self.columns == PADDED).any())


def axis_maps(transforms: Sequence[T.Transform], height: int, width: int) -> AxisMaps | None:
    """The maps of a chain of transforms; None when one of them is no resize, flip, crop or pad.

    Args:
        transforms: applied in this order to a segmentation of (height, width) pixels
    Returns:
        so that `output[i, j] == source[rows[i], columns[j]]`, 0 where either is PADDED, is what the
        transforms' `apply_segmentation` make of a uint8 mask, bit for bit
    """
    rows, columns = np.arange(height), np.arange(width)
    for transform in transforms:
        kind = type(transform)
        if kind in _RESIZES:
            if (len(rows), len(columns)) != (transform.h, transform.w):
                return None
            rows = rows[nearest(transform.h, transform.new_h)]
            columns = columns[nearest(transform.w, transform.new_w)]
        elif kind is T.HFlipTransform:
            columns = columns[::-1]
        elif kind is T.VFlipTransform:
            rows = rows[::-1]
        elif kind is T.CropTransform:
            rows = rows[transform.y0 : transform.y0 + transform.h]
            columns = columns[transform.x0 : transform.x0 + transform.w]
        elif kind in _PADS and transform.seg_pad_value == 0:
            rows = np.pad(rows, (transform.y0, transform.y1), constant_values=PADDED)
            columns = np.pad(columns, (transform.x0, transform.x1), constant_values=PADDED)
        elif kind not in _IN_PLACE:
            return None
    return AxisMaps(rows, columns)


@functools.lru_cache(maxsize=4096)
def nearest(old: int, new: int) -> Axis:
    """(new,) source index of each output index, in 0..old-1, as Pillow's NEAREST has it.

    Pillow adds its step up, and so rounds differently from `floor((i + 0.5) * old / new)` now and
    then. Asking it keeps the bits equal in every version.
    """
    ramp = Image.fromarray(np.arange(old, dtype=np.int32)[None])
    index = np.asarray(ramp.resize((new, 1), Image.Resampling.NEAREST))[0].astype(np.int64)
    index.flags.writeable = False
    return index
