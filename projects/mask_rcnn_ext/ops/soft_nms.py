"""Soft non-maximum suppression: an overlapped box loses score instead of being thrown away.

Bodla et al. 2017 (arXiv 1704.04503). Letters: N candidates, n boxes that are kept.
"""

from __future__ import annotations

import math

import torch

METHODS = ("soft_linear", "soft_gaussian")


def soft_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    classes: torch.Tensor,
    *,
    method: str = "soft_linear",
    iou_threshold: float = 0.5,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
    max_boxes: int = -1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick the box with the best score, lower the scores of those of its class, and so on.

    All classes are worked through together: the best box of all is also the best of its class, and
    its final score is settled. So the picks come in the order of their final scores, and with
    `max_boxes` the rest need not be looked at.

    Args:
        boxes: (N, 4) float, (x0, y0, x1, y1), in one frame
        scores: (N,) float
        classes: (N,) int; boxes of different classes leave each other alone
        method: "soft_linear", times 1 - IoU where IoU exceeds the threshold, or "soft_gaussian",
            times exp(-IoU^2 / sigma)
        iou_threshold: of the linear method
        sigma: of the Gaussian method, above 0
        score_threshold: a box whose score has sunk to this or below is gone
        max_boxes: stop after so many; below 0, never
    Returns:
        (n,) int64 indices in the order of falling score; (n,) their new scores
    Raises:
        ValueError: unknown method, sigma not above 0
    """
    if method not in METHODS:
        raise ValueError(f"soft_nms got method={method!r}, expected one of {', '.join(METHODS)}")
    if not sigma > 0:
        raise ValueError(f"soft_nms got sigma={sigma}, expected a number above 0")
    limit = len(boxes) if max_boxes < 0 else min(max_boxes, len(boxes))
    left = scores.clone()
    left[left <= score_threshold] = -math.inf
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept = torch.empty(limit, dtype=torch.int64, device=boxes.device)
    kept_scores = torch.empty(limit, dtype=scores.dtype, device=boxes.device)
    for count in range(limit):
        best = left.argmax()
        kept[count], kept_scores[count] = best, left[best]
        corners = boxes[best]
        low, high = (
            torch.maximum(boxes[:, :2], corners[:2]),
            torch.minimum(boxes[:, 2:], corners[2:]),
        )
        overlap = (high - low).clamp(min=0).prod(dim=1)
        iou = overlap / (area + area[best] - overlap).clamp(min=torch.finfo(boxes.dtype).tiny)
        if method == "soft_linear":
            decay = torch.where(iou > iou_threshold, 1 - iou, 1.0)
        else:
            decay = torch.exp(-iou * iou / sigma)
        # Not those that are gone: minus infinity times 0 is no number.
        rivals = (classes == classes[best]) & (left > score_threshold)
        left = torch.where(rivals, left * decay, left)
        left[best] = -math.inf
        left[left <= score_threshold] = -math.inf
    # Boxes that were picked when nothing was left have a score of minus infinity; they are last.
    real = kept_scores > -math.inf
    return kept[real], kept_scores[real]
