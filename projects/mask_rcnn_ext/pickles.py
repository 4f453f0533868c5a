"""Read a pickle of plain data without executing anything that it says.

A pickle is a program. Here it may build numbers, text, bytes, plain containers and numpy arrays,
and call nothing else. numpy's own functions are not safe there: np.dtype takes any flags from a
pickle, and with them numbers could be passed off as pointers to objects. So each has a stand-in,
which takes what numpy itself writes. What passes may therefore go to numpy's functions later, as
when Detectron2 opens the same file by pickle.load.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import re
import struct
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import IO, Any

import numpy as np

# Bytes that the pickle now being read may still make; a list, to be changed in place.
_allowance: ContextVar[list[int]] = ContextVar("allowance")


def load_pickle(file: IO[bytes]) -> Any:
    """
    Args:
        file: a pickle of any protocol; strings of Python 2 are read as latin1
    Returns:
        numbers, text, bytes, dicts (also ordered ones), lists, tuples, sets, numpy scalars, and
        arrays of numbers, bools or text that may be written to
    Raises:
        Refused: it holds something else than data; nothing of it was executed
        Exception: of any other kind, for bytes that are no whole pickle
    """
    with within(_bytes_left(file)):
        return settle(_Unpickler(file, encoding="latin1").load())


@contextlib.contextmanager
def within(size: int) -> Iterator[None]:
    """Refuse what would make more bytes of arrays, bytes and containers than a file has.

    A pickle has every array's bytes in itself. One that asks for many copies of the same bytes, or
    for a length without the bytes, comes from nobody's `dump`, and would fill the memory.

    Args:
        size: of the file, in bytes
    """
    # Twice: bytes of old protocols come as text, and become an array afterwards.
    token = _allowance.set([2 * size])
    try:
        yield
    finally:
        _allowance.reset(token)


def settle(value: Any) -> Any:
    """`value` with arrays for their stand-ins; dicts and lists are changed in place, each once."""
    return _settle(value, {})


class Refused(pickle.UnpicklingError):
    """The message is what was refused, to follow "it holds"."""


class TooBig(Refused):
    """It would take far more memory than the file has bytes."""


class DtypeStandIn:
    """In place of numpy.dtype: numbers, bool and strings."""

    def __init__(self, spec: Any, align: Any = False, copy: Any = False):
        if not (isinstance(spec, str) and re.fullmatch(r"[<>|=]?[biufcSU]\d+", spec)):
            raise Refused(f"the numpy dtype {spec!r}")
        self.value = np.dtype(spec)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|"):
            raise Refused("a numpy dtype of an unknown byte order")
        self.value = self.value.newbyteorder(order)
        # The state is the byte order, fields, sizes and flags: of the type nothing else is free.
        if state != self.value.__reduce__()[2]:
            raise Refused("a numpy dtype with fields, sizes or flags of its own")


class ArrayStandIn:
    """In place of an array that waits for its state; `settle` puts the array there in the end."""

    value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, raw = state[-4:]
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


class _NdarrayName:
    """In place of numpy.ndarray, which occurs as an argument only."""

    def __new__(cls, *args: Any) -> _NdarrayName:
        raise Refused("a call of numpy.ndarray")


def _take(count: int) -> None:
    """Note so many bytes (or entries of a container) that a pickle makes out of what it has."""
    left = _allowance.get()
    left[0] -= count
    if left[0] < 0:
        raise TooBig("arrays, bytes or sets that are bigger than the file")


def _bytes_left(file: IO[bytes]) -> int:
    here = file.tell()
    end = file.seek(0, os.SEEK_END)
    file.seek(here)
    return end - here


def _array(raw: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    if isinstance(raw, str):  # a pickle of Python 2
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray):  # a number would become as many bytes
        raise Refused(f"an array made of {type(raw).__name__}")
    if not isinstance(dtype, DtypeStandIn):
        raise Refused("an array without a dtype of numbers")
    _take(len(raw))
    array = np.frombuffer(bytearray(raw), dtype.value)  # a copy, which may be written to
    if order == "K" and axes is not None:  # what numpy writes for permuted axes
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> ArrayStandIn:
    if subtype is not _NdarrayName or shape != (0,) or typecode not in (b"b", "b"):
        raise Refused("an array that does not begin empty")
    return ArrayStandIn()


def _scalar(dtype: Any, raw: Any) -> Any:
    return _array(raw, dtype, (), "C")[()]


def _latin1(text: str, encoding: str) -> bytes:
    """What pickles of old protocols call for bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused(f"the encoding {encoding!r}")
    _take(len(text))
    return text.encode("latin1")


def _bytes(kind: type[bytes] | type[bytearray]) -> Callable[..., bytes | bytearray]:
    """bytes and bytearray of given content; called with a number they would fill the memory."""

    def make(content: Any = b"", encoding: str = "latin1") -> bytes | bytearray:
        if isinstance(content, str):
            content = _latin1(content, encoding)
        if not isinstance(content, bytes | bytearray):
            raise Refused(f"{kind.__name__} made of {type(content).__name__}")
        _take(len(content))
        return kind(content)

    return make


def _container(kind: Callable[[Any], Any]) -> Callable[..., Any]:
    """A set or a dict of the entries of a list."""

    def make(entries: Any = ()) -> Any:
        _take(len(entries))
        return kind(entries)

    return make


# name in a file -> what it means here
NUMPY: dict[str, Any] = {"numpy.dtype": DtypeStandIn, "numpy.ndarray": _NdarrayName}
for _core in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
    NUMPY[f"{_core}.multiarray._reconstruct"] = _reconstruct
    NUMPY[f"{_core}.multiarray.scalar"] = _scalar
    NUMPY[f"{_core}.numeric._frombuffer"] = _array

_PLAIN: dict[str, Any] = {
    "collections.OrderedDict": _container(collections.OrderedDict),
    "_codecs.encode": _latin1,
}
for _builtins in ("builtins", "__builtin__"):  # Python 3, Python 2
    _PLAIN[f"{_builtins}.complex"] = complex
    _PLAIN |= {f"{_builtins}.{kind.__name__}": _container(kind) for kind in (frozenset, set)}
    _PLAIN |= {f"{_builtins}.{kind.__name__}": _bytes(kind) for kind in (bytearray, bytes)}

_ADMITTED = {**NUMPY, **_PLAIN}


# Python's own unpickler in its slow form, the one whose BUILD can be restricted.
_SlowUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_SlowUnpickler):
    dispatch = dict(_SlowUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ADMITTED:
            raise Refused(f"{module}.{name}")
        return _ADMITTED[f"{module}.{name}"]

    def load_build(self) -> None:
        """Set the state of what lies below it on the stack."""
        target = self.stack[-2]
        if type(target) is collections.OrderedDict:
            self.stack.pop()  # a state dict's _metadata, the versions of its modules
        elif type(target) in (DtypeStandIn, ArrayStandIn):
            super().load_build()
        else:
            raise Refused(f"a state for a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        """Python's own makes the array before it looks whether the file has the bytes."""
        (size,) = struct.unpack("<Q", self.read(8))
        _take(size)
        self.append(bytearray(self.read(size)))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


def _settle(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """
    Args:
        value: what an unpickler built
        seen: id -> (container, result); the container is kept, so that its id stays its own
    """
    if isinstance(value, ArrayStandIn | DtypeStandIn):
        return value.value
    if not isinstance(value, dict | list) and type(value) is not tuple:
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = (value, value)
    if isinstance(value, dict):
        for key in value:
            value[key] = _settle(value[key], seen)
    elif isinstance(value, list):
        value[:] = [_settle(item, seen) for item in value]
    else:
        seen[id(value)] = (value, tuple(_settle(item, seen) for item in value))
    return seen[id(value)][1]
