"""Test-time augmentation for boxes, masks and keypoints (paper, appendix B).

The image is seen at several scales, each as it is and mirrored. Boxes of all of them go through one
NMS; then masks and keypoints of the boxes that are left are predicted in each view and averaged.

Letters: R detections, K keypoints, m the side of masks, s that of keypoint heat maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA
from detectron2.modeling.postprocessing import detector_postprocess
from detectron2.structures import Boxes, Instances
from detectron2.structures.keypoints import heatmaps_to_keypoints
from fvcore.transforms import HFlipTransform, TransformList

from ..errors import UsageError

_MASKS_AND_KEYPOINTS = ["mask_on", "keypoint_on"]


class RCNNWithTTA(GeneralizedRCNNWithTTA):
    """Detectron2's, with keypoints, and with masks that need not be pasted.

    An image and its mirror image make one batch, so that no view is padded because of another.
    """

    gives_raw_masks = True

    def __init__(self, cfg: CfgNode, model: GeneralizedRCNN):
        """
        Args:
            cfg: TEST.AUG says which scales and whether mirrored; for keypoints, the metadata of
                DATASETS.TRAIN (or TEST) have `keypoint_names` and `keypoint_flip_map`
            model: an R-CNN in evaluation mode
        Raises:
            UsageError: keypoints without a schema for the mirrored view
        """
        plain = cfg.clone()
        plain.defrost()
        plain.MODEL.KEYPOINT_ON = plain.MODEL.LOAD_PROPOSALS = False  # the parent refuses both
        super().__init__(plain, model, batch_size=2 if cfg.TEST.AUG.FLIP else 1)
        self.mask_on = cfg.MODEL.MASK_ON
        self.keypoint_on = cfg.MODEL.KEYPOINT_ON
        self._mirrored_keypoints: list[int] = []
        if self.keypoint_on and cfg.TEST.AUG.FLIP:
            self._mirrored_keypoints = mirrored_keypoints([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST])

    def inference(
        self,
        batched_inputs: Sequence[dict[str, Any]],
        detected_instances: None = None,
        do_postprocess: bool = True,
    ) -> list[Any]:
        """
        Args:
            batched_inputs: as `GeneralizedRCNN`'s; "image" may have any size, best its own.
                "proposals", for a model that needs some, are in the frame of "image"
            detected_instances: not supported
            do_postprocess: whether masks are pasted
        Returns:
            with `do_postprocess` as the model's own call; without, one Instances an image, in the
            frame of the original image, whose `pred_masks` are (R, 1, m, m) float probabilities
        """
        assert detected_instances is None, "views are merged by their own boxes"
        found = [self._detect(one) for one in batched_inputs]
        if not do_postprocess:
            return found
        return [
            {"instances": detector_postprocess(instances, *instances.image_size)}
            for instances in found
        ]

    def _inference_one_image(self, input: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self.inference([input])[0]
        return result

    def _detect(self, one: dict[str, Any]) -> Instances:
        size = (one["height"], one["width"])
        views, transforms = self._get_augmented_inputs(one)
        with self._turn_off_roi_heads(_MASKS_AND_KEYPOINTS):
            boxes, scores, classes = self._get_augmented_boxes(views, transforms)
        merged = self._merge_detections(boxes, scores, classes, size)
        if not (self.mask_on or self.keypoint_on):
            return merged
        in_views = self._rescale_detected_boxes(views, merged, transforms)
        outputs = self._batch_inference(views, in_views)
        if self.mask_on:
            merged.pred_masks = self._reduce_pred_masks(outputs, transforms)
        if self.keypoint_on:
            heat_maps = self._average_heat_maps(outputs, transforms)
            found = heatmaps_to_keypoints(heat_maps, merged.pred_boxes.tensor)
            merged.pred_keypoints = found[:, :, [0, 1, 3]]  # x, y, score
        return merged

    def _get_augmented_inputs(
        self, input: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], list[TransformList]]:
        views, transforms = super()._get_augmented_inputs(input)
        if "proposals" in input:
            across = input["width"] / input["image"].shape[2]
            down = input["height"] / input["image"].shape[1]
            for view, transform in zip(views, transforms, strict=True):
                # A transform starts from the original image.
                boxes = input["proposals"].proposal_boxes.clone()
                boxes.scale(across, down)
                moved = torch.from_numpy(transform.apply_box(boxes.tensor.cpu().numpy())).float()
                view["proposals"] = Instances(
                    tuple(view["image"].shape[1:]),
                    proposal_boxes=Boxes(moved),
                    objectness_logits=input["proposals"].objectness_logits,
                )
        return views, transforms

    def _average_heat_maps(
        self, outputs: list[Instances], transforms: list[TransformList]
    ) -> torch.Tensor:
        """(R, K, s, s) logits; a mirrored view's columns and left and right are swapped back."""
        total = 0
        for output, transform in zip(outputs, transforms, strict=True):
            heat_maps = output.pred_keypoint_heatmaps
            if any(isinstance(step, HFlipTransform) for step in transform.transforms):
                heat_maps = heat_maps.flip(dims=[3])[:, self._mirrored_keypoints]
            total = total + heat_maps
        return total / len(outputs)


def mirrored_keypoints(dataset_names: Sequence[str]) -> list[int]:
    """For each keypoint the index of its counterpart in a mirrored picture, itself if it has none.

    Args:
        dataset_names: the first one with `keypoint_names` and `keypoint_flip_map` is asked
    Raises:
        UsageError: none has them
    """
    for name in dataset_names:
        metadata = MetadataCatalog.get(name)
        names = metadata.get("keypoint_names")
        pairs = metadata.get("keypoint_flip_map")
        if names and pairs is not None:
            other = dict(pairs) | {b: a for a, b in pairs}
            return [list(names).index(other.get(one, one)) for one in names]
    raise UsageError(
        f"a mirrored view needs to know left from right, but none of {', '.join(dataset_names)} "
        "has keypoint_names and keypoint_flip_map in its metadata. Register them, or set "
        "TEST.AUG.FLIP False."
    )
