"""The moving average of the weights."""

from __future__ import annotations

import copy

import pytest
import torch
from step_toys import same_bits, toy_model
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.averaging import Averaging, check_averaging_keys
from mask_rcnn_ext.errors import UsageError, UserError


def _walk(model, averaging, steps, start=0):
    """Change the weights as a training would."""
    for number in range(start, start + steps):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += torch.randn(parameter.shape, generator=generator)
            for buffer in model.buffers():
                buffer += 1
        averaging.after_step()


def _started(model, decay=0.9):
    averaging = Averaging(model, decay=decay)
    averaging.before_train()
    return averaging


def test_the_average_is_the_formulas():
    model = toy_model()
    averaging = _started(model, decay=0.2)
    expected = model.second.bias.detach().clone().double()
    for step in range(4):
        _walk(model, averaging, 1, start=step)
        decay = min(0.2, (1 + step) / (10 + step))
        assert (decay < 0.2) == (step < 2)
        expected = decay * expected + (1 - decay) * model.second.bias.detach().double()
        found = averaging.averaged_state_dict()["second.bias"]
        torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=1e-6)


def test_it_starts_from_the_weights_that_are_loaded_by_then():
    model = toy_model()
    averaging = Averaging(model, decay=0.9)
    nn.init.constant_(model.first.weight, 3.0)
    averaging.before_train()
    assert averaging.averaged_state_dict()["first.weight"].eq(3).all()


def test_within_apply_to_the_model_has_the_averages_and_afterwards_its_own():
    model = toy_model(norm=True)
    model.second.bias.requires_grad_(False)
    averaging = _started(model)
    _walk(model, averaging, 3)
    own = copy.deepcopy(model)
    averages = {k: v.clone() for k, v in averaging.averaged_state_dict().items()}
    parameters = list(model.parameters())
    with averaging.apply_to(model):
        assert not same_bits(model, own)
        for name, value in model.state_dict().items():
            assert torch.equal(value, averages[name]), name
        # Statistics are the newest; frozen weights have one value.
        assert torch.equal(model.norm.running_mean, own.norm.running_mean)
        assert torch.equal(model.second.bias, own.second.bias)
    assert same_bits(model, own)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert averages.keys() == model.state_dict().keys()
    assert "second.bias" not in averaging.state_dict()["averages"]
    assert torch.equal(averages["norm.running_var"], own.norm.running_var)


def test_the_models_own_weights_come_back_after_an_error():
    model = toy_model()
    averaging = _started(model)
    _walk(model, averaging, 2)
    own = copy.deepcopy(model)
    with pytest.raises(KeyError), averaging.apply_to(model):
        raise KeyError
    assert same_bits(model, own)


def test_before_the_training_nothing_is_exchanged():
    model = toy_model()
    own = copy.deepcopy(model)
    with Averaging(model, decay=0.9).apply_to(model):
        assert same_bits(model, own)
    assert same_bits(model, own)


def test_it_resumes_with_the_same_bits(tmp_path):
    whole = toy_model()
    expected = _started(whole)
    _walk(whole, expected, 6)

    model = toy_model()
    first = _started(model)
    _walk(model, first, 3)
    torch.save([model.state_dict(), first.state_dict()], tmp_path / "state.pth")
    weights, state = torch.load(tmp_path / "state.pth", weights_only=True)
    model = toy_model()
    model.load_state_dict(weights)
    second = Averaging(model, decay=0.9)
    second.load_state_dict(state)
    second.before_train()
    _walk(model, second, 3, start=3)
    found, averages = second.averaged_state_dict(), expected.averaged_state_dict()
    assert all(torch.equal(found[name], averages[name]) for name in averages)
    assert second.state_dict()["updates"] == 6


def test_weights_in_16_bits_are_averaged_in_32():
    model = nn.Linear(3, 2).bfloat16()
    averaging = _started(model, decay=0.999)
    averaging._updates = 10_000  # beyond the start
    start = model.weight.detach().float()
    with torch.no_grad():
        model.weight += 1
    for _ in range(3):
        averaging.after_step()
    moved = averaging.state_dict()["averages"]["weight"] - start
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, torch.full((2, 3), 0.003), rtol=0.05, atol=1e-4)
    assert averaging.averaged_state_dict()["weight"].dtype == torch.bfloat16


def test_averages_of_another_model_are_refused():
    state = _started(nn.Linear(3, 2)).state_dict()
    with pytest.raises(UserError, match=r"weight is \(2, 3\) there, \(2, 4\) here"):
        Averaging(nn.Linear(4, 2), decay=0.9).load_state_dict(state)
    with pytest.raises(UserError, match=r"bias is \(2,\) there, missing here"):
        Averaging(nn.Linear(3, 2, bias=False), decay=0.9).load_state_dict(state)


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_that_is_none(decay):
    cfg = load_config("quickstart/mask_rcnn_R_18_FPN_scenes.yaml").clone()
    check_averaging_keys(cfg)
    cfg.defrost()
    cfg.MODEL.EMA.DECAY = decay
    with pytest.raises(UsageError, match=f"MODEL.EMA.DECAY is {decay}"):
        check_averaging_keys(cfg)
