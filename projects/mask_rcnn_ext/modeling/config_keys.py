"""Our keys of a RoI head's config, or a sentence that says how to get them."""

from __future__ import annotations

from detectron2.config import CfgNode

from ..errors import UsageError


def head_keys(cfg: CfgNode, head: str) -> CfgNode:
    """MODEL.<head>, with this project's keys in it.

    Args:
        cfg: a config; Detectron2's `get_cfg()` alone lacks them
        head: ROI_BOX_HEAD, ROI_MASK_HEAD or ROI_KEYPOINT_HEAD
    Raises:
        UsageError: they are missing
    """
    keys = cfg.MODEL[head]
    if "POOLER_AGGREGATION" not in keys:
        raise UsageError(
            f"MODEL.{head} has none of mask_rcnn_ext's keys; call "
            "mask_rcnn_ext.add_mask_rcnn_ext_config(cfg) after get_cfg() and before merging a file"
        )
    return keys
