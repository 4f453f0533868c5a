"""What a config may ask of the RoI layers and heads, checked before anything is built."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.modeling import ROI_HEADS_REGISTRY

from ..errors import UsageError
from ..ops.geometry import AGGREGATIONS
from ..ops.multilevel import BACKENDS
from .box_predictor import NMS_CHOICES
from .mask_heads import fcn_num_upsamples
from .mask_losses import LOSSES
from .roi_extractor import POOLER_TYPES
from .roi_heads import MaskRCNNRes5ROIHeads, MaskRCNNROIHeads


def check_modeling_config(cfg: CfgNode) -> None:
    """Refuse values that the RoI layers and heads cannot make.

    Raises:
        UsageError: the key, its value, what it may be
    """
    if cfg.MODEL.META_ARCHITECTURE == "ProposalNetwork":
        return  # no RoI is ever cut out
    heads = ROI_HEADS_REGISTRY.get(cfg.MODEL.ROI_HEADS.NAME)
    ours = issubclass(heads, MaskRCNNROIHeads | MaskRCNNRes5ROIHeads)
    _one_of("MODEL.ROI_HEADS.POOLER_BACKEND", cfg.MODEL.ROI_HEADS.POOLER_BACKEND, BACKENDS)
    _at_least("TEST.DETECTIONS_PER_IMAGE", cfg.TEST.DETECTIONS_PER_IMAGE, 1)
    _check_nms(cfg, ours)
    shared_res5 = issubclass(heads, MaskRCNNRes5ROIHeads)
    _check_pooler(cfg, "ROI_BOX_HEAD", ours)
    if cfg.MODEL.MASK_ON and not shared_res5:
        _check_pooler(cfg, "ROI_MASK_HEAD", ours)
    if cfg.MODEL.KEYPOINT_ON:
        if shared_res5:
            raise UsageError(
                f"MODEL.KEYPOINT_ON is True, but MODEL.ROI_HEADS.NAME {cfg.MODEL.ROI_HEADS.NAME} "
                "has no keypoint branch; use MaskRCNNROIHeads"
            )
        _check_pooler(cfg, "ROI_KEYPOINT_HEAD", ours)
    if cfg.MODEL.MASK_ON:
        _check_shared_pooler(cfg, shared_res5)
        _check_mask_head(cfg, ours, shared_res5)


def _check_nms(cfg: CfgNode, ours: bool) -> None:
    keys = cfg.MODEL.ROI_HEADS
    _one_of("MODEL.ROI_HEADS.NMS", keys.NMS, NMS_CHOICES)
    if not keys.SOFT_NMS_SIGMA > 0:
        raise UsageError(
            f"MODEL.ROI_HEADS.SOFT_NMS_SIGMA is {keys.SOFT_NMS_SIGMA}, expected a number above 0"
        )
    if keys.NMS != "hard" and not ours:
        raise UsageError(
            f"MODEL.ROI_HEADS.NMS is {keys.NMS!r}, which MODEL.ROI_HEADS.NAME {keys.NAME} does "
            "not know; set it to MaskRCNNROIHeads, or to MaskRCNNRes5ROIHeads for C4"
        )


def _check_pooler(cfg: CfgNode, head: str, ours: bool) -> None:
    keys, prefix = cfg.MODEL[head], f"MODEL.{head}."
    _at_least(prefix + "POOLER_RESOLUTION", keys.POOLER_RESOLUTION, 1)
    _at_least(prefix + "POOLER_SAMPLING_RATIO", keys.POOLER_SAMPLING_RATIO, 0)
    kind, aggregation = keys.POOLER_TYPE, keys.POOLER_AGGREGATION
    if head == "ROI_MASK_HEAD" and kind == "":
        return  # Detectron2's way to say that the head reads whole feature maps
    _one_of(prefix + "POOLER_TYPE", kind, (*POOLER_TYPES, "ROIAlignRotated"))
    choices = AGGREGATIONS.get(POOLER_TYPES.get(kind, ""), ())
    if aggregation and aggregation not in choices:
        raise UsageError(
            f"{prefix}POOLER_AGGREGATION is {aggregation!r}, but {kind} has "
            f"{' and '.join(choices) or 'none of our aggregations'}; leave it empty for its own"
        )
    if not ours and (aggregation or not kind.startswith("ROI")):
        raise UsageError(
            f"{prefix}POOLER_TYPE is {kind!r} and POOLER_AGGREGATION {aggregation!r}, which "
            f"MODEL.ROI_HEADS.NAME {cfg.MODEL.ROI_HEADS.NAME} does not know; set it to "
            "MaskRCNNROIHeads, or to MaskRCNNRes5ROIHeads for C4"
        )
    if cfg.MODEL.ROI_HEADS.POOLER_BACKEND == "triton" and (aggregation or choices[:1]) not in (
        "ave",
        ("ave",),
    ):
        raise UsageError(
            f"MODEL.ROI_HEADS.POOLER_BACKEND is 'triton', which has averages only, but "
            f"{prefix}POOLER_TYPE is {kind!r} with {aggregation or 'max'}; use auto or torch"
        )


def _check_shared_pooler(cfg: CfgNode, shared_res5: bool) -> None:
    box, mask = cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD
    if shared_res5 and mask.POOLER_AGGREGATION not in ("", box.POOLER_AGGREGATION):
        raise UsageError(
            f"MODEL.ROI_MASK_HEAD.POOLER_AGGREGATION is {mask.POOLER_AGGREGATION!r}, but the C4 "
            "heads have one RoI layer for boxes and masks: set MODEL.ROI_BOX_HEAD's keys"
        )
    limit = mask.TRAIN_ROIS_PER_IMAGE
    _at_least("MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE", limit, 0)
    if shared_res5 and limit:
        raise UsageError(
            f"MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE is {limit}, but the C4 heads make masks "
            "from the box branch's features; limit MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE instead"
        )


def _check_mask_head(cfg: CfgNode, ours: bool, shared_res5: bool) -> None:
    keys, prefix = cfg.MODEL.ROI_MASK_HEAD, "MODEL.ROI_MASK_HEAD."
    _one_of(prefix + "LOSS", keys.LOSS, LOSSES)
    own_head = keys.NAME in ("FCNMaskHead", "MLPMaskHead")
    if keys.LOSS != "sigmoid" and not own_head:
        raise UsageError(
            f"{prefix}LOSS is {keys.LOSS!r}, which {prefix}NAME {keys.NAME} does not know; "
            "use FCNMaskHead or MLPMaskHead"
        )
    if keys.LOSS == "softmax" and keys.CLS_AGNOSTIC_MASK:
        raise UsageError(
            f"{prefix}LOSS is 'softmax' and {prefix}CLS_AGNOSTIC_MASK True: classes that compete "
            "for a pixel need a channel each; use sigmoid, or CLS_AGNOSTIC_MASK False"
        )
    if own_head:
        _at_least(prefix + "RESOLUTION", keys.RESOLUTION, 0)
    elif keys.RESOLUTION:
        raise UsageError(
            f"{prefix}RESOLUTION is {keys.RESOLUTION}, which {prefix}NAME {keys.NAME} does not "
            "know; use FCNMaskHead or MLPMaskHead"
        )
    if keys.NAME == "MLPMaskHead" and min(keys.FC_DIMS, default=0) < 1:
        raise UsageError(
            f"{prefix}FC_DIMS is {list(keys.FC_DIMS)}, expected the width of each hidden layer, "
            "at least one: [1024, 1024] in table 2e"
        )
    if keys.NAME == "FCNMaskHead" and keys.RESOLUTION:
        side = keys.POOLER_RESOLUTION
        if shared_res5:
            side = (cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION + 1) // 2
        elif not ours and "Res5" in cfg.MODEL.ROI_HEADS.NAME:
            raise UsageError(
                f"{prefix}RESOLUTION is {keys.RESOLUTION}, but MODEL.ROI_HEADS.NAME "
                f"{cfg.MODEL.ROI_HEADS.NAME} announces another side than it gives; use "
                "MaskRCNNRes5ROIHeads"
            )
        fcn_num_upsamples(side, keys.RESOLUTION)


def _one_of(key: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{key} is {value!r}, expected one of {', '.join(choices)}")


def _at_least(key: str, value: int, low: int) -> None:
    if value < low:
        raise UsageError(f"{key} is {value}, expected {low} or more")
