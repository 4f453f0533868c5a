"""`.safetensors`: tensors by name, and what a checkpoint holds beside them as text in the header.

The header's entries are strings. Plain values (class names, iteration) are written there as JSON,
under their own names; tensors beside the model, of an optimizer for example, have no place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as to_bytes

_PLAIN_TEXT = "__author__"  # the one entry that is text already
_FORMAT = "format"  # "pt" in files of other libraries: they ask for it


def is_safetensors(start: bytes, size: int) -> bool:
    """
    Args:
        start: the file's first bytes, at least 9
        size: of the whole file, in bytes
    """
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= size - 8


def load_safetensors(path: str | Path) -> dict[str, Any]:
    """
    Returns:
        {"model": name -> tensor on the CPU} and the header's entries; those that are no JSON are
        left out, as other programs write them for themselves
    Raises:
        Exception: the header lies about sizes, or the file is cut short
    """
    with safe_open(str(path), framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = file.metadata() or {}
    content: dict[str, Any] = {}
    for key, text in about.items():
        if key == _PLAIN_TEXT:
            content[key] = text
        elif key not in (_FORMAT, "model"):
            try:
                content[key] = json.loads(text)
            except ValueError:
                continue
    return {"model": tensors, **content}


def safetensors_bytes(state: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> bytes:
    """A whole file.

    Args:
        state: name -> tensor; tensors that share memory are written once each
        about: plain values (text, numbers, lists, dicts) to keep in the header
    """
    header = {key: json.dumps(value) for key, value in about.items() if key != _PLAIN_TEXT}
    if _PLAIN_TEXT in about:
        header[_PLAIN_TEXT] = str(about[_PLAIN_TEXT])
    tensors = {
        # clone: safetensors refuses tensors that share memory
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
    return to_bytes(tensors, {_FORMAT: "pt", **header})
