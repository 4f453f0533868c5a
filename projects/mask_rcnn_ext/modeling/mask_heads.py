"""Mask heads of Mask R-CNN by convolution, and what all mask heads share (section 3, figure 4).

Shape shorthand: R RoIs in the minibatch, C channels, S side of the RoI feature, K foreground
classes, M mask side, L channels of the logits: K, 1 (class-agnostic) or K + 1 (softmax). A mask
lives in its RoI: row 0 is the RoI's top, column 0 its left edge. Values are logits in training and
probabilities in [0, 1] in inference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ConvTranspose2d, ShapeSpec
from detectron2.modeling.roi_heads.mask_head import (
    ROI_MASK_HEAD_REGISTRY,
    BaseMaskRCNNHead,
    MaskRCNNConvUpsampleHead,
)
from detectron2.structures import Instances
from torch import nn

from ..errors import UsageError
from .config_keys import head_keys
from .mask_losses import LOSSES, mask_loss, mask_probabilities, num_mask_channels
from .speed.own_class import is_pointwise, own_class_logits


def fcn_num_upsamples(input_side: int | None, resolution: int) -> int:
    """How many deconvolutions, each doubling the side, make masks of this side.

    Args:
        input_side: S, None if it is not known
        resolution: M; 0 for the paper's 2 S
    Returns:
        k >= 1 with M = S * 2^k
    Raises:
        UsageError: there is no such k
    """
    if resolution == 0:
        return 1
    if not input_side:
        raise UsageError(
            f"MODEL.ROI_MASK_HEAD.RESOLUTION is {resolution}, but the RoI heads do not say which "
            "side FCNMaskHead gets; use 0, twice that side"
        )
    sides = [input_side * 2**k for k in range(1, 17)]
    if resolution not in sides:
        raise UsageError(
            f"MODEL.ROI_MASK_HEAD.RESOLUTION is {resolution}, but FCNMaskHead gets RoI features of "
            f"side {input_side} and doubles them once or more: expected 0 (the first of these), "
            f"{', '.join(map(str, sides[:4]))} and so on; MLPMaskHead makes any side"
        )
    return sides.index(resolution) + 1


def mask_head_settings(cfg: CfgNode) -> dict[str, Any]:
    """The classes and the loss of a mask head, as arguments of its `__init__`.

    Raises:
        UsageError: softmax without a channel for each class
    """
    keys = head_keys(cfg, "ROI_MASK_HEAD")
    if keys.LOSS == "softmax" and keys.CLS_AGNOSTIC_MASK:
        raise UsageError(
            "MODEL.ROI_MASK_HEAD.LOSS is 'softmax' and MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK True: "
            "classes that compete for a cell need a channel each; use sigmoid, or "
            "CLS_AGNOSTIC_MASK False"
        )
    num_classes = 1 if keys.CLS_AGNOSTIC_MASK else cfg.MODEL.ROI_HEADS.NUM_CLASSES
    return {"num_classes": num_classes, "loss": keys.LOSS}


class CheckedMaskHead(BaseMaskRCNNHead):
    """The forward pass of a mask head: inputs checked, then layers, then loss or masks.

    A subclass has `layers`, and calls `_expect` at the end of its `__init__`. Where it inherits
    from another head too, it names this class first.
    """

    def _expect(
        self, input_shape: ShapeSpec, num_classes: int, loss: str, input_side: int = 0
    ) -> None:
        """Remember what `forward` is to get; an `input_side` of 0 stands for any S."""
        self.in_channels = input_shape.channels
        self.in_side = input_side
        self.num_classes = num_classes
        self.loss = loss

    @staticmethod
    def _check_settings(name: str, num_classes: int, loss: str) -> None:
        """Raise UsageError unless there are classes, and a loss that we have."""
        if num_classes < 1:
            raise UsageError(
                f"{name} needs at least one class, got num_classes={num_classes}; set "
                "MODEL.ROI_HEADS.NUM_CLASSES to the number of foreground classes."
            )
        if loss not in LOSSES:
            raise UsageError(
                f"{name} got loss={loss!r}; set MODEL.ROI_MASK_HEAD.LOSS to one of "
                f"{', '.join(LOSSES)}."
            )

    def forward(self, x: torch.Tensor, instances: list[Instances]):  # type: ignore[no-untyped-def]
        """Predict masks; the RoI's own class is the one that counts.

        Args:
            x: (R, C, S, S) float, the RoI features of all images, image by image; R may be 0
            instances: one an image, R objects in all, in the order of `x`. Training reads
                `proposal_boxes` (x0, y0, x1, y1, pixels of the network input), `gt_classes`
                (int64, 0 ... K-1) and `gt_masks`; inference reads `pred_classes` (0 ... K-1)
        Returns:
            training: {"loss_mask": scalar}, the mean over the cells of the R masks of the
                ground-truth classes (`mask_losses`) times `loss_weight`; 0 with zero gradients if
                R is 0. inference: `instances`, each with `pred_masks`, (R of the image, 1, M, M)
        Raises:
            ValueError: `x` is not of this shape, or R or a class does not fit
        """
        # Upstream's `forward`, not called but restated: TorchScript cannot compile `super()`. Nor
        # can it compile an annotation of two return types, hence none.
        if not torch.jit.is_scripting():
            self._check_features(x, instances)
        if self.training:
            return self._losses(x, instances)
        mask_probabilities(self.layers(x), instances, self.loss)
        return instances

    def training_logits(self, x: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
        """What the loss reads: all channels, or (R, 1, M, M) of the true classes alone."""
        return self.layers(x)

    @torch.jit.unused
    def _losses(self, x: torch.Tensor, instances: list[Instances]) -> dict[str, torch.Tensor]:
        self._check_classes(instances)
        logits = self.training_logits(x, instances)
        loss = mask_loss(logits, instances, loss=self.loss, vis_period=self.vis_period)
        return {"loss_mask": loss * self.loss_weight}

    @torch.jit.unused
    def _check_features(self, x: torch.Tensor, instances: list[Instances]) -> None:
        """Raise ValueError unless `x` is (R, C, S, S) and R the number of objects."""
        if torch.jit.is_tracing():
            return  # shapes are symbols then, and a branch on them would be frozen into the trace
        name, side = type(self).__name__, self.in_side
        fits = x.dim() == 4 and x.shape[1] == self.in_channels and x.shape[2] == x.shape[3]
        if not fits or (side and x.shape[2] != side):
            raise ValueError(
                f"{name} got RoI features of shape {tuple(x.shape)}, expected (R, "
                f"{self.in_channels}, {side or 'S'}, {side or 'S'}); give it the shape that the "
                "RoI pooler returns."
            )
        counts = [len(i) for i in instances]
        if sum(counts) != len(x):
            raise ValueError(
                f"{name} got {len(x)} RoI features for {sum(counts)} objects (by image: "
                f"{counts}); give one feature for each object of each image."
            )

    @torch.jit.unused
    def _check_classes(self, instances: list[Instances]) -> None:
        """Raise ValueError unless every ground-truth class has its mask.

        Indexing would take -1 (ignored) for the last class without a word, and die on a GPU with a
        device-side assert for K (background). The loss waits for the GPU anyway (its accuracies),
        so this adds no stall of its own.
        """
        if num_mask_channels(self.num_classes, self.loss) == 1:
            return  # class-agnostic: the loss does not read the classes
        classes = [i.gt_classes for i in instances if len(i)]
        if not classes:
            return
        low, high = torch.stack(torch.cat(classes).aminmax()).tolist()
        if low < 0 or high >= self.num_classes:
            raise ValueError(
                f"{type(self).__name__} got gt_classes from {low} to {high}, expected 0 to "
                f"{self.num_classes - 1}; pass foreground RoIs only, and set "
                "MODEL.ROI_HEADS.NUM_CLASSES to the data set's number of classes."
            )


@ROI_MASK_HEAD_REGISTRY.register()
class FCNMaskHead(CheckedMaskHead, MaskRCNNConvUpsampleHead):
    """Predict each RoI's mask with convolutions only (paper figure 4, both forms; table 2e).

    The layers, their names and so the state dict (`mask_fcn1` ..., `deconv`, `predictor`) are those
    of Detectron2's `MaskRCNNConvUpsampleHead`: weights of its Mask R-CNN load unchanged and give
    the same masks. What this class adds is the softmax loss (one more channel, the background),
    finer masks, and that wrong settings and inputs are named.

    =====  ================  =========================================  =================
    form   input (C, S, S)   layers                                     output (L, M, M)
    =====  ================  =========================================  =================
    FPN    256 x 14 x 14     4 of 3x3 conv 256-d, deconv 256-d, 1x1     L x 28 x 28
    C4     2048 x 7 x 7      (res5 of the box head,) deconv 256-d, 1x1  L x 14 x 14
    =====  ================  =========================================  =================

    Each convolution and the deconvolution (2x2, stride 2, so M = 2 S) is followed by a ReLU. More
    deconvolutions of the same width (`deconv2`, `deconv3`, ...) make finer masks, M = 4 S, 8 S. In
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
        loss: str = "sigmoid",
        num_upsamples: int = 1,
        **kwargs: Any,
    ) -> None:
        """
        Args:
            input_shape: the RoI feature; only `channels` (C) is used. Detectron2's C4 heads
                announce the side before res5 halves it, so `height` and `width` are no promise
            num_classes: K, background not counted; 1 means class-agnostic, or one class
            conv_dims: output channels of each 3x3 convolution, then of the deconvolutions; hence
                never empty, and of length 1 in the C4 form
            conv_norm: norm of the 3x3 convolutions, as `detectron2.layers.get_norm` takes it
            loss: "sigmoid" or "softmax"
            num_upsamples: deconvolutions, at least 1; M is S times 2 to this power
            kwargs: `loss_weight` and `vis_period`, as in Detectron2's `BaseMaskRCNNHead`
        Raises:
            UsageError: a count or width below 1, an unknown loss
        """
        self._check_settings("FCNMaskHead", num_classes, loss)
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
        if num_upsamples < 1:
            raise UsageError(
                f"FCNMaskHead needs a deconvolution, got num_upsamples={num_upsamples}; set "
                "MODEL.ROI_MASK_HEAD.RESOLUTION to 0, or to twice its input's side or more."
            )
        super().__init__(
            input_shape,
            num_classes=num_mask_channels(num_classes, loss),
            conv_dims=conv_dims,
            conv_norm=conv_norm,
            **kwargs,
        )
        self._add_upsamples(conv_dims[-1], num_upsamples)
        self._expect(input_shape, num_classes, loss)

    def _add_upsamples(self, channels: int, num_upsamples: int) -> None:
        """Put the deconvolutions after the first one before the predictor: order is the pass."""
        predictor = self._modules.pop("predictor")
        for number in range(2, num_upsamples + 1):
            deconv = ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
            weight_init.c2_msra_fill(deconv)
            self.add_module(f"deconv{number}", deconv)
            self.add_module(f"deconv{number}_relu", nn.ReLU())
        self.add_module("predictor", predictor)

    @torch.jit.unused
    def training_logits(self, x: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
        """The sigmoid's loss reads the true class alone, so no other one is computed."""
        alone = self.loss == "sigmoid" and self.num_classes > 1 and len(x) > 0
        if not alone or not is_pointwise(self.predictor):
            return super().training_logits(x, instances)
        for name, layer in self.named_children():
            if name != "predictor":  # the last one
                x = layer(x)
        classes = torch.cat([image.gt_classes for image in instances if len(image)]).long()
        return own_class_logits(self.predictor, x, classes)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        # A C4 head of Detectron2's announces a side that is not the one it gives; with RESOLUTION
        # 0, the default, nobody asks.
        resolution = head_keys(cfg, "ROI_MASK_HEAD").RESOLUTION
        return {
            **super().from_config(cfg, input_shape),
            **mask_head_settings(cfg),
            "num_upsamples": fcn_num_upsamples(input_shape.height, resolution),
        }
