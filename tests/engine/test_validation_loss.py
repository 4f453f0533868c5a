"""Losses on test images: exact means, the same each time, and no trace left in the model."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
import torch
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.mappers import MAPPER_REGISTRY
from mask_rcnn_ext.engine.validation_loss import ValidationLoss, validation_losses
from mask_rcnn_ext.errors import UsageError

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


class Toy(nn.Module):
    """Losses with a norm, a dropout, a random number and a figure for the storage."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        self.dropout = nn.Dropout(0.5)
        self.batches: list[int] = []

    def forward(self, samples):
        assert self.training
        self.batches.append(len(samples))
        x = torch.stack([sample["image"] for sample in samples])
        x = self.dropout(self.norm(x))
        return {"loss_a": x.sum(), "loss_b": torch.rand(()) * 0 + 2.0}


def _samples(*values):
    return [[{"image": torch.full((2,), float(v)), "image_id": int(v)}] for v in values]


def test_the_mean_is_over_images_whatever_the_batches():
    model = Toy()
    model.norm.eps = 0.0
    losses = validation_losses(model, _samples(1, 2, 6))
    assert losses == {"loss_a": pytest.approx(6.0), "loss_b": 2.0, "total_loss": pytest.approx(8.0)}
    together = [sum(_samples(1, 2), []), *_samples(6)]
    assert validation_losses(model, together) == losses
    assert set(model.batches) == {1}


def test_images_that_failed_are_left_out_and_none_is_no_figure():
    model = Toy()
    model.norm.eps = 0.0
    batches = [[{"failed": "gone"}], *_samples(3)]
    assert validation_losses(model, batches)["loss_a"] == pytest.approx(6.0)
    assert validation_losses(model, [[{"failed": "gone"}]]) == {}


def test_the_processes_means_are_weighted_by_images(monkeypatch):
    """The other process had 3 images, with a loss that this one has not."""
    monkeypatch.setattr(
        "detectron2.utils.comm.all_gather",
        lambda mine: [mine, ({"loss_a": 6.0, "loss_c": 4.0}, 3)],
    )
    model = Toy()
    model.norm.eps = 0.0
    losses = validation_losses(model, _samples(1))
    assert losses["loss_a"] == pytest.approx((2.0 + 6.0) / 4)
    assert losses["loss_c"] == 1.0
    assert losses["total_loss"] == pytest.approx(2.0 + 0.5 + 1.0)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_as_before(training):
    model = Toy().train(training)
    model.dropout.train(not training)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    validation_losses(model, _samples(1, 2))
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None for p in model.parameters())


def test_an_error_leaves_the_model_as_before_too():
    model = Toy().eval()
    with pytest.raises(KeyError):
        validation_losses(model, [[{}]])
    assert not any(module.training for module in model.modules())


def test_the_random_numbers_of_the_training_go_on_as_if_nothing_was():
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    validation_losses(Toy(), _samples(1, 2))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == states


@pytest.fixture(scope="module")
def mask_rcnn():
    torch.manual_seed(1)
    return build_model(load_config(CONFIG, ["MODEL.DEVICE", "cpu"]))


def _cfg(*opts):
    words = ["MODEL.DEVICE", "cpu", "INPUT.MIN_SIZE_TEST", "64", "DATALOADER.NUM_WORKERS", "0"]
    return load_config(CONFIG, [*words, *opts])


def test_a_mask_rcnn_has_its_losses_the_same_each_time(scenes, mask_rcnn):
    compute = ValidationLoss(_cfg())
    torch.manual_seed(3)
    with EventStorage(7) as storage:
        first = compute(mask_rcnn)
        assert not storage.latest(), "the figures of the training are its own"
    assert set(first) == {
        f"validation/{name}"
        for name in (
            "loss_cls",
            "loss_box_reg",
            "loss_mask",
            "loss_rpn_cls",
            "loss_rpn_loc",
            "total_loss",
        )
    }
    parts = [value for name, value in first.items() if "total" not in name]
    assert first["validation/total_loss"] == pytest.approx(sum(parts))
    assert all(value > 0 for value in parts)
    torch.manual_seed(4)
    assert compute(mask_rcnn) == first
    # another drawing of anchors and RoIs is another value
    loader = compute._loaders["scenes_val"]
    assert validation_losses(mask_rcnn, loader, seed=1)["loss_cls"] != first["validation/loss_cls"]


def test_the_order_of_images_does_not_matter(scenes, mask_rcnn):
    batches = list(ValidationLoss(_cfg())._loaders["scenes_val"])
    assert len(batches) == 4
    forward = validation_losses(mask_rcnn, batches)
    backward = validation_losses(mask_rcnn, batches[::-1])
    assert backward == pytest.approx(forward, rel=1e-6)


def test_samples_are_the_evaluations_with_annotations(scenes):
    cfg = _cfg("INPUT.CROP.ENABLED", "True", "INPUT.MIN_SIZE_TRAIN", "(32,)")
    samples = [batch[0] for batch in ValidationLoss(cfg)._loaders["scenes_val"]]
    assert {tuple(sample["image"].shape[1:]) for sample in samples} == {(64, 64)}
    assert sum(len(sample["instances"]) for sample in samples) > 0
    again = [batch[0] for batch in ValidationLoss(cfg)._loaders["scenes_val"]]
    for one, other in zip(samples, again, strict=True):
        assert torch.equal(one["image"], other["image"])


def test_an_image_without_objects_is_fine(scenes, mask_rcnn):
    sample = dict(next(iter(ValidationLoss(_cfg())._loaders["scenes_val"]))[0])
    sample["instances"] = sample["instances"][:0]
    losses = validation_losses(mask_rcnn, [[sample]])
    assert losses["loss_mask"] == 0
    assert losses["loss_rpn_cls"] > 0


def test_several_sets_have_their_names_in_front(scenes, mask_rcnn):
    figures = ValidationLoss(_cfg("DATASETS.TEST", "('scenes_val', 'scenes_train')"))(mask_rcnn)
    names = {re.sub(r"^validation/(.*)/.*", r"\1", name) for name in figures}
    assert names == {"scenes_val", "scenes_train"}


def test_a_set_without_annotations_is_left_out_and_said_so(scenes, mask_rcnn, monkeypatch, caplog):
    empty = [{"file_name": "a.png", "height": 4, "width": 4, "image_id": 1, "annotations": []}]
    monkeypatch.setattr(
        "mask_rcnn_ext.engine.validation_loss.select_records", lambda *args, **kwargs: empty
    )
    assert ValidationLoss(_cfg())(mask_rcnn) == {}
    assert "No validation loss on scenes_val" in caplog.text


def test_a_mapper_of_another_kind_is_refused(scenes, monkeypatch):
    monkeypatch.setattr(
        "mask_rcnn_ext.engine.validation_loss.build_mapper", lambda cfg, is_train: T.RandomFlip()
    )
    with pytest.raises(UsageError, match="INPUT.MAPPER 'CocoMapper' is a RandomFlip"):
        ValidationLoss(_cfg())
    assert "CocoMapper" in MAPPER_REGISTRY
