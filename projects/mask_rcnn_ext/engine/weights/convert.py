"""Published weights -> a checkpoint of the model that a config builds."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import nn

from ...errors import UsageError, UserError
from ...files import atomic_write
from .classes import number_of_classes
from .fetch import local_path
from .matching import Matching, converted, match
from .requirements import Requirement, requirements
from .safe_read import read_weights
from .safetensors_file import safetensors_bytes
from .sources import Source, recognise


@dataclass(frozen=True)
class Conversion:
    """What was found, and the state dict to save (model's names; only what the file has).

    class_names: of the outputs, where the file says them and has those outputs
    """

    source: Source
    matching: Matching
    needs: list[Requirement]
    state: dict[str, torch.Tensor]
    class_names: list[str] | None


def convert(cfg: CfgNode, weights: str) -> Conversion:
    """
    Args:
        cfg: names the model; MODEL.WEIGHTS and MODEL.DEVICE play no part
        weights: a path, or a name that `local_path` can fetch
    Raises:
        UserError: the file is missing, no checkpoint, or holds more than data
    """
    path = local_path(weights)
    content = read_weights(path)
    source = recognise(content, str(path))
    model = build_on_cpu(cfg)
    matching = match(model, source)
    state = converted(model, source, matching)
    names = content.get("class_names")
    named = isinstance(names, list | tuple) and len(names) == number_of_classes(state)
    return Conversion(
        source=source,
        matching=matching,
        needs=requirements(source, cfg),
        state=state,
        class_names=[str(name) for name in names] if named else None,
    )


def build_on_cpu(cfg: CfgNode) -> nn.Module:
    """The config's model, wherever the config wants it to run."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "cpu"
    cfg.freeze()
    return build_model(cfg)


def check_output(output: str | Path, weights: str, *, force: bool) -> Path:
    """Refuse, before the work is done, a place that cannot or should not be written to.

    Raises:
        UsageError: no .pth or .safetensors; there is a file already; the weights themselves; no
            such folder
    """
    path = Path(output).expanduser()
    if path.suffix not in (".pth", ".safetensors"):
        # Detectron2 reads by suffix: a .pkl would be unpickled, another name guessed at.
        raise UsageError(f"--output is {output}, expected a name that ends in .pth or .safetensors")
    if not path.parent.is_dir():
        raise UsageError(f"--output is {output}, but there is no folder {path.parent}")
    if path.is_dir():
        raise UsageError(f"--output is {output}, which is a folder")
    if "://" not in weights and path.resolve() == Path(weights).expanduser().resolve():
        raise UsageError(f"--output is {output}, the weights themselves; choose another name")
    if path.exists() and not force:
        raise UsageError(f"{output} exists already; add --force to replace it")
    return path


def save(
    state: dict[str, torch.Tensor],
    path: Path,
    *,
    class_names: Sequence[str] | None = None,
    **about: Any,
) -> None:
    """Write a checkpoint that needs no matching when it is loaded.

    Args:
        state: model's names -> tensors
        path: of `check_output`; its ending decides the format
        class_names: what the outputs mean, where that is known
        about: plain values to keep beside the weights
    Raises:
        UserError: the disk is full, no permission, ...; no file is left then, or the old one
    """
    beside = {"__author__": "mask_rcnn_ext", "conversion": about}
    beside |= {"class_names": list(class_names)} if class_names else {}
    try:
        with atomic_write(path) as file:
            if path.suffix == ".safetensors":
                file.write(safetensors_bytes(state, beside))
            else:
                torch.save({"model": state, **beside}, file)
    except OSError as error:
        reason = error.strerror or errno.errorcode.get(error.errno or 0, str(error))
        raise UserError(f"cannot write {path}: {reason}") from error
