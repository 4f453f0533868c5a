"""What a weights file holds, without a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from .classes import number_of_classes
from .report import part_of
from .safe_read import format_of, read_weights
from .sources import WRAPPERS, Source, recognise, to_tensor

_DEPTH = 4  # of "trainer._trainer.optimizer.state"
_SHOWN = 12  # class names in a table
_FEW = 12  # entries of a container that are told one by one


@dataclass(frozen=True)
class Part:
    """tensors, parameters: how many; dtypes: names in alphabetical order."""

    tensors: int
    parameters: int
    bytes: int
    dtypes: list[str]


@dataclass(frozen=True)
class Contents:
    """
    kind, author: as in `Source`
    format: "torch", "pickle" or "safetensors"
    parts: part of the model -> what it has
    class_names: None where the file has none
    iteration: 0-based, the last one done; None where it does not say
    beside: what the file holds beside the model: its path -> "12 tensors, 3.4 MB", or the value
    """

    path: Path
    size: int
    format: str
    source: Source
    parts: dict[str, Part]
    class_names: list[str] | None
    iteration: int | None
    beside: dict[str, str]

    @property
    def total(self) -> Part:
        return _part(list(self.source.tensors.values()))


def contents(path: Path) -> Contents:
    """
    Raises:
        UserError: no weights, or not to be read; as `read_weights` and `recognise`
    """
    content = read_weights(path)
    source = recognise(content, str(path))
    groups: dict[str, list[torch.Tensor]] = {}
    for name, tensor in source.tensors.items():
        groups.setdefault(part_of(name), []).append(tensor)
    names, iteration = content.get("class_names"), content.get("iteration")
    return Contents(
        path=path,
        size=path.stat().st_size,
        format=_format(path),
        source=source,
        parts={part: _part(tensors) for part, tensors in groups.items()},
        class_names=[str(name) for name in names] if isinstance(names, list | tuple) else None,
        iteration=iteration if isinstance(iteration, int) else None,
        beside=dict(_beside(content, source)),
    )


def _format(path: Path) -> str:
    with path.open("rb") as file:
        return format_of(file.read(64), path, path.stat().st_size)


def _part(tensors: Sequence[torch.Tensor]) -> Part:
    return Part(
        tensors=len(tensors),
        parameters=sum(tensor.numel() for tensor in tensors),
        bytes=sum(tensor.numel() * tensor.element_size() for tensor in tensors),
        dtypes=sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}),
    )


def _beside(content: Mapping[Any, Any], source: Source) -> Iterator[tuple[str, str]]:
    inside = set(source.original.values())
    for key, value in content.items():
        known = str(key) in ("class_names", "iteration", "__author__", "matching_heuristics")
        if known or str(key) in WRAPPERS or str(key) in inside:
            continue
        yield from _summary(str(key), value, _DEPTH)


def _summary(path: str, value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and depth > 1 and 0 < len(value) <= _FEW:
        for key, inner in value.items():
            yield from _summary(f"{path}.{key}", inner, depth - 1)
        return
    tensors = [tensor for _, tensor in named_tensors(value)]
    if tensors:
        part = _part(tensors)
        yield path, f"{_count(part.tensors, 'tensor')}, {part.bytes / 1e6:.1f} MB"
    elif isinstance(value, Mapping | list | tuple | set):
        yield path, _count(len(value), "entry", "entries")
    else:
        yield path, repr(value)[:60]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def named_tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor and array of numbers in nested containers, with its path ("model.a.weight")."""
    waiting: list[tuple[str, Any]] = [(name, value)]
    seen: set[int] = set()
    while waiting:
        path, one = waiting.pop()
        if isinstance(one, Mapping | list | tuple):
            if id(one) not in seen:
                seen.add(id(one))
                items = one.items() if isinstance(one, Mapping) else enumerate(one)
                inner = [(f"{path}.{key}" if path else str(key), each) for key, each in items]
                waiting.extend(reversed(inner))
        elif (tensor := to_tensor(one)) is not None:
            yield path, tensor


def as_text(found: Contents) -> str:
    """For a terminal."""
    source, total = found.source, found.total
    facts = {
        "file": f"{found.path}, {found.size / 1e6:.1f} MB, {found.format}",
        "kind": source.kind + (f", by {source.author!r}" if source.author else ""),
        "tensors": f"{total.tensors}, {total.parameters:,} numbers, {', '.join(total.dtypes)}",
        "classes": _classes(found),
        "iteration": "not said" if found.iteration is None else str(found.iteration),
    }
    lines = [f"{key:<10} {value}" for key, value in facts.items()]
    width = max(17, *map(len, found.parts))
    lines += ["", f"{'part':<{width}}{'tensors':>9}{'numbers':>14}{'MB':>9}  types"]
    lines += [
        f"{name:<{width}}{part.tensors:>9}{part.parameters:>14,}{part.bytes / 1e6:>9.1f}  "
        + ", ".join(part.dtypes)
        for name, part in found.parts.items()
    ]
    if found.beside:
        lines += ["", "beside the model:"]
        lines += [f"  {path}: {what}" for path, what in found.beside.items()]
    return "\n".join(lines)


def as_json(found: Contents) -> dict[str, Any]:
    """The same for programs."""
    return {
        "file": str(found.path),
        "bytes": found.size,
        "format": found.format,
        "kind": found.source.kind,
        "author": found.source.author,
        "total": asdict(found.total),
        "parts": {name: asdict(part) for name, part in found.parts.items()},
        "class_names": found.class_names,
        "iteration": found.iteration,
        "beside": found.beside,
        "tensors": {
            found.source.original[name]: list(tensor.shape)
            for name, tensor in found.source.tensors.items()
        },
    }


def _classes(found: Contents) -> str:
    names = found.class_names
    if names is None:
        count = number_of_classes(found.source.tensors)
        return "not said" + ("" if count is None else f"; it has outputs for {count}")
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{len(names)}: {', '.join(names[:_SHOWN])}{more}"
