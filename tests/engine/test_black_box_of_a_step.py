"""From a training step that fails to its replay."""

from __future__ import annotations

import functools
import math
from itertools import repeat

import pytest
import torch
from black_box_step import SEED, batch_of, config
from detectron2.modeling import build_model
from detectron2.utils.events import EventStorage

from mask_rcnn_ext.engine.black_box import BlackBox
from mask_rcnn_ext.engine.replay import replay
from mask_rcnn_ext.engine.step import TrainStep
from mask_rcnn_ext.engine.step_failures import NonFinite
from mask_rcnn_ext.modeling.sampling import draws


@pytest.mark.parametrize("parts", [1, 2])
def test_a_replay_gives_the_losses_of_the_step(tmp_path, parts):
    cfg = config("SOLVER.ACCUMULATION_STEPS", parts)
    torch.manual_seed(4)
    model = build_model(cfg).train()
    with torch.no_grad():
        model.roi_heads.mask_head.mask_fcn1.weight[0] = math.inf
    step = TrainStep(
        model,
        repeat(batch_of(2)),
        torch.optim.SGD(model.parameters(), 0.01),
        parts=parts,
        positions=[4, 5],
        draws=functools.partial(draws, SEED),
    )
    step.black_box = BlackBox(
        tmp_path, model, config=cfg.dump(), seed=SEED, optimizer=step.optimizer
    )
    step.iter = 30
    with EventStorage(30), pytest.raises(NonFinite, match="iteration_0000030"):
        step.run_step()
    folder = tmp_path / "black_box" / "iteration_0000030"
    done = replay(folder)
    assert done.agreement == "same bits"
    assert not math.isfinite(done.losses["loss_mask"])
    assert done.report["causes"][0]["name"] == "weights"
    assert done.report["gradient_norms"]  # of the failed step, the bad ones first
    assert "mask_fcn1" in done.first
