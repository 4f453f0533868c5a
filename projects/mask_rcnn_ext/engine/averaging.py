"""A moving average of the weights (MODEL.EMA), which evaluations use and which is saved too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..errors import UsageError, UserError


def check_averaging_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: MODEL.EMA.DECAY is not between 0 and 1
    """
    if not 0 <= cfg.MODEL.EMA.DECAY < 1:
        raise UsageError(
            f"MODEL.EMA.DECAY is {cfg.MODEL.EMA.DECAY}, expected at least 0 and below 1, 0.999 for "
            "example"
        )


class Averaging(HookBase):
    """w' = d w' + (1 - d) w after each step, of each parameter that is trained.

    d is `decay`, but in step t (from 0) at most (1 + t) / (10 + t): so the random weights of the
    start are forgotten in a run of a few hundred steps too. Frozen parameters are what they are,
    and buffers (a batch norm's running mean and variance, averages already) are the model's newest.
    Every process computes the same average of the same weights.
    """

    def __init__(self, model: nn.Module, *, decay: float):
        """
        Args:
            model: the one that is trained, bare or in DistributedDataParallel
            decay: d, at least 0 and below 1
        """
        self._model = _bare(model)
        self._decay = decay
        self._updates = 0
        self._averages: dict[str, torch.Tensor] = {}  # float32; empty before the training

    def before_train(self) -> None:
        if not self._averages:  # not resumed: from the weights that are loaded by now
            self._averages = {n: _as_float32(p) for n, p in _trained(self._model).items()}

    def after_step(self) -> None:
        parameters = _trained(self._model)
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        with torch.no_grad():
            newest = [parameters[name].detach().float() for name in self._averages]
            get_ema_multi_avg_fn(decay)(list(self._averages.values()), newest, self._updates)
        self._updates += 1

    @contextlib.contextmanager
    def apply_to(self, model: nn.Module) -> Iterator[None]:
        """Within, the model has the averages; afterwards its own weights, bit for bit.

        Args:
            model: the trained one or one of the same parameters, bare or in
                DistributedDataParallel; before the training nothing is exchanged
        """
        parameters = dict(_bare(model).named_parameters())
        own = {name: parameters[name].detach().clone() for name in self._averages}
        try:
            # Copied, not exchanged: who keeps something made of the weights (casts, folded norms)
            # can see that they have changed.
            _copy(self._averages, parameters)
            yield
        finally:
            _copy(own, parameters)

    def averaged_state_dict(self) -> dict[str, torch.Tensor]:
        """The model's `state_dict()` with the averages in place of its weights; shares memory."""
        state = self._model.state_dict()
        return state | {n: a.to(state[n].dtype) for n, a in self._averages.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self._updates, "averages": dict(self._averages)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Raises:
            UserError: the averages are those of another model
        """
        saved, parameters = state_dict["averages"], _trained(self._model)
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        if saved and {name: tuple(a.shape) for name, a in saved.items()} != shapes:
            raise UserError(
                "the checkpoint's average of the weights (MODEL.EMA) is that of another model: "
                f"{_first_difference(saved, shapes)}; resume with the config that it was "
                "trained with, or set MODEL.EMA.ENABLED False"
            )
        self._updates = state_dict["updates"]
        # Into tensors of our own, with the device and the memory format of the parameters.
        self._averages = {name: _as_float32(parameters[name]) for name in saved}
        _copy(saved, self._averages)


def _bare(model: nn.Module) -> nn.Module:
    return model.module if isinstance(model, DistributedDataParallel) else model


def _trained(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def _as_float32(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach().to(torch.float32, copy=True)


@torch.no_grad()
def _copy(source: dict[str, torch.Tensor], into: dict[str, Any]) -> None:
    for name, tensor in source.items():
        into[name].copy_(tensor)


def _first_difference(saved: dict[str, torch.Tensor], shapes: dict[str, tuple[int, ...]]) -> str:
    for name in sorted(saved.keys() | shapes.keys()):
        there = tuple(saved[name].shape) if name in saved else "missing"
        here = shapes.get(name, "missing")
        if there != here:
            return f"{name} is {there} there, {here} here"
    raise AssertionError("no difference")
