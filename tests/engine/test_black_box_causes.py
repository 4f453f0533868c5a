"""Each known cause of a failed step is named by its signs, and by nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from black_box_step import batch_of
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from mask_rcnn_ext.engine.black_box_batch import to_plain
from mask_rcnn_ext.engine.black_box_causes import (
    Facts,
    likely_causes,
    name_of_image,
    running_statistics,
    untrained_frozen_norms,
)

SOUND = {
    "MODEL": {"PIXEL_STD": [1.0, 1.0, 1.0], "PIXEL_MEAN": [103.5, 116.3, 123.7]},
    "SOLVER": {"BASE_LR": 0.02, "IMS_PER_BATCH": 16, "WARMUP_ITERS": 1000, "WARMUP_FACTOR": 0.001},
}


def facts(config=(), **fields):
    merged = {section: dict(SOUND[section]) for section in SOUND}
    for key, value in dict(config).items():
        section, name = key.split(".")
        merged[section][name] = value
    values = {
        "kind": "loss",
        "iteration": 10,
        "batch": to_plain(batch_of(2)),
        "learning_rates": [0.02],
        "config": merged,
        "state": {"weight": torch.ones(3)},
        "parameters": frozenset(["weight"]),
    }
    return Facts(**(values | fields))


def names(some):
    return [cause.name for cause in likely_causes(some)]


def harmed(field, value, image=1):
    batch = to_plain(batch_of(2))
    boxes = batch[image]["instances"]["fields"]["gt_boxes"]["tensor"]
    boxes[2, field] = value if not isinstance(value, str) else boxes[2, int(value)]
    return batch


def test_a_sound_step_has_none():
    assert names(facts()) == []
    assert names(facts(config={}, batch=[], state={}, parameters=frozenset())) == []


@pytest.mark.parametrize(
    ("changed", "name", "text"),
    [
        ({"config": {"MODEL.PIXEL_STD": [1.0, 0.0, 1.0]}}, "pixel_std", "divided by it"),
        ({"config": {"MODEL.PIXEL_MEAN": [math.nan] * 3}}, "pixel_mean", "expected finite"),
        ({"state": {"weight": torch.tensor([1.0, math.nan, 1.0])}}, "weights", "first weight"),
        ({"state": {"weight": torch.tensor([1e6])}}, "large_weights", "weight to 1e+06"),
        ({"bad_momentum": ["fc.bias"]}, "momentum", "fc.bias"),
        ({"batch": harmed(0, math.inf)}, "box_not_finite", "target box 2 of image 1 of the batch"),
        ({"batch": harmed(2, -5.0, image=0)}, "box_empty", "target box 2 of image 0"),
        ({"batch": harmed(3, "1")}, "box_empty", "no width or no height"),
        ({"untrained_frozen_norms": (20, 20)}, "frozen_norm", "MODEL.RESNETS.NORM BN"),
        ({"config": {"SOLVER.BASE_LR": 0.04}}, "learning_rate", "Try SOLVER.BASE_LR 0.02"),
        ({"config": {"SOLVER.IMS_PER_BATCH": 2}}, "learning_rate", "so 0.0025 with 2"),
        ({"config": {"SOLVER.WARMUP_ITERS": 0}}, "warm_up", "SOLVER.WARMUP_ITERS 1000"),
        ({"config": {"SOLVER.WARMUP_FACTOR": 1.0}}, "warm_up", "full learning rate"),
        ({"config": {"SOLVER.AMP": {"ENABLED": True, "PRECISION": "float16"}}}, "float16",
         "SOLVER.AMP.PRECISION bfloat16"),
    ],
)  # fmt: skip
def test_one_sign_one_cause(changed, name, text):
    (cause,) = likely_causes(facts(**changed))
    assert cause.name == name
    assert text in cause.text


def test_an_image_with_nan_and_one_without_content():
    batch = to_plain(batch_of(2))
    batch[0]["image"] = batch[0]["image"].float()
    batch[0]["image"][0, 0, 0] = math.nan
    batch[1]["image"][:] = 114
    found = likely_causes(facts(batch=batch))
    assert [cause.name for cause in found] == ["image", "uniform_image"]
    assert "image 0 of the batch (id 40, val/0.jpg) has 1 pixel values" in found[0].text
    assert "value 114 everywhere" in found[1].text


def test_other_targets_that_are_not_finite():
    batch = to_plain(batch_of(1))
    keypoints = torch.zeros(3, 2, 3)
    keypoints[1, 0, 0] = math.inf
    batch[0]["instances"]["fields"]["gt_keypoints"] = {
        "structure": "Keypoints",
        "tensor": keypoints,
    }
    (cause,) = likely_causes(facts(batch=batch))
    assert cause.name == "annotation_not_finite"
    assert cause.text.startswith("gt_keypoints of image 0")


def test_the_learning_rate_of_adamw_is_another():
    adamw = {"SOLVER.OPTIMIZER": "AdamW"}
    assert names(facts(adamw | {"SOLVER.BASE_LR": 0.001})) == []
    assert names(facts(adamw | {"SOLVER.BASE_LR": 0.02})) == ["learning_rate"]


def test_a_rate_that_is_little_above_the_rule_is_not_blamed():
    assert names(facts({"SOLVER.BASE_LR": 0.028})) == []


def test_a_missing_warm_up_shows_early_only():
    assert names(facts({"SOLVER.WARMUP_ITERS": 0}, iteration=5000)) == []


@pytest.mark.parametrize(
    ("amp", "on_gpu", "expected"),
    [
        ({"ENABLED": True, "PRECISION": "auto"}, True, ["float16"]),
        ({"ENABLED": True, "PRECISION": "auto"}, False, []),
        ({"ENABLED": True, "PRECISION": "bfloat16"}, True, []),
        ({"ENABLED": False, "PRECISION": "float16"}, True, []),
        ({"ENABLED": True}, True, ["float16"]),
    ],
)
def test_float16_is_blamed_where_it_is_used(amp, on_gpu, expected):
    assert names(facts({"SOLVER.AMP": amp}, on_gpu=on_gpu)) == expected


def test_broken_data_come_before_settings():
    found = names(facts({"SOLVER.BASE_LR": 1.0}, batch=harmed(0, math.nan)))
    assert found == ["box_not_finite", "learning_rate"]


def test_memory_names_the_largest_image_and_the_most_objects():
    batch = to_plain(batch_of(2))
    batch[0]["image"] = torch.zeros(3, 100, 300, dtype=torch.uint8)
    batch[1]["instances"]["fields"]["gt_classes"] = torch.zeros(77)
    (cause,) = likely_causes(facts({"SOLVER.BASE_LR": 1.0}, kind="memory", batch=batch))
    assert cause.name == "memory"
    assert "2 images are padded to 300 x 100 pixels" in cause.text
    assert "image 1 of the batch (id 41, val/1.jpg) has 77 objects" in cause.text
    assert "SOLVER.ACCUMULATION_STEPS" in cause.text
    assert names(facts(kind="memory", batch=[])) == []


def test_frozen_norms_that_were_never_loaded():
    norms = nn.Sequential(FrozenBatchNorm2d(3), nn.Conv2d(3, 3, 1), FrozenBatchNorm2d(3))
    assert untrained_frozen_norms(norms) == (2, 2)
    norms[0].weight[1] = 1.5
    norms[2].running_mean[0] = 0.1
    assert untrained_frozen_norms(norms) == (0, 2)
    assert untrained_frozen_norms(nn.Conv2d(3, 3, 1)) == (0, 0)
    # Some are loaded: another thing is wrong.
    assert names(facts(untrained_frozen_norms=(1, 2))) == []


def test_statistics_that_a_forward_changes():
    model = nn.Sequential(nn.BatchNorm2d(2), FrozenBatchNorm2d(2))
    assert running_statistics(model) == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    assert running_statistics(model.eval()) == frozenset()
    assert running_statistics(nn.BatchNorm2d(2)) >= {"running_mean"}
    bad = {"0.running_mean": torch.tensor([math.nan])}
    assert names(facts(state=bad, running=frozenset(bad), parameters=frozenset())) == []
    assert names(facts(state=bad, parameters=frozenset())) == ["weights"]


def test_an_image_has_what_names_it_has():
    assert name_of_image([{}], 0) == "image 0 of the batch"
    assert name_of_image([{}, {"image_id": 9}], 1) == "image 1 of the batch (id 9)"
