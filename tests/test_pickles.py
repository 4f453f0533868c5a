"""Pickles: plain data come back as they were, everything else is refused and not executed."""

from __future__ import annotations

import collections
import io
import os
import pickle
import pickletools
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.pickles import Refused, load_pickle

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def _load(program: bytes) -> Any:
    return load_pickle(io.BytesIO(program))


def _content() -> dict[str, Any]:
    return collections.OrderedDict(
        floats=np.arange(6, dtype=np.float32).reshape(2, 3),
        fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        transposed=np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        swapped=np.arange(3, dtype=">f4"),
        empty=np.zeros((0, 3), np.float16),
        flags=np.array([True, False]),
        text=np.array(["a", "bcd"]),
        ascii=np.array([b"a", b"bcd"]),
        scalar=np.float64(0.5),
        nested={"list": [1, 2.5, None, True], "tuple": ("a", b"\x00\xff"), "set": {1, 2}},
        others=(frozenset("ab"), bytearray(b"\x80"), b"", 2**70, 1 - 2j),
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol(protocol):
    read, expected = _load(pickle.dumps(_content(), protocol)), _content()
    assert list(read) == list(expected)
    for key, value in expected.items():
        assert type(read[key]) is type(value)
        if isinstance(value, np.ndarray):
            assert read[key].dtype == value.dtype
            assert read[key].flags.writeable
            np.testing.assert_array_equal(read[key], value)
        else:
            assert read[key] == value


_ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
_ATOMS |= st.text() | st.binary() | st.complex_numbers(allow_nan=False)
_KEYS = st.text() | st.integers() | st.tuples(st.integers(), st.text())


@settings(deadline=None, max_examples=100)
@given(
    value=st.recursive(
        _ATOMS | st.sets(_KEYS) | st.frozensets(_KEYS),
        lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner) | st.tuples(inner, inner),
        max_leaves=10,
    ),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_plain_values_come_back(value, protocol):
    assert _load(pickle.dumps(value, protocol)) == value


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from("?bBhHiIlLqQefdFD"),
    order=st.sampled_from("<>"),
    shape=st.lists(st.integers(0, 3), max_size=3),
    protocol=st.sampled_from(PROTOCOLS),
)
def test_arrays_come_back(kind, order, shape, protocol):
    array = np.ones(shape, np.dtype(kind).newbyteorder(order))
    read = _load(pickle.dumps([array, (array,)], protocol))
    assert read[0] is read[1][0]
    assert (read[0].dtype, read[0].shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(read[0], array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_list_that_holds_itself(protocol):
    loop: list[Any] = [np.ones(2)]
    loop.append(loop)
    read = _load(pickle.dumps(loop, protocol))
    assert read[1] is read
    np.testing.assert_array_equal(read[0], np.ones(2))


def _python_2_array() -> bytes:
    """As cPickle of Python 2 writes {"conv1_w": np.float32 [1, 2]}: strings are bytes there."""
    return (
        b"\x80\x02}U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        b"U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + struct.pack("<2f", 1, 2) + b"tbs."
    )


def test_a_pickle_of_python_2():
    read = _load(_python_2_array())
    np.testing.assert_array_equal(read["conv1_w"], np.array([1, 2], np.float32))


def test_attributes_of_an_ordered_dict_are_left_out():
    """A state dict carries `_metadata`."""
    state = collections.OrderedDict(weight=np.ones(2))
    state._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    read = _load(pickle.dumps(state))
    np.testing.assert_array_equal(read["weight"], np.ones(2))
    assert not hasattr(read, "_metadata")


class _Touch:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("form", [*PROTOCOLS, "INST"])
def test_code_does_not_run(tmp_path, form):
    mark = tmp_path / "mark"
    if form == "INST":
        program = f'(dp0\nS"a"\n(S"{mark}"\niposix\nmkdir\ns.'.encode()
    else:
        program = pickle.dumps({"a": np.ones(1), "hook": _Touch(mark)}, form)
    pickle.loads(program)
    assert mark.exists(), "the pickle of this test is harmless"
    mark.rmdir()
    with pytest.raises(Refused, match=r"(posix|nt)\.mkdir"):
        _load(program)
    assert not mark.exists()


_F4 = b"cnumpy\ndtype\n(Vf4\nI00\nI01\ntR"
_EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR"


@pytest.mark.parametrize(
    ("refused", "program"),
    [
        ("builtins.eval", b"\x80\x02cbuiltins\neval\nX\x01\x00\x00\x001\x85R."),
        ("builtins.eval", b"cbuiltins\neval\n(V1\ntR."),
        ("builtins.getattr", b"\x80\x02cbuiltins\ngetattr\n."),
        ("numpy.load", b"\x80\x02cnumpy\nload\n."),
        ("numpy dtype 'O8'", b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00O8\x89\x88\x87R."),
        ("numpy dtype 'f4,f4'", b"cnumpy\ndtype\n(Vf4,f4\nI00\nI01\ntR."),
        # a number for bytes: so many zeros
        ("bytearray made of int", b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."),
        ("bytes made of int", b"c__builtin__\nbytes\n(I2147483647\ntR."),
        ("array made of int", _EMPTY + b"(I1\n(I1\nt" + _F4 + b"I00\nI2147483647\ntb."),
        ("array made of int", b"cnumpy.core.multiarray\nscalar\n(" + _F4 + b"I2147483647\ntR."),
        ("the encoding 'rot13'", b"c_codecs\nencode\n(Va\nVrot13\ntR."),
        # BUILD sets attributes, or the state of numpy's own objects
        ("a state for a set", b"\x80\x02cbuiltins\nset\n)R}X\x01\x00\x00\x00aK\x01sb."),
        ("a state for a type", b"cnumpy\ndtype\n}b."),
        ("a state for a function", b"c_codecs\nencode\n}b."),
        ("a state for a float32", b"cnumpy.core.multiarray\nscalar\n(" + _F4 + b"Vabcd\ntR}b."),
        (
            "a state for a ndarray",
            b"cnumpy.core.numeric\n_frombuffer\n(Vabcd\n" + _F4 + b"(I1\ntVC\ntR}b.",
        ),
        ("a call of numpy.ndarray", b"cnumpy\nndarray\n(tR."),
        ("does not begin empty", _EMPTY.replace(b"(I0\nt", b"(I1000000\nt") + b"."),
        ("does not begin empty", _EMPTY.replace(b"Vb\n", b"VO\n") + b"."),
        ("does not begin empty", _EMPTY.replace(b"cnumpy\nndarray", b"cbuiltins\nset") + b"."),
        (
            "without a dtype of numbers",
            b"cnumpy.core.numeric\n_frombuffer\n(Vabcd\nVf4\n(I1\ntVC\ntR.",
        ),
        # protocol 4 reaches attributes of attributes with a dotted name
        ("collections.OrderedDict.get", b"\x80\x04\x8c\x0bcollections\x8c\x0fOrderedDict.get\x93."),
    ],
)  # fmt: skip
def test_what_else_is_refused(refused, program):
    with pytest.raises(Refused, match=re.escape(refused)):
        _load(program)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, "a"], dtype=object),
        np.zeros(2, dtype=[("x", "f4")]),
        np.zeros(2, dtype="V4"),
        np.zeros(2, dtype="M8[s]"),
        np.ma.zeros(2),
        np.zeros(2).view(np.matrix),
    ],
    ids=["objects", "fields", "void", "dates", "masked", "matrix"],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_other_arrays_are_refused(values, protocol):
    with pytest.raises(Refused):
        _load(pickle.dumps({"a": values}, protocol))


def _state_of(spec: str, old: bytes, new: bytes) -> bytes:
    honest = pickletools.optimize(pickle.dumps(np.zeros(1, spec), 2))
    assert _load(honest).dtype == spec
    assert honest.count(old) == 1
    return honest.replace(old, new)


_SIZES = b"J\xff\xff\xff\xffJ\xff\xff\xff\xff"


@pytest.mark.parametrize(
    "program",
    [
        # numpy would take flag 63 and see pointers to objects in the 8 bytes of a number
        _state_of("i8", _SIZES + b"K\x00tb", _SIZES + b"K\x3ftb"),
        # numpy takes the item size of a text as it stands there
        _state_of("S3", b"NNNK\x03K\x01K\x00", b"NNNK\x7fK\x01K\x00"),
        _F4 + b"(I3\nV<\nNNI5\nI-1\nI-1\nI0\ntb.",
        _F4 + b"(I3\nVx\nNNNI-1\nI-1\nI0\ntb.",
    ],
    ids=["flags", "size", "fields", "byte order"],
)
def test_a_dtype_has_the_state_that_numpy_writes(program):
    """What follows may read the same file by pickle.load, so it is refused, not corrected."""
    with pytest.raises(Refused, match="a numpy dtype"):
        _load(program)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.98])
def test_cut_short(share):
    whole = pickle.dumps({"a": np.ones(1000), "b": np.ones(9)})
    with pytest.raises((EOFError, pickle.UnpicklingError)) as caught:
        _load(whole[: int(share * len(whole))])
    assert not isinstance(caught.value, Refused)
