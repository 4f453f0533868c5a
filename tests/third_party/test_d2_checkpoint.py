"""Checkpoints: numpy values load, nothing runs, what a trainer needs to resume is kept."""

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.usefixtures("ours")

ARRAYS = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
    np.arange(4, dtype=">i4"),
    np.array([True, False]),
    np.array(3.5, dtype=np.float16),
    np.zeros((0, 4), dtype=np.uint8),
    np.array(["cat", "person"]),
]


class Evil:
    """Unpickled by a trusting loader, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def _checkpointer(model=None, **kwargs):
    from detectron2.checkpoint import DetectionCheckpointer

    return DetectionCheckpointer(model or torch.nn.Linear(3, 2), **kwargs)


def _load_pickle(data):
    import io

    from detectron2.checkpoint._safe_load import load_pickle

    return load_pickle(io.BytesIO(data))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_arrays_come_back(protocol):
    for array in ARRAYS:
        loaded = _load_pickle(pickle.dumps({"a": [array, (array,)]}, protocol))
        for got in (loaded["a"][0], loaded["a"][1][0]):
            assert type(got) is np.ndarray
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array)
            assert got.flags.writeable


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickled_plain_values_come_back(protocol):
    data = OrderedDict(
        a=np.float32(1.5), b=np.int64(-2), c={1, 2}, d=b"\xff\x00", e=(None, True, 1j), f="é"
    )
    data["self"] = [data["e"], []]
    data["self"][1].append(data["self"])  # a cycle
    loaded = _load_pickle(pickle.dumps(data, protocol))
    assert type(loaded) is OrderedDict
    cycle = loaded.pop("self")
    assert cycle[1][0] is cycle
    data.pop("self")
    assert loaded == data
    assert loaded["a"].dtype == np.float32


def _python2_array(spec, raw, flags=b"K\x00"):
    """A one-dimensional array as numpy 1 on Python 2 pickled it: short byte strings (U)."""
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02" + spec + b"K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff" + flags + b"tb\x89"
        b"U" + bytes([len(raw)]) + raw + b"tb."
    )


def test_python2_pickle():
    expected = np.array([1.5, -2.0], dtype="<f4")
    np.testing.assert_array_equal(_load_pickle(_python2_array(b"f4", expected.tobytes())), expected)


def test_dtype_flags_of_a_pickle_are_not_believed():
    """numpy takes them: an integer array marked as one of objects would be read as pointers."""
    loaded = _load_pickle(_python2_array(b"i8", np.arange(2).tobytes(), flags=b"K\x3f"))
    assert not loaded.dtype.hasobject
    np.testing.assert_array_equal(loaded, [0, 1])


def _hostile_pickles(path):
    evil = Evil(path)
    yield "system", pickle.dumps({"model": {"w": evil}})
    yield "numpy dtype 'O8'", pickle.dumps({"model": np.array([evil], dtype=object)})
    yield "numpy dtype 'O8'", pickle.dumps(np.array([None], dtype=object))
    yield "eval", b"cbuiltins\neval\n(S'1'\ntR."
    yield "getattr", b"c__builtin__\ngetattr\n."
    yield "numpy.load", b"cnumpy\nload\n."
    yield "os.system", b"(S'true'\nios\nsystem\n."  # INST
    yield "encoding 'zlib'", b"c_codecs\nencode\n(S'a'\nS'zlib'\ntR."
    # state for a function: its defaults could be replaced
    yield "state", b"c_codecs\nencode\n(N}S'__defaults__'\n(S'zlib'\ntstb."
    yield "persistent", b"Pname\n."


def test_a_hostile_pickle_is_refused(tmp_path):
    for number, (named, data) in enumerate(_hostile_pickles(tmp_path / "made")):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(data)
        with pytest.raises(pickle.UnpicklingError, match=named):
            _checkpointer()._load_file(str(path))
        assert not (tmp_path / "made").exists(), data
    pickle.loads(pickle.dumps(Evil(tmp_path / "made")))
    assert (tmp_path / "made").exists()  # so the test can fail


@pytest.mark.parametrize("suffix", ["pth", "pyth"])
def test_a_hostile_torch_file_is_refused(tmp_path, suffix):
    path = str(tmp_path / f"evil.{suffix}")
    for zipped in (True, False):
        evil = {"model": {"w": torch.ones(2)}, "x": Evil(tmp_path / "made")}
        torch.save(evil, path, _use_new_zipfile_serialization=zipped)
        with pytest.raises(pickle.UnpicklingError, match=rf"evil\.{suffix} was not .*\.system"):
            _checkpointer()._load_file(path)
        assert not (tmp_path / "made").exists()


def test_a_refusal_names_file_and_remedy(tmp_path):
    path = tmp_path / "model.pkl"
    path.write_bytes(pickle.dumps(pytest.raises))
    with pytest.raises(pickle.UnpicklingError) as error:
        _checkpointer().load(str(path))
    for part in (str(path), "raises", "save only its state dict"):
        assert part in str(error.value)


def test_a_broken_file_is_not_called_hostile(tmp_path):
    path = tmp_path / "broken.pkl"
    path.write_bytes(pickle.dumps({"model": {}})[:-2])
    with pytest.raises((EOFError, pickle.UnpicklingError)) as error:
        _checkpointer()._load_file(str(path))
    assert "was not loaded" not in str(error.value)


def _as_numpy_1(path):
    """Rename numpy's modules in a torch file to what numpy 1 called them, or 2."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for entry, data in entries:
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core" in data or b"numpy.core" in data
                if b"numpy._core" in data:
                    data = data.replace(b"numpy._core", b"numpy.core")
                else:
                    data = data.replace(b"numpy.core", b"numpy._core")
            archive.writestr(entry, data)


@pytest.mark.parametrize("other_numpy", [False, True])
@pytest.mark.parametrize("model_only", [False, True])
def test_torch_file_with_numpy_values(tmp_path, other_numpy, model_only):
    weight = np.arange(6, dtype=np.float32).reshape(2, 3)
    state = {"weight": weight, "bias": torch.ones(2)}
    extra = {"iteration": np.int64(7), "ap": np.float64(0.5)}
    data = state if model_only else {"model": state, **extra}
    path = str(tmp_path / "model.pth")
    torch.save(data, path)
    if other_numpy:
        _as_numpy_1(path)
    model = torch.nn.Linear(3, 2)
    rest = _checkpointer(model).load(path)
    np.testing.assert_array_equal(model.weight.detach().numpy(), weight)
    assert rest == ({} if model_only else {"iteration": 7, "ap": 0.5})


def test_safe_globals_of_a_user_stay(tmp_path):
    numpy_core = getattr(np, "_core", None) or np.core
    before = torch.serialization.get_safe_globals()
    own = [numpy_core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype("f4")), Evil]
    torch.serialization.add_safe_globals(own)
    try:
        torch.save({"weight": np.ones(2, dtype=np.float32)}, tmp_path / "a.pth")
        loaded = _checkpointer()._load_file(str(tmp_path / "a.pth"))
        assert type(loaded["model"]["weight"]) is np.ndarray
        assert set(torch.serialization.get_safe_globals()) == {*before, *own}
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def test_model_zoo_pickle(tmp_path):
    weights = {"weight": np.full((2, 3), 2, dtype=np.float32), "bias": np.zeros(2, np.float32)}
    path = tmp_path / "model_final.pkl"
    path.write_bytes(pickle.dumps({"model": weights, "__author__": "Detectron2 Model Zoo"}, 2))
    model = torch.nn.Linear(3, 2)
    _checkpointer(model).load(str(path))
    assert torch.equal(model.weight, torch.full((2, 3), 2.0))


def test_caffe2_pickle(tmp_path):
    path = tmp_path / "R-50.pkl"
    blobs = {"conv1_w": np.ones((4, 3, 7, 7), np.float32), "conv1_w_momentum": np.ones(1)}
    path.write_bytes(pickle.dumps({"blobs": blobs, "cfg": "text"}, 2))
    loaded = _checkpointer()._load_file(str(path))
    assert list(loaded["model"]) == ["conv1_w"]
    assert loaded["matching_heuristics"]


def test_pycls_file(tmp_path):
    state = {"w": torch.ones(1), "bn.num_batches_tracked": torch.ones(1)}
    torch.save({"model_state": state, "cfg": "", "epoch": np.int64(3)}, tmp_path / "a.pyth")
    loaded = _checkpointer()._load_file(str(tmp_path / "a.pyth"))
    assert list(loaded["model"]) == ["w"]


def test_torch_scheduler_is_saved_and_resumed(tmp_path):
    from detectron2.engine import SimpleTrainer, hooks
    from detectron2.utils.events import EventStorage

    def trainer():
        class Model(torch.nn.Linear):
            def forward(self, x):
                return {"loss": super().forward(x).sum()}

        model = Model(3, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        made = SimpleTrainer(model, [torch.ones(1, 3)] * 9, optimizer)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones=[2, 6])
        made.register_hooks([hooks.LRScheduler(scheduler=schedule)])
        return made, _checkpointer(model, save_dir=str(tmp_path), trainer=made), schedule

    first, checkpointer, _ = trainer()
    with EventStorage(0):
        first.train(0, 4)
    checkpointer.save("model")
    _, checkpointer, schedule = trainer()
    checkpointer.load(str(tmp_path / "model.pth"))
    assert schedule.last_epoch == 4
    assert schedule.get_last_lr() == pytest.approx([0.1])


def test_precomputed_proposals(tmp_path):
    from detectron2.data.build import load_proposals_into_dataset

    proposals = {
        "ids": [3],
        "boxes": [np.array([[0, 0, 2, 2], [1, 1, 3, 3]], dtype=np.float32)],
        "objectness_logits": [np.array([0.1, 0.9], dtype=np.float32)],
    }
    path = tmp_path / "proposals.pkl"
    path.write_bytes(pickle.dumps(proposals, 2))
    (loaded,) = load_proposals_into_dataset([{"image_id": 3}], str(path))
    np.testing.assert_array_equal(loaded["proposal_boxes"][0], [1, 1, 3, 3])
    path.write_bytes(pickle.dumps(Evil(tmp_path / "made")))
    with pytest.raises(pickle.UnpicklingError, match="system"):
        load_proposals_into_dataset([], str(path))
    assert not (tmp_path / "made").exists()
