"""The training step in two processes: one batch's losses, and one decision about a bad one."""

from __future__ import annotations

import pytest
import torch
from step_processes import BATCH, work
from step_toys import From, histories, run_steps, same_bits, sgd, toy_batches, toy_model

from mask_rcnn_ext.engine.step import TrainStep


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(work, (str(folder),), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"found{rank}.pth") for rank in range(2)]


def _loaded(weights):
    model = toy_model()
    model.load_state_dict(weights)
    return model


def test_two_processes_give_the_losses_and_weights_of_one(found):
    model = toy_model()
    step = TrainStep(model, From(lambda: toy_batches(BATCH)), sgd(model))
    expected = histories(run_steps(step, 3))
    first, second = (each["good"] for each in found)
    assert same_bits(_loaded(first["weights"]), _loaded(second["weights"]))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(first["weights"][name], value)
    assert first["losses"].keys() == expected.keys()
    for name, values in first["losses"].items():
        assert [v for v, _ in values] == pytest.approx([v for v, _ in expected[name]], rel=1e-5)
    assert second["losses"] == {}  # the first process logs


@pytest.mark.parametrize("case", ["skip", "far"])
def test_both_leave_out_the_step_in_which_one_has_a_bad_loss(found, case):
    first, second = (each[case] for each in found)
    assert first["skipped"] == second["skipped"] == 1
    assert same_bits(_loaded(first["weights"]), _loaded(second["weights"]))
    assert all(torch.isfinite(w).all() for w in first["weights"].values())
    assert [i for _, i in first["losses"]["loss_one"]] == [0, 2]
    assert not torch.equal(first["weights"]["first.weight"], toy_model().first.weight)


def test_both_raise_and_name_the_process_that_has_it(found):
    first, second = (each["raise"] for each in found)
    assert first["error"].startswith("iteration 1: loss_one nan")
    assert "images 1001, 1003, 1005, 1007" in first["error"]
    assert "1000" not in first["error"]
    assert first["error"] in second["error"]
    assert (first["recorded"], second["recorded"]) == (0, 1)
