"""Read published weights without executing anything that a file says.

A pickle is a program. Here it may build tensors, numbers in numpy arrays and plain containers, and
call nothing else: torch's weights_only loader reads `.pth`, an unpickler of the same kind `.pkl`.
Both get stand-ins for numpy's own functions, because np.dtype takes any flags from a pickle, and
with them numbers could be passed off as pointers to objects.
"""

from __future__ import annotations

import collections
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from ...errors import UsageError, UserError

# What torch.save wrote before it wrote zip archives: the pickle of a fixed number comes first.
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_weights(path: str | Path) -> Any:
    """What the file holds; its content decides the format, not its name.

    Args:
        path: a local file of torch.save, or a pickle (also of Python 2) of numpy arrays
    Returns:
        plain containers of tensors (on the CPU), numpy arrays and scalars, numbers and strings
    Raises:
        UsageError: there is no such file
        UserError: the file is no checkpoint, is damaged or cut short, or holds something else than
            data; the message names what was refused, and nothing of it was executed
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"weights file {path} does not exist")
    if path.is_dir():
        raise UsageError(f"weights file {path} is a folder")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with file:
            return _load(file)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except _Refused as error:
        raise UserError(
            f"{path} was not read: besides tensors, numbers in numpy arrays and plain containers "
            f"it holds {error}, and such a thing could execute code. If you trust where the file "
            "comes from, load it with its own program and save only its state dict."
        ) from None
    except Exception as error:
        # Whatever wrong bytes provoke (zip, pickle, unicode, type and memory errors, ...).
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason"
        raise UserError(
            f"{path} is damaged, cut short or no checkpoint ({type(error).__name__}: {reason}); it "
            f"has {path.stat().st_size} bytes. Compare the size with the source's, copy it again."
        ) from error


def _load(file: IO[bytes]) -> Any:
    start = file.read(64)
    file.seek(0)
    if not start:
        raise UserError("is empty (0 bytes)")
    if start.startswith((b"PK\x03\x04", _TORCH_LEGACY)):
        return load_torch(file)
    if start[0] == 0x80 or start[:1] in b"(]}c":  # pickles of protocol 2 and later; of 0 and 1
        return load_pickle(file)
    raise UserError(
        f"is neither a file of torch.save nor a pickle; it starts with {start[:24]!r}. "
        "A web page or a Git LFS pointer in place of the file looks like this."
    )


def load_pickle(file: IO[bytes]) -> Any:
    """
    Raises:
        pickle.UnpicklingError: it holds something else than data
        Exception: of any other kind, for bytes that are no whole pickle
    """
    return _plain(_Unpickler(file, encoding="latin1").load(), {})


def load_torch(file: IO[bytes]) -> Any:
    """
    Raises:
        pickle.UnpicklingError: it holds something else than data
        Exception: of any other kind, for bytes that are no whole archive
    """
    allowed: list[Any] = [(value, name) for name, value in _NUMPY.items()]
    before = torch.serialization.get_safe_globals()
    # Of a name that is there twice torch takes either one, so numpy's own step aside meanwhile.
    others = [entry for entry in before if _name_of(entry) not in _NUMPY]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*others, *allowed, _Array, _Dtype])
    try:
        return _plain(torch.load(file, map_location="cpu", weights_only=True), {})
    except pickle.UnpicklingError as error:
        refused = re.search(r"[Uu]nsupported.*?GLOBAL (\S+)", str(error))
        if refused is not None:
            raise _Refused(refused[1]) from error
        # The rest of torch's message is about switching its protection off.
        reason = re.search(r"WeightsUnpickler error: (.*)", str(error))
        raise pickle.UnpicklingError(reason[1] if reason else str(error)) from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


class _Refused(pickle.UnpicklingError):
    """The message is what was refused."""


class _Dtype:
    """In place of numpy.dtype: numbers, bool and strings. Only the byte order is taken of its
    state, never the flags."""

    def __init__(self, spec: Any, align: Any = False, copy: Any = False):
        if not (isinstance(spec, str) and re.fullmatch(r"[<>|=]?[biufcSU]\d+", spec)):
            raise _Refused(f"the numpy dtype {spec!r}")
        self.value = np.dtype(spec)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, fields = state[1], state[2:5]
        if order not in ("<", ">", "|", "=") or any(field is not None for field in fields):
            raise _Refused("a numpy dtype with fields")
        self.value = self.value.newbyteorder(order)


class _Array:
    """In place of an array that waits for its state; `_plain` puts the array there in the end."""

    value: Any = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, raw = state[-4:]
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


class _NdarrayName:
    """In place of numpy.ndarray, which occurs as an argument only; never made."""


def _array(raw: Any, dtype: Any, shape: Any, order: str, axes: Any = None) -> np.ndarray:
    if isinstance(raw, str):  # a pickle of Python 2
        raw = raw.encode("latin1")
    if not isinstance(dtype, _Dtype):
        raise _Refused("an array without a dtype of numbers")
    array = np.frombuffer(bytearray(raw), dtype.value)  # a copy, which may be written to
    if order == "K" and axes is not None:
        return array.reshape(shape).transpose(axes)
    return array.reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(subtype: Any, shape: Any, typecode: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, raw: Any) -> Any:
    return _array(raw, dtype, (), "C")[()]


def _latin1(text: str, encoding: str) -> bytes:
    """What pickles of protocol 2 call for bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"the encoding {encoding!r}")
    return text.encode("latin1")


def _bytes(kind: type[bytes] | type[bytearray]) -> Callable[..., bytes | bytearray]:
    """bytes and bytearray of given content; called with a number they would fill the memory."""

    def make(content: Any = b"", encoding: str = "latin1") -> bytes | bytearray:
        if isinstance(content, str):
            content = _latin1(content, encoding)
        if not isinstance(content, bytes | bytearray):
            raise _Refused(f"{kind.__name__} made of {type(content).__name__}")
        return kind(content)

    return make


_NUMPY: dict[str, Any] = {"numpy.dtype": _Dtype, "numpy.ndarray": _NdarrayName}
for _core in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
    _NUMPY[f"{_core}.multiarray._reconstruct"] = _reconstruct
    _NUMPY[f"{_core}.multiarray.scalar"] = _scalar
    _NUMPY[f"{_core}.numeric._frombuffer"] = _array

_PLAIN: dict[str, Any] = {
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": _latin1,
}
for _builtins in ("builtins", "__builtin__"):  # Python 3, Python 2
    _PLAIN |= {f"{_builtins}.{kind.__name__}": kind for kind in (complex, frozenset, set)}
    _PLAIN |= {f"{_builtins}.{kind.__name__}": _bytes(kind) for kind in (bytearray, bytes)}

_ADMITTED = {**_NUMPY, **_PLAIN}


# Python's own unpickler in its slow form, the one whose BUILD can be restricted.
_SlowUnpickler: Any = pickle._Unpickler  # type: ignore[attr-defined]


class _Unpickler(_SlowUnpickler):
    dispatch = dict(_SlowUnpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in _ADMITTED:
            raise _Refused(f"{module}.{name}")
        return _ADMITTED[f"{module}.{name}"]

    def load_build(self) -> None:
        """Set the state of what lies below it on the stack."""
        target = self.stack[-2]
        if type(target) is collections.OrderedDict:
            self.stack.pop()  # a state dict's _metadata, the versions of its modules
        elif type(target) in (_Dtype, _Array):
            super().load_build()
        else:
            raise _Refused(f"a state for a {type(target).__name__}")

    dispatch[pickle.BUILD[0]] = load_build


def _name_of(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


def _plain(value: Any, seen: dict[int, tuple[Any, Any]]) -> Any:
    """`value` with the arrays in their places; dicts and lists are changed in place, each once.

    Args:
        value: what an unpickler built
        seen: id -> (container, result); the container is kept, so that its id stays its own
    """
    if isinstance(value, _Array | _Dtype):
        return value.value
    if not isinstance(value, dict | list) and type(value) is not tuple:
        return value
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = (value, value)
    if isinstance(value, dict):
        for key in value:
            value[key] = _plain(value[key], seen)
    elif isinstance(value, list):
        value[:] = [_plain(item, seen) for item in value]
    else:
        seen[id(value)] = (value, tuple(_plain(item, seen) for item in value))
    return seen[id(value)][1]
