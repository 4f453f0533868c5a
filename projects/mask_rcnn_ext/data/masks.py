"""Ground-truth masks of one image as Detectron2's `BitMasks`, made and indexed without copies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.layers import ROIAlign
from detectron2.structures import BitMasks, Boxes

from .mask_windows import Window


class IndexedBitMasks(BitMasks):
    """`BitMasks` of which an indexed version shares the masks and keeps an index only.

    Detectron2's RoI heads give each sampled proposal the mask of its object: R masks of the whole
    image, of which only N differ (512 proposals of 20 objects). Here those R cost 8 bytes each.

    Letters: N stored masks, R masks that it stands for, H, W the image's height and width.
    """

    def __init__(self, masks: torch.Tensor | np.ndarray, index: torch.Tensor | None = None):
        """
        Args:
            masks: (N, H, W) bool
            index: (R,) int64 into `masks`, on the same device; all in turn if None
        """
        self._index: torch.Tensor | None = index
        super().__init__(masks)

    # The parent's __init__ sets `tensor`; everybody else reads it.
    @property
    def tensor(self) -> torch.Tensor:
        """(R, H, W) bool; gathered at each call."""
        return self._masks if self._index is None else self._masks[self._index]

    @tensor.setter
    def tensor(self, masks: torch.Tensor) -> None:
        self._masks = masks

    @property
    def stored(self) -> torch.Tensor:
        """(N, H, W) bool, the masks that the index points to."""
        return self._masks

    @property
    def index(self) -> torch.Tensor:
        """(R,) int64 into `stored`."""
        if self._index is not None:
            return self._index
        return torch.arange(len(self._masks), device=self.device)

    @property
    def device(self) -> torch.device:
        return self._masks.device

    def __len__(self) -> int:
        return len(self._masks) if self._index is None else len(self._index)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_instances={len(self)}, stored={len(self._masks)})"

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self._masks[i] for i in self.index)

    def __getitem__(self, item: Any) -> IndexedBitMasks:
        """As `BitMasks`: an int, a slice, or a vector of bools or ints; shares the masks."""
        index = self.index[item]
        if index.dim() == 0:
            index = index[None]
        if index.dim() != 1:
            raise ValueError(
                f"IndexedBitMasks got an index of shape {tuple(index.shape)}, expected a vector"
            )
        return IndexedBitMasks(self._masks, index)

    def to(self, *args: Any, **kwargs: Any) -> IndexedBitMasks:
        masks = self._masks.to(*args, **kwargs)
        index = None if self._index is None else self._index.to(masks.device)
        return IndexedBitMasks(masks, index)

    def nonempty(self) -> torch.Tensor:
        """(R,) bool."""
        return self._masks.flatten(1).any(dim=1)[self.index]

    def area(self) -> torch.Tensor:
        """(R,) int64, pixels."""
        return self._masks.flatten(1).sum(dim=1)[self.index]

    def get_bounding_boxes(self) -> Boxes:
        """(R, 4) tight boxes, x0, y0, x1, y1; zeros for an empty mask; on the CPU, as BitMasks'."""
        boxes = BitMasks(self._masks).get_bounding_boxes().tensor
        return Boxes(boxes[self.index.to(boxes.device)])

    def crop_and_resize(self, boxes: torch.Tensor, mask_size: int) -> torch.Tensor:
        """The part of each mask in its box, bit for bit as `BitMasks` has it.

        Args:
            boxes: (R, 4) x0, y0, x1, y1 in pixels, of any device
            mask_size: side M of the result
        Returns:
            (R, M, M) bool, on the device of the masks
        """
        if len(boxes) != len(self):
            raise ValueError(f"IndexedBitMasks of {len(self)} masks got {len(boxes)} boxes")
        if not len(self):
            return torch.zeros((0, mask_size, mask_size), dtype=torch.bool, device=self.device)
        used, index = torch.unique(self.index, return_inverse=True)
        rois = torch.cat([index.to(boxes.dtype)[:, None], boxes.to(self.device)], dim=1)
        masks = self._masks[used].to(dtype=torch.float32)[:, None]
        align = ROIAlign((mask_size, mask_size), 1.0, 0, aligned=True)
        return align(masks, rois).squeeze(1) >= 0.5

    @staticmethod
    def cat(bitmasks_list: Sequence[BitMasks]) -> BitMasks:
        """One after the other; masks that several of them share are stored once."""
        first = bitmasks_list[0]
        if not all(isinstance(one, IndexedBitMasks) for one in bitmasks_list):
            return BitMasks(torch.cat([one.tensor for one in bitmasks_list]))
        stored: list[torch.Tensor] = []
        parts = []
        for one in bitmasks_list:
            known = next((i for i, masks in enumerate(stored) if masks is one.stored), None)
            if known is None:
                known = len(stored)
                stored.append(one.stored)
            parts.append(one.index + sum(len(masks) for masks in stored[:known]))
        masks = first.stored if len(stored) == 1 else torch.cat(stored)
        return IndexedBitMasks(masks, torch.cat(parts))


def bit_masks(windows: Sequence[Window], height: int, width: int) -> IndexedBitMasks:
    """Windows in a frame of height x width as (N, height, width) masks."""
    # NumPy takes zeroed pages from the system: what no window touches costs no time.
    masks = np.zeros((len(windows), height, width), dtype=bool)
    for mask, window in zip(masks, windows, strict=True):
        h, w = window.bits.shape
        mask[window.top : window.top + h, window.left : window.left + w] = window.bits
    return IndexedBitMasks(torch.from_numpy(masks))
