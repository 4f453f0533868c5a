"""Checkpoints survive a full disk; a file that is no checkpoint gets a message."""

from __future__ import annotations

import errno
import resource
import signal

import pytest
import torch
from torch import nn

from mask_rcnn_ext.engine.checkpoint import Checkpointer
from mask_rcnn_ext.errors import UserError


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(200, 200)


def test_save_and_load_give_the_same_weights(model, tmp_path):
    Checkpointer(model, str(tmp_path)).save("model_0000001", iteration=1)
    other = nn.Linear(200, 200)
    extra = Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)
    assert torch.equal(other.weight, model.weight)
    assert extra == {"iteration": 1}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]


@pytest.fixture
def small_files():
    """Any file above 64 kB fails to be written, as on a full disk; the model has 160 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_full_disk_keeps_the_previous_checkpoint(model, tmp_path, request):
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    before = model.weight.clone()
    nn.init.zeros_(model.weight)

    request.getfixturevalue("small_files")
    with pytest.raises(UserError, match=r"model_0000002\.pth: File too large.*model_0000001\.pth"):
        checkpointer.save("model_0000002", iteration=2)

    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000001.pth"]
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 1}
    assert torch.equal(model.weight, before)


def test_overwriting_on_a_full_disk_keeps_the_old_file(model, tmp_path, request):
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_final")
    content = (tmp_path / "model_final.pth").read_bytes()
    request.getfixturevalue("small_files")
    with pytest.raises(UserError, match="cannot write checkpoint"):
        checkpointer.save("model_final")
    assert (tmp_path / "model_final.pth").read_bytes() == content


def test_a_pointer_that_cannot_be_written_keeps_the_old_pointer(model, tmp_path, monkeypatch):
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001")

    def full(name):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpointer, "tag_last_checkpoint", full)
    with pytest.raises(UserError, match="No space left on device"):
        checkpointer.save("model_0000002")
    assert checkpointer.get_checkpoint_file().endswith("model_0000001.pth")


def test_a_vanished_folder_is_named(model, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    checkpointer = Checkpointer(model, str(folder))
    folder.rmdir()
    with pytest.raises(UserError, match="gone/model_final.pth: No such file or directory"):
        checkpointer.save("model_final")


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.pth", b"not a checkpoint"), ("a.pth", b""), ("a.pkl", b"not a pickle"), ("cut.pth", None)],
)
def test_a_file_that_is_no_checkpoint(model, tmp_path, name, content):
    path = tmp_path / name
    if content is None:
        Checkpointer(model, str(tmp_path)).save("whole")
        content = (tmp_path / "whole.pth").read_bytes()[:-5000]
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{name} cannot be loaded .* {len(content)} bytes"):
        Checkpointer(model).load(str(path))


def test_missing_weights(model, tmp_path):
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS .*none\.pth does not exist"):
        Checkpointer(model).load(str(tmp_path / "none.pth"))


def test_weights_that_cannot_be_fetched_say_what_to_do(model, monkeypatch):
    def no_network(self, path, *args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("iopath.common.file_io.PathManager.get_local_path", no_network)
    with pytest.raises(UserError, match=r"cannot fetch the weights detectron2://.*MODEL.WEIGHTS"):
        Checkpointer(model).load("detectron2://ImageNetPretrained/MSRA/R-50.pkl")
