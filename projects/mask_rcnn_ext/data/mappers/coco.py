"""From a record of Detectron2's standard form to a sample; errors name file, image, annotation."""

from __future__ import annotations

import os
import struct
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError
from detectron2.structures import Boxes, Instances
from PIL import Image

from ...errors import DataError, UsageError
from ..augmentations.build import build_augmentations, build_copy_paste, moves_out
from ..augmentations.copy_paste import CopyPaste
from ..augmentations.resize import channels_first
from ..dubious import Dubious
from ..mask_windows import WindowMaker
from ..masks import bit_masks
from . import annotations as notes
from .images import read_image
from .registry import MAPPER_REGISTRY

Record = dict[str, Any]
_EMPTY = "an object covers no pixel after resizing and is left out"


@MAPPER_REGISTRY.register()
class CocoMapper(DatasetMapper):
    """Detectron2's `DatasetMapper`, faster, for polygons and RLE alike, with errors to act on.

    The same augmentations, boxes, keypoints and, with INPUT.MASK_FORMAT "bitmask", the same masks
    bit for bit; pixel values differ by 1 of 255 at most (see `TensorResizeTransform`). What is
    different on purpose:

    - Images without objects get all fields, empty; a crop of one works.
    - With "bitmask", `gt_masks` are `IndexedBitMasks`, and a crop cuts the mask, not the polygon.
    - An annotation that cannot be used, or lacks a mask while masks are learned, is an error.
    """

    @configurable
    def __init__(
        self, is_train: bool = True, *, copy_paste: CopyPaste | None = None, **kwargs: Any
    ):
        """
        Args:
            is_train: whether samples carry "instances"
            copy_paste: what `SampleDataset` joins two samples with; None for nothing
            kwargs: keyword arguments of Detectron2's `DatasetMapper`
        """
        super().__init__(is_train, **kwargs)
        self.copy_paste = copy_paste
        self.dubious = Dubious()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        masks, keypoints = cfg.MODEL.MASK_ON, cfg.MODEL.KEYPOINT_ON
        arguments = {
            "is_train": is_train,
            "augmentations": build_augmentations(cfg, is_train),
            "copy_paste": build_copy_paste(cfg, is_train),
            "image_format": cfg.INPUT.FORMAT,
            "use_instance_mask": masks,
            "instance_mask_format": cfg.INPUT.MASK_FORMAT,
            "use_keypoint": keypoints,
            "recompute_boxes": is_train and masks and moves_out(cfg),
        }
        if keypoints and is_train:
            arguments["keypoint_hflip_indices"] = _flip_indices(cfg.DATASETS.TRAIN)
        if cfg.MODEL.LOAD_PROPOSALS:
            arguments["precomputed_proposal_topk"] = (
                cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN
                if is_train
                else cfg.DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST
            )
        return arguments

    def __call__(self, dataset_dict: Record) -> Record:
        """
        Args:
            dataset_dict: one record (file_name, height, width, image_id, annotations); unchanged
        Returns:
            the record without its annotations, and "image" (3, H, W) uint8 in INPUT.FORMAT,
            "height" and "width" of the original; in training "instances" in the frame of "image":
            gt_boxes (x0, y0, x1, y1), gt_classes, gt_masks and gt_keypoints if they are learned
        Raises:
            DataError: the image is missing, does not decode or has another size than the
                annotation file says, or an annotation cannot be used; names file, image id and
                annotation id
        """
        try:
            return self._sample(dataset_dict)
        except SizeMismatchError as error:
            raise DataError(
                f"{_where(dataset_dict)}: {' '.join(str(error).split())} Mend width and height in "
                "the annotation file, or strip the EXIF rotation from the image."
            ) from error
        except notes.AnnotationError as error:
            raise DataError(f"{_where(dataset_dict)}, {error}") from error
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            path = dataset_dict["file_name"]
            what = "does not decode" if os.path.exists(path) else "does not exist"
            raise DataError(
                f"{_where(dataset_dict)} {what} ({error}). Fetch or restore the file, or take the "
                "image out of the annotation file."
            ) from error

    def _sample(self, dataset_dict: Record) -> Record:
        record = {key: value for key, value in dataset_dict.items() if key != "annotations"}
        image = self._pixels(record["file_name"])
        utils.check_image_size(record, image)
        sem_seg = None
        if "sem_seg_file_name" in record:
            sem_seg = utils.read_image(record.pop("sem_seg_file_name"), "L").squeeze(2)
        learns = self.is_train and "annotations" in dataset_dict
        annotations = [a for a in dataset_dict.get("annotations", ()) if not a.get("iscrowd", 0)]
        boxes = notes.source_boxes(annotations) if learns else None

        given = T.AugInput(image, boxes=boxes, sem_seg=sem_seg)
        transforms = self.augmentations(given)
        size = given.image.shape[:2]
        record["image"] = channels_first(given.image).contiguous()
        if given.sem_seg is not None:
            record["sem_seg"] = torch.as_tensor(given.sem_seg.astype("long"))
        if self.proposal_topk is not None:
            utils.transform_proposals(record, size, transforms, proposal_topk=self.proposal_topk)
        if boxes is not None:
            moved = notes.transformed_boxes(boxes, transforms, size)
            source = image.shape[:2]
            record["instances"] = self._instances(annotations, moved, transforms, source, size)
            lost = len(annotations) - len(record["instances"])
            if lost and not any(isinstance(t, T.CropTransform) for t in transforms.transforms):
                self.dubious.note(_EMPTY, f"{lost} of {_where(dataset_dict)}")
        return record

    def _pixels(self, path: str) -> np.ndarray:
        try:
            return self._read_image(path)
        except (ValueError, EOFError, struct.error) as error:  # Pillow's, for broken files
            raise OSError(f"{type(error).__name__}: {error}") from error

    def _read_image(self, path: str) -> np.ndarray:
        """(H, W, C), as `images.read_image`."""
        return read_image(path, self.image_format)

    def _instances(
        self,
        annotations: list[Record],
        boxes: np.ndarray,
        transforms: T.TransformList,
        source: tuple[int, int],
        size: tuple[int, int],
    ) -> Instances:
        """
        Args:
            annotations: N, no crowds
            boxes: (N, 4) after the transforms
            source, size: (height, width) of the image before and after
        Returns:
            those of the N that have a box and a mask left
        """
        classes = notes.classes_of(annotations)
        windows = polygons = None
        if self.use_instance_mask and self.instance_mask_format == "bitmask":
            windows = notes.windows_of(annotations, WindowMaker(transforms, source, size))
            if self.recompute_boxes:
                boxes = np.array([w.box for w in windows], np.float64).reshape(-1, 4)
        elif self.use_instance_mask:
            polygons = notes.polygon_masks_of(annotations, transforms)
            if self.recompute_boxes:
                boxes = polygons.get_bounding_boxes().tensor.numpy()
        gt_boxes = Boxes(torch.as_tensor(boxes, dtype=torch.float32))
        keep = gt_boxes.nonempty(threshold=1e-5)
        if windows is not None:
            keep &= torch.tensor([window.bits.size > 0 for window in windows], dtype=torch.bool)
        elif polygons is not None:
            keep &= polygons.nonempty()

        instances = Instances(size)
        instances.gt_boxes = gt_boxes[keep]
        instances.gt_classes = classes[keep]
        if windows is not None:
            kept = [window for window, wanted in zip(windows, keep.tolist(), strict=True) if wanted]
            instances.gt_masks = bit_masks(kept, *size)
        elif polygons is not None:
            instances.gt_masks = polygons[keep]
        if self.use_keypoint:
            instances.gt_keypoints = self._keypoints(annotations, transforms, size)[keep]
        return instances

    def _keypoints(
        self, annotations: list[Record], transforms: T.TransformList, size: tuple[int, int]
    ) -> Any:
        return notes.keypoints_of(annotations, transforms, size, self.keypoint_hflip_indices)


def _flip_indices(names: tuple[str, ...]) -> np.ndarray | None:
    """(K,) of the training sets' keypoint schema.

    Raises:
        UsageError: a set has none, or they differ
    """
    if not names:
        return None
    try:
        return np.asarray(utils.create_keypoint_hflip_indices(list(names)), dtype=np.int32)
    except (AttributeError, ValueError) as error:
        raise UsageError(
            f"the keypoint schema of DATASETS.TRAIN {tuple(names)} cannot be used: {error} "
            "Each set needs keypoint_names and keypoint_flip_map, the same for all."
        ) from error


def _where(dataset_dict: Record) -> str:
    return f"image {dataset_dict['file_name']} (image id {dataset_dict.get('image_id', 'unknown')})"
