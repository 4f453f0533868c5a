"""The black box holds the step, names the likely cause, and never fails itself."""

from __future__ import annotations

import errno
import json
import logging
import math

import cv2
import numpy as np
import pytest
import torch
from black_box_step import ITERATION, batch_of, fail
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints, PolygonMasks
from torch import nn

from mask_rcnn_ext.data.masks import IndexedBitMasks
from mask_rcnn_ext.engine import black_box as black_box_module
from mask_rcnn_ext.engine.black_box import BlackBox, Failure
from mask_rcnn_ext.engine.black_box_batch import from_plain, left_out, tensors_of, to_plain
from mask_rcnn_ext.engine.rng import rng_state
from mask_rcnn_ext.errors import UserError

CONFIG = "INPUT: {FORMAT: RGB}\nSOLVER: {BASE_LR: 0.01, IMS_PER_BATCH: 16}\n"


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.norm = nn.BatchNorm1d(2)


def record(folder, *, model=None, failure=None, **box):
    model = model or Toy()
    made = BlackBox(folder, model, **{"config": CONFIG, "seed": 1, **box})
    return made, made.record(failure or failure_of())


def failure_of(iteration=7, **fields):
    values = {
        "kind": "loss",
        "iteration": iteration,
        "batch": batch_of(1),
        "losses": {"loss_a": math.nan, "loss_b": 0.1},
        "gradient_norms": {"small": 0.5, "bad": math.inf, "large": 9.0},
        "learning_rates": [0.01, 0.01, 0.02],
        "rng": rng_state(),
        "positions": [0],
        "error": None,
    }
    return Failure(**(values | fields))


def report_of(folder):
    return json.loads((folder / "report.json").read_text())


def test_the_folder_holds_the_step(tmp_path, caplog):
    batch = batch_of()
    batch[0]["instances"].gt_boxes.tensor[1, 2] = math.nan
    box, folder, losses = fail(tmp_path, batch=batch)
    assert folder == tmp_path / "black_box" / "iteration_0001234"
    assert {path.name for path in folder.iterdir()} == {
        "report.json", "report.md", "config.yaml", "rng.pth", "batch.pth", "weights.pth",
        "image_0.jpg", "image_1.jpg",
    }  # fmt: skip
    report = report_of(folder)
    assert report["kind"] == "loss"
    assert report["iteration"] == ITERATION
    assert report["images"][1] == {
        "image_id": 41,
        "file_name": "val/1.jpg",
        "height_width": [64, 64],
        "original_height_width": [64, 64],
        "instances": 3,
    }
    assert report["learning_rates"] == [0.01]
    assert report["not_finite"] == ["batch[0].instances.gt_boxes: 1 of 12 values"]
    assert report["causes"][0]["name"] == "box_not_finite"
    assert "target box 1 of image 0 of the batch (id 40, val/0.jpg)" in report["causes"][0]["text"]
    assert report["missing"] == []
    text = (folder / "report.md").read_text()
    assert f"mask-rcnn-ext replay {folder}" in text
    assert "| image_1 | 41 | val/1.jpg | 64 x 64 | 3 |" in text
    assert box.message in caplog.text
    assert "Likely cause: target box 1 of image 0" in box.message
    assert f"mask-rcnn-ext replay {folder}" in box.message


def test_everything_in_it_loads_without_code(tmp_path):
    _, folder = record(tmp_path)
    for name in ("batch.pth", "rng.pth", "weights.pth"):
        torch.load(folder / name, weights_only=True)
    assert torch.load(folder / "weights.pth")["model"].keys() == Toy().state_dict().keys()


def test_weights_are_those_before_the_step(tmp_path):
    model = Toy()
    _, folder = record(tmp_path, model=model)
    with torch.no_grad():
        model.layer.weight.add_(1)
    kept = torch.load(folder / "weights.pth")["model"]["layer.weight"]
    assert torch.equal(kept + 1, model.layer.weight)


def test_a_wrapped_and_a_compiled_model_have_plain_names(tmp_path):
    class Wrapped(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    inner = Toy()
    inner.layer = nn.ModuleDict({"_orig_mod": nn.Linear(2, 2)})
    _, folder = record(tmp_path, model=Wrapped(inner))
    assert "layer.weight" in torch.load(folder / "weights.pth")["model"]


def test_the_report_is_strict_json_and_sorts_gradients(tmp_path):
    _, folder = record(tmp_path)
    report = json.loads((folder / "report.json").read_text(), parse_constant=pytest.fail)
    assert report["losses"] == {"loss_a": "nan", "loss_b": 0.1}
    assert list(report["gradient_norms"]) == ["bad", "large", "small"]
    assert report["learning_rates"] == [0.01, 0.02]


def test_the_pictures_are_in_the_right_colours_with_the_boxes(tmp_path):
    batch = batch_of(1, objects=1)
    batch[0]["image"] = torch.zeros(3, 64, 64, dtype=torch.uint8)
    batch[0]["image"][0] = 200  # red in RGB
    batch[0]["instances"].gt_boxes.tensor[0] = torch.tensor([8.0, 8.0, 24.0, 24.0])
    batch[0]["instances"].remove("gt_masks")
    _, folder = record(tmp_path, failure=failure_of(batch=batch))
    picture = cv2.imread(str(folder / "image_0.jpg"))
    assert picture.shape[:2] == (480, 480)  # small images are enlarged
    blue, _, red = (int(value) for value in picture[-20, -20])
    assert red > 180 and blue < 30  # noqa: PT018
    difference = np.abs(picture.astype(int) - picture[-20, -20].astype(int)).max(-1)
    assert difference[60, 60:180].min() > 50  # the box's upper edge, 8 x 7.5


def test_a_cause_for_each_sign_or_none(tmp_path):
    _, folder = record(tmp_path)
    assert report_of(folder)["causes"] == []
    assert "none of the known causes" in (folder / "report.md").read_text()


def test_no_more_than_the_limit_restarts_included(tmp_path, caplog):
    for iteration in (1, 2):
        record(tmp_path, failure=failure_of(iteration), limit=2)
    box, place = record(tmp_path, failure=failure_of(3), limit=2)
    assert place == tmp_path / "black_box"
    assert sorted(path.name for path in place.iterdir()) == [
        "iteration_0000001",
        "iteration_0000002",
    ]
    assert "iteration 3: the loss is not finite (loss_a nan)" in caplog.text
    assert "no more are kept" in caplog.text
    # The same step again, after a restart, is no further one.
    _, place = record(tmp_path, failure=failure_of(2, losses={"loss_a": math.inf}), limit=2)
    assert report_of(place)["losses"] == {"loss_a": "inf"}


def test_each_process_has_its_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(black_box_module.comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(black_box_module.comm, "get_rank", lambda: 2)
    _, folder = record(tmp_path)
    assert folder.name == "iteration_0000007_rank2"
    assert report_of(folder)["processes"] == 4


def test_a_full_disk_is_a_warning_and_the_rest_is_written(tmp_path, monkeypatch, caplog):
    def full(value, file):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(black_box_module.torch, "save", full)
    _, folder = record(tmp_path)
    assert "No space left on device" in caplog.text
    report = report_of(folder)
    assert [one.split(":")[0] for one in report["missing"]] == [
        "rng.pth",
        "batch.pth",
        "weights.pth",
    ]
    assert "weights.pth: OSError" in (folder / "report.md").read_text()
    assert (folder / "image_0.jpg").is_file()


def test_nothing_can_be_written(tmp_path, caplog):
    (tmp_path / "file").touch()
    box, place = record(tmp_path / "file")
    assert place == tmp_path / "file" / "black_box"
    assert "cannot be written" in caplog.text
    assert "iteration 7" in box.message


def test_a_batch_of_another_form_is_kept_as_far_as_it_goes(tmp_path, caplog):
    class Own:
        pass

    with caplog.at_level(logging.WARNING):
        _, folder = record(
            tmp_path, failure=failure_of(batch=[{"tokens": torch.ones(2), "x": Own()}])
        )
    report = report_of(folder)
    assert report["left_out"] == ["[0].x: test_black_box.test_a_batch_of_another_form_is_kept_as_"
                                  "far_as_it_goes.<locals>.Own"]  # fmt: skip
    assert torch.equal(torch.load(folder / "batch.pth")[0]["tokens"], torch.ones(2))
    assert "pictures" in report["missing"][0]


def test_weights_leave_room_for_checkpoints(tmp_path):
    _, folder = record(tmp_path, spare_bytes=10**18)
    assert not (folder / "weights.pth").exists()
    assert report_of(folder)["missing"][0].startswith("weights.pth: OSError: 0.0 GB of weights")


def test_an_optimizer_that_holds_nan_is_seen(tmp_path):
    model = Toy()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    optimizer.state[model.layer.bias]["momentum_buffer"] = torch.tensor([math.nan, 0.0])
    _, folder = record(tmp_path, model=model, optimizer=optimizer)
    (cause,) = report_of(folder)["causes"]
    assert cause["name"] == "momentum"
    assert "layer.bias" in cause["text"]


def test_running_statistics_are_not_blamed(tmp_path):
    model = Toy()
    model.norm.running_mean.fill_(math.nan)
    _, folder = record(tmp_path, model=model)
    report = report_of(folder)
    assert report["causes"] == []
    assert report["not_finite"] == ["model.norm.running_mean: 2 of 2 values"]
    _, folder = record(tmp_path, model=model.eval())
    assert report_of(folder)["causes"][0]["name"] == "weights"


def test_a_message_for_gradients_names_them(tmp_path):
    failure = failure_of(kind="gradient", losses={"loss_a": 1.0})
    box, _ = record(tmp_path, failure=failure)
    assert box.message.startswith("iteration 7: the gradient is not finite (bad)")


def test_what_the_step_raised_is_in_the_message(tmp_path):
    failure = failure_of(losses={}, error=FloatingPointError("Predicted boxes contain NaN"))
    box, _ = record(tmp_path, failure=failure)
    assert "; FloatingPointError: Predicted boxes contain NaN" in box.message


@pytest.fixture
def instances():
    made = Instances((8, 6))
    made.gt_boxes = Boxes(torch.rand(2, 4))
    made.gt_classes = torch.tensor([1, 0])
    made.gt_keypoints = Keypoints(torch.rand(2, 3, 3))
    return made


@pytest.mark.parametrize("kind", [BitMasks, IndexedBitMasks])
def test_a_batch_comes_back_the_same(tmp_path, instances, kind):
    bits = torch.rand(2, 8, 6) > 0.5
    instances.gt_masks = kind(bits)
    batch = [
        {
            "image": torch.rand(3, 8, 6),
            "instances": instances,
            "file_name": tmp_path / "a.jpg",
            "image_id": np.int64(4),
            "sem_seg": np.arange(6).reshape(2, 3),
            "pair": (1, "x"),
            "none": None,
        }
    ]
    torch.save(to_plain(batch), tmp_path / "batch.pth")
    back = from_plain(torch.load(tmp_path / "batch.pth", weights_only=True))[0]
    assert torch.equal(back["image"], batch[0]["image"])
    assert back["file_name"] == str(tmp_path / "a.jpg")
    assert back["image_id"] == 4
    assert np.array_equal(back["sem_seg"], batch[0]["sem_seg"])
    assert (back["pair"], back["none"]) == ([1, "x"], None)
    there = back["instances"]
    assert there.image_size == (8, 6)
    assert type(there.gt_masks) is kind
    assert torch.equal(there.gt_masks.tensor, bits)
    assert torch.equal(there.gt_boxes.tensor, instances.gt_boxes.tensor)
    assert torch.equal(there.gt_keypoints.tensor, instances.gt_keypoints.tensor)
    assert torch.equal(there.gt_classes, instances.gt_classes)


def test_polygons_come_back_the_same(instances):
    outlines = [[np.array([0.0, 0, 4, 0, 4, 4.5])], [np.arange(6.0), np.arange(8.0)]]
    instances.gt_masks = PolygonMasks(outlines)
    plain = to_plain(instances)
    back = from_plain(plain).gt_masks.polygons
    assert [[p.tolist() for p in one] for one in back] == [
        [p.tolist() for p in one] for one in outlines
    ]
    instances.gt_masks.polygons[0][0][0] = 99  # it is a copy
    assert back[0][0][0] == 0
    assert "instances" not in dict(tensors_of(plain))


def test_a_copy_is_taken_of_what_changes_later():
    image = torch.zeros(2)
    plain = to_plain([image])
    image.fill_(1)
    assert plain[0].tolist() == [0, 0]


def test_what_is_left_out_is_named_and_an_unknown_structure_refused():
    plain = to_plain([{"a": {1}, "b": [object()]}])
    assert list(left_out(plain)) == ["[0].a: builtins.set", "[0].b[0]: builtins.object"]
    assert from_plain(plain) == [{"a": None, "b": [None]}]
    with pytest.raises(UserError, match="'Later'"):
        from_plain({"structure": "Later"})
