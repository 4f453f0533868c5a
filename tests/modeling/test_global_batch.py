"""Two processes with the same global batch give the losses and gradients of one, to rounding."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from detectron2.modeling.roi_heads import FastRCNNOutputLayers
from detectron2.modeling.roi_heads.keypoint_head import BaseKeypointRCNNHead
from detectron2.structures import Boxes, Instances, Keypoints
from torch import nn

from mask_rcnn_ext.modeling import FCNMaskHead, normalisers
from mask_rcnn_ext.modeling.normalisers import counts_of, is_shared_step, weigh_by_counts

SCRIPT = Path(__file__).with_name("global_batch_steps.py")
LOSSES = {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}


def _names_of_cases() -> list[str]:
    for node in ast.parse(SCRIPT.read_text()).body:
        if isinstance(node, ast.AnnAssign) and node.target.id == "CASES":
            return [key.value for key in node.value.keys]
    raise AssertionError("no CASES")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    folder = tmp_path_factory.mktemp("steps")
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-1500:]
    return torch.load(folder / "one.pth"), torch.load(folder / "two.pth")


@pytest.mark.parametrize("case", _names_of_cases())
def test_same_losses_and_gradients(steps, case):
    one, two = (found[case] for found in steps)
    assert set(one["losses"]) - {"loss_keypoint"} == LOSSES
    for name, loss in one["losses"].items():
        assert two["losses"][name].item() == pytest.approx(loss.item(), rel=1e-5), name
    assert one["grads"].keys() == two["grads"].keys()
    for name, grad in one["grads"].items():
        assert two["grads"][name] is not None, f"{name} had no part in the step"
        difference = (two["grads"][name] - grad).norm()
        assert difference <= 1e-5 * grad.norm() + 1e-7, name
    assert one["losses"]["loss_mask"] > 0
    assert one["grads"]["roi_heads.mask_head.predictor.weight"].norm() > 0


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """As if two processes ran; what the other one adds, and what this one gave, by "theirs"."""
    shared: dict[str, torch.Tensor] = {}

    def add(values: torch.Tensor) -> None:
        shared["ours"] = values.clone()
        values += shared["theirs"]

    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    monkeypatch.setattr(normalisers.distributed, "all_reduce", add)
    return shared


def test_shares(processes):
    losses = {"a": torch.tensor(4.0), "b": torch.tensor(0.0), "c": torch.tensor(5.0)}
    processes["theirs"] = torch.tensor([3.0, 0.0])
    found = weigh_by_counts(losses, {"a": torch.tensor(1), "b": torch.tensor(0)})
    # (1 of 4) x 2 processes; nobody has any of b; c has no count
    assert found == {"a": 2.0, "b": 0.0, "c": 5.0}
    processes["theirs"] = torch.tensor([7.0])
    found = weigh_by_counts(losses, {"a": torch.tensor(7)})
    assert found["a"] == losses["a"]  # equal shares change no bit
    assert weigh_by_counts(losses, {}) is losses


def test_when_processes_share_a_step(processes):
    module = nn.Linear(1, 1)
    assert is_shared_step(module)
    with torch.no_grad():  # losses of validation: processes may have different numbers of batches
        assert not is_shared_step(module)
    assert not is_shared_step(module.eval())


def test_one_process_shares_with_nobody():
    assert not is_shared_step(nn.Linear(1, 1))


def _heads(mask_head: type = FCNMaskHead, predictor: type = FastRCNNOutputLayers, limit: int = 0):
    keypoints = object.__new__(BaseKeypointRCNNHead)
    nn.Module.__init__(keypoints)
    keypoints.loss_normalizer = "visible"
    return SimpleNamespace(
        num_classes=3,
        box_predictor=object.__new__(predictor),
        mask_on=True,
        mask_head=object.__new__(mask_head),
        train_mask_rois_per_image=limit,
        keypoint_on=True,
        keypoint_head=keypoints,
    )


def _proposals() -> list[Instances]:
    """Three RoIs of which two are positive, then one of an image without objects."""
    first, second = Instances((20, 20)), Instances((20, 20))
    first.proposal_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]] * 3))
    first.gt_classes = torch.tensor([2, 3, 0])
    # x, y, visibility: in, out, hidden; in, in, in (but background); in, on the edge, out
    points = [
        [[5, 5, 2], [15, 5, 2], [5, 5, 0]],
        [[5, 5, 2]] * 3,
        [[1, 1, 1], [10, 10, 2], [-1, 1, 2]],
    ]
    first.gt_keypoints = Keypoints(torch.tensor(points, dtype=torch.float32))
    second.proposal_boxes = Boxes(torch.tensor([[0.0, 0.0, 10.0, 10.0]]))
    second.gt_classes = torch.tensor([3])
    return [first, second]


def test_what_is_counted():
    counts = {name: count.item() for name, count in counts_of(_heads(), _proposals()).items()}
    assert counts == {"loss_cls": 4, "loss_box_reg": 4, "loss_mask": 2, "loss_keypoint": 3}
    assert counts_of(_heads(limit=1), _proposals())["loss_mask"].item() == 1


def test_heads_with_losses_of_their_own_are_left_alone():
    class OwnMask(FCNMaskHead):
        def forward(self, x, instances):
            return {}

    class OwnLayers(FCNMaskHead):
        def layers(self, x):
            return x

    class OwnBoxes(FastRCNNOutputLayers):
        def losses(self, predictions, proposals):
            return {}

    assert "loss_mask" not in counts_of(_heads(OwnMask), _proposals())
    assert "loss_mask" in counts_of(_heads(OwnLayers), _proposals())
    heads = _heads(predictor=OwnBoxes)
    heads.keypoint_on = False
    assert list(counts_of(heads, _proposals())) == ["loss_mask"]
