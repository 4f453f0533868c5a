"""Class outputs of a model's heads carried over from one list of classes to another, by name.

Shape shorthand: K foreground classes, L channels of a mask predictor, M mask side. Rows are a
layer's outputs, the first dimension of its weight and bias:

    cls_score             K + 1 rows, the background last
    bbox_pred             4 K rows, (dx, dy, dw, dh) class by class; 4 if class-agnostic
    mask_head.predictor   L blocks of rows: K, K + 1 (softmax, the background last) or 1
                          (class-agnostic); a block is one row in a convolution and M * M in a
                          fully connected layer
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ...errors import UsageError

CHOICES = ("by_name", "random", "as_is")
_LAYER = re.compile(
    r"(?:.*\.)?(?:box_predictor\.(?:\d+\.)?(?P<box>cls_score|bbox_pred)"
    r"|mask_head\.(?P<mask>predictor))"
)


@dataclass(frozen=True)
class ClassTransfer:
    """
    state: what to load; class layers have the target's shapes, or are left out (random)
    carried: the target's classes that have the source's outputs
    at_random: the target's classes that start at random
    layers: class layers that were rewritten
    left_random: class layers that start at random as a whole, with the reason
    """

    state: dict[str, torch.Tensor]
    carried: list[str]
    at_random: list[str]
    layers: list[str]
    left_random: dict[str, str]


def transfer_classes(
    state: Mapping[str, torch.Tensor],
    target: Mapping[str, torch.Tensor],
    source_names: Sequence[str],
    target_names: Sequence[str],
    how: str,
) -> ClassTransfer:
    """
    Args:
        state: the source's weights under the model's names
        target: the model's own state dict: its shapes, and its random start for new classes
        source_names, target_names: of the classes, in the order of the outputs
        how: "by_name": outputs of classes of the same name (but for case, "_", "-" and spaces);
            "random": no class output is taken; "as_is": by position
    Raises:
        UsageError: an unknown choice; lists that do not fit the weights; "as_is" with another
            number of classes
    """
    if how not in CHOICES:
        raise UsageError(f"class transfer {how!r}: expected one of {', '.join(CHOICES)}")
    _check_count(state, source_names, "the weights")
    _check_count(target, target_names, "the model")
    if how == "as_is":
        if len(source_names) != len(target_names):
            raise UsageError(
                f"classes as they are: the weights have {len(source_names)}, the model "
                f"{len(target_names)}; by_name carries over those of the same name"
            )
        return ClassTransfer(dict(state), list(target_names), [], [], {})
    origins = _origins(source_names, target_names) if how == "by_name" else {}
    result = dict(state)
    rewritten: list[str] = []
    left_random: dict[str, str] = {}
    for layer in class_layers(state):
        names = _tensors_of(layer, state)
        if any(name not in target for name in names):
            continue  # the model has no such head: left over, as any other tensor
        here, there = state[names[0]], target[names[0]]
        pair = _pair(layer, here, there, len(source_names), len(target_names))
        if pair is None or here.shape[1:] != there.shape[1:]:
            left_random[layer] = f"{_shape(here)} in the weights, {_shape(there)} in the model"
        elif not pair[0].classes:
            continue  # class-agnostic: as it is
        elif how == "random":
            left_random[layer] = "as asked for"
        else:
            _rewrite(result, target, layer, pair, origins)
            rewritten.append(layer)
        if layer in left_random:
            for name in names:
                del result[name]
    carried = [name for i, name in enumerate(target_names) if i in origins]
    at_random = [name for i, name in enumerate(target_names) if i not in origins]
    return ClassTransfer(result, carried, at_random, rewritten, left_random)


def class_layers(state: Mapping[str, torch.Tensor]) -> list[str]:
    """Layers with outputs for each class, as far as this module knows them."""
    parents = dict.fromkeys(name.rpartition(".")[0] for name in state if _ends(name))
    return [layer for layer in parents if _LAYER.fullmatch(layer)]


def number_of_classes(state: Mapping[str, torch.Tensor]) -> int | None:
    """K by the rows of cls_score; None if there is none."""
    scores = [
        state[name]
        for layer in class_layers(state)
        if layer.endswith("cls_score")
        for name in _tensors_of(layer, state)
    ]
    return scores[0].shape[0] - 1 if scores else None


def _shape(tensor: torch.Tensor) -> str:
    return " x ".join(map(str, tensor.shape))


def _ends(name: str) -> bool:
    return name.endswith((".weight", ".bias"))


def _tensors_of(layer: str, state: Mapping[str, torch.Tensor]) -> list[str]:
    return [name for end in ("weight", "bias") if (name := f"{layer}.{end}") in state]


def _check_count(state: Mapping[str, torch.Tensor], names: Sequence[str], what: str) -> None:
    count = number_of_classes(state)
    if count is not None and count != len(names):
        raise UsageError(
            f"{len(names)} class names for {what}, but outputs for {count} classes there: "
            f"{', '.join(list(names)[:10])}"
        )


def _origins(source: Sequence[str], target: Sequence[str]) -> dict[int, int]:
    """Index of a target class -> index of the source class of the same name."""
    exact = {name: i for i, name in enumerate(source)}
    loose: dict[str, int] = {}
    for i, name in enumerate(source):
        loose[_plain(name)] = -1 if _plain(name) in loose else i  # -1: two names become one
    found = {i: exact.get(name, loose.get(_plain(name), -1)) for i, name in enumerate(target)}
    return {i: origin for i, origin in found.items() if origin >= 0}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


@dataclass(frozen=True)
class _Layout:
    """
    classes, background: blocks of rows for them; agnostic has one block and neither
    rows: of a block
    """

    classes: int
    background: bool
    rows: int

    @property
    def blocks(self) -> int:
        return max(self.classes, 1) + self.background


def _layouts(layer: str, weight: torch.Tensor, classes: int) -> list[_Layout]:
    """What these rows can be, the likeliest first."""
    found = _LAYER.fullmatch(layer)
    kind = found and (found["box"] or found["mask"])
    tried = [_Layout(classes, False, 0), _Layout(classes, True, 0), _Layout(0, False, 0)]
    fitting = []
    for layout in tried:
        rows, rest = divmod(weight.shape[0], layout.blocks)
        if rest or rows == 0:
            continue
        if kind == "cls_score":
            fits = layout.background and rows == 1
        elif kind == "bbox_pred":
            fits = not layout.background and rows == 4
        else:
            fits = rows == 1 if weight.dim() == 4 else math.isqrt(rows) ** 2 == rows
        if fits:
            fitting.append(_Layout(layout.classes, layout.background, rows))
    return fitting


def _pair(
    layer: str, here: torch.Tensor, there: torch.Tensor, source: int, target: int
) -> tuple[_Layout, _Layout] | None:
    """The source's and the target's layout; None where none fits, or several with other blocks.

    Rows of a fully connected mask predictor can be read in two ways: 784 are a class-agnostic mask
    of side 28, and those of 4 classes of side 14.
    """
    pairs = [
        (one, other)
        for one in _layouts(layer, here, source)
        for other in _layouts(layer, there, target)
        if one.rows == other.rows and bool(one.classes) == bool(other.classes)
    ]
    return pairs[0] if len({one.rows for one, _ in pairs}) == 1 else None


def _rewrite(
    state: dict[str, torch.Tensor],
    target: Mapping[str, torch.Tensor],
    layer: str,
    layouts: tuple[_Layout, _Layout],
    origins: Mapping[int, int],
) -> None:
    """Put the target's rows in place of the source's."""
    here, there = layouts
    for name in _tensors_of(layer, state):
        old = state[name].unflatten(0, (here.blocks, here.rows))
        new = target[name].detach().clone().unflatten(0, (there.blocks, there.rows))
        for i, origin in origins.items():
            new[i] = old[origin].to(new.dtype)
        if here.background and there.background:
            new[-1] = old[-1].to(new.dtype)
        state[name] = new.flatten(0, 1)
