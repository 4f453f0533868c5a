"""What the mask branch learns from its targets, and how its logits become masks (paper section 3).

Shape shorthand: R RoIs of all images, K foreground classes, M mask side, L channels of the logits:
K or 1 (class-agnostic) for the sigmoid, K + 1 for the softmax. A mask lives in its RoI: row 0 is
the RoI's top, column 0 its left edge.

Both losses read positive RoIs only, each with the mask of its own ground-truth object and class.

- `sigmoid`, the paper's: one binary cross-entropy a cell, on the channel of the true class alone.
  Classes do not compete; the box branch says which class it is (table 2b, "sigmoid").
- `softmax`: one multinomial cross-entropy a cell over all channels, as in semantic segmentation
  (table 2b, "softmax"). A cell of the object has the true class k as its label. A cell of the RoI
  that the object does not cover must have a label too, since the probabilities of a cell sum to 1:
  it is *background*, one more channel, the last (index K, where Detectron2's box branch has its
  background too). Background is then "not this RoI's object", also where another object lies: the
  target is the intersection of RoI and own mask, the same cells as for the sigmoid, so the two
  losses differ in the competition only. The paper does not say what it did there. Without that
  channel uncovered cells could only be ignored, and nothing would ever bound a mask.
"""

from __future__ import annotations

import math

import torch
from detectron2.layers import cat
from detectron2.modeling.roi_heads.mask_head import mask_rcnn_inference
from detectron2.structures import Instances, PolygonMasks
from detectron2.utils.events import get_event_storage
from torch.nn import functional as F

from ..ops.mask_targets import polygon_targets

LOSSES = ("sigmoid", "softmax")


def num_mask_channels(num_classes: int, loss: str) -> int:
    """L, the channels that a predictor needs for K classes (1 if class-agnostic)."""
    return num_classes + (loss == "softmax")


@torch.no_grad()
def mask_targets(instances: list[Instances], side: int) -> torch.Tensor:
    """The part of each RoI that its object covers, cell by cell.

    Polygons are rasterised for all images at once, on the device of the boxes; their vertices go
    there in one copy. Bitmaps (from RLE, or drawn) are sampled by Detectron2's RoIAlign, where
    they are.

    Args:
        instances: one an image, R objects in all. Reads `gt_masks` (`PolygonMasks`, `BitMasks` or
            what has their `crop_and_resize`) and `proposal_boxes` (x0, y0, x1, y1, pixels of the
            network input) of images that have objects
        side: M
    Returns:
        (R, M, M) bool, on the device of the boxes, the same bits as Detectron2's targets
    Raises:
        ValueError: no image has an object, or masks that give no bool
    """
    images = [image for image in instances if len(image)]
    if not images:
        raise ValueError("mask_targets got no object; there is no device to put its targets on")
    if all(isinstance(image.gt_masks, PolygonMasks) for image in images):
        polygons = [one for image in images for one in image.gt_masks.polygons]
        boxes = cat([image.proposal_boxes.tensor for image in images])
        return polygon_targets(polygons, boxes, side)
    targets = []
    for image in images:
        boxes = image.proposal_boxes.tensor
        if isinstance(image.gt_masks, PolygonMasks):
            target = polygon_targets(image.gt_masks.polygons, boxes, side)
        else:
            target = image.gt_masks.crop_and_resize(boxes, side).to(device=boxes.device)
        if target.dtype != torch.bool:
            raise ValueError(
                f"mask_targets got {target.dtype} from {type(image.gt_masks).__name__}, expected "
                "bool; use INPUT.MASK_FORMAT 'polygon' or 'bitmask'"
            )
        targets.append(target)
    return cat(targets)


def mask_loss(
    logits: torch.Tensor, instances: list[Instances], *, loss: str = "sigmoid", vis_period: int = 0
) -> torch.Tensor:
    """The mask loss of positive RoIs, and its accuracies in Detectron2's event storage.

    The sigmoid loss, the three logged scalars (`mask_rcnn/accuracy`, `false_positive`,
    `false_negative`, the mask being where the own class has more than half of the probability) and
    the pictures are those of Detectron2's `mask_rcnn_loss`, to the last bit.

    Args:
        logits: (R, L, M, M) float, image by image; one channel is class-agnostic
        instances: one an image, R positive objects in all; reads `gt_classes` (0 ... K-1) besides
            what `mask_targets` reads
        loss: of LOSSES; the top of this file defines them
        vis_period: steps between pictures of predictions and targets, 0 for none
    Returns:
        scalar, the mean over all cells of the R masks; 0 with zero gradients if R is 0
    Raises:
        ValueError: an unknown loss, one channel for the softmax, masks that are not square
    """
    rows, channels, height, width = logits.shape
    if height != width:
        raise ValueError(f"mask_loss got masks of {height} x {width} cells, expected square ones")
    _check_channels(channels, loss)
    if not any(len(image) for image in instances):
        return logits.sum() * 0
    targets = mask_targets(instances, height)
    precision = torch.promote_types(logits.dtype, torch.float32)
    if loss == "softmax":
        logits = logits.to(precision)  # autocast leaves a sum of exponentials in half precision
    if channels == 1:
        own = logits[:, 0]
    else:
        classes = cat([image.gt_classes for image in instances if len(image)]).long()
        own = logits[torch.arange(rows, device=classes.device), classes]  # (R, M, M)
    if loss == "sigmoid":
        mean = F.binary_cross_entropy_with_logits(own, targets.to(precision))
        predicted = own.detach() > 0
    else:
        total = logits.logsumexp(dim=1)  # (R, M, M), log of what the probabilities share
        mean = (total - torch.where(targets, own, logits[:, -1])).mean()
        own = (own - total).detach()
        predicted = own > -math.log(2)
    _log_accuracy(predicted, targets)
    storage = get_event_storage()
    if vis_period > 0 and storage.iter % vis_period == 0:
        probabilities = own.sigmoid() if loss == "sigmoid" else own.exp()
        _draw(probabilities, targets)
    return mean


def mask_probabilities(logits: torch.Tensor, instances: list[Instances], loss: str) -> None:
    """Give each detection the mask of its class, as field `pred_masks` (R of the image, 1, M, M).

    Args:
        logits: (R, L, M, M) float, image by image; one channel is class-agnostic
        instances: one an image, R detections in all; reads `pred_classes` (0 ... K-1). The mask is
            of the probability that the cell is of the object, in [0, 1]: the sigmoid of the class's
            logit as in Detectron2's `mask_rcnn_inference`, or the class's share in the softmax
        loss: of LOSSES
    """
    if loss != "softmax":
        mask_rcnn_inference(logits, instances)
        return
    classes = cat([image.pred_classes for image in instances])
    rows = torch.arange(logits.shape[0], device=classes.device)
    masks = logits.softmax(dim=1)[rows, classes][:, None]  # (R, 1, M, M)
    counts = [len(image) for image in instances]
    for mask, image in zip(masks.split(counts, dim=0), instances):  # noqa: B905 (TorchScript)
        image.pred_masks = mask


def _check_channels(channels: int, loss: str) -> None:
    if loss not in LOSSES:
        raise ValueError(f"mask_loss got loss={loss!r}, expected one of {', '.join(LOSSES)}")
    if loss == "softmax" and channels < 2:
        raise ValueError(
            f"mask_loss got {channels} channel for the softmax, expected one for each class and "
            "one for the background"
        )


def _log_accuracy(predicted: torch.Tensor, targets: torch.Tensor) -> None:
    """Share of wrong cells of all, of those outside and of those inside; (R, M, M) bool."""
    wrong = predicted != targets
    counts = [wrong.sum(), targets.sum(), (wrong & ~targets).sum(), (wrong & targets).sum()]
    incorrect, inside, false_positives, false_negatives = torch.stack(counts).tolist()  # one wait
    storage, cells = get_event_storage(), targets.numel()
    storage.put_scalar("mask_rcnn/accuracy", 1 - incorrect / max(cells, 1.0))
    storage.put_scalar("mask_rcnn/false_positive", false_positives / max(cells - inside, 1.0))
    storage.put_scalar("mask_rcnn/false_negative", false_negatives / max(inside, 1.0))


def _draw(probabilities: torch.Tensor, targets: torch.Tensor) -> None:
    """Each RoI's mask, predicted beside true, under Detectron2's title; (R, M, M)."""
    pairs = torch.cat([probabilities, targets.to(torch.float32)], dim=2)
    for number, pair in enumerate(pairs):
        title = f"Left: mask prediction;   Right: mask GT ({number})"
        get_event_storage().put_image(title, torch.stack([pair] * 3))
