"""Mask heads of Mask R-CNN (paper section 3, figure 4).

Shape shorthand: R RoIs in the minibatch, C channels, S side of the RoI feature, K foreground
classes, M mask side. A mask lives in its RoI: row 0 is the RoI's top, column 0 its left edge.
Values are logits in training and probabilities in [0, 1] in inference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling.roi_heads.mask_head import (
    ROI_MASK_HEAD_REGISTRY,
    MaskRCNNConvUpsampleHead,
    mask_rcnn_inference,
    mask_rcnn_loss,
)
from detectron2.structures import Instances

from ..errors import UsageError


@ROI_MASK_HEAD_REGISTRY.register()
class FCNMaskHead(MaskRCNNConvUpsampleHead):
    """Predict each RoI's mask with convolutions only (paper figure 4, both forms; table 2e).

    The layers, their names and so the state dict (`mask_fcn1` ..., `deconv`, `predictor`) are those
    of Detectron2's `MaskRCNNConvUpsampleHead`: weights of its Mask R-CNN load unchanged and give
    the same masks. What this class adds is that wrong settings and inputs are named.

    =====  ================  =========================================  =================
    form   input (C, S, S)   layers                                     output (K, M, M)
    =====  ================  =========================================  =================
    FPN    256 x 14 x 14     4 of 3x3 conv 256-d, deconv 256-d, 1x1     K x 28 x 28
    C4     2048 x 7 x 7      (res5 of the box head,) deconv 256-d, 1x1  K x 14 x 14
    =====  ================  =========================================  =================

    Each convolution and the deconvolution (2x2, stride 2, so M = 2 S) is followed by a ReLU. In
    the C4 form, res5 belongs to the RoI heads and is shared with the box branch. The figure applies
    res5 with stride 1 to a 7 x 7 RoI; Detectron2 applies it with stride 2 to a 14 x 14 RoI, as the
    ResNet paper does. This head sees 7 x 7 either way.
    """

    @configurable
    def __init__(
        self,
        input_shape: ShapeSpec,
        *,
        num_classes: int,
        conv_dims: list[int],
        conv_norm: str | Callable = "",
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: the RoI feature; only `channels` (C) is used. Detectron2's C4 heads
                announce the side before res5 halves it, so `height` and `width` are no promise
            num_classes: K, background not counted; 1 means class-agnostic
            conv_dims: output channels of each 3x3 convolution, then of the deconvolution; hence
                never empty, and of length 1 in the C4 form
            conv_norm: norm of the 3x3 convolutions, as `detectron2.layers.get_norm` takes it
            kwargs: `loss_weight` and `vis_period`, as in Detectron2's `BaseMaskRCNNHead`
        Raises:
            UsageError: a count or width below 1
        """
        if num_classes < 1:
            raise UsageError(
                f"FCNMaskHead needs at least one class, got num_classes={num_classes}; set "
                "MODEL.ROI_HEADS.NUM_CLASSES to the number of foreground classes."
            )
        if not conv_dims:
            raise UsageError(
                "FCNMaskHead needs conv_dims for its deconvolution, got none; set "
                "MODEL.ROI_MASK_HEAD.NUM_CONV to 0 or more (4 in the FPN form, 0 in the C4 form)."
            )
        if min(conv_dims) < 1:
            raise UsageError(
                f"FCNMaskHead needs layers of at least one channel, got conv_dims={conv_dims}; set "
                "MODEL.ROI_MASK_HEAD.CONV_DIM (256 in the paper)."
            )
        super().__init__(
            input_shape,
            num_classes=num_classes,
            conv_dims=conv_dims,
            conv_norm=conv_norm,
            **kwargs,
        )
        self.in_channels = input_shape.channels
        self.num_classes = num_classes

    def forward(self, x: torch.Tensor, instances: list[Instances]):
        """Predict masks; the branch of the RoI's own class is the only one that counts.

        Args:
            x: (R, C, S, S) float, the RoI features of all images, image by image; R may be 0
            instances: one an image, R objects in all, in the order of `x`. Training reads
                `proposal_boxes` (x0, y0, x1, y1, pixels of the network input), `gt_classes`
                (int64, 0 ... K-1) and `gt_masks`; inference reads `pred_classes` (0 ... K-1)
        Returns:
            training: {"loss_mask": scalar}, the mean binary cross-entropy over the R masks of the
                ground-truth classes times `loss_weight` (paper section 3); 0 with zero gradients
                if R is 0. inference: `instances`, each with `pred_masks`, (R of the image, 1, M, M)
        Raises:
            ValueError: `x` is not of this shape, or R or a class does not fit
        """
        # Upstream's `forward`, not called but restated: TorchScript cannot compile `super()`. Nor
        # can it compile an annotation of two return types, hence none.
        if not torch.jit.is_scripting():
            self._check_features(x, instances)
        logits = self.layers(x)
        if self.training:
            self._check_classes(instances)
            loss = mask_rcnn_loss(logits, instances, self.vis_period)
            return {"loss_mask": loss * self.loss_weight}
        mask_rcnn_inference(logits, instances)
        return instances

    @torch.jit.unused
    def _check_features(self, x: torch.Tensor, instances: list[Instances]) -> None:
        """Raise ValueError unless `x` is (R, C, S, S) and R the number of objects."""
        if torch.jit.is_tracing():
            return  # shapes are symbols then, and a branch on them would be frozen into the trace
        if x.dim() != 4 or x.shape[1] != self.in_channels or x.shape[2] != x.shape[3]:
            raise ValueError(
                f"FCNMaskHead got RoI features of shape {tuple(x.shape)}, expected "
                f"(R, {self.in_channels}, S, S); give it the shape that the RoI pooler returns."
            )
        counts = [len(i) for i in instances]
        if sum(counts) != len(x):
            raise ValueError(
                f"FCNMaskHead got {len(x)} RoI features for {sum(counts)} objects (by image: "
                f"{counts}); give one feature for each object of each image."
            )

    @torch.jit.unused
    def _check_classes(self, instances: list[Instances]) -> None:
        """Raise ValueError unless every ground-truth class has its mask.

        Indexing would take -1 (ignored) for the last class without a word, and die on a GPU with a
        device-side assert for K (background). The loss waits for the GPU anyway (its accuracies),
        so this adds no stall of its own.
        """
        if self.num_classes == 1:
            return  # class-agnostic: the loss does not read the classes
        classes = [i.gt_classes for i in instances if len(i)]
        if not classes:
            return
        low, high = torch.stack(torch.cat(classes).aminmax()).tolist()
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"FCNMaskHead got gt_classes from {low} to {high}, expected 0 to "
                f"{self.num_classes - 1}; pass foreground RoIs only, and set "
                "MODEL.ROI_HEADS.NUM_CLASSES to the data set's number of classes."
            )
