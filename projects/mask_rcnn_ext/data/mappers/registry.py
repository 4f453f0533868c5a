"""Mappers by name, and the one that a config names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.registry import Registry

from ...errors import UsageError
from ..input_keys import with_input_keys

MAPPER_REGISTRY = Registry("DATASET_MAPPER")
MAPPER_REGISTRY.__doc__ = """
Mappers from a record of Detectron2's standard form to what a model takes; INPUT.MAPPER names one.

The registered object is called with `obj(cfg, is_train)` and returns a picklable callable: it gets
a record, which it must not change, and returns the sample or None to have another one taken.
"""


def build_mapper(cfg: CfgNode, is_train: bool) -> Callable[[dict[str, Any]], Any]:
    """The mapper that INPUT.MAPPER names.

    Raises:
        UsageError: nobody has registered that name; or from the mapper, keys that cannot be
    """
    name = with_input_keys(cfg).INPUT.MAPPER
    if name not in MAPPER_REGISTRY:
        known = ", ".join(sorted(known for known, _ in MAPPER_REGISTRY))
        raise UsageError(f"INPUT.MAPPER is {name!r}, which nobody has registered; known: {known}")
    return MAPPER_REGISTRY.get(name)(cfg, is_train)
