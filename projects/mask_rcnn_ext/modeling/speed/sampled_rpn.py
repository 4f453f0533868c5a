"""An RPN whose losses are computed, forward and backward, at the sampled anchors only.

Shape shorthand: N images, L levels, C channels, Hl x Wl cells of a level, A anchors a cell, S
sampled anchors of all images, D hidden channels.

The RPN's losses read 256 anchors an image of a hundred thousand and more. The gradient at the
others is zero, and a dense backward pass multiplies these zeros: two thirds of the RPN's training
cost, which is a fifth of the model's. Here the dense head runs without a gradient, for the
proposals, which never had one; at the sampled anchors the head runs again, on the 3 x 3 cells that
it reads there, with a gradient. Losses and gradients are those of Detectron2's RPN to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from detectron2.modeling.box_regression import _dense_box_regression_loss
from detectron2.modeling.proposal_generator import RPN
from detectron2.modeling.proposal_generator.rpn import StandardRPNHead
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn import functional as F
from torchvision.ops import nms


class SampledRPN(RPN):
    """Detectron2's `RPN`, cheaper in training; inference and heads of other forms as there."""

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        gt_instances: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """As Detectron2's `RPN`."""
        if not self.training or not reads_single_cells(self.rpn_head):
            proposals, losses = super().forward(images, features, gt_instances)
            return proposals, losses
        assert gt_instances is not None, "the RPN needs gt_instances in training"
        maps = [features[name] for name in self.in_features]
        with torch.no_grad():
            anchors = self.anchor_generator(maps)
            logits, deltas = self.rpn_head(maps)
            logits = [_by_anchor(x, 1)[..., 0] for x in logits]
            deltas = [_by_anchor(x, self.anchor_generator.box_dim) for x in deltas]
            labels, gt_boxes = self.label_and_sample_anchors(anchors, gt_instances)
            proposals = self.predict_proposals(anchors, logits, deltas, images.image_sizes)
        return proposals, self._losses_of_sampled(maps, anchors, labels, gt_boxes)

    @torch.jit.unused
    def predict_proposals(
        self,
        anchors: list[Boxes],
        pred_objectness_logits: list[torch.Tensor],
        pred_anchor_deltas: list[torch.Tensor],
        image_sizes: list[tuple[int, int]],
    ) -> list[Instances]:
        """As Detectron2's `RPN`; in training on a CPU with less to compute.

        Only the candidates of the highest scores are decoded. Boxes of different levels never
        suppress each other, so none are compared; Detectron2 moves the levels apart and compares
        all. Here nothing is moved, so an overlap that is the threshold itself, to rounding, may
        fall on the other side.

        Raises:
            FloatingPointError: boxes or scores that are not finite, as there
        """
        device, box_dim = pred_objectness_logits[0].device, pred_anchor_deltas[0].shape[2]
        if not self.training or device.type != "cpu" or box_dim != 4:
            return list(
                super().predict_proposals(
                    anchors, pred_objectness_logits, pred_anchor_deltas, image_sizes
                )
            )
        with torch.no_grad():
            levels = [
                self._candidates(*level)
                for level in zip(anchors, pred_objectness_logits, pred_anchor_deltas, strict=True)
            ]
            boxes = torch.cat([boxes for boxes, _ in levels], dim=1)  # (N, candidates, 4)
            scores = torch.cat([scores for _, scores in levels], dim=1)
            if not bool(boxes.isfinite().all() & scores.isfinite().all()):
                raise FloatingPointError(
                    "Predicted boxes or scores contain Inf/NaN: training has diverged"
                )
            sizes = torch.tensor([(w, h, w, h) for h, w in image_sizes], dtype=boxes.dtype)
            boxes = boxes.clamp(min=0).minimum(sizes[:, None])
            solid = ((boxes[..., 2:] - boxes[..., :2]) > self.min_box_size).all(2)
            counts = [scores.shape[1] for _, scores in levels]
            return [
                self._best_of_image(size, counts, *one)
                for size, *one in zip(image_sizes, boxes, scores, solid, strict=True)
            ]

    def _candidates(
        self, anchors: Boxes, logits: torch.Tensor, deltas: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (N, K, 4) and scores (N, K), descending, of a level's K best anchors."""
        scores, index = logits.sort(descending=True, dim=1)
        most = self.pre_nms_topk[True]
        scores, index = scores[:, :most], index[:, :most]
        deltas = deltas.gather(1, index[..., None].expand(-1, -1, deltas.shape[2]))
        boxes = self.box2box_transform.apply_deltas(
            deltas.flatten(0, 1), anchors.tensor[index.flatten()]
        )
        return boxes.view(deltas.shape), scores

    def _best_of_image(
        self,
        image_size: tuple[int, int],
        counts: list[int],
        boxes: torch.Tensor,
        scores: torch.Tensor,
        solid: torch.Tensor,
    ) -> Instances:
        """NMS of each level (its share of the candidates: `counts`), then the best of what is left.

        Args:
            image_size: (height, width), pixels
            boxes, scores, solid: (K, 4), (K,) and (K,) bool, candidates; the solid ones count
        """
        kept, first = [], 0
        for count in counts:
            here = solid[first : first + count].nonzero()[:, 0] + first
            kept.append(here[nms(boxes[here], scores[here], self.nms_thresh)])
            first += count
        keep = torch.cat(kept)
        order = scores[keep].argsort(descending=True, stable=True)
        keep = keep[order[: self.post_nms_topk[True]]]
        return Instances(
            image_size, proposal_boxes=Boxes(boxes[keep]), objectness_logits=scores[keep]
        )

    def _losses_of_sampled(
        self,
        maps: list[torch.Tensor],
        anchors: list[Boxes],
        labels: list[torch.Tensor],
        gt_boxes: list[torch.Tensor],
    ) -> dict[str, torch.Tensor]:
        """`RPN.losses` of the anchors with a label of 0 or 1, and what it logs."""
        every = torch.stack(labels)  # (N, anchors of all levels)
        image, anchor = (every >= 0).nonzero(as_tuple=True)  # (S,) each
        label = every[image, anchor]
        logits, deltas = head_at(
            self.rpn_head, maps, image, anchor, self.anchor_generator.num_anchors[0]
        )
        storage, num_images = get_event_storage(), len(labels)
        positives = int((label == 1).sum())
        storage.put_scalar("rpn/num_pos_anchors", positives / num_images)
        storage.put_scalar("rpn/num_neg_anchors", (len(label) - positives) / num_images)
        # One image with S anchors, of which these are the foreground.
        localization = _dense_box_regression_loss(
            [type(anchors[0])(type(anchors[0]).cat(anchors).tensor[anchor])],
            self.box2box_transform,
            [deltas[None]],
            [torch.stack(gt_boxes)[image, anchor]],
            (label == 1)[None],
            box_reg_loss_type=self.box_reg_loss_type,
            smooth_l1_beta=self.smooth_l1_beta,
        )
        objectness = F.binary_cross_entropy_with_logits(
            logits, label.to(torch.float32), reduction="sum"
        )
        normalizer = self.batch_size_per_image * num_images
        losses = {
            "loss_rpn_cls": objectness / normalizer,
            "loss_rpn_loc": localization / normalizer,
        }
        return {name: loss * self.loss_weight.get(name, 1.0) for name, loss in losses.items()}


def reads_single_cells(head: Any) -> bool:
    """Whether an RPN head is Detectron2's standard one with a single 3 x 3 convolution."""
    conv = getattr(head, "conv", None)
    return (
        type(head) is StandardRPNHead
        and isinstance(conv, nn.Conv2d)
        and (conv.kernel_size, conv.stride, conv.padding) == ((3, 3), (1, 1), (1, 1))
        and (conv.dilation, conv.groups) == ((1, 1), 1)
        and getattr(conv, "norm", None) is None
    )


def head_at(
    head: Any,
    maps: list[torch.Tensor],
    image: torch.Tensor,
    anchor: torch.Tensor,
    anchors_per_cell: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What an RPN head says of S anchors.

    Args:
        head: `reads_single_cells(head)`
        maps: L feature maps (N, C, Hl, Wl)
        image: (S,) int64, index of the anchor's image; ascending
        anchor: (S,) int64, index into the anchors of all levels, in Detectron2's order: level,
            row, column, anchor of the cell
        anchors_per_cell: A
    Returns:
        logits (S,) and deltas (S, 4), differentiable in the maps and in the head's parameters
    """
    conv = head.conv
    patches, order, first = [], [], 0
    for level in maps:
        height, width = level.shape[-2:]
        count = height * width * anchors_per_cell
        here = ((anchor >= first) & (anchor < first + count)).nonzero()[:, 0]
        cell = (anchor[here] - first) // anchors_per_cell
        patches.append(_patches(level, image[here], cell // width, cell % width))
        order.append(here)
        first += count
    weight = conv.weight.permute(2, 3, 1, 0).flatten(0, 2)  # (9 C, D)
    # (S, D), level by level
    hidden = conv.activation(torch.addmm(conv.bias, torch.cat(patches), weight))
    places = torch.cat(order)
    a = (anchor[places] % anchors_per_cell)[:, None]
    logits = _linear(head.objectness_logits, hidden).gather(1, a)[:, 0]
    deltas = _linear(head.anchor_deltas, hidden).unflatten(1, (anchors_per_cell, -1))
    deltas = deltas.gather(1, a[..., None].expand(-1, 1, deltas.shape[2]))[:, 0]
    back = torch.empty_like(places)
    back[places] = torch.arange(len(places), device=places.device)
    return logits[back], deltas[back]


def _patches(
    level: torch.Tensor, image: torch.Tensor, y: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """(S', 9 C): the 3 x 3 cells around each, zeros outside of the map."""
    height, width = level.shape[-2:]
    offset = torch.arange(-1, 2, device=y.device)
    rows, columns = y[:, None, None] + offset[:, None], x[:, None, None] + offset
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)  # (S', 3, 3)
    rows, columns = rows.clamp(0, height - 1), columns.clamp(0, width - 1)
    # Its backward pass adds in the same order each time, which that of indexing does not on a CPU.
    cells = F.embedding(
        (image[:, None, None] * height + rows) * width + columns,
        level.permute(0, 2, 3, 1).flatten(0, 2),
    )  # (S', 3, 3, C)
    return (cells * inside[..., None].to(cells.dtype)).flatten(1)


def _linear(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A 1 x 1 convolution of rows (S, D)."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _by_anchor(x: torch.Tensor, box_dim: int) -> torch.Tensor:
    """(N, A * box_dim, H, W) -> (N, H * W * A, box_dim), as Detectron2 orders anchors."""
    n, _, height, width = x.shape
    return x.view(n, -1, box_dim, height, width).permute(0, 3, 4, 1, 2).flatten(1, 3)
