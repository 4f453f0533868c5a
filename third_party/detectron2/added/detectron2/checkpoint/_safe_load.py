"""Load checkpoints that hold tensors, numpy values and plain containers; nothing in them runs.

`.pth` goes through torch's weights_only loader, `.pkl` through an unpickler of the same kind. Both
get the functions below in place of numpy's own: np.dtype takes any flags from a pickle, and with
them numbers could be passed off as object pointers.
"""

import collections
import pickle
import re

import numpy as np
import torch


class _Refused(pickle.UnpicklingError):
    pass


class _Dtype:
    """A numeric, bool or string dtype; of its pickled state only the byte order is taken."""

    def __init__(self, spec, align=False, copy=False):
        if not (isinstance(spec, str) and re.fullmatch(r"[<>|=]?[biufcSU]\d+", spec)):
            raise _Refused(f"numpy dtype {spec!r}")
        self.value = np.dtype(spec)

    def __setstate__(self, state):
        order, fields = state[1], state[2:5]
        if order not in tuple("<>|=") or any(field is not None for field in fields):
            raise _Refused("numpy dtype with fields")
        self.value = self.value.newbyteorder(order)


class _Array:
    """What becomes an array with its state; `_plain` puts the array in its place."""

    value = None

    def __setstate__(self, state):
        shape, dtype, fortran, raw = state[-4:]
        self.value = _array(raw, dtype, shape, "F" if fortran else "C")


def _array(raw, dtype, shape, order, axis_order=None):
    if isinstance(raw, str):  # a pickle of Python 2
        raw = raw.encode("latin1")
    if not isinstance(dtype, _Dtype):
        raise _Refused("malformed numpy array")
    # bytearray: a copy that may be written to, as torch wants it
    array = np.frombuffer(bytearray(raw), dtype.value)
    if order == "K" and axis_order is not None:  # what numpy calls for permuted axes
        return array.reshape(shape).transpose(axis_order)
    return array.reshape(shape, order=order)


def _reconstruct(subtype, shape, typecode):
    return _Array()


def _scalar(dtype, raw):
    return _array(raw, dtype, (), "C")[()]


def _latin1(text, encoding):
    """What pickles call for bytes, of which only this encoding occurs."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"encoding {encoding!r}")
    return text.encode("latin1")


class _NdarrayName:
    """numpy.ndarray as an argument; never made."""


_NUMPY = {"numpy.dtype": _Dtype, "numpy.ndarray": _NdarrayName}
for _core in ("numpy.core", "numpy._core"):  # numpy 1, numpy 2
    _NUMPY[f"{_core}.multiarray._reconstruct"] = _reconstruct
    _NUMPY[f"{_core}.multiarray.scalar"] = _scalar
    _NUMPY[f"{_core}.numeric._frombuffer"] = _array

_PLAIN = {
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": _latin1,
}
_TYPES = (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)
for _builtins in ("builtins", "__builtin__"):  # Python 3, Python 2
    for _type in _TYPES:
        _PLAIN[f"{_builtins}.{_type.__name__}"] = _type


class _Unpickler(pickle._Unpickler):  # the one in Python, whose BUILD can be restricted
    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module, name):
        found = {**_NUMPY, **_PLAIN}.get(f"{module}.{name}")
        if found is None:
            raise _Refused(f"{module}.{name}")
        return found

    def load_build(self):
        if type(self.stack[-2]) not in (_Dtype, _Array):
            raise _Refused(f"state for a {type(self.stack[-2]).__name__}")
        super().load_build()

    dispatch[pickle.BUILD[0]] = load_build


def load_pickle(file):
    """The content of a pickle (an open binary file) of plain containers and numpy values."""
    try:
        return _plain(_Unpickler(file, encoding="latin1").load())
    except _Refused as error:
        raise _refusal(getattr(file, "name", "The file"), error) from None


def load_torch(file):
    """torch.load(file) on the CPU with weights_only, where numpy values are let through too."""
    before = torch.serialization.get_safe_globals()
    # Of a name that is there twice torch takes either, so a user's own numpy entries step aside.
    others = [entry for entry in before if _name(entry) not in _NUMPY]
    ours = [(value, name) for name, value in _NUMPY.items()]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*others, *ours, _Array])
    try:
        return _plain(torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        refused = re.search(r"[Uu]nsupported.*?GLOBAL (\S+)", str(error))
        if refused is None:
            raise
        raise _refusal(getattr(file, "name", file), refused.group(1)) from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _name(entry):
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"


def _refusal(file, refused):
    return pickle.UnpicklingError(
        f"{file} was not loaded: besides tensors, numbers in numpy arrays and plain containers it "
        f"holds {refused}, and such a thing can execute code. If you trust where the file comes "
        "from, load it with your own code and save only its state dict."
    )


def _plain(value, seen=None):
    """`value` with the arrays in place; dicts and lists are changed in place, each once."""
    if isinstance(value, (_Array, _Dtype)):
        return value.value
    if not isinstance(value, (dict, list)) and type(value) is not tuple:
        return value
    seen = {} if seen is None else seen  # id -> (container, result); the first keeps the id
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
