"""The optimizer: Detectron2's groups, the same weights fused or not."""

from __future__ import annotations

import copy

import pytest
import torch
from detectron2.solver import build_optimizer as detectron2_optimizer
from torch import nn

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine import optimizer as optimizer_module
from mask_rcnn_ext.engine.optimizer import build_optimizer, has_fused, load_optimizer_state
from mask_rcnn_ext.errors import UsageError

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 7)
        self.norm = nn.BatchNorm1d(7)
        self.out = nn.Linear(7, 3)
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)


def _net():
    torch.manual_seed(4)
    return Net()


def _config(*overrides):
    return load_config(
        "quickstart/mask_rcnn_R_18_FPN_scenes.yaml",
        [
            *("MODEL.DEVICE", "cpu", "SOLVER.BASE_LR", "0.05", "SOLVER.WEIGHT_DECAY", "0.1"),
            *("SOLVER.BIAS_LR_FACTOR", "2.0", "SOLVER.WEIGHT_DECAY_NORM", "0.0"),
            *map(str, overrides),
        ],
    )


def _with_fused(cfg, value):
    cfg = cfg.clone()
    cfg.defrost()
    cfg.SOLVER["FUSED"] = value
    return cfg


def _train(net, optimizer, steps, start=0):
    for number in range(start, start + steps):
        generator = torch.Generator().manual_seed(number)
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def test_groups_are_those_of_detectron2():
    net = _net()
    cfg = _config("SOLVER.OPTIMIZER", "SGD", "SOLVER.NESTEROV", "True")
    ours, theirs = build_optimizer(cfg, net), detectron2_optimizer(cfg, net)
    keys = ("lr", "weight_decay", "momentum", "nesterov", "dampening")
    found = [
        [([id(p) for p in g["params"]], *(g[key] for key in keys)) for g in o.param_groups]
        for o in (ours, theirs)
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 2


@pytest.mark.parametrize("solver", ["SGD", "AdamW"])
@pytest.mark.parametrize("clip", [False, True])
def test_fused_gives_the_weights_that_unfused_gives(solver, clip):
    limits = ("SOLVER.CLIP_GRADIENTS.ENABLED", clip, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 0.5)
    cfg = _config("SOLVER.OPTIMIZER", solver, *limits)
    nets = [_net(), _net()]
    optimizers = [
        build_optimizer(_with_fused(cfg, fused), net)
        for fused, net in zip(("auto", False), nets, strict=True)
    ]
    assert optimizers[0].param_groups[0]["fused"] is True
    assert not optimizers[1].param_groups[0]["fused"]
    for net, optimizer in zip(nets, optimizers, strict=True):
        _train(net, optimizer, 5)
    for one, other in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert not torch.equal(nets[0].out.weight, _net().out.weight)


def test_unfused_sgd_has_detectron2s_bits():
    cfg = _with_fused(_config("SOLVER.OPTIMIZER", "SGD"), False)
    ours, theirs = _net(), _net()
    _train(ours, build_optimizer(cfg, ours), 4)
    _train(theirs, detectron2_optimizer(cfg, theirs), 4)
    assert all(
        torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True)
    )


def test_momentum_is_defined_when_the_first_step_is_left_out():
    net, reference = _net(), _net()
    cfg = _config("SOLVER.OPTIMIZER", "SGD")
    optimizer = build_optimizer(cfg, net)
    optimizer.grad_scale, optimizer.found_inf = None, torch.ones(())
    _train(net, optimizer, 1)
    assert all(
        torch.equal(a, b) for a, b in zip(net.parameters(), reference.parameters(), strict=True)
    )
    for state in optimizer.state.values():
        assert not state["momentum_buffer"].any()


@pytest.mark.parametrize("solver", ["SGD", "AdamW"])
def test_the_state_resumes_with_the_same_bits(solver, tmp_path):
    cfg = _config("SOLVER.OPTIMIZER", solver)
    whole = _net()
    _train(whole, build_optimizer(cfg, whole), 6)

    net = _net()
    first = build_optimizer(cfg, net)
    _train(net, first, 3)
    torch.save([net.state_dict(), first.state_dict()], tmp_path / "state.pth")
    weights, state = torch.load(tmp_path / "state.pth", weights_only=True)
    net = _net()
    net.load_state_dict(weights)
    second = build_optimizer(cfg, net)
    load_optimizer_state(second, state)
    _train(net, second, 3, start=3)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), whole.parameters(), strict=True))


def test_the_form_is_this_runs_and_the_numbers_are_the_checkpoints():
    cfg = _config("SOLVER.OPTIMIZER", "SGD")
    for saved_form, own_form in ((False, True), (True, False)):
        net = _net()
        saved = build_optimizer(_with_fused(cfg, saved_form), net)
        _train(net, saved, 1)
        saved.param_groups[0]["lr"] = 0.123
        own = build_optimizer(_with_fused(cfg, own_form), net)
        load_optimizer_state(own, saved.state_dict())
        assert bool(own.param_groups[0]["fused"]) is own_form
        assert own.param_groups[0]["lr"] == 0.123
        parameter = own.param_groups[0]["params"][0]
        assert own.state[parameter]["momentum_buffer"].any()


def test_fused_where_there_is_none(monkeypatch):
    assert has_fused(torch.optim.SGD, CPU, {"lr": 0.1})
    assert not has_fused(torch.optim.Rprop, CPU, {"lr": 0.1})
    monkeypatch.setattr(optimizer_module, "has_fused", lambda *a: False)
    cfg = _config()
    assert not build_optimizer(cfg, _net()).param_groups[0]["fused"]
    for value in (True,):
        with pytest.raises(UsageError, match="SOLVER.FUSED is True.*AdamW for cpu"):
            build_optimizer(_with_fused(cfg, value), _net())


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_state_in_the_other_memory_order_goes_on_right(name):
    """From a checkpoint written with channels first, into weights with channels last."""
    gradients = [torch.randn(8, 4, 3, 3) for _ in range(4)]

    def build(weight, fused):
        net = torch.nn.Conv2d(4, 8, 3, bias=False)
        net.weight.data = weight.clone(memory_format=torch.preserve_format)
        cfg = _with_fused(_config("SOLVER.OPTIMIZER", name, "SOLVER.BASE_LR", "0.01"), fused)
        return net, build_optimizer(cfg, net)

    def steps(net, optimizer, some):
        for gradient in some:
            net.weight.grad = torch.empty_like(net.weight).copy_(gradient)
            optimizer.step()

    first, optimizer = build(torch.randn(8, 4, 3, 3), False)
    steps(first, optimizer, gradients[:2])
    ended = []
    for order, fused in ((torch.contiguous_format, False), (torch.channels_last, None)):
        net, other = build(first.weight.detach().contiguous(memory_format=order), fused)
        load_optimizer_state(other, copy.deepcopy(optimizer.state_dict()))
        steps(net, other, gradients[2:])
        ended.append(net.weight.detach())
    torch.testing.assert_close(*ended)
