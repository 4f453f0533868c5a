"""A detector's weights -> weights for the same detector on other classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode

from ...errors import UsageError, UserError
from .classes import ClassTransfer, number_of_classes, transfer_classes
from .convert import build_on_cpu
from .fetch import local_path
from .known_classes import guess_classes
from .matching import Matching, match
from .safe_read import read_weights
from .sources import Source, recognise


@dataclass(frozen=True)
class Transfer:
    """
    source_names, target_names: the classes
    guessed: whose list the source's names are, where the file does not say them; or ""
    done: which classes came from where; `done.state` is what to save
    matching: of the tensors that have nothing to do with classes
    """

    source: Source
    source_names: list[str]
    target_names: list[str]
    guessed: str
    done: ClassTransfer
    matching: Matching


def transfer(
    cfg: CfgNode, weights: str, target_names: Sequence[str], source_names: Sequence[str] = ()
) -> Transfer:
    """
    Args:
        cfg: the model for the new classes; its number of classes is set here
        weights: a path, or a name that `local_path` can fetch
        target_names: in the order of the new model's outputs
        source_names: of the weights; where none are given, those that the file holds, or those of
            the published weights that have so many classes
    Raises:
        UsageError: names that do not fit the weights, or are known from nowhere
        UserError: no weights, or weights without class outputs
    """
    path = local_path(weights)
    content = read_weights(path)
    source = recognise(content, str(path))
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = len(target_names)
    cfg.freeze()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(max(cfg.SEED, 0))  # the same call writes the same file
        model = build_on_cpu(cfg)
    matching = match(model, source)
    state = {name: source.tensors[near] for name, near in matching.matched.items()}
    state |= matching.filled
    state |= {name: source.tensors[near] for name, (near, _, _) in matching.mismatched.items()}
    count = number_of_classes(state)
    if count is None:
        raise UserError(
            f"{weights} has no class outputs that the model of this config has (cls_score); there "
            "is nothing to transfer by name. `weights convert` takes a backbone"
        )
    names, guessed = _names(content, source_names, count)
    target = model.state_dict()
    done = transfer_classes(state, target, names, target_names, "by_name")
    fitting = {
        name: tensor.to(target[name].dtype).clone(memory_format=torch.contiguous_format)
        for name, tensor in done.state.items()
        if tensor.shape == target[name].shape
    }
    others = {n: v for n, v in matching.mismatched.items() if n not in fitting}
    return Transfer(
        source=source,
        source_names=names,
        target_names=list(target_names),
        guessed=guessed,
        done=ClassTransfer(fitting, done.carried, done.at_random, done.layers, done.left_random),
        matching=Matching(
            matching.matched, matching.filled, others, matching.missing, matching.left_over
        ),
    )


def _names(content: Any, given: Sequence[str], count: int) -> tuple[list[str], str]:
    if given:
        return list(given), ""
    found = content.get("class_names")
    if isinstance(found, list | tuple) and found:
        return [str(name) for name in found], ""
    guess = guess_classes(count)
    if guess is None:
        raise UsageError(
            f"the weights have {count} classes and do not say which. Give --from-dataset NAME, or "
            "--from-classes a,b,c in the order of the outputs"
        )
    return guess[1], guess[0]


def as_text(result: Transfer) -> str:
    """The report for a terminal: a line for each class, then what is not as in the file."""
    carried = set(result.done.carried)
    width = max(len(name) for name in result.target_names)
    guessed = f" (not in the file; {result.guessed}'s list has as many)" if result.guessed else ""
    lines = [
        f"weights: {result.source.kind}, {len(result.source_names)} classes{guessed}",
        f"{len(carried)} of {len(result.target_names)} classes are carried over by name:",
    ]
    lines += [
        f"  {name:<{width}}  {'from the weights' if name in carried else 'random start'}"
        for name in result.target_names
    ]
    lines.append("class outputs rewritten: " + (", ".join(result.done.layers) or "none"))
    for layer, reason in result.done.left_random.items():
        lines.append(f"random start as a whole: {layer}: {reason}")
    for name, (_, there, here) in result.matching.mismatched.items():
        if not any(name.startswith(f"{layer}.") for layer in result.done.left_random):
            lines.append(
                f"other shape, not taken: {name}: {there} in the file, {here} in the model"
            )
    for title, names in (
        ("missing in the file", result.matching.missing),
        ("left over in the file", result.matching.left_over),
    ):
        if names:
            lines.append(
                f"{title} ({len(names)}): {', '.join(names[:6])}" + " ..." * (len(names) > 6)
            )
    return "\n".join(lines)


def as_json(result: Transfer) -> dict[str, Any]:
    """The same for programs."""
    return {
        "kind": result.source.kind,
        "source_classes": result.source_names,
        "guessed": result.guessed,
        "classes": {
            name: "weights" if name in result.done.carried else "random"
            for name in result.target_names
        },
        "rewritten": result.done.layers,
        "random": result.done.left_random,
        "other_shape": list(result.matching.mismatched),
        "missing": result.matching.missing,
        "left_over": result.matching.left_over,
    }
