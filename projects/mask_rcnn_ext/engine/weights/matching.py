"""Which tensor of a source goes where in a model, by Detectron2's own rules."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from detectron2.checkpoint.c2_model_loading import align_and_update_state_dicts
from detectron2.layers import FrozenBatchNorm2d
from torch import nn

from ...errors import UserError
from .sources import Source

_COUNTER = "num_batches_tracked"


@dataclass
class Matching:
    """Every name of the model is in exactly one of the first four; `left_over` is the file's rest.

    Only a norm's counter of batches is copied where both have it and not missed anywhere: it has no
    part in any output.

    matched: model's name -> name in `Source.tensors`
    filled: model's names that a Caffe2 file has no use for, with their values: statistics of a
        frozen norm whose weight and bias have absorbed them
    mismatched: model's name -> (name in `Source.tensors`, shape there, shape in the model)
    missing: model's names for which there is nothing; they keep their random start
    left_over: names in `Source.tensors`
    """

    matched: dict[str, str] = field(default_factory=dict)
    filled: dict[str, torch.Tensor] = field(default_factory=dict)
    mismatched: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = field(
        default_factory=dict
    )
    missing: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)


def match(model: nn.Module, source: Source) -> Matching:
    """
    Args:
        model: as built from the config; its numbers are not looked at
        source: of `recognise`
    Raises:
        UserError: a name of the file fits two names of the model
    """
    wanted = model.state_dict()
    found = _matched(wanted, source)
    result = Matching(matched=found, filled=_absorbed_statistics(model, source, found))
    for name, value in wanted.items():
        if name in found or name in result.filled or name.endswith(_COUNTER):
            continue
        near = _candidate(name, source)
        if near is not None and source.tensors[near].shape != value.shape:
            shapes = (tuple(source.tensors[near].shape), tuple(value.shape))
            result.mismatched[name] = (near, *shapes)
        else:
            result.missing.append(name)
    used = {*found.values(), *(near for near, _, _ in result.mismatched.values())}
    result.left_over = [
        name for name in source.tensors if name not in used and not name.endswith(_COUNTER)
    ]
    return result


def converted(model: nn.Module, source: Source, matching: Matching) -> dict[str, torch.Tensor]:
    """The state dict to save: model's names, the model's dtypes, nothing shared with the source."""
    wanted = model.state_dict()
    values = {name: source.tensors[near] for name, near in matching.matched.items()}
    values |= matching.filled
    return {
        # clone: a view would be saved together with all that it is a view of
        name: values[name].to(wanted[name].dtype).clone(memory_format=torch.contiguous_format)
        for name in wanted
        if name in values
    }


def _matched(wanted: Mapping[str, torch.Tensor], source: Source) -> dict[str, str]:
    if not source.by_suffix:
        return {
            name: name
            for name, value in wanted.items()
            if name in source.tensors and source.tensors[name].shape == value.shape
        }
    # Each tensor an object of its own, to be found again by its identity in what comes back.
    mine = {name: tensor.view(tensor.shape) for name, tensor in source.tensors.items()}
    names = {id(tensor): name for name, tensor in mine.items()}
    try:
        with _quiet("detectron2.checkpoint.c2_model_loading"):
            # The Caffe2 names are converted already.
            aligned = align_and_update_state_dicts(dict(wanted), mine, c2_conversion=False)
    except ValueError as error:
        raise UserError(
            f"a name in the weights fits several names of the model ({error}); "
            "is this the backbone or detector that the config builds?"
        ) from error
    # Detectron2 leaves unmatched tensors in the answer, under the file's names.
    return {
        name: names[id(value)]
        for name, value in aligned.items()
        if name in wanted and wanted[name].shape == value.shape
    }


def _candidate(name: str, source: Source) -> str | None:
    """The longest name of the source that is the whole or the end of this one."""
    parts = name.split(".")
    for start in range(len(parts) if source.by_suffix else 1):
        if (end := ".".join(parts[start:])) in source.tensors:
            return end
    return None


def _absorbed_statistics(
    model: nn.Module, source: Source, found: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    filled = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, FrozenBatchNorm2d) or f"{prefix}.weight" not in found:
            continue
        mean, variance = f"{prefix}.running_mean", f"{prefix}.running_var"
        if source.kind in ("caffe2", "detectron1") and not {mean, variance} & set(found):
            filled[mean] = torch.zeros(module.num_features)
            filled[variance] = torch.ones(module.num_features) - module.eps
    return filled


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Detectron2 logs what our report says in a shorter way."""
    logger = logging.getLogger(name)
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
