"""Checkpoints are written whole, and what cannot be written or loaded gets a message."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import resource
import shutil
import signal
from urllib.parse import urlparse

import numpy as np
import pytest
import torch
from torch import nn

from mask_rcnn_ext.config import load_config
from mask_rcnn_ext.engine.checkpoint import Checkpointer, check_checkpoint_keys
from mask_rcnn_ext.errors import UsageError, UserError


@pytest.fixture
def model() -> nn.Module:
    return nn.Linear(200, 200)


def _names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_and_load_give_the_same_weights(model, tmp_path):
    Checkpointer(model, str(tmp_path)).save("model_0000001", iteration=1)
    other = nn.Linear(200, 200)
    extra = Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)
    assert torch.equal(other.weight, model.weight)
    assert extra == {"iteration": 1}
    assert _names(tmp_path) == ["last_checkpoint", "model_0000001.pth"]


def test_other_parts_and_class_names_are_saved_too(model, tmp_path):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    checkpointer = Checkpointer(model, str(tmp_path), class_names=["cat"], optimizer=optimizer)
    checkpointer.save_iteration(7, note="x")
    optimizer.param_groups[0]["lr"] = 0.1
    assert checkpointer.resume_or_load("") == {"iteration": 7, "note": "x", "class_names": ["cat"]}
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000007.pth")


def test_only_the_main_process_writes(model, tmp_path):
    checkpointer = Checkpointer(model, str(tmp_path), save_to_disk=False, keep_last=1)
    checkpointer.save("model_final")
    checkpointer.save_iteration(1)
    checkpointer.save_best("segm/AP", 1.0, 1)
    assert _names(tmp_path) == []


# ---- the newest k


def test_the_newest_are_kept_and_the_others_deleted(model, tmp_path):
    checkpointer = Checkpointer(model, str(tmp_path), keep_last=2)
    for iteration in (9, 19, 29, 39):
        checkpointer.save_iteration(iteration)
    assert _names(tmp_path) == ["last_checkpoint", "model_0000029.pth", "model_0000039.pth"]


def test_without_a_number_all_are_kept(model, tmp_path):
    checkpointer = Checkpointer(model, str(tmp_path))
    for iteration in range(4):
        checkpointer.save_iteration(iteration)
    assert len(_names(tmp_path)) == 5


def test_other_files_are_never_deleted(model, tmp_path):
    others = ["model_final.pth", "model_best.pth", "model_1.pth", "my_0000001.pth", "x.pth"]
    others += ["model_0000001.pth.bak", "model_000000a.pth"]
    for name in others:
        (tmp_path / name).write_bytes(b"x")
    checkpointer = Checkpointer(model, str(tmp_path), keep_last=1)
    for iteration in (1, 2, 3):
        checkpointer.save_iteration(iteration)
    assert _names(tmp_path) == sorted([*others, "last_checkpoint", "model_0000003.pth"])


def test_names_of_more_than_seven_digits_are_ordered_as_numbers(model, tmp_path):
    checkpointer = Checkpointer(model, str(tmp_path), keep_last=1)
    checkpointer.save_iteration(9_999_999)
    checkpointer.save_iteration(10_000_000)
    assert _names(tmp_path) == ["last_checkpoint", "model_10000000.pth"]


def test_a_run_taken_back_by_hand_keeps_what_came_later(model, tmp_path):
    """With the pointer set back to 10: the new 20 is the newest, whatever the old 30 and 40 are."""
    before = Checkpointer(model, str(tmp_path))
    for iteration in (10, 30, 40):
        before.save_iteration(iteration)
    Checkpointer(model, str(tmp_path), keep_last=1).save_iteration(20)
    assert _names(tmp_path) == ["last_checkpoint", *(f"model_00000{n}.pth" for n in (20, 30, 40))]


def test_nothing_is_deleted_before_the_pointer_is_there(model, tmp_path, monkeypatch):
    checkpointer = Checkpointer(model, str(tmp_path), keep_last=1)
    checkpointer.save_iteration(1)

    def full(*args):
        raise UserError("disk full")

    monkeypatch.setattr(checkpointer, "tag_last_checkpoint", full)
    with pytest.raises(UserError, match="disk full"):
        checkpointer.save_iteration(2)
    assert _names(tmp_path) == ["last_checkpoint", "model_0000001.pth", "model_0000002.pth"]


def test_the_file_of_the_pointer_is_not_deleted(model, tmp_path, monkeypatch):
    """Even if another program has put the pointer elsewhere meanwhile."""
    checkpointer = Checkpointer(model, str(tmp_path), keep_last=1)
    checkpointer.save_iteration(1)
    monkeypatch.setattr(checkpointer, "tag_last_checkpoint", lambda name: None)
    checkpointer.save_iteration(2)
    assert _names(tmp_path) == ["last_checkpoint", "model_0000001.pth", "model_0000002.pth"]


def test_a_file_that_cannot_be_deleted_is_a_warning(model, tmp_path, caplog, monkeypatch):
    """And the others are deleted all the same."""
    checkpointer = Checkpointer(model, str(tmp_path), keep_last=1)
    (tmp_path / "model_0000001.pth").write_bytes(b"x")
    (tmp_path / "model_0000002.pth").write_bytes(b"x")
    unlink = os.unlink

    def fail_once(path, **kwargs):
        if "0000001" in str(path):
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))
        unlink(path, **kwargs)

    monkeypatch.setattr("os.unlink", fail_once)
    with caplog.at_level(logging.WARNING):
        checkpointer.save_iteration(3)
    assert "Cannot delete an old checkpoint" in caplog.text
    assert "model_0000001.pth" in caplog.text
    assert _names(tmp_path) == ["last_checkpoint", "model_0000001.pth", "model_0000003.pth"]
    assert checkpointer.resume_point().iteration == 3


# ---- the best one


def test_the_best_says_what_it_is_best_at_and_leaves_the_pointer(model, tmp_path):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    checkpointer = Checkpointer(model, str(tmp_path), class_names=["cat"], optimizer=optimizer)
    checkpointer.save_iteration(1)
    checkpointer.save_best("segm/AP", np.float64(31.5), 7)
    content = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert content["best"] == {"metric": "segm/AP", "value": 31.5, "iteration": 7}
    assert set(content) == {"model", "class_names", "iteration", "best"}
    assert torch.equal(content["model"]["weight"], model.weight)
    assert checkpointer.resume_point().iteration == 1

    other = nn.Linear(200, 200)
    assert Checkpointer(other).load(str(tmp_path / "model_best.pth"))["class_names"] == ["cat"]
    assert torch.equal(other.weight, model.weight)


# ---- what cannot be written


@pytest.fixture
def small_files():
    """Any file above 64 kB fails to be written; the model has 160 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_file_too_large_keeps_the_previous_checkpoint(model, tmp_path, request):
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_0000001", iteration=1)
    before = model.weight.clone()
    nn.init.zeros_(model.weight)

    request.getfixturevalue("small_files")
    with pytest.raises(UserError, match=r"model_0000002\.pth: File too large") as caught:
        checkpointer.save("model_0000002", iteration=2)
    size = (tmp_path / "model_0000001.pth").stat().st_size
    assert f"It needs {size / 1e6:.1f} MB, more than a file may have" in str(caught.value)
    assert "model_0000001.pth of iteration 1 is whole" in str(caught.value)

    assert _names(tmp_path) == ["last_checkpoint", "model_0000001.pth"]
    assert checkpointer.resume_or_load("", resume=True) == {"iteration": 1}
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("name", ["model_final", "model_best"])
def test_overwriting_on_a_full_disk_keeps_the_old_file(model, tmp_path, request, name):
    checkpointer = Checkpointer(model, str(tmp_path))

    def save():
        checkpointer.save_best("AP", 1, 1) if "best" in name else checkpointer.save(name)

    save()
    content = (tmp_path / f"{name}.pth").read_bytes()
    request.getfixturevalue("small_files")
    with pytest.raises(UserError, match=f"cannot write checkpoint .*{name}"):
        save()
    assert (tmp_path / f"{name}.pth").read_bytes() == content


@pytest.mark.parametrize(
    ("code", "free", "said"),
    [
        (
            errno.ENOSPC,
            1000,
            r"No space left on device. It needs 0\.2 MB, and 1000 bytes are free\. ",
        ),
        (errno.ENOSPC, 9e9, r"It needs 0\.2 MB, and 9000\.0 MB are free\. Are the inodes used up"),
        (errno.EDQUOT, 9e9, r"It needs 0\.2 MB, and the quota has no room"),
        (errno.EACCES, 9e9, "Permission denied. This user may not write in "),
        (errno.EROFS, 9e9, "Read-only file system. No earlier checkpoint"),
        (errno.EIO, 9e9, "The disk failed"),
    ],
)
def test_the_reason_is_named(model, tmp_path, monkeypatch, code, free, said):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    usage = shutil.disk_usage(tmp_path)._replace(free=int(free))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    monkeypatch.setattr("os.write", fail)
    with pytest.raises(UserError, match=said) as caught:
        Checkpointer(model, str(tmp_path)).save("model_final")
    assert "model_final.pth" in str(caught.value)
    assert "No earlier checkpoint in this folder can be read" in str(caught.value)


def test_a_vanished_folder_is_named_and_not_made_anew(model, tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    checkpointer = Checkpointer(model, str(folder))
    checkpointer.save_iteration(1)
    shutil.rmtree(folder)
    with pytest.raises(
        UserError, match=r"gone/model_final\.pth: No such file or directory.*gone is gone, with all"
    ):
        checkpointer.save("model_final")
    assert not folder.exists()


# ---- what cannot be loaded


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
    with pytest.raises(UserError, match=rf"{name} is (empty|neither|damaged, cut short)"):
        Checkpointer(model).load(str(path))


def test_missing_weights(model, tmp_path):
    with pytest.raises(UserError, match=r"none\.pth does not exist \(MODEL\.WEIGHTS"):
        Checkpointer(model).load(str(tmp_path / "none.pth"))


def test_weights_that_cannot_be_fetched_say_what_to_do(model, monkeypatch):
    def no_network(self, path, *args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr("iopath.common.file_io.PathManager.get_local_path", no_network)
    with pytest.raises(UserError, match=r"cannot fetch the weights detectron2://.*MODEL.WEIGHTS"):
        Checkpointer(model).load("detectron2://ImageNetPretrained/MSRA/R-50.pkl")


class _Hostile:
    def __reduce__(self):
        return (pytest.fail, ("code of the file was executed",))


@pytest.mark.parametrize("name", ["a.pkl", "a.pth"])
def test_nothing_in_a_file_is_executed(model, tmp_path, name):
    """Also where Detectron2's own reader would: it may be another build than the edited one."""
    content = {"model": {}, "__author__": "x", "y": _Hostile()}
    if name.endswith("pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(content))
    else:
        torch.save(content, tmp_path / name)
    with pytest.raises(UserError, match=r"a\.p.. was not read.*could execute code"):
        Checkpointer(model).load(str(tmp_path / name))


def test_a_pickle_of_arrays_is_matched_by_the_ends_of_names(tmp_path):
    """As the model zoo's ImageNet weights are: no "model", names without the model's prefix."""
    model = nn.ModuleDict({"backbone": nn.ModuleDict({"fc": nn.Linear(2, 3)})})
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"fc_w": weight, "fc_w_momentum": weight}))
    Checkpointer(model).load(str(tmp_path / "a.pkl"))
    assert model["backbone"]["fc"].weight.tolist() == weight.tolist()


@pytest.mark.parametrize(("query", "matched"), [("matching_heuristics=True", True), ("", False)])
def test_a_question_behind_the_name_asks_for_matching(model, tmp_path, query, matched):
    """As Detectron2's main branch has it: name.pth?matching_heuristics=True"""
    torch.save(model.state_dict(), tmp_path / "a.pth")
    checkpointer = Checkpointer(model)
    checkpointer._parsed_url_during_load = urlparse(f"{tmp_path}/a.pth?{query}")
    content = checkpointer._load_file(str(tmp_path / "a.pth"))
    assert content.get("matching_heuristics", False) is matched


@pytest.mark.parametrize(
    ("key", "value"),
    [("CHECKPOINT_PERIOD", 0), ("CHECKPOINT_PERIOD", -5), ("CHECKPOINTS_KEPT", -1)],
)
def test_keys_are_checked(key, value):
    cfg = load_config(None).clone()
    cfg.defrost()
    check_checkpoint_keys(cfg)
    cfg.SOLVER[key] = value
    with pytest.raises(UsageError, match=rf"SOLVER\.{key} is {value}, expected [01] or more"):
        check_checkpoint_keys(cfg)
