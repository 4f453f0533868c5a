"""The same model in Detectron2's own parts: what `bench train` and `bench infer` compare with."""

from __future__ import annotations

from detectron2.config import CfgNode

from ...errors import UsageError

# Our part -> Detectron2's of the same arithmetic and the same names of weights.
_PARTS = {
    ("ROI_HEADS", "NAME"): {
        "MaskRCNNROIHeads": "StandardROIHeads",
        "MaskRCNNRes5ROIHeads": "Res5ROIHeads",
    },
    ("ROI_MASK_HEAD", "NAME"): {"FCNMaskHead": "MaskRCNNConvUpsampleHead"},
    ("PROPOSAL_GENERATOR", "NAME"): {"MaskRCNNRPN": "RPN"},
}
_POOLERS = {"RoIAlignV2": "ROIAlignV2", "RoIAlign": "ROIAlign", "RoIPool": "ROIPool"}
_BRANCHES = ("ROI_BOX_HEAD", "ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD")


def stock_config(cfg: CfgNode) -> CfgNode:
    """The config with Detectron2's RoI heads, RoI layers, mask head and RPN; frozen.

    A backbone of ours stays: it is Detectron2's layers, put together.

    Raises:
        UsageError: the config has a part or a setting that Detectron2 has not
    """
    keys = cfg.MODEL
    only_here = (
        (keys.META_ARCHITECTURE != "GeneralizedRCNN", "META_ARCHITECTURE"),
        (keys.LOAD_PROPOSALS, "LOAD_PROPOSALS"),
        (keys.ROI_HEADS.NMS != "hard", "ROI_HEADS.NMS"),
        (keys.MASK_ON and keys.ROI_MASK_HEAD.LOSS != "sigmoid", "ROI_MASK_HEAD.LOSS"),
        (keys.MASK_ON and keys.ROI_MASK_HEAD.RESOLUTION != 0, "ROI_MASK_HEAD.RESOLUTION"),
        (keys.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE != 0, "ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE"),
        *((keys[b].POOLER_AGGREGATION != "", f"{b}.POOLER_AGGREGATION") for b in _BRANCHES),
    )
    for refused, key in only_here:
        if refused:
            value = cfg
            for name in f"MODEL.{key}".split("."):
                value = value[name]
            raise UsageError(
                f"MODEL.{key} is {value!r}, which Detectron2 has not, so there is nothing to "
                "compare with; take a config without it"
            )
    stock = cfg.clone()
    stock.defrost()
    for (section, key), names in _PARTS.items():
        node = stock.MODEL[section]
        node[key] = names.get(node[key], node[key])
    for branch in _BRANCHES:
        node = stock.MODEL[branch]
        if node.POOLER_TYPE in _POOLERS:
            node.POOLER_TYPE = _POOLERS[node.POOLER_TYPE]
    stock.freeze()
    return stock
