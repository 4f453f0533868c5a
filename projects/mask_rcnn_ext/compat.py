"""What keeps an installed Detectron2 from running here, mended when this package is imported.

One function a fix, each with the versions that need it; what a fix changes is an error, never a
figure. What our own build of Detectron2 needs beside is in third_party/detectron2/.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from detectron2.modeling.roi_heads import keypoint_head


def mend_keypoint_loss() -> None:
    """Let `keypoint_rcnn_loss` take logits in any memory order.

    It views them as rows, which those of a model in channels-last order (MODEL.CHANNELS_LAST) are
    not: "view size is not compatible". Needed by v0.6 and main (November 2026).
    """
    stock = keypoint_head.keypoint_rcnn_loss
    if hasattr(stock, "__wrapped__"):
        return

    @functools.wraps(stock)
    def keypoint_rcnn_loss(
        pred_keypoint_logits: torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        loss: torch.Tensor = stock(pred_keypoint_logits.contiguous(), *args, **kwargs)
        return loss

    keypoint_head.keypoint_rcnn_loss = keypoint_rcnn_loss
