"""A stage's config as plain values: its YAML with all bases, then its overrides.

What Detectron2 and yacs make of them, without their defaults: these belong to the code.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError
from .spec import Stage

_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
_BASE = "_BASE_"


def config_of(stage: Stage, configs: Path) -> dict[str, Any]:
    """
    Args:
        configs: folder that stage.config is in
    Returns:
        "SOLVER.BASE_LR" -> 0.02, and so on: all keys that the YAMLs or the overrides name
    Raises:
        UsageError: a YAML that is missing or not a config
    """
    given = dict(_flat(_with_bases(configs / stage.config, ())))
    words = stage.words
    given |= dict(zip(words[0::2], words[1::2], strict=True))
    return {key: _decoded(value) for key, value in given.items()}


def _with_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    """
    Args:
        above: files that have this one as their base
    """
    path = Path(os.path.normpath(path))
    if path in above:
        raise UsageError(f"{path} is its own {_BASE}")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _SafeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"config {path} cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise UsageError(f"config {path}: expected keys and values, got {content!r}")
    named = content.pop(_BASE, [])
    bases = named if isinstance(named, list) else [named]
    if not all(isinstance(base, str) for base in bases):
        raise UsageError(f"config {path}: {_BASE} is {named!r}, expected a path or several")
    merged: dict[str, Any] = {}
    for base in bases:
        # An absolute path stays what it is.
        _merge(_with_bases(path.parent / Path(base).expanduser(), (*above, path)), merged)
    _merge(content, merged)
    return merged


def _merge(given: Mapping[str, Any], into: dict[str, Any]) -> None:
    for key, value in given.items():
        there = into.get(key)
        if isinstance(value, dict) and isinstance(there, dict):
            _merge(value, there)
        else:
            into[key] = value


def _flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _decoded(value: Any) -> Any:
    """As yacs: a string that is a Python literal counts as that; no tuples, which JSON lacks."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            return value
    return _listed(value)


def _listed(value: Any) -> Any:
    return [_listed(one) for one in value] if isinstance(value, list | tuple) else value
