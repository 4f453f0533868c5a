"""What the config takes from the data: classes, the form of masks, keypoints, their sigmas."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from detectron2.config import CfgNode

from ..data.coco_table import RLE, RLE_LIST
from ..data.keypoint_schema import KeypointSchema
from ..data.records import table_of
from ..data.registration import check_same_classes, keypoint_schema_of, locate_dataset
from ..errors import UsageError

_CLASSES = "MODEL.ROI_HEADS.NUM_CLASSES"
_MASK_FORMAT = "INPUT.MASK_FORMAT"
_PERSON_KEYPOINTS = 17
_KEYPOINTS = "MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS"


def follow_data(cfg: CfgNode, is_given: Callable[[str], bool], *, training: bool) -> None:
    """Set what the user left open, check the rest; `cfg` must not be frozen.

    Args:
        cfg: its data sets are registered
        is_given: whether the config file or the command line names this key
        training: whether DATASETS.TRAIN is read
    Raises:
        UsageError: sets whose classes or keypoints differ, or disagree with the config
    """
    names = [*(cfg.DATASETS.TRAIN if training else ()), *cfg.DATASETS.TEST]
    classes = check_same_classes(names)
    if classes is not None and not is_given(_CLASSES):
        if len(classes) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            logging.getLogger("mask_rcnn_ext").info(
                "%s is %d, as data set %s has", _CLASSES, len(classes), names[0]
            )
        cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(classes)
    if cfg.MODEL.MASK_ON and training:
        _settle_mask_format(cfg, is_given)
    if cfg.MODEL.KEYPOINT_ON:
        _follow_keypoints(cfg, names, is_given)


def _settle_mask_format(cfg: CfgNode, is_given: Callable[[str], bool]) -> None:
    """Bitmaps, whatever form the files have; polygons only for who asks for them by name."""
    if not is_given(_MASK_FORMAT):
        cfg.INPUT.MASK_FORMAT = "bitmask"
    if cfg.INPUT.MASK_FORMAT == "bitmask":
        return
    for name in cfg.DATASETS.TRAIN:
        location = locate_dataset(name)
        if location is None:
            continue
        table = table_of(location[0])
        rle = np.isin(table.segmentation_kind, (RLE, RLE_LIST)) & (table.crowd == 0)
        if rle.any():
            first = table.annotation_ids[rle.argmax()]
            raise UsageError(
                f"{_MASK_FORMAT} is {cfg.INPUT.MASK_FORMAT!r}, but {rle.sum()} objects of data set "
                f"{name!r} have RLE masks (the first is annotation id {first} in {table.path}); "
                f"take {_MASK_FORMAT} bitmask, or leave it out"
            )


def _follow_keypoints(cfg: CfgNode, names: list[str], is_given: Callable[[str], bool]) -> None:
    schemas = {name: _schema_of(name) for name in names}
    if not schemas:
        return
    first, schema = next(iter(schemas.items()))
    for name, other in schemas.items():
        if other.names != schema.names:
            raise UsageError(
                f"data sets {first!r} and {name!r} have different keypoints: "
                f"{', '.join(schema.names)} and {', '.join(other.names)}"
            )
    given = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    if is_given(_KEYPOINTS) and given != len(schema.names):
        raise UsageError(
            f"{_KEYPOINTS} is {given}, but data set {first!r} has {len(schema.names)} keypoints: "
            f"{', '.join(schema.names)}"
        )
    cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS = len(schema.names)
    if not cfg.TEST.KEYPOINT_OKS_SIGMAS and schema.sigmas:
        cfg.TEST.KEYPOINT_OKS_SIGMAS = list(schema.sigmas)
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
    # Without sigmas COCO's own are taken, which are for its 17 keypoints.
    if len(sigmas or range(_PERSON_KEYPOINTS)) != len(schema.names):
        raise UsageError(
            f"data set {first!r} has {len(schema.names)} keypoints, but "
            + (f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)}" if sigmas else "COCO's sigmas are 17")
            + "; give one sigma a keypoint in the YAML (keypoints: {sigmas: [...]})"
        )


def _schema_of(name: str) -> KeypointSchema:
    schema = keypoint_schema_of(name)
    if schema is None:
        raise UsageError(
            f"MODEL.KEYPOINT_ON is True, but data set {name!r} names no keypoints; describe "
            "them in its YAML (docs/datasets.md), or train without"
        )
    return schema
