"""Our default models give what Detectron2's own give, from the same weights: heads and RoI layers.

Models are full size (ResNet-50); the image and the number of RoIs are small. Random weights are
made to speak: every class passes the score threshold and masks are far from 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.modeling import FCNMaskHead, RoIExtractor

TOLERANCE = 1e-5
HEIGHT, WIDTH = 128, 160  # of the network input, in pixels
ORIGINAL = (192, 240)  # of the image that the masks are pasted into
MASK_SIDE = {"FPN": 28, "C4": 14}
SMALL = [
    "MODEL.DEVICE", "cpu",
    "MODEL.WEIGHTS", "",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN", "40",
    "MODEL.RPN.POST_NMS_TOPK_TEST", "8",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", "8",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0",
    "TEST.DETECTIONS_PER_IMAGE", "6",
]  # fmt: skip


CONFIGS = {
    "FPN": "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml",
    "C4": "COCO-InstanceSegmentation/mask_rcnn_R_50_C4_1x.yaml",
    "keypoint": "COCO-Keypoints/keypoint_rcnn_R_50_FPN_1x.yaml",
}
STOCK = {
    "FPN": ["MODEL.ROI_HEADS.NAME", "StandardROIHeads"],
    "C4": ["MODEL.ROI_HEADS.NAME", "Res5ROIHeads"],
    "keypoint": ["MODEL.ROI_HEADS.NAME", "StandardROIHeads"],
}
STOCK_MASK_HEAD = ["MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"]


@dataclass
class Pair:
    form: str
    stock: nn.Module
    ours: nn.Module

    @property
    def branch(self) -> str:
        return "keypoint" if self.form == "keypoint" else "mask"


def _build(form: str, *overrides: str) -> nn.Module:
    return build_model(load_config(CONFIGS[form], [*SMALL, *overrides]))


@pytest.fixture(scope="module", params=list(CONFIGS))
def pair(request: pytest.FixtureRequest) -> Pair:
    form = request.param
    with torch.random.fork_rng():
        torch.manual_seed(1)
        stock = _build(form, *STOCK[form], *STOCK_MASK_HEAD)
        _speak_up(stock)
        ours = _build(form)
    kinds = [{type(m) for m in model.modules()} for model in (stock, ours)]
    assert ROIPooler in kinds[0] - kinds[1]
    assert RoIExtractor in kinds[1] - kinds[0]
    if form != "keypoint":
        assert MaskRCNNConvUpsampleHead in kinds[0] - kinds[1]
        assert FCNMaskHead in kinds[1] - kinds[0]
    ours.load_state_dict(stock.state_dict(), strict=True)
    return Pair(form, stock, ours)


def _speak_up(model: nn.Module) -> None:
    """Tame the untrained ResNet, whose frozen norms of 1 let features grow a thousandfold."""
    for module in model.modules():
        if type(module).__name__ == "FrozenBatchNorm2d":
            module.weight.fill_(0.7)
    if model.roi_heads.mask_on:
        nn.init.normal_(model.roi_heads.mask_head.predictor.weight, std=0.05)


def _image(seed: int = 0) -> dict:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (3, HEIGHT, WIDTH), generator=generator, dtype=torch.uint8)
    return {"image": pixels, "height": ORIGINAL[0], "width": ORIGINAL[1]}


def _annotated(seed: int, form: str) -> dict:
    boxes = torch.tensor([[10.0, 12.0, 90.0, 100.0], [60.0, 30.0, 150.0, 120.0]])
    masks = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.bool)
    masks[0, 20:90, 15:80] = True
    masks[1, 40:70, 60:150] = True
    instances = Instances((HEIGHT, WIDTH))
    instances.gt_boxes = Boxes(boxes)
    instances.gt_classes = torch.tensor([0, 0] if form == "keypoint" else [3, 79])
    instances.gt_masks = BitMasks(masks)
    places = torch.rand(2, 17, 2, generator=torch.Generator().manual_seed(seed))
    places = boxes[:, None, :2] + places * (boxes[:, None, 2:] - boxes[:, None, :2])
    instances.gt_keypoints = Keypoints(torch.cat([places, torch.full((2, 17, 1), 2.0)], dim=2))
    return {**_image(seed), "instances": instances}


def _assert_same(ours: torch.Tensor, stock: torch.Tensor, what: str) -> None:
    assert ours.shape == stock.shape, what
    assert torch.isfinite(stock.float()).all(), what
    # Of the value where it is above 1: a box at 150 pixels has float32 steps of 1.5e-5 itself.
    size = stock.double().abs().clamp(min=1)
    difference = ((ours.double() - stock.double()).abs() / size).max().item()
    print(f"{what}: max difference {difference:g}")
    assert difference <= TOLERANCE, what


def test_the_weights_of_ours_load_into_stock(pair: Pair):
    keys = pair.stock.load_state_dict(pair.ours.state_dict(), strict=True)
    assert not keys.missing_keys
    assert not keys.unexpected_keys


def test_same_detections_and_masks(pair: Pair):
    outputs = []
    for model in (pair.stock, pair.ours):
        model.eval()
        with torch.no_grad():
            (in_roi,) = model.inference([_image()], do_postprocess=False)
            (pasted,) = model([_image()])
        outputs.append((in_roi, pasted["instances"]))
    (stock_roi, stock_pasted), (our_roi, our_pasted) = outputs

    count = len(stock_roi)
    assert count > 0, "nothing detected, nothing compared"
    assert len(stock_pasted) > 0
    predicted = "pred_keypoints"
    if pair.form != "keypoint":
        predicted, side = "pred_masks", MASK_SIDE[pair.form]
        assert stock_roi.pred_masks.shape == (count, 1, side, side)
        assert stock_roi.pred_masks.std() > 0.05, "masks all alike, nothing compared"
        assert 0 < stock_pasted.pred_masks.sum() < stock_pasted.pred_masks.numel()
        assert stock_pasted.pred_masks.shape == (len(stock_pasted), *ORIGINAL)

    for stage, ours, stock in (
        ("in the RoI", our_roi, stock_roi),
        ("in the image", our_pasted, stock_pasted),
    ):
        _assert_same(ours.pred_boxes.tensor, stock.pred_boxes.tensor, f"boxes {stage}")
        _assert_same(ours.scores, stock.scores, f"scores {stage}")
        _assert_same(ours.get(predicted), stock.get(predicted), f"{predicted} {stage}")
        assert torch.equal(ours.pred_classes, stock.pred_classes)


def test_same_training_losses_and_gradients(pair: Pair):
    losses, gradients = [], []
    for model in (pair.stock, pair.ours):
        model.train()
        model.zero_grad()
        torch.manual_seed(7)  # the samplers of RPN and RoI heads draw from it
        with EventStorage():
            loss = model([_annotated(1, pair.form), _annotated(2, pair.form)])
        # Through the RoI layer into the backbone; divided, since untrained gradients are large.
        (loss[f"loss_{pair.branch}"] / 100).backward()
        losses.append({name: value.detach() for name, value in loss.items()})
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})

    assert losses[0].keys() == losses[1].keys()
    assert losses[0][f"loss_{pair.branch}"] > 0
    for name in losses[0]:
        _assert_same(losses[1][name], losses[0][name], name)
    assert gradients[0].keys() == gradients[1].keys()
    assert any(n.startswith("backbone") for n in gradients[0])
    assert any(n.startswith(f"roi_heads.{pair.branch}_head") for n in gradients[0])
    for name in gradients[0]:
        _assert_same(gradients[1][name], gradients[0][name], f"gradient of {name}")
