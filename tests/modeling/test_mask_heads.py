"""FCNMaskHead: shapes of figure 4, both losses, finer masks, empty RoIs, messages for mistakes."""

from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import ROI_MASK_HEAD_REGISTRY, build_mask_head
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext.config import add_mask_rcnn_ext_config
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.modeling.mask_heads import FCNMaskHead, fcn_num_upsamples
from mask_rcnn_ext.modeling.mask_losses import LOSSES, mask_loss

# form: (C, S of the RoI feature, NUM_CONV)
FORMS = {"FPN": (256, 14, 4), "C4": (2048, 7, 0)}
SIDE = 96  # of the square test image, in pixels


def build_form(form: str, agnostic: bool = False, side: int = 14, **keys: object) -> FCNMaskHead:
    """The head as a config builds it; C4 announces the side before res5, as Detectron2 does."""
    channels, _, num_conv = FORMS[form]
    cfg = get_cfg()
    add_mask_rcnn_ext_config(cfg)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "FCNMaskHead"
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = num_conv
    cfg.MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK = agnostic
    cfg.MODEL.ROI_MASK_HEAD.update(keys)
    return build_mask_head(cfg, ShapeSpec(channels=channels, height=side, width=side))


def small_head(num_classes: int = 3, **kwargs) -> FCNMaskHead:
    head = FCNMaskHead(ShapeSpec(channels=8), num_classes=num_classes, conv_dims=[8, 8], **kwargs)
    nn.init.normal_(head.predictor.weight)  # as built, all masks are close to 0.5
    return head


def training_instances(*counts: int, num_classes: int = 3) -> list[Instances]:
    """One Instances an image, with random masks and boxes of 28 x 56 pixels on whole pixels."""
    images = []
    for count in counts:
        corner = torch.randint(0, SIDE - 56, (count, 2)).float()
        instances = Instances((SIDE, SIDE))
        instances.proposal_boxes = Boxes(
            torch.cat([corner, corner + torch.tensor([28.0, 56.0])], dim=1)
        )
        instances.gt_classes = torch.randint(0, num_classes, (count,))
        instances.gt_masks = BitMasks(torch.rand(count, SIDE, SIDE) > 0.5)
        images.append(instances)
    return images


def detected_instances(*classes: list[int]) -> list[Instances]:
    images = []
    for image_classes in classes:
        instances = Instances((SIDE, SIDE))
        instances.pred_classes = torch.tensor(image_classes, dtype=torch.int64)
        images.append(instances)
    return images


def loss_of(head: FCNMaskHead, x: torch.Tensor, instances: list[Instances]) -> torch.Tensor:
    with EventStorage():
        losses = head.train()(x, instances)
    assert set(losses) == {"loss_mask"}
    return losses["loss_mask"]


def paper_loss(logits: torch.Tensor, images: list[Instances]) -> float:
    """Section 3's loss in float64 loops: mean binary cross-entropy of the own class's mask.

    The target of a bin is the majority of the mask pixels in it: with boxes on whole pixels and
    sides that are multiples of M, each bin covers whole pixels.
    """
    total, count, row = 0.0, 0, 0
    side = logits.shape[-1]
    for image in images:
        for i in range(len(image)):
            x0, y0, x1, y1 = (int(v) for v in image.proposal_boxes.tensor[i])
            bin_w, bin_h = (x1 - x0) // side, (y1 - y0) // side
            assert (bin_w * side, bin_h * side) == (x1 - x0, y1 - y0), "not whole pixels"
            mask = image.gt_masks.tensor[i]
            own = 0 if logits.shape[1] == 1 else int(image.gt_classes[i])
            for r in range(side):
                for c in range(side):
                    y, x = y0 + r * bin_h, x0 + c * bin_w
                    share = mask[y : y + bin_h, x : x + bin_w].double().mean().item()
                    probability = 1 / (1 + math.exp(-float(logits[row, own, r, c])))
                    inside = share >= 0.5
                    total -= math.log(probability if inside else 1 - probability)
                    count += 1
            row += 1
    return total / count


def test_the_registry_knows_the_head():
    assert ROI_MASK_HEAD_REGISTRY.get("FCNMaskHead") is FCNMaskHead


@pytest.mark.parametrize("num_rois", [0, 1, 3])
@pytest.mark.parametrize("agnostic", [False, True])
@pytest.mark.parametrize(("form", "side"), [("FPN", 28), ("C4", 14)])
def test_shapes_of_figure_4(form, side, agnostic, num_rois):
    head = build_form(form, agnostic)
    channels, feature_side, num_conv = FORMS[form]
    x = torch.randn(num_rois, channels, feature_side, feature_side)
    assert head.layers(x).shape == (num_rois, 1 if agnostic else 80, side, side)

    convs = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [(m.out_channels, m.stride, m.padding) for m in convs] == [
        (256, (1, 1), (1, 1))
    ] * num_conv
    assert (head.deconv.kernel_size, head.deconv.stride) == ((2, 2), (2, 2))
    assert (head.deconv.out_channels, head.predictor.kernel_size) == (256, (1, 1))


@pytest.mark.parametrize("form", FORMS)
def test_state_dict_is_that_of_detectron2(form):
    ours = build_form(form)
    channels, _, num_conv = FORMS[form]
    stock = MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=channels), num_classes=80, conv_dims=[256] * (num_conv + 1)
    )
    shapes = {name: value.shape for name, value in ours.state_dict().items()}
    assert shapes == {name: value.shape for name, value in stock.state_dict().items()}
    layers = {name.split(".")[0] for name in shapes}
    assert layers == {f"mask_fcn{k + 1}" for k in range(num_conv)} | {"deconv", "predictor"}


@pytest.mark.parametrize("form", FORMS)
def test_weights_go_both_ways_and_give_the_same_masks(form):
    ours = build_form(form).eval()
    channels, side, num_conv = FORMS[form]
    stock = MaskRCNNConvUpsampleHead(
        ShapeSpec(channels=channels), num_classes=80, conv_dims=[256] * (num_conv + 1)
    ).eval()
    x = torch.randn(2, channels, side, side)
    assert not torch.equal(ours.layers(x), stock.layers(x))
    stock.load_state_dict(ours.state_dict(), strict=True)
    assert torch.equal(ours.layers(x), stock.layers(x))
    nn.init.normal_(stock.predictor.weight)
    ours.load_state_dict(stock.state_dict(), strict=True)
    assert torch.equal(ours.layers(x), stock.layers(x))


def test_the_same_seed_initialises_as_detectron2_does():
    torch.manual_seed(3)
    ours = small_head_as_built()
    torch.manual_seed(3)
    stock = MaskRCNNConvUpsampleHead(ShapeSpec(channels=8), num_classes=3, conv_dims=[8, 8])
    for name, value in stock.state_dict().items():
        assert torch.equal(value, ours.state_dict()[name]), name


def small_head_as_built(**kwargs) -> FCNMaskHead:
    return FCNMaskHead(ShapeSpec(channels=8), num_classes=3, conv_dims=[8, 8], **kwargs)


@pytest.mark.parametrize(
    ("form", "side", "resolution", "upsamples"),
    [("FPN", 14, 0, 1), ("FPN", 14, 28, 1), ("FPN", 14, 56, 2), ("FPN", 14, 112, 3)]
    + [("C4", 7, 0, 1), ("C4", 7, 28, 2), ("C4", 7, 112, 4)],
)
def test_resolution_is_the_side_of_the_masks(form, side, resolution, upsamples):
    head = build_form(form, side=side, RESOLUTION=resolution)
    channels, side, _ = FORMS[form]
    expected = resolution or 2 * side
    assert head.layers(torch.randn(1, channels, side, side)).shape[2:] == (expected, expected)
    names = [name for name, _ in head.named_children() if name.startswith("deconv")]
    more = [f"deconv{k}{end}" for k in range(2, upsamples + 1) for end in ("", "_relu")]
    assert names == ["deconv", "deconv_relu", *more]
    assert [name for name, _ in head.named_children()][-1] == "predictor"
    widths = {(m.in_channels, m.out_channels) for n, m in head.named_children() if n in more[::2]}
    assert widths == ({(256, 256)} if more else set())


def test_finer_masks_are_more_deconvolutions_with_relus():
    head = small_head(num_upsamples=3)
    x = torch.randn(2, 8, 5, 5)
    y = head.mask_fcn1(x)
    for layer in (head.deconv, head.deconv2, head.deconv3):
        assert layer.weight.std() > 0.2, "c2_msra_fill makes 0.25"
        assert not layer.bias.any()
        y = nn.functional.relu(
            nn.functional.conv_transpose2d(y, layer.weight, layer.bias, stride=2)
        )
    torch.testing.assert_close(head.layers(x), head.predictor(y))


@pytest.mark.parametrize(
    ("side", "resolution", "expected"),
    [(14, 28, 1), (14, 56, 2), (14, 112, 3), (7, 14, 1), (7, 56, 3), (None, 0, 1), (14, 0, 1)],
)
def test_number_of_deconvolutions(side, resolution, expected):
    assert fcn_num_upsamples(side, resolution) == expected


@pytest.mark.parametrize(
    ("side", "resolution", "expected"),
    [
        (14, 14, r"RESOLUTION is 14, .* side 14 .* expected 0 .*, 28, 56, 112, 224 and so on"),
        (14, 30, r"RESOLUTION is 30, .* 28, 56"),
        (7, 42, r"RESOLUTION is 42, .* side 7 .* 14, 28, 56, 112"),
        (14, -28, r"RESOLUTION is -28"),
        (None, 28, r"RESOLUTION is 28, but the RoI heads do not say"),
    ],
)
def test_sides_that_deconvolutions_cannot_make_are_named(side, resolution, expected):
    with pytest.raises(UsageError, match=r"MODEL\.ROI_MASK_HEAD\." + expected):
        fcn_num_upsamples(side, resolution)
    with pytest.raises(UsageError, match=expected):
        build_form("FPN", side=side, RESOLUTION=resolution)


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("counts", [(1,), (3,), (2, 0, 1)])
def test_loss_is_the_papers(counts, num_classes):
    head = small_head(num_classes)
    images = training_instances(*counts)
    x = torch.randn(sum(counts), 8, 14, 14)  # M = 28: bins of 1 x 2 pixels
    logits = head.layers(x).detach()
    assert logits.std() > 0.5, "constant logits would hide a wrong class or a wrong bin"
    expected = paper_loss(logits, images)
    assert loss_of(head, x, images).item() == pytest.approx(expected, rel=1e-5)


def test_loss_weight_multiplies():
    images, x = training_instances(2), torch.randn(2, 8, 14, 14)
    head = small_head(loss_weight=2.5)
    expected = 2.5 * paper_loss(head.layers(x).detach(), images)
    assert loss_of(head, x, images).item() == pytest.approx(expected, rel=1e-5)


def test_training_computes_the_own_class_alone():
    head, images = small_head(), training_instances(2, 0, 3)
    x = torch.rand(5, head.in_channels, 14, 14)
    alone = head.training_logits(x, images)
    classes = torch.cat([image.gt_classes for image in images])
    own = head.layers(x)[torch.arange(5), classes]
    assert alone.shape == (5, 1, 28, 28)
    torch.testing.assert_close(alone[:, 0], own)


def test_only_the_own_class_is_trained():
    """Classes do not compete (table 2b, sigmoid): the others' predictors get no gradient."""
    head, images = small_head(), training_instances(3)
    images[0].gt_classes = torch.tensor([2, 0, 2])
    loss_of(head, torch.randn(3, 8, 14, 14), images).backward()
    per_class = head.predictor.weight.grad.abs().sum(dim=(1, 2, 3))
    assert per_class[1] == 0
    assert (per_class[[0, 2]] > 0).all()


def test_softmax_has_a_channel_for_the_background():
    head = build_form("FPN", LOSS="softmax")
    assert head.predictor.out_channels == 81
    head, images = small_head(loss="softmax", loss_weight=2.5), training_instances(2, 0, 1)
    x = torch.randn(3, 8, 14, 14)
    with EventStorage():
        expected = 2.5 * mask_loss(head.layers(x).detach(), images, loss="softmax")
    torch.testing.assert_close(loss_of(head, x, images).detach(), expected)


def test_all_classes_compete_in_the_softmax():
    head, images = small_head(loss="softmax"), training_instances(3)
    images[0].gt_classes = torch.tensor([2, 0, 2])
    loss_of(head, torch.randn(3, 8, 14, 14), images).backward()
    assert (head.predictor.weight.grad.abs().sum(dim=(1, 2, 3)) > 0).all()


def test_softmax_inference_shares_among_classes_and_background():
    head = small_head(loss="softmax").eval()
    x = torch.randn(1, 8, 7, 7).expand(3, -1, -1, -1)
    (image,) = head(x, detected_instances([0, 1, 2]))
    background = head.layers(x[:1]).softmax(dim=1)[0, 3]
    torch.testing.assert_close(image.pred_masks.sum(dim=0)[0] + background, torch.ones(14, 14))


@pytest.mark.parametrize("loss", LOSSES)
def test_it_learns_a_few_masks(loss):
    """The features tell where the object is and of which class; a few steps find that out."""
    images = training_instances(4)
    x = torch.randn(4, 8, 14, 14)
    for image in images:
        image.gt_masks.tensor[:] = False
        image.gt_masks.tensor[:, : SIDE // 2] = True
    targets = [i.gt_masks.crop_and_resize(i.proposal_boxes.tensor, 14) for i in images]
    x[:, 0] = torch.cat(targets).float()
    x[torch.arange(4), 1 + images[0].gt_classes] = 2
    head = small_head_as_built(loss=loss)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.02)
    first = loss_of(head, x, images).item()
    for _ in range(60):
        optimizer.zero_grad()
        loss_of(head, x, images).backward()
        optimizer.step()
    assert loss_of(head, x, images).item() < 0.3 * first


@pytest.mark.parametrize("counts", [(), (0,), (0, 0)])
@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_no_rois_train_with_zero_gradients(counts, num_classes, loss):
    head = small_head(num_classes, loss=loss)
    x = torch.zeros(0, 8, 14, 14, requires_grad=True)
    value = loss_of(head, x, training_instances(*counts))
    value.backward()
    assert value.item() == 0
    for name, parameter in head.named_parameters():
        # A gradient of None would stop a distributed run: each process must reduce all of them.
        assert parameter.grad is not None, name
        assert not parameter.grad.any(), name


@pytest.mark.parametrize("num_classes", [1, 3])
def test_inference_takes_the_predicted_class(num_classes):
    head = small_head(num_classes).eval()
    x = torch.randn(3, 8, 7, 7)
    images = head(x, detected_instances([2, 0], [], [1]))
    own = [0, 0, 0] if num_classes == 1 else [2, 0, 1]
    expected = torch.stack([head.layers(x)[i, k] for i, k in enumerate(own)]).sigmoid()
    assert [i.pred_masks.shape for i in images] == [(n, 1, 14, 14) for n in (2, 0, 1)]
    torch.testing.assert_close(torch.cat([i.pred_masks for i in images])[:, 0], expected)


def test_inference_without_detections():
    (image,) = small_head().eval()(torch.zeros(0, 8, 14, 14), detected_instances([]))
    assert image.pred_masks.shape == (0, 1, 28, 28)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"num_classes": 0}, r"num_classes=0; set MODEL\.ROI_HEADS\.NUM_CLASSES"),
        ({"conv_dims": []}, r"got none; set MODEL\.ROI_MASK_HEAD\.NUM_CONV to 0 or more"),
        ({"conv_dims": [8, 0]}, r"conv_dims=\[8, 0\]; set MODEL\.ROI_MASK_HEAD\.CONV_DIM"),
        ({"num_upsamples": 0}, r"num_upsamples=0; set MODEL\.ROI_MASK_HEAD\.RESOLUTION"),
        ({"loss": "hinge"}, r"'hinge'; set MODEL\.ROI_MASK_HEAD\.LOSS to one of sigmoid, softmax"),
    ],
)
def test_wrong_settings_are_named(wrong, expected):
    with pytest.raises(UsageError, match=expected):
        FCNMaskHead(ShapeSpec(channels=8), **{"num_classes": 3, "conv_dims": [8, 8], **wrong})


@pytest.mark.parametrize(
    ("key", "value"), [("NUM_CONV", -1), ("CONV_DIM", 0)], ids=["NUM_CONV", "CONV_DIM"]
)
def test_wrong_settings_in_a_config_are_named(key, value):
    cfg = get_cfg()
    add_mask_rcnn_ext_config(cfg)
    cfg.MODEL.ROI_MASK_HEAD.NAME = "FCNMaskHead"
    cfg.MODEL.ROI_MASK_HEAD[key] = value
    with pytest.raises(UsageError, match=f"MODEL.ROI_MASK_HEAD.{key}"):
        build_mask_head(cfg, ShapeSpec(channels=8, height=14, width=14))


def test_softmax_without_a_channel_for_each_class_is_named():
    with pytest.raises(UsageError, match=r"LOSS is 'softmax' .*CLS_AGNOSTIC_MASK True"):
        build_form("FPN", agnostic=True, LOSS="softmax")


@pytest.mark.parametrize("shape", [(2, 9, 14, 14), (2, 8, 14, 7), (8, 14, 14), (2, 8 * 14 * 14)])
@pytest.mark.parametrize("training", [True, False])
def test_wrong_features_are_named(shape, training):
    images = training_instances(2) if training else detected_instances([0, 1])
    with pytest.raises(ValueError, match=r"expected \(R, 8, S, S\)"):
        small_head().train(training)(torch.zeros(shape), images)


@pytest.mark.parametrize("training", [True, False])
def test_a_wrong_number_of_features_is_named(training):
    images = training_instances(2, 1) if training else detected_instances([0, 1], [2])
    with pytest.raises(ValueError, match=r"2 RoI features for 3 objects \(by image: \[2, 1\]\)"):
        small_head().train(training)(torch.zeros(2, 8, 14, 14), images)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("wrong", [-1, 3], ids=["ignored", "background"])
def test_classes_without_a_mask_are_named(wrong, loss):
    images = training_instances(1, 0, 2)
    images[2].gt_classes = torch.tensor([1, wrong])
    head = small_head(loss=loss)
    with pytest.raises(ValueError, match=r"expected 0 to 2; .* MODEL\.ROI_HEADS\.NUM_CLASSES"):
        loss_of(head, torch.zeros(3, 8, 14, 14), images)


def test_a_class_agnostic_head_reads_no_classes():
    images = training_instances(2)
    images[0].gt_classes = torch.tensor([7, 79])
    assert loss_of(small_head(num_classes=1), torch.randn(2, 8, 14, 14), images) > 0


def test_one_class_that_competes_is_not_class_agnostic():
    images = training_instances(2)
    images[0].gt_classes = torch.tensor([0, 1])
    with pytest.raises(ValueError, match="from 0 to 1, expected 0 to 0"):
        loss_of(small_head(num_classes=1, loss="softmax"), torch.randn(2, 8, 14, 14), images)


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
    scripted = scripting_with_instances(_Wrapped(small_head(loss=loss)).eval(), fields)
    assert "FCNMaskHead" in str(scripted)
