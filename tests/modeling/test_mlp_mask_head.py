"""MLPMaskHead: the layers of table 2e, any mask side, both losses, messages for mistakes."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, build_mask_head
from detectron2.structures import BitMasks, Boxes, Instances, PolygonMasks
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext.config import add_mask_rcnn_ext_config
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling.mask_losses import LOSSES, mask_loss
from mask_rcnn_ext.modeling.mlp_mask_head import MLPMaskHead

SHAPE = ShapeSpec(channels=4, height=7, width=7)


def build(shape: ShapeSpec = SHAPE, agnostic: bool = False, **keys: object) -> MLPMaskHead:
    cfg = get_cfg()
    add_mask_rcnn_ext_config(cfg)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "MLPMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = agnostic
    cfg.MODEL.ROI_MASK_HEAD.update({"FC_DIMS": [16, 16], **keys})
    return build_mask_head(cfg, shape)


def small_head(loss: str = "sigmoid", num_classes: int = 3, **kwargs) -> MLPMaskHead:
    settings = {"fc_dims": [16, 12], "mask_side": 14, "loss": loss, **kwargs}
    return MLPMaskHead(SHAPE, num_classes=num_classes, **settings)


def training_instances(*counts: int) -> list[Instances]:
    """Positive RoIs of 32 x 32 pixels; every other image has bitmaps, the others polygons."""
    images = []
    for number, count in enumerate(counts):
        low = torch.randint(0, 32, (count, 2)).float()
        image = Instances((64, 64))
        image.proposal_boxes = Boxes(torch.cat([low, low + 32], dim=1))
        image.gt_classes = torch.randint(0, 3, (count,))
        if number % 2:
            image.gt_masks = BitMasks(torch.rand(count, 64, 64) > 0.5)
        else:
            corners = (torch.rand(count, 10) * 64).double().numpy()
            image.gt_masks = PolygonMasks([[one] for one in corners])
        images.append(image)
    return images


def detected_instances(*classes: list[int]) -> list[Instances]:
    images = []
    for of_image in classes:
        image = Instances((64, 64))
        image.pred_classes = torch.tensor(of_image, dtype=torch.int64)
        images.append(image)
    return images


def loss_of(head: MLPMaskHead, x: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    with EventStorage():
        losses = head.train()(x, instances)
    assert set(losses) == {"loss_mask"}
    return losses["loss_mask"]


def test_the_registry_knows_the_head():
    assert ROI_MASK_HEAD_REGISTRY.get("MLPMaskHead") is MLPMaskHead


@pytest.mark.parametrize("hidden", [2, 3])
def test_layers_of_table_2e(hidden):
    """fc 1024 -> 1024 (-> 1024) -> 80 * 28^2, on RoI features of 14 x 14."""
    with torch.device("meta"):  # 270 MB of weights otherwise
        shape = ShapeSpec(channels=256, height=14, width=14)
        head = build(shape, FC_DIMS=[1024] * hidden)
        widths = [(m.in_features, m.out_features) for m in head.modules() if type(m) is nn.Linear]
        between = [(1024, 1024)] * (hidden - 1)
        assert widths == [(256 * 14 * 14, 1024), *between, (1024, 80 * 28**2)]
        assert head.layers(torch.randn(3, 256, 14, 14)).shape == (3, 80, 28, 28)


@pytest.mark.parametrize("num_rois", [0, 1, 3])
@pytest.mark.parametrize(
    ("agnostic", "loss", "channels"),
    [(False, "sigmoid", 80), (True, "sigmoid", 1), (False, "softmax", 81)],
)
@pytest.mark.parametrize(("resolution", "side"), [(0, 14), (1, 1), (15, 15), (28, 28)])
def test_shapes(num_rois, agnostic, loss, channels, resolution, side):
    head = build(agnostic=agnostic, LOSS=loss, RESOLUTION=resolution)
    logits = head.layers(torch.randn(num_rois, 4, 7, 7))
    assert logits.shape == (num_rois, channels, side, side)


def test_the_layers_are_linear_maps_with_relus_between():
    head = small_head()
    nn.init.normal_(head.predictor.weight)
    x = torch.randn(2, 4, 7, 7)
    y = x.reshape(2, -1)
    for fc in head.fcs:
        assert fc.weight.std() > 0.01
        y = (y @ fc.weight.T + fc.bias).clamp(min=0)
    expected = (y @ head.predictor.weight.T + head.predictor.bias).reshape(2, 3, 14, 14)
    torch.testing.assert_close(head.layers(x), expected)
    assert torch.equal(small_head().predictor.bias, torch.zeros(3 * 14 * 14))
    assert 0.0008 < small_head().predictor.weight.std() < 0.0012


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_that_of_its_logits(loss):
    head, images = small_head(loss, loss_weight=2.0), training_instances(2, 1, 0)
    nn.init.normal_(head.predictor.weight)
    x = torch.randn(3, 4, 7, 7)
    with EventStorage():
        expected = 2 * mask_loss(head.layers(x), images, loss=loss)
    torch.testing.assert_close(loss_of(head, x, images), expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_inference_takes_the_predicted_class(loss):
    head = small_head(loss).eval()
    nn.init.normal_(head.predictor.weight)
    x = torch.randn(3, 4, 7, 7)
    images = head(x, detected_instances([2, 0], [], [1]))
    logits = head.layers(x)
    shares = logits.softmax(dim=1) if loss == "softmax" else logits.sigmoid()
    expected = torch.stack([shares[i, k] for i, k in enumerate([2, 0, 1])])
    assert [i.pred_masks.shape for i in images] == [(n, 1, 14, 14) for n in (2, 0, 1)]
    torch.testing.assert_close(torch.cat([i.pred_masks for i in images])[:, 0], expected)


@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_a_few_masks_by_heart(loss):
    head, images = small_head(loss), training_instances(2, 2)
    x = torch.randn(4, 4, 7, 7)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    first = loss_of(head, x, images).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(head, x, images).backward()
        optimizer.step()
    assert loss_of(head, x, images).item() < 0.3 * first


@pytest.mark.parametrize("counts", [(), (0,), (0, 0)])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_rois_train_with_zero_gradients(counts, loss):
    head = small_head(loss)
    value = loss_of(head, torch.zeros(0, 4, 7, 7), training_instances(*counts))
    value.backward()
    assert value.item() == 0
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name  # each process must reduce all gradients
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("loss", LOSSES)
def test_inference_without_detections(loss):
    (image,) = small_head(loss).eval()(torch.zeros(0, 4, 7, 7), detected_instances([]))
    assert image.pred_masks.shape == (0, 1, 14, 14)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"num_classes": 0}, r"num_classes=0; set MODEL\.ROI_HEADS\.NUM_CLASSES"),
        ({"fc_dims": []}, r"fc_dims=\[\]; set MODEL\.ROI_MASK_HEAD\.FC_DIMS"),
        ({"fc_dims": [8, 0]}, r"fc_dims=\[8, 0\]; set MODEL\.ROI_MASK_HEAD\.FC_DIMS"),
        ({"mask_side": 0}, r"mask_side=0; set MODEL\.ROI_MASK_HEAD\.RESOLUTION"),
        ({"loss": "hinge"}, r"'hinge'; set MODEL\.ROI_MASK_HEAD\.LOSS to one of sigmoid, softmax"),
    ],
)
def test_wrong_settings_are_named(wrong, expected):
    with pytest.raises(UsageError, match="MLPMaskHead .*" + expected):
        small_head(**wrong)


@pytest.mark.parametrize("keys", [{}, {"RESOLUTION": 28}])
@pytest.mark.parametrize("shape", [ShapeSpec(channels=4), ShapeSpec(channels=4, height=7, width=8)])
def test_an_input_without_one_side_is_named(shape, keys):
    with pytest.raises(UsageError, match=f"height {shape.height} and width {shape.width}"):
        build(shape, **keys)


def test_no_hidden_layer_in_a_config_is_named():
    with pytest.raises(UsageError, match=r"MODEL\.ROI_MASK_HEAD\.FC_DIMS"):
        build(FC_DIMS=[])


def test_softmax_without_a_channel_for_each_class_is_named():
    with pytest.raises(UsageError, match=r"LOSS is 'softmax' .*CLS_AGNOSTIC_MASK True"):
        build(agnostic=True, LOSS="softmax")


@pytest.mark.parametrize("shape", [(2, 5, 7, 7), (2, 4, 14, 14), (2, 4, 7, 14), (2, 196)])
@pytest.mark.parametrize("training", [True, False])
def test_wrong_features_are_named(shape, training):
    images = training_instances(2) if training else detected_instances([0, 1])
    with pytest.raises(ValueError, match=r"MLPMaskHead got .* expected \(R, 4, 7, 7\)"):
        small_head().train(training)(torch.zeros(shape), images)


def test_a_wrong_number_of_features_is_named():
    with pytest.raises(ValueError, match="2 RoI features for 3 objects"):
        small_head()(torch.zeros(2, 4, 7, 7), training_instances(2, 1))


@pytest.mark.parametrize("wrong", [-1, 3], ids=["ignored", "background"])
def test_classes_without_a_mask_are_named(wrong):
    images = training_instances(2)
    images[0].gt_classes = torch.tensor([1, wrong])
    with pytest.raises(ValueError, match="MLPMaskHead got gt_classes .* expected 0 to 2"):
        loss_of(small_head(), torch.zeros(2, 4, 7, 7), images)


class _Wrapped(nn.Module):
    """Detectron2 scripts whole models; a module around the head is the least that it takes."""

    def __init__(self, head: nn.Module):
        super().__init__()
        self.head = head

    def forward(self, x: torch.Tensor, instances: list[Instances]):
        return self.head(x, instances)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_head_can_be_scripted(loss):
    from detectron2.export.torchscript import scripting_with_instances

    fields = {"pred_classes": torch.Tensor, "pred_masks": torch.Tensor}
    scripted = scripting_with_instances(_Wrapped(small_head(loss)).eval(), fields)
    assert "MLPMaskHead" in str(scripted)
