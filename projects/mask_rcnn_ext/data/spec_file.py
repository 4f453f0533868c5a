"""The documents of a data set's YAML file, read so that no file can do harm.

Only plain values are made (PyYAML's safe loader). Aliases can make a few lines stand for billions
of values, so that the values are counted before any is made; a key that is given twice, which YAML
readers let pass, is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import UsageError

_LARGEST = 1_000_000  # bytes
_MOST_VALUES = 100_000
_DEEPEST = 50


def read_documents(path: Path) -> list[tuple[str, Any]]:
    """(place for messages, content) of each document that is not empty.

    Args:
        path: a YAML file
    Raises:
        UsageError: no such file, no YAML, more than a data set can need
    """
    text = _text(path)
    documents: list[tuple[str, Any]] = []
    try:
        loader = yaml.SafeLoader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None
            where = f"{path} (document {len(documents) + 1})" if documents else str(path)
            _check_node(node, where)
            content = loader.construct_document(node)
            if content is not None:
                documents.append((where, content))
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"{path} is not a YAML that can be read: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} nests too deep to describe a data set") from error
    if not documents:
        raise UsageError(f"{path} is empty; docs/datasets.md shows what describes a data set")
    return documents


def _text(path: Path) -> str:
    if not path.is_file():  # also no device or pipe, whose reading would not end
        what = "is not a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}; expected a data set's YAML")
    try:
        size = path.stat().st_size
        if size > _LARGEST:
            raise UsageError(f"{path} has {size} bytes; a data set's YAML has a few hundred")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not text in UTF-8: {error}") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _check_node(root: yaml.Node, where: str) -> None:
    """Count what the document stands for, each alias as often as it is used."""
    count = 0
    stack = [(root, 1)]
    while stack:
        node, depth = stack.pop()
        count += 1
        if count > _MOST_VALUES:
            raise UsageError(
                f"{where} stands for more than {_MOST_VALUES} values; its aliases multiply"
            )
        if depth > _DEEPEST:
            raise UsageError(f"{where} nests deeper than {_DEEPEST} levels")
        if isinstance(node, yaml.MappingNode):
            seen: set[str] = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        line = key.start_mark.line + 1
                        raise UsageError(f"{where}, line {line}: the key {key.value!r} comes twice")
                    seen.add(key.value)
                stack += [(key, depth + 1), (value, depth + 1)]
        elif isinstance(node, yaml.SequenceNode):
            stack += [(child, depth + 1) for child in node.value]
