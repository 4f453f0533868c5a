"""Reading a mapping by hand: each wrong key or type is told with its place and what is expected."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import UsageError

_REQUIRED: Any = object()


class Fields:
    """One mapping of a data set's YAML.

    Args:
        content: what stands there, hopefully a mapping
        where: file and key, for messages
        known: the keys that it may have; None for any text
    Raises:
        UsageError: from the constructor for no mapping or an unknown key, from the methods for a
            value of another type
    """

    def __init__(self, content: Any, where: str, known: Sequence[str] | None):
        self.where = where
        if not isinstance(content, Mapping):
            keys = f" with any of {', '.join(known)}" if known else ""
            raise UsageError(f"{where} holds {shown(content)}, expected a mapping{keys}")
        self._content = content
        for key in content:
            if not isinstance(key, str):
                raise UsageError(f"{where}: the key {shown(key)} is not text; put it in quotes")
            if known is not None and key not in known:
                near = difflib.get_close_matches(key, known, n=2, cutoff=0.5)
                hint = f"did you mean {' or '.join(near)}? " if near else ""
                raise UsageError(f"{where}: unknown key {key!r}; {hint}known: {', '.join(known)}")

    def __iter__(self) -> Iterator[str]:
        return iter(self._content)

    def has(self, key: str) -> bool:
        """Whether it is there and not null."""
        return self._content.get(key) is not None

    def value(self, key: str) -> Any:
        return self._content.get(key)

    def text(self, key: str, default: str = _REQUIRED) -> str:
        """A text that is not empty."""
        if not self.has(key):
            if default is _REQUIRED:
                raise UsageError(f"{self.where}: {key} is missing")
            return default
        value = self.value(key)
        if not isinstance(value, str) or not value:
            raise UsageError(f"{self.where}: {key} is {shown(value)}, expected text")
        return value

    def choice(self, key: str, choices: Sequence[str], default: str) -> str:
        value = self.text(key, default)
        if value not in choices:
            near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(
                f"{self.where}: {key} is {value!r}, expected one of {', '.join(choices)}{hint}"
            )
        return value

    def texts(self, key: str, least: int = 0) -> tuple[str, ...]:
        """A list of texts, each once; () where the key is missing."""
        if not self.has(key):
            return ()
        value = self.value(key)
        if not isinstance(value, list):
            raise UsageError(f"{self.where}: {key} is {shown(value)}, expected a list of texts")
        if len(value) < least:
            raise UsageError(f"{self.where}: {key} is an empty list")
        for number, entry in enumerate(value):
            if not isinstance(entry, str) or not entry:
                raise UsageError(
                    f"{self.where}: {key}[{number}] is {shown(entry)}, expected text"
                    + _quote_hint(entry)
                )
            if entry in value[:number]:
                raise UsageError(f"{self.where}: {key} has {entry!r} twice")
        return tuple(value)

    def mapping(self, key: str, default: dict[str, Any] | None = None) -> dict[str, Any]:
        """A mapping whose keys are texts."""
        if not self.has(key):
            if default is None:
                raise UsageError(f"{self.where}: {key} is missing")
            return default
        inner = Fields(self.value(key), f"{self.where}: {key}", None)
        return {name: inner.value(name) for name in inner}


def shown(value: Any) -> str:
    """A value with its type's name, short enough for a message."""
    kinds = {dict: "a mapping", list: "a list", bool: "the boolean", int: "the number"}
    text = repr(value)
    kind = kinds.get(type(value), "")
    if value is None:
        return "nothing"
    return f"{kind} {text if len(text) <= 60 else text[:57] + '...'}".strip()


def _quote_hint(value: Any) -> str:
    # YAML reads yes, no, on, off as booleans and 1 as a number.
    return "; put it in quotes" if isinstance(value, bool | int | float) else ""
