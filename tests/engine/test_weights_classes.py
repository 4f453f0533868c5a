"""Class outputs by name: every row where it belongs, new ones at their start."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.weights import build_on_cpu, reconcile_classes, transfer_classes
from mask_rcnn_ext.engine.weights.classes import class_layers, number_of_classes
from mask_rcnn_ext.engine.weights.known_classes import guess_classes
from mask_rcnn_ext.errors import UsageError

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"
SOURCE = ["person", "bicycle", "traffic light", "car"]
TARGET = ["car", "rider", "Traffic_Light", "person", "bicycle"]
PICK = {0: 3, 2: 2, 3: 0, 4: 1}  # of TARGET -> of SOURCE
BOX = "roi_heads.box_predictor"
MASK = "roi_heads.mask_head.predictor"


def _state(
    classes: int, mask: str = "sigmoid", *, box_agnostic: bool = False, side: int = 0, seed: int = 0
) -> dict[str, torch.Tensor]:
    """A detector's state dict. side: 0 for a convolution as mask predictor, else M of an MLP."""
    generator = torch.Generator().manual_seed(seed)
    blocks = {"sigmoid": classes, "softmax": classes + 1, "agnostic": 1}[mask]
    shapes = {
        "backbone.stem.weight": (3, 2),
        f"{BOX}.cls_score.weight": (classes + 1, 6),
        f"{BOX}.cls_score.bias": (classes + 1,),
        f"{BOX}.bbox_pred.weight": (4 if box_agnostic else 4 * classes, 6),
        f"{BOX}.bbox_pred.bias": (4 if box_agnostic else 4 * classes,),
        "roi_heads.keypoint_head.score_lowres.weight": (8, 17, 4, 4),
        f"{MASK}.weight": (blocks * side**2, 5) if side else (blocks, 5, 1, 1),
        f"{MASK}.bias": (blocks * max(side, 1) ** 2,),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _rows(tensor: torch.Tensor, blocks: int) -> torch.Tensor:
    return tensor.reshape(blocks, -1)


def _by_name(source, target):
    return transfer_classes(source, target, SOURCE, TARGET, "by_name")


def test_every_row_comes_from_its_class():
    source, target = _state(4), _state(5, seed=1)
    done = _by_name(source, target)
    assert done.carried == ["car", "Traffic_Light", "person", "bicycle"]
    assert done.at_random == ["rider"]
    assert done.layers == [f"{BOX}.cls_score", f"{BOX}.bbox_pred", MASK]
    assert done.left_random == {}
    for layer, extra in ((f"{BOX}.cls_score", 1), (f"{BOX}.bbox_pred", 0), (MASK, 0)):
        for end in ("weight", "bias"):
            name = f"{layer}.{end}"
            assert done.state[name].shape == target[name].shape
            old, new = _rows(source[name], 4 + extra), _rows(done.state[name], 5 + extra)
            for i, origin in PICK.items():
                assert torch.equal(new[i], old[origin]), (name, i)
            assert torch.equal(new[1], _rows(target[name], 5 + extra)[1])  # rider
            if extra:
                assert torch.equal(new[-1], old[-1])  # the background
    for name in ("backbone.stem.weight", "roi_heads.keypoint_head.score_lowres.weight"):
        assert done.state[name] is source[name]
    assert source[f"{MASK}.weight"].shape[0] == 4, "the source was changed"


def test_the_targets_own_start_is_not_changed():
    target = _state(5, seed=1)
    before = {name: tensor.clone() for name, tensor in target.items()}
    _by_name(_state(4), target)
    assert all(torch.equal(target[name], before[name]) for name in target)


@pytest.mark.parametrize("side", [0, 3])
@pytest.mark.parametrize(
    ("mask", "new_mask", "background"),
    [("softmax", "softmax", True), ("sigmoid", "softmax", False), ("softmax", "sigmoid", None)],
)
def test_mask_backgrounds(side, mask, new_mask, background):
    source, target = _state(4, mask, side=side), _state(5, new_mask, side=side, seed=1)
    done = _by_name(source, target)
    blocks, new_blocks = 4 + (mask == "softmax"), 5 + (new_mask == "softmax")
    for name in (f"{MASK}.weight", f"{MASK}.bias"):
        old, new = _rows(source[name], blocks), _rows(done.state[name], new_blocks)
        assert all(torch.equal(new[i], old[origin]) for i, origin in PICK.items())
        if background:
            assert torch.equal(new[-1], old[-1])
        elif background is False:
            assert torch.equal(new[-1], _rows(target[name], new_blocks)[-1])


def test_class_agnostic_outputs_stay_as_they_are():
    source = _state(4, "agnostic", box_agnostic=True)
    done = _by_name(source, _state(5, "agnostic", box_agnostic=True, seed=1))
    assert done.layers == [f"{BOX}.cls_score"]
    assert done.state[f"{BOX}.bbox_pred.weight"] is source[f"{BOX}.bbox_pred.weight"]
    assert done.state[f"{MASK}.weight"] is source[f"{MASK}.weight"]
    done = transfer_classes(
        source, _state(5, "agnostic", box_agnostic=True), SOURCE, TARGET, "random"
    )
    assert set(done.left_random) == {f"{BOX}.cls_score"}
    assert f"{BOX}.cls_score.weight" not in done.state
    assert f"{MASK}.weight" in done.state


@pytest.mark.parametrize("classes", [1, 2])
def test_one_class_is_no_agnostic_head(classes):
    """Four rows of one class: a box regressor of that class where the other side has classes."""
    source, names = _state(1), ["car"]
    target_names = ["person", "car"][-classes:]
    done = transfer_classes(source, _state(classes, seed=1), names, target_names, "by_name")
    assert torch.equal(
        done.state[f"{BOX}.bbox_pred.weight"][-4:], source[f"{BOX}.bbox_pred.weight"]
    )
    assert torch.equal(done.state[f"{MASK}.bias"][-1:], source[f"{MASK}.bias"])


def test_agnostic_outputs_of_four_classes():
    """Four rows are not a row for each class."""
    source = _state(4, "agnostic", box_agnostic=True)
    target = _state(4, "agnostic", box_agnostic=True, seed=1)
    done = transfer_classes(source, target, SOURCE, TARGET[:4], "by_name")
    assert done.state[f"{BOX}.bbox_pred.weight"] is source[f"{BOX}.bbox_pred.weight"]
    assert done.layers == [f"{BOX}.cls_score"]


def test_rows_that_can_be_read_in_two_ways_start_at_random():
    """16 rows: one mask of side 4, or four of side 2."""
    for mask, side in (("agnostic", 4), ("sigmoid", 2)):
        source, target = _state(4, mask, side=side), _state(4, mask, side=side, seed=1)
        done = transfer_classes(source, target, SOURCE, TARGET[:4], "by_name")
        assert set(done.left_random) == {MASK}
        assert f"{MASK}.weight" not in done.state
    source, target = _state(5, "agnostic", side=5), _state(5, "agnostic", side=5, seed=1)
    names = [*SOURCE, "bus"]
    done = transfer_classes(source, target, names, TARGET, "by_name")
    assert done.state[f"{MASK}.weight"] is source[f"{MASK}.weight"]  # 25 rows are no 5 squares


def test_what_does_not_fit_is_left_out_and_said():
    source = _state(4, "agnostic")
    source[f"{BOX}.cls_score.weight"] = torch.zeros(5, 7)
    done = _by_name(source, _state(5))
    assert set(done.left_random) == {f"{BOX}.cls_score", MASK}
    assert done.left_random[MASK] == "1 x 5 x 1 x 1 in the weights, 5 x 5 x 1 x 1 in the model"
    assert not any(name.startswith((f"{BOX}.cls", MASK)) for name in done.state)


def test_the_other_ways():
    source, target = _state(4), _state(4, seed=1)
    done = transfer_classes(source, target, SOURCE, TARGET[:4], "as_is")
    assert done.state == source
    done = transfer_classes(source, target, SOURCE, TARGET[:4], "random")
    assert class_layers(done.state) == []
    assert "backbone.stem.weight" in done.state
    assert done.at_random == TARGET[:4]
    with pytest.raises(UsageError, match="4, the model 5"):
        transfer_classes(source, _state(5), SOURCE, TARGET, "as_is")
    with pytest.raises(UsageError, match="expected one of by_name, random, as_is"):
        transfer_classes(source, target, SOURCE, TARGET[:4], "name")
    with pytest.raises(UsageError, match="3 class names for the weights, but outputs for 4"):
        transfer_classes(source, target, SOURCE[:3], TARGET[:4], "by_name")
    with pytest.raises(UsageError, match="5 class names for the model, but outputs for 4"):
        transfer_classes(source, target, SOURCE, TARGET, "by_name")


def test_names_that_only_differ_in_writing():
    def carried(source, target):
        return transfer_classes({}, {}, source, target, "by_name").carried

    assert carried(["Traffic light"], ["traffic-light"]) == ["traffic-light"]
    # exact before similar; similar to two is similar to none
    assert carried(["a b", "A_B"], ["A_B", "a b", "a-b"]) == ["A_B", "a b"]
    assert carried(["cab"], ["car"]) == []


def test_cascades_and_other_heads():
    state = {f"{BOX}.{i}.cls_score.weight": torch.zeros(5, 2) for i in range(3)}
    state |= {"head.cls_score.weight": torch.zeros(720, 2), "sem_seg_head.predictor.weight": 0}
    assert class_layers(state) == [f"{BOX}.{i}.cls_score" for i in range(3)]
    assert number_of_classes(state) == 4


def test_coco_to_cityscapes_as_in_the_paper():
    coco, cityscapes = guess_classes(80), guess_classes(8)
    assert (coco[0], cityscapes[0]) == ("COCO", "Cityscapes")
    assert guess_classes(9) is None
    done = transfer_classes(_state(80), _state(8), coco[1], cityscapes[1], "by_name")
    assert done.at_random == ["rider"]
    assert sorted(done.carried) == [
        "bicycle", "bus", "car", "motorcycle", "person", "train", "truck"
    ]  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    [
        [],
        ["MODEL.ROI_MASK_HEAD.LOSS", "softmax"],
        ["MODEL.ROI_MASK_HEAD.NAME", "MLPMaskHead"],
        ["MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"],
    ],
)
def test_a_models_own_names_and_shapes(keys):
    if "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG" not in keys:
        keys = [*keys, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "False"]
    keys = ["MODEL.ROI_MASK_HEAD.FC_DIMS", "[8, 8]", *keys]
    old = build_on_cpu(load_config(CONFIG, ["MODEL.ROI_HEADS.NUM_CLASSES", "4", *keys]))
    new = build_on_cpu(load_config(CONFIG, ["MODEL.ROI_HEADS.NUM_CLASSES", "5", *keys]))
    done = _by_name(old.state_dict(), new.state_dict())
    assert done.left_random == {}
    assert len(done.layers) == 3 - (keys[-1] == "True")
    assert not any(new.load_state_dict(done.state, strict=True))


# --- before loading -----------------------------------------------------------------------------


class _Model(nn.Module):
    """Has the state dict that it is given."""

    def __init__(self, state):
        super().__init__()
        self._state = state

    def state_dict(self, *args, **kwargs):
        return dict(self._state)


@pytest.fixture
def log(caplog, monkeypatch):
    caplog.set_level(logging.INFO, "mask_rcnn_ext")
    monkeypatch.setattr(logging.getLogger("mask_rcnn_ext"), "propagate", True)
    return caplog


def test_agreeing_names_are_silent(log):
    checkpoint = {"model": _state(4), "class_names": SOURCE, "iteration": 3}
    assert reconcile_classes(checkpoint, _Model(_state(4)), SOURCE, "") is checkpoint
    assert reconcile_classes(checkpoint, _Model(_state(4)), SOURCE, "by_name") is checkpoint
    assert reconcile_classes({"model": _state(4)}, _Model(_state(4)), TARGET[:4], "")["model"]
    assert log.records == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (TARGET, ["4 there, 5 here", "only there: traffic light", "only here: rider"]),
        (SOURCE[::-1], ["same 4 names in another order", "class 0 is 'person' there, 'car' here"]),
    ],
)
def test_other_classes_are_refused(names, words):
    checkpoint = {"model": _state(4), "class_names": SOURCE}
    with pytest.raises(UsageError) as caught:
        reconcile_classes(checkpoint, _Model(_state(len(names))), names, "")
    for word in [*words, "MODEL.CLASS_TRANSFER", "by_name", "random", "as_is"]:
        assert word in str(caught.value)


def test_by_name_before_loading(log):
    source = {f"module.{name}": tensor.numpy() for name, tensor in _state(4).items()}
    source["module.backbone.text"] = "left to Detectron2"
    target = _state(5, seed=1)
    checkpoint = {"model": source, "class_names": SOURCE, "iteration": 3}
    found = reconcile_classes(checkpoint, _Model(target), TARGET, "by_name")
    assert found["iteration"] == 3
    assert list(found["model"]) == list(source)
    assert found["model"][f"module.{MASK}.weight"].shape == target[f"{MASK}.weight"].shape
    assert found["model"]["module.backbone.stem.weight"].shape == (3, 2)
    assert checkpoint["model"] is source
    assert source[f"module.{MASK}.weight"].shape == (4, 5, 1, 1)
    assert "4 of 5 classes have the weights' outputs; at random: rider" in log.text


def test_random_before_loading():
    checkpoint = {"model": _state(4), "class_names": SOURCE}
    for names, content in ((SOURCE, checkpoint), (TARGET, {"model": _state(4)})):
        found = reconcile_classes(content, _Model(_state(len(names))), names, "random")
        assert class_layers(found["model"]) == []


def test_without_names(log):
    """Detectron2 leaves out what has another shape; we say in one line what that is."""
    checkpoint = {"model": _state(4)}
    for how in ("", "as_is"):
        log.clear()
        assert reconcile_classes(checkpoint, _Model(_state(5)), TARGET, how) is checkpoint
        (record,) = log.records
        assert "start at random: roi_heads.box_predictor.cls_score (5 outputs in the" in log.text
        assert "mask_head.predictor (4 outputs in the weights, 5 here)" in record.getMessage()
    with pytest.raises(UsageError, match=r"do not say their classes \(4 of them\).*--from-classes"):
        reconcile_classes(checkpoint, _Model(_state(5)), TARGET, "by_name")
    log.clear()
    cityscapes = guess_classes(8)[1]
    found = reconcile_classes({"model": _state(80)}, _Model(_state(8)), cityscapes, "by_name")
    assert number_of_classes(found["model"]) == 8
    assert "taken for COCO's" in log.text
    assert "7 of 8" in log.text


def test_a_backbone_and_unknown_classes_are_no_matter(log):
    for content, names in (
        ({"model": {"backbone.stem.weight": torch.ones(1)}, "class_names": ["x"]}, TARGET),
        ({"model": _state(4), "class_names": SOURCE}, []),
    ):
        assert reconcile_classes(content, _Model(_state(5)), names, "") is content
    assert log.records == []


def test_names_agree_and_a_head_does_not_fit(log):
    checkpoint = {"model": _state(4), "class_names": SOURCE}
    reconcile_classes(checkpoint, _Model(_state(4, "softmax")), SOURCE, "")
    (record,) = log.records
    assert "cls_score" not in record.getMessage()
    assert "mask_head.predictor (4 outputs in the weights, 5 here)" in record.getMessage()


def test_no_name_in_common_is_said(log):
    checkpoint = {"model": _state(4), "class_names": SOURCE}
    reconcile_classes(checkpoint, _Model(_state(2)), ["x", "y"], "by_name")
    assert "no class of the data has the name" in log.text
    with pytest.raises(UsageError, match="MODEL.CLASS_TRANSFER is 'byname'"):
        reconcile_classes(checkpoint, _Model(_state(4)), SOURCE, "byname")
