"""Simple copy-paste: objects of another picture on this one (Ghiasi et al., arXiv 2012.07177).

Letters: C channels, H, W height and width of the sample's picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from detectron2.structures import BitMasks, Boxes, Instances

from ..masks import IndexedBitMasks

Sample = dict[str, Any]


class CopyPaste:
    """Paste a random part of a partner's objects, each at the place that it has there.

    Both samples have been through the other augmentations, each by itself; with large-scale jitter
    both are of one size, as in the paper. Of a larger partner the overlap is used.
    """

    def __init__(self, probability: float, max_objects: int = 0):
        """
        Args:
            probability: of a sample to get objects, 0 to 1
            max_objects: at most so many are pasted; 0 is no limit
        """
        if not 0 <= probability <= 1:
            raise ValueError(f"CopyPaste got probability={probability}, expected 0 to 1")
        self.probability = probability
        self.max_objects = max_objects

    def wanted(self) -> bool:
        """Whether the next sample gets objects; one draw of NumPy's random numbers."""
        return bool(np.random.uniform() < self.probability)

    def __call__(self, sample: Sample, partner: Sample) -> Sample:
        """
        Args:
            sample, partner: what a mapper returns: "image" (C, H, W), "instances" with `gt_masks`
                as `BitMasks`. Crowds are no instances, so none is pasted. Neither is changed
        Returns:
            the sample with the pasted objects after its own. What they hide is taken from the
            masks of the others; boxes of changed masks are the masks' own; fully hidden objects
            are dropped; hidden keypoints become "labelled, not visible"
        Raises:
            ValueError: masks in another form
        """
        own, given = sample["instances"], partner["instances"]
        for instances in (own, given):
            if not instances.has("gt_masks") or not isinstance(instances.gt_masks, BitMasks):
                raise ValueError("CopyPaste works on BitMasks: set INPUT.MASK_FORMAT to 'bitmask'")
        height, width = sample["image"].shape[-2:]
        h, w = (min(a, b) for a, b in zip(own.image_size, given.image_size, strict=True))
        chosen = np.flatnonzero(np.random.uniform(size=len(given)) < 0.5)
        if self.max_objects:
            chosen = np.random.permutation(chosen)[: self.max_objects]
            chosen.sort()
        masks = torch.zeros((len(chosen), height, width), dtype=torch.bool)
        masks[:, :h, :w] = given.gt_masks.tensor[chosen][:, :h, :w]
        seen = masks.flatten(1).any(dim=1)
        chosen, masks = chosen[seen.numpy()], masks[seen]
        if not len(chosen):
            return sample
        cover = masks.any(dim=0)  # (H, W)
        result = dict(sample)
        result["image"] = sample["image"].clone()
        result["image"][:, cover] = partner["image"][:, :h, :w][:, cover[:h, :w]]
        if "sem_seg" in sample and "sem_seg" in partner:
            result["sem_seg"] = sample["sem_seg"].clone()
            result["sem_seg"][cover] = partner["sem_seg"][:h, :w][cover[:h, :w]]
        pasted = _moved(given[torch.from_numpy(chosen)], masks)
        result["instances"] = Instances.cat([_occluded(own, cover), pasted])
        return result


def _moved(given: Instances, masks: torch.Tensor) -> Instances:
    """Pasted objects in the frame of the sample; masks (n, H, W) are cut off at its edges."""
    height, width = masks.shape[1:]
    pasted = Instances((height, width), **given.get_fields())
    cut = given.gt_masks.area() if isinstance(given.gt_masks, IndexedBitMasks) else None
    boxes = given.gt_boxes.tensor.clone()
    whole = torch.zeros(len(given), dtype=torch.bool) if cut is None else _areas(masks) == cut
    boxes[~whole] = BitMasks(masks[~whole]).get_bounding_boxes().tensor
    pasted.gt_boxes = Boxes(boxes)
    pasted.gt_masks = IndexedBitMasks(masks)
    if pasted.has("gt_keypoints"):
        keypoints = pasted.gt_keypoints
        points = keypoints.tensor.clone()
        outside = (points[..., 0] > width) | (points[..., 1] > height)
        points[outside] = 0
        pasted.gt_keypoints = type(keypoints)(points)
    return pasted


def _occluded(own: Instances, cover: torch.Tensor) -> Instances:
    """The sample's objects with `cover`, (H, W) bool, in front of them."""
    before = own.gt_masks.tensor
    masks = before & ~cover
    areas = _areas(masks)
    changed = areas != _areas(before)
    boxes = own.gt_boxes.tensor.clone()
    boxes[changed] = BitMasks(masks[changed]).get_bounding_boxes().tensor
    rest = Instances(own.image_size, **own.get_fields())
    rest.gt_boxes = Boxes(boxes)
    rest.gt_masks = IndexedBitMasks(masks)
    if rest.has("gt_keypoints"):
        keypoints = rest.gt_keypoints
        points = keypoints.tensor.clone()  # (n, K, 3) x, y, visibility
        height, width = cover.shape
        x = points[..., 0].long().clamp(0, width - 1)
        y = points[..., 1].long().clamp(0, height - 1)
        hidden = cover[y, x] & (points[..., 2] == 2)
        points[..., 2][hidden] = 1
        rest.gt_keypoints = type(keypoints)(points)
    return rest[areas > 0]


def _areas(masks: torch.Tensor) -> torch.Tensor:
    return masks.flatten(1).sum(dim=1)
