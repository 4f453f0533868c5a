"""Our RoI heads: Detectron2's, but for the RoI layer that the config names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage

from mask_rcnn_ext import load_config
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling import MLPMaskHead, RoIExtractor

SMALL = [
    "MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "SEED", "1",
    "MODEL.RESNETS.STEM_OUT_CHANNELS", "8", "MODEL.RESNETS.RES2_OUT_CHANNELS", "16",
    "MODEL.RESNETS.WIDTH_PER_GROUP", "4", "MODEL.RESNETS.NORM", "BN",
    "MODEL.BACKBONE.FREEZE_AT", "0",
    "MODEL.RPN.POST_NMS_TOPK_TEST", "20", "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "16",
    "MODEL.ROI_HEADS.NUM_CLASSES", "3", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
]  # fmt: skip
FPN = [
    "MODEL.FPN.OUT_CHANNELS", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "32",
    "MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_HEADS.NAME", "MaskRCNNROIHeads",
]  # fmt: skip
C4 = ["MODEL.ROI_MASK_HEAD.CONV_DIM", "8", "MODEL.ROI_HEADS.NAME", "MaskRCNNRes5ROIHeads"]
CONFIGS = "COCO-InstanceSegmentation"


def _config(kind: str, *more: object) -> CfgNode:
    own = FPN if kind == "FPN" else C4
    return load_config(f"{CONFIGS}/mask_rcnn_R_50_{kind}_1x.yaml", [*SMALL, *own, *map(str, more)])


def _inputs(objects: int = 6) -> list[dict[str, Any]]:
    instances = Instances((96, 96))
    x0y0 = torch.rand(objects, 2) * 50
    instances.gt_boxes = Boxes(torch.cat([x0y0, x0y0 + 16 + torch.rand(objects, 2) * 20], dim=1))
    instances.gt_classes = torch.arange(objects) % 3
    instances.gt_masks = BitMasks(torch.rand(objects, 96, 96) > 0.5)
    image = torch.randint(0, 255, (3, 96, 96), dtype=torch.uint8)
    return [{"image": image, "instances": instances, "height": 96, "width": 96}]


def _poolers(model: torch.nn.Module) -> dict[str, RoIExtractor]:
    assert not any(isinstance(m, ROIPooler) for m in model.modules())
    return {n: m for n, m in model.roi_heads.named_modules() if isinstance(m, RoIExtractor)}


@pytest.fixture(autouse=True)
def _storage() -> Iterator[None]:
    """Where the losses log to."""
    with EventStorage():
        yield


@pytest.mark.parametrize("kind", ["FPN", "C4"])
@pytest.mark.parametrize(
    ("layer", "aggregation"),
    [("RoIPool", ""), ("RoIWarp", "ave"), ("RoIWarp", "max"), ("RoIAlign", "max")],
)
def test_every_layer_trains_and_infers(kind: str, layer: str, aggregation: str):
    keys = []
    for head in ("BOX", "MASK"):
        keys += [f"MODEL.ROI_{head}_HEAD.POOLER_TYPE", layer]
        if kind == "FPN" or head == "BOX":
            keys += [f"MODEL.ROI_{head}_HEAD.POOLER_AGGREGATION", aggregation or "''"]
    model = build_model(_config(kind, *keys))
    poolers = _poolers(model)
    assert set(poolers) == ({"box_pooler", "mask_pooler"} if kind == "FPN" else {"pooler"})
    for pooler in poolers.values():
        assert (pooler.layer, pooler.aggregation) == (layer, aggregation or "max")

    losses = model(_inputs())
    assert {"loss_cls", "loss_box_reg", "loss_mask"} <= set(losses)
    sum(losses.values()).backward()
    assert torch.isfinite(torch.stack(list(losses.values()))).all()
    used = [p for n, p in model.named_parameters() if n.startswith(("backbone", "roi_heads.mask"))]
    assert all(p.grad is not None for p in used)

    with torch.no_grad():
        found = model.eval()(_inputs())[0]["instances"]
    assert len(found)
    assert found.pred_masks.shape == (len(found), 96, 96)


def test_each_branch_has_its_own_layer():
    cfg = _config(
        "FPN",
        *("MODEL.ROI_BOX_HEAD.POOLER_TYPE", "RoIPool"),
        *("MODEL.ROI_MASK_HEAD.POOLER_TYPE", "RoIWarp"),
        *("MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO", 2),
    )
    poolers = _poolers(build_model(cfg))
    assert poolers["box_pooler"].layer == "RoIPool"
    assert poolers["box_pooler"].output_size == (7, 7)
    assert poolers["mask_pooler"].layer == "RoIWarp"
    assert poolers["mask_pooler"].output_size == (14, 14)
    assert poolers["mask_pooler"].sampling_ratio == 2


def test_keypoint_branch():
    cfg = load_config(
        "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
        [*SMALL, *FPN, "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE", "RoIPool"],
    )
    poolers = _poolers(build_model(cfg))
    assert set(poolers) == {"box_pooler", "keypoint_pooler"}
    assert poolers["keypoint_pooler"].layer == "RoIPool"


def test_c4_announces_the_side_that_the_mask_head_gets():
    """Fully connected layers need it; Detectron2 announces twice as much."""
    cfg = _config("C4", "MODEL.ROI_MASK_HEAD.NAME", "MLPMaskHead")
    model = build_model(cfg)
    assert isinstance(model.roi_heads.mask_head, MLPMaskHead)
    assert torch.isfinite(model(_inputs())["loss_mask"])


def test_a_limit_of_rois_in_the_mask_branch():
    model = build_model(_config("FPN", "MODEL.ROI_MASK_HEAD.TRAIN_ROIS_PER_IMAGE", 2))
    seen = []
    model.roi_heads.mask_head.register_forward_hook(
        lambda module, args, output: seen.append([len(i) for i in args[1]])
    )
    torch.manual_seed(0)
    model(_inputs() + _inputs(objects=1))
    model.roi_heads.train_mask_rois_per_image = 0
    torch.manual_seed(0)
    model(_inputs() + _inputs(objects=1))
    limited, free = seen
    assert max(free) > 2, "the test needs more positives than the limit"
    assert limited == [min(n, 2) for n in free]


@pytest.mark.parametrize("kind", ["FPN", "C4"])
def test_weights_of_detectron2s_heads_load(kind: str):
    stock_name = "StandardROIHeads" if kind == "FPN" else "Res5ROIHeads"
    stock = build_model(_config(kind, "MODEL.ROI_HEADS.NAME", stock_name))
    ours = build_model(_config(kind))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in stock.state_dict().items()
    }


def test_rotated_boxes_stay_detectron2s():
    cfg = _config("FPN", "MODEL.ROI_BOX_HEAD.POOLER_TYPE", "ROIAlignRotated")
    model = build_model(cfg)
    assert isinstance(model.roi_heads.box_pooler, ROIPooler)
    assert isinstance(model.roi_heads.mask_pooler, RoIExtractor)


@pytest.mark.parametrize("head", ["FCNMaskHead", "MLPMaskHead"])
def test_a_config_without_our_keys_is_told_how_to_get_them(head: str):
    """As a script of one's own would begin, with Detectron2's `get_cfg()` alone."""
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.MASK_ON = True
    cfg.MODEL.ROI_MASK_HEAD.NAME = head
    with pytest.raises(UsageError, match="add_mask_rcnn_ext_config"):
        build_model(cfg)
    cfg.MODEL.ROI_HEADS.NAME = "MaskRCNNRes5ROIHeads"
    with pytest.raises(UsageError, match="add_mask_rcnn_ext_config"):
        build_model(cfg)
