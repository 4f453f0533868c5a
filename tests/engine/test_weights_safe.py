"""The one door for weights: as Detectron2 reads them, without running or swelling anything."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.proposals import load_proposals
from mask_rcnn_ext.data.registration import register_dataset
from mask_rcnn_ext.engine.checkpoint import Checkpointer
from mask_rcnn_ext.engine.trained import load_trained
from mask_rcnn_ext.engine.weights import read_checkpoint, read_weights
from mask_rcnn_ext.engine.weights.safetensors_file import load_safetensors, safetensors_bytes
from mask_rcnn_ext.errors import UsageError, UserError

# --- the same as Detectron2 ----------------------------------------------------------------------

_ARRAYS = {"conv1_w": np.ones((2, 3), np.float32), "conv1_w_momentum": np.zeros(1, np.float32)}
_STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(3)}
_RUN = {"iteration": 7, "trainer": {"hooks": {"x": [1, 2.5]}}, "class_names": ["a", "b"]}


def _write(path: Path, content: Any) -> Path:
    if path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, path)
    return path


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return list(one) == list(other) and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, np.ndarray | torch.Tensor):
        return type(one) is type(other) and np.array_equal(np.asarray(one), np.asarray(other))
    return bool(one == other)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zoo.pkl", {"model": _ARRAYS, "__author__": "Detectron2 Model Zoo"}),
        ("msra.pkl", {"model": _ARRAYS, "__author__": "MSRA", "matching_heuristics": True}),
        ("author_missing.pkl", {"model": np.ones(2), "x_momentum": np.ones(1)}),
        ("caffe2.pkl", _ARRAYS),
        ("detectron1.pkl", {"blobs": _ARRAYS, "cfg": "text"}),
        ("pycls.pyth", {"model_state": _STATE, "epoch": 3}),
        ("run.pth", {"model": _STATE, **_RUN}),
        ("state.pth", _STATE),
        ("run.pth.tar", {"model": _STATE}),
        ("epoch.pth", {"state_dict": _STATE, "epoch": 1}),
    ],
)
def test_a_file_is_what_detectron2_makes_of_it(tmp_path, name, content):
    path = _write(tmp_path / name, content)
    theirs = DetectionCheckpointer(torch.nn.Linear(1, 1))
    if hasattr(theirs, "_parsed_url_during_load"):  # Detectron2's main branch keeps the name there
        from urllib.parse import urlparse

        theirs._parsed_url_during_load = urlparse(str(path))
    expected = theirs._load_file(str(path))
    assert _equal(read_checkpoint(path), expected)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.pyth", {"model": _STATE}, "lacks 'model_state'.*has: model"),
        ("a.pth", [1, 2], "holds a list"),
        ("a.pkl", {"blobs": [1]}, "'blobs', but they are a list"),
    ],
)
def test_what_is_no_checkpoint(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        read_checkpoint(_write(tmp_path / name, content))


def test_the_content_decides_where_the_ending_is_wrong(tmp_path):
    path = tmp_path / "zoo.pth"
    path.write_bytes(pickle.dumps({"model": _ARRAYS, "__author__": "x"}))
    assert _equal(read_checkpoint(path), {"model": _ARRAYS, "__author__": "x"})
    torch.save({"model": _STATE, "__author__": "x"}, tmp_path / "run.pkl")
    assert _equal(read_checkpoint(tmp_path / "run.pkl")["model"], _STATE)


# --- safetensors ---------------------------------------------------------------------------------


def test_safetensors_there_and_back(tmp_path):
    shared = torch.arange(6.0)
    state = {"a": shared.view(2, 3).t(), "b": shared, "c": torch.ones(1, dtype=torch.float16)}
    about = {"class_names": ["ä", "b"], "iteration": 3, "__author__": "me", "conversion": {"k": 1}}
    path = tmp_path / "w.safetensors"
    path.write_bytes(safetensors_bytes(state, about))
    assert _equal(dict(sorted(read_checkpoint(path).pop("model").items())), state)
    found = read_checkpoint(path)
    assert {key: found[key] for key in about} == about
    path.rename(tmp_path / "w.pth")
    assert set(read_checkpoint(tmp_path / "w.pth")["model"]) == set(state)


def test_headers_of_other_programs(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    about = {"format": "pt", "model": "3", "note": "no JSON", "n": "3"}
    save_file({"a": torch.ones(2)}, path, metadata=about)
    found = load_safetensors(path)
    assert set(found) == {"model", "n"}
    assert set(found["model"]) == {"a"}


def test_the_checkpointer_loads_safetensors_and_zoo_pickles(tmp_path):
    wanted = torch.nn.Linear(3, 2)
    (tmp_path / "w.safetensors").write_bytes(safetensors_bytes(wanted.state_dict(), {}))
    arrays = {name: tensor.numpy() for name, tensor in wanted.state_dict().items()}
    _write(tmp_path / "w.pkl", {"model": arrays, "__author__": "x"})
    for name in ("w.safetensors", "w.pkl"):
        model = torch.nn.Linear(3, 2)
        Checkpointer(model).load(str(tmp_path / name))
        assert torch.equal(model.weight, wanted.weight)


def _safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(shape: list[int], end: int) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}


@pytest.mark.parametrize(
    "content",
    [
        _safetensors(_entry([2**40], 2**42), b"1234"),
        _safetensors(_entry([2], 8), b"1234"),
        _safetensors(_entry([1000], 4), b"1234"),
        _safetensors(_entry([2**32, 2**32], 0)),
        _safetensors(_entry([1], 4), b"1234", length=2**62),
        _safetensors(_entry([1], 4), b"1234", length=5),
        _safetensors(b"{no json"),
        b"\x01",
        pickle.dumps({"a": 1}),
    ],
    ids=["huge", "cut", "shape", "overflow", "header", "header cut", "json", "byte", "pickle"],
)
def test_lying_safetensors(tmp_path, content):
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"w.safetensors is damaged, cut short or no checkpoint"):
        read_checkpoint(path)


def test_text_with_a_brace_is_no_safetensors(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"12345678{}")
    with pytest.raises(UserError, match="neither a file of torch.save nor a pickle nor safet"):
        read_weights(tmp_path / "w.pth")


# --- hostile files, through every door -----------------------------------------------------------


class _Touch:
    def __init__(self, path: Path):
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def _hostile(path: Path, form: str, mark: Path) -> Path:
    content = {"model": {"a": np.ones(1)}, "__author__": "x", "hook": _Touch(mark)}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


@pytest.mark.parametrize("form", ["pickle", "zip", "legacy"])
@pytest.mark.parametrize("suffix", [".pkl", ".pth", ".pyth", ".pth.tar", ".safetensors", ""])
def test_no_ending_opens_a_hostile_file(tmp_path, form, suffix):
    mark = tmp_path / "mark"
    path = _hostile(tmp_path / f"w{suffix}", form, mark)
    for door in (read_checkpoint, Checkpointer(torch.nn.Linear(1, 1)).load):
        with pytest.raises(UserError, match=r"mkdir|damaged, cut short"):
            door(str(path))
        assert not mark.exists()


def test_training_and_prediction_refuse_it(tmp_path):
    mark = tmp_path / "mark"
    path = str(_hostile(tmp_path / "w.pkl", "pickle", mark))
    keys = ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", path]
    with pytest.raises(UserError, match=r"it holds (posix|nt)\.mkdir"):
        load_trained("quickstart/mask_rcnn_R_18_FPN_scenes.yaml", overrides=keys)
    with pytest.raises(UserError, match=r"it holds (posix|nt)\.mkdir"):
        Checkpointer(torch.nn.Linear(1, 1), str(tmp_path)).resume_or_load(path, resume=False)
    assert not mark.exists()


def test_hostile_proposals(tmp_path):
    mark = tmp_path / "mark"
    path = _hostile(tmp_path / "proposals.pkl", "pickle", mark)
    with pytest.raises(UserError, match=r"mkdir"):
        load_proposals(path)
    assert not mark.exists()


def test_hostile_yaml(tmp_path):
    mark = tmp_path / "mark"
    call = f'!!python/object/apply:os.mkdir ["{mark}"]'
    config, base, dataset = (tmp_path / f"{n}.yaml" for n in ("config", "base", "dataset"))
    base.write_text(f"SOLVER:\n  BASE_LR: {call}\n")
    with pytest.raises(UsageError):
        load_config(str(base))
    config.write_text(f'_BASE_: "{base}"\n')
    with pytest.raises(UsageError):
        load_config(str(config))
    with pytest.raises(UsageError):
        load_config("", ["OUTPUT_DIR", call, "SOLVER.BASE_LR", call])
    dataset.write_text(f"name: mine\nformat: coco\njson: {call}\n")
    with pytest.raises(UserError):
        register_dataset(str(dataset))
    assert not mark.exists()


# --- files that would fill the memory ------------------------------------------------------------

_MB = 1 << 20


def _zip(path: Path, program: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    return path


def _copies(count: int) -> bytes:
    """One megabyte in the file, made into an array so many times."""
    parts = [
        b"\x80\x03cnumpy.core.numeric\n_frombuffer\nq\x010",
        b"B" + struct.pack("<I", _MB) + bytes(_MB) + b"q\x020",
        b"cnumpy\ndtype\nX\x02\x00\x00\x00u1\x89\x88\x87Rq\x030",
        b"J" + struct.pack("<i", _MB) + b"\x85q\x040X\x01\x00\x00\x00Cq\x050",
        b"]" + b"h\x01(h\x02h\x03h\x04h\x05tRa" * count + b".",
    ]
    return b"".join(parts)


def _texts() -> bytes:
    text = b"X" + struct.pack("<I", _MB) + b"a" * _MB + b"q\x010"
    call = b"c_codecs\nencode\nq\x020X\x06\x00\x00\x00latin1q\x030]"
    return b"\x80\x02" + text + call + b"h\x02h\x01h\x03\x86Ra" * 200 + b"."


def _bytearrays() -> bytes:
    content = b"B" + struct.pack("<I", _MB) + bytes(_MB) + b"q\x010"
    call = b"cbuiltins\nbytearray\nq\x020]"
    return b"\x80\x03" + content + call + b"h\x02h\x01\x85Ra" * 200 + b"."


def _billion(kind: bytes) -> bytes:
    entries = b"(" + b"".join(b"K" + bytes([i]) for i in range(200)) * 50 + b"lq\x01"
    call = b"cbuiltins\n" + kind + b"\nq\x020("
    return b"\x80\x02" + entries + call + b"h\x02h\x01\x85R" * 20000 + b"l."


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (_copies(200), "bigger than the file"),
        (b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b"abc.", "bigger than the file"),
        (_texts(), "bigger than the file"),
        (_bytearrays(), "bigger than the file"),
        (_billion(b"set"), "bigger than the file"),
        (_billion(b"frozenset"), "bigger than the file"),
        (b"\x80\x03B" + struct.pack("<I", 0xFFFFFFF0) + b"abc.", "damaged"),
    ],
    ids=["copies of an array", "bytearray8", "texts", "bytearrays", "sets", "frozensets", "bytes"],
)
def test_a_pickle_takes_no_more_memory_than_the_file(tmp_path, program, message):
    path = tmp_path / "w.pkl"
    path.write_bytes(program)
    tracemalloc.start()
    with pytest.raises(UserError, match=message):
        read_weights(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if "damaged" not in message:  # a length that a read asks for is only reserved
        assert peak < 20 * len(program) + 8 * _MB


def test_honest_copies_pass(tmp_path):
    """An object that occurs often is in a pickle once, and comes back once."""
    array = np.ones(1000, np.float32)
    content = {str(i): array for i in range(100)} | {"s": [{1, 2}] * 9, "b": [bytearray(99)] * 9}
    for protocol in range(6):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol))
        found = read_weights(tmp_path / "w.pkl")
        assert found["7"] is found["99"]
        assert _equal(found["0"], array)


def test_torch_files_that_swell(tmp_path):
    number = struct.pack("<i", 1 << 30)
    cases = {
        "bytearray": _zip(
            tmp_path / "a.pth", b"\x80\x02cbuiltins\nbytearray\nJ" + number + b"\x85R."
        ),
        "tensors of 4294967296 bytes": _zip(
            tmp_path / "b.pth", b"\x80\x02}K\x01ctorch\nTensor\nJ" + number + b"\x85Rs."
        ),
        "compressed": _zip(
            tmp_path / "c.pth", b"\x80\x02}X" + struct.pack("<I", _MB) + bytes(_MB) + b"K\x01s.",
            zipfile.ZIP_DEFLATED,
        ),
    }  # fmt: skip
    legacy = tmp_path / "d.pth"
    torch.save({"a": 1}, legacy, _use_new_zipfile_serialization=False)
    content = legacy.read_bytes()
    end = content.index(b"}q\x00X\x01\x00\x00\x00aq\x01K\x01s.")
    bomb = b"c__builtin__\nbytearray\nJ" + number + b"\x85R."
    legacy.write_bytes(content[:end] + bomb + content[end:])
    cases["a bytearray"] = legacy
    for message, path in cases.items():
        tracemalloc.start()
        with pytest.raises(UserError, match=f"{message}.*would fill the memory"):
            read_weights(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * _MB
        tracemalloc.stop()


def test_overlapping_entries_of_a_zip(tmp_path):
    """Many entries of a table of contents that share one content."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("x/data.pkl", b"\x80\x02}." + bytes(5000))
        archive.filelist += [archive.filelist[0]] * 9
    path = tmp_path / "w.pth"
    path.write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="entries that are bigger than the file"):
        read_weights(path)


def test_large_honest_torch_files_pass(tmp_path):
    """Views of one storage and empty tensors: no more bytes than the file has."""
    base = torch.arange(1000.0)
    content = {"model": {f"v{i}": base[i:] for i in range(50)}, "empty": torch.zeros(0)}
    for new in (True, False):
        torch.save(content, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
        assert torch.equal(read_weights(tmp_path / "w.pth")["model"]["v49"], base[49:])
