"""From a model's m x m masks to run lengths in the original image, without an image-sized bitmap.

Letters: R detections, m the mask's side, H, W the original image's height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.modeling import GeneralizedRCNN
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Instances
from torch import nn

from ..ops import paste_masks_to_rle
from ..ops.rle import RLE

THRESHOLD = 0.5  # of a mask's probability; the paper's, section 3.1
_RAW = "mask_probabilities"


def gives_raw_masks(model: nn.Module) -> bool:
    """Whether `model` is an R-CNN whose masks can be had before they are pasted.

    A model of another kind says so by an attribute of this name, and has `inference` in the same
    form.
    """
    if isinstance(model, GeneralizedRCNN):
        return type(model).inference is GeneralizedRCNN.inference
    return getattr(model, "gives_raw_masks", False)


def detect(model: nn.Module, inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Run a model on a batch, its masks left as they come out of the mask head.

    Args:
        model: in evaluation mode
        inputs: as Detectron2's models take them
    Returns:
        one {"instances": Instances} an image, in the frame of the original image, as the model's
        own call returns them; but where `gives_raw_masks(model)`, the masks are the field
        `mask_probabilities`, (R, 1, m, m) float, instead of `pred_masks`, (R, H, W) bool
    """
    if not gives_raw_masks(model):
        outputs: list[dict[str, Any]] = model(inputs)
        return outputs
    infer: Callable[..., list[Instances]] = model.inference  # type: ignore[assignment]
    found = infer(inputs, do_postprocess=False)
    return [
        {"instances": to_original_frame(instances, one, tuple(instances.image_size))}
        for one, instances in zip(inputs, found, strict=True)
    ]


def to_original_frame(
    instances: Instances, one_input: dict[str, Any], network_size: tuple[int, int]
) -> Instances:
    """Detectron2's `detector_postprocess`, which leaves `mask_probabilities` unpasted here."""
    fields = instances.get_fields()
    if "pred_masks" in fields:
        fields[_RAW] = fields.pop("pred_masks")
    height = one_input.get("height", network_size[0])
    width = one_input.get("width", network_size[1])
    return detector_postprocess(Instances(network_size, **fields), height, width)


@dataclass
class Encoder:
    """Turns `mask_probabilities` into the field `pred_mask_rles`; here or in other processes.

    pool: where to do it; None does it at once, in this process
    """

    pool: ProcessPoolExecutor | None = None

    def submit(self, instances: Instances) -> Future[list[RLE]] | None:
        """Start the work on one image; None if there are no raw masks."""
        if not instances.has(_RAW):
            return None
        masks = instances.get(_RAW)[:, 0].detach().cpu()
        boxes = instances.pred_boxes.tensor.detach().cpu()
        instances.remove(_RAW)
        if self.pool is not None:
            return self.pool.submit(_encode, masks.numpy(), boxes.numpy(), instances.image_size)
        done: Future[list[RLE]] = Future()
        done.set_result(paste_masks_to_rle(masks, boxes, instances.image_size, THRESHOLD))
        return done


def _encode(masks: Any, boxes: Any, image_size: tuple[int, int]) -> list[RLE]:
    return paste_masks_to_rle(
        torch.from_numpy(masks), torch.from_numpy(boxes), image_size, THRESHOLD
    )
