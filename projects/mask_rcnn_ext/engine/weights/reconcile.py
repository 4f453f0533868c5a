"""Weights of other classes than the data's: refused, or made to fit as the config says.

Between reading a file and loading it into a model; a resumed run has its own weights and needs none
of this.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ...errors import UsageError
from .classes import CHOICES, class_layers, number_of_classes, transfer_classes
from .known_classes import guess_classes
from .sources import to_tensor

_log = logging.getLogger("mask_rcnn_ext")
_KEY = "MODEL.CLASS_TRANSFER"
_DDP = "module."


def reconcile_classes(
    checkpoint: dict[str, Any], model: nn.Module, target_names: Sequence[str], how: str
) -> dict[str, Any]:
    """
    Args:
        checkpoint: of `read_checkpoint`; stays as it is
        model: as built, its class outputs at their random start
        target_names: classes of the data, in the order of the model's outputs; an empty list where
            they are not known
        how: MODEL.CLASS_TRANSFER: "by_name", "random", "as_is", or "" to refuse other classes
    Returns:
        the checkpoint, with class outputs that fit the model, or without them
    Raises:
        UsageError: other classes and `how` is ""; class lists that do not fit the weights
    """
    if how not in ("", *CHOICES):
        raise UsageError(f"{_KEY} is {how!r}, expected '' or one of {', '.join(CHOICES)}")
    target = model.state_dict()
    state = {
        str(name).removeprefix(_DDP): tensor
        for name, value in checkpoint["model"].items()
        if (tensor := to_tensor(value)) is not None
    }
    shared = [layer for layer in class_layers(state) if f"{layer}.weight" in target]
    if not shared or not target_names:
        return checkpoint
    names = checkpoint.get("class_names")
    names = [str(name) for name in names] if isinstance(names, list | tuple) else None
    if names == list(target_names) and how != "random":
        _say_what_does_not_fit(state, target, shared)
        return checkpoint
    if not how:
        if names is not None:
            raise UsageError(_refusal(names, target_names))
        _say_what_does_not_fit(state, target, shared)
        return checkpoint
    if names is None and how == "as_is":
        _say_what_does_not_fit(state, target, shared)
        return checkpoint
    if names is None:
        names = _guessed(state, how)
    done = transfer_classes(state, target, names, target_names, how)
    _log.info(
        "%s %s: %d of %d classes have the weights' outputs; at random: %s",
        _KEY,
        how,
        len(done.carried),
        len(target_names),
        ", ".join(done.at_random) or "none",
    )
    if how == "by_name" and not done.carried:
        _log.warning("%s by_name: no class of the data has the name of one of the weights'", _KEY)
    kept = {
        name: done.state.get(str(name).removeprefix(_DDP), value)
        for name, value in checkpoint["model"].items()
        if str(name).removeprefix(_DDP) in done.state or str(name).removeprefix(_DDP) not in state
    }
    return {**checkpoint, "model": kept}


def _refusal(source: Sequence[str], target: Sequence[str]) -> str:
    return (
        f"the weights are for other classes than the data: {differences(source, target)}. Set "
        f"{_KEY} to by_name (outputs of classes of the same name are carried over, the others "
        "start at random), random (all of them do) or as_is (by position, if you know that they "
        "mean the same)"
    )


def differences(source: Sequence[str], target: Sequence[str]) -> str:
    """In words, from the weights' classes to the data's; a few names of each kind."""
    if sorted(source) == sorted(target):
        first = next(i for i, name in enumerate(source) if name != target[i])
        return (
            f"the same {len(target)} names in another order (class {first} is {source[first]!r} "
            f"there, {target[first]!r} here)"
        )
    gone = [name for name in source if name not in set(target)]
    new = [name for name in target if name not in set(source)]
    parts = [f"{len(source)} there, {len(target)} here"]
    parts += [f"only there: {_few(gone)}"] if gone else []
    parts += [f"only here: {_few(new)}"] if new else []
    return "; ".join(parts)


def _few(names: Sequence[str], shown: int = 8) -> str:
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" * (len(names) > shown))


def _guessed(state: Mapping[str, torch.Tensor], how: str) -> list[str]:
    """Class names for weights that have none: a published list's, or numbers if they are moot."""
    count = number_of_classes(state)
    guess = guess_classes(count)
    if how == "random":
        return [str(number) for number in range(count or 0)]
    if guess is None:
        raise UsageError(
            f"{_KEY} is by_name, but the weights do not say their classes ({count} of them). Name "
            "them: `mask-rcnn-ext weights transfer --from-classes a,b,c` writes weights that fit"
        )
    who, names = guess
    _log.warning(
        "The weights do not say their %d classes; they are taken for %s's. If they are others, "
        "use `mask-rcnn-ext weights transfer --from-classes a,b,c`",
        len(names),
        who,
    )
    return names


def _say_what_does_not_fit(
    state: Mapping[str, torch.Tensor], target: Mapping[str, torch.Tensor], layers: Sequence[str]
) -> None:
    """One line for what Detectron2 leaves out, tensor by tensor, since its shape is another."""
    other = [
        f"{layer} ({state[name].shape[0]} outputs in the weights, {target[name].shape[0]} here)"
        for layer in layers
        if (name := f"{layer}.weight") in state and state[name].shape != target[name].shape
    ]
    if other:
        _log.warning(
            "These parts start at random: %s. %s by_name carries over classes of the same name",
            ", ".join(other),
            _KEY,
        )
