"""A run goes on from the newest checkpoint that is whole, in all its processes from the same."""

from __future__ import annotations

import logging
import multiprocessing
import os
import zipfile

import pytest
import torch
from detectron2.utils import comm
from torch import nn

from mask_rcnn_ext.engine import checkpoint as module
from mask_rcnn_ext.engine.checkpoint import Checkpointer
from mask_rcnn_ext.errors import UserError


class Part:
    """What a trainer is to its checkpointer: something with a state."""

    def __init__(self) -> None:
        self.state: dict = {}

    def state_dict(self) -> dict:
        return self.state

    def load_state_dict(self, state: dict) -> None:
        self.state = state


def _checkpointer(folder, **kwargs) -> Checkpointer:
    return Checkpointer(nn.Linear(20, 20), str(folder), trainer=Part(), **kwargs)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of the iterations 1, 2 and 3, each with weights of that value."""
    checkpointer = _checkpointer(tmp_path)
    for iteration in (1, 2, 3):
        _fill(checkpointer, iteration)
        checkpointer.save_iteration(iteration)
    return tmp_path


def _fill(checkpointer: Checkpointer, value: int) -> None:
    nn.init.constant_(checkpointer.model.weight, value)
    checkpointer.checkpointables["trainer"].state = {"value": value}


def _resumed(folder) -> int | None:
    """The iteration gone on from; weights and trainer must be of the same."""
    checkpointer = _checkpointer(folder)
    loaded = checkpointer.resume_or_load("")
    if not checkpointer.has_checkpoint():
        return None
    value = loaded["iteration"]
    assert checkpointer.resumed_from.iteration == value
    assert checkpointer.resumed_from.path.parent == folder
    assert torch.equal(checkpointer.model.weight, torch.full((20, 20), float(value)))
    assert checkpointer.checkpointables["trainer"].state == {"value": value}
    return value


def _cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-300])


def _empty(path) -> None:
    path.write_bytes(b"")


def _zeros(path) -> None:
    """As some file systems leave a file after a power cut: its length, without its content."""
    path.write_bytes(bytes(path.stat().st_size))


def _flip(path) -> None:
    """One bit of a weight."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        biggest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content[biggest.header_offset + 1000] ^= 1
    path.write_bytes(content)


def _no_trainer(path) -> None:
    content = torch.load(path, weights_only=True)
    del content["trainer"]
    torch.save(content, path)


def _a_list(path) -> None:
    torch.save([1, 2], path)


def _a_folder(path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {
    _cut: "damaged, cut short or no checkpoint",
    _empty: "is empty",
    _zeros: "neither a file of torch.save nor a pickle",
    _flip: "does not have its checksum",
    _no_trainer: "lacks trainer",
    _a_list: "lacks model, trainer",
    _a_folder: "there is no such file",
}


@pytest.mark.parametrize(("damage", "reason"), DAMAGES.items())
def test_a_damaged_newest_one_is_passed_over_with_its_reason(folder, caplog, damage, reason):
    damage(folder / "model_0000003.pth")
    with caplog.at_level(logging.WARNING):
        assert _resumed(folder) == 2
    passed, going_on = [r.message for r in caplog.records if r.name.startswith("mask_rcnn_ext")]
    assert passed.startswith("Passed over: ")
    assert "model_0000003.pth" in passed
    assert reason in passed
    assert going_on == f"Going on from: {folder}/model_0000002.pth of iteration 2"


def test_torch_alone_does_not_see_a_flipped_bit(folder):
    """Else our own look at the checksums could go."""
    _flip(folder / "model_0000003.pth")
    loaded = torch.load(folder / "model_0000003.pth", weights_only=True)
    assert not torch.equal(loaded["model"]["weight"], torch.full((20, 20), 3.0))


def test_checksums_are_written_whatever_torch_was_told(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        checkpointer = _checkpointer(tmp_path)
        _fill(checkpointer, 1)
        checkpointer.save_iteration(1)
        assert torch.serialization.get_crc32_options() is False
    finally:
        torch.serialization.set_crc32_options(True)
    assert _resumed(tmp_path) == 1


@pytest.mark.parametrize(
    ("pointer", "reason"),
    [
        (b"", "names no file"),
        (b"\xff\x00garbage\n", "names no file"),
        (b"x" * 5000, "names no file"),
        (b"../model_0000002.pth", "names no file"),
        (b"model_0000009.pth", "names 'model_0000009.pth', and there is no such file"),
        (b"model_best.pth", "model_best.pth cannot be gone on from: it lacks trainer"),
    ],
)
def test_a_pointer_that_is_no_use(folder, caplog, pointer, reason):
    _checkpointer(folder).save_best("AP", 3.0, 9)
    (folder / "last_checkpoint").write_bytes(pointer)
    with caplog.at_level(logging.WARNING):
        assert _resumed(folder) == 3
    assert reason in caplog.text


def test_a_missing_pointer(folder):
    """A kill between the first checkpoint and its pointer."""
    (folder / "last_checkpoint").unlink()
    assert _resumed(folder) == 3


def test_a_pointer_set_back_by_hand_is_obeyed(folder, caplog):
    (folder / "last_checkpoint").write_text("model_0000001.pth\n")
    with caplog.at_level(logging.WARNING):
        assert _resumed(folder) == 1
    assert not caplog.text


def test_several_damaged_ones(folder, caplog):
    _cut(folder / "model_0000003.pth")
    _flip(folder / "model_0000002.pth")
    with caplog.at_level(logging.WARNING):
        assert _resumed(folder) == 1
    assert caplog.text.count("Passed over") == 2


@pytest.mark.parametrize(("final", "expected"), [(5, 5), (2, 3)])
def test_the_final_one_has_its_place_among_the_others(folder, final, expected):
    """It is the newest, unless the run went on later with more iterations."""
    checkpointer = _checkpointer(folder)
    _fill(checkpointer, final)
    checkpointer.save("model_final", iteration=final)
    (folder / "last_checkpoint").unlink()
    assert _resumed(folder) == expected


def test_a_damaged_final_one(folder, caplog):
    checkpointer = _checkpointer(folder)
    checkpointer.save("model_final", iteration=4)
    _flip(folder / "model_final.pth")
    (folder / "last_checkpoint").unlink()
    with caplog.at_level(logging.WARNING):
        assert _resumed(folder) == 3
    assert "model_final.pth is damaged" in caplog.text


def test_when_none_is_whole_the_run_does_not_silently_begin_anew(folder):
    for path in folder.glob("*.pth"):
        _cut(path)
    with pytest.raises(
        UserError, match="(?s)no checkpoint in .* choose another OUTPUT_DIR"
    ) as caught:
        _resumed(folder)
    for iteration in (1, 2, 3):
        assert f"model_000000{iteration}.pth is damaged" in str(caught.value)


def test_a_pointer_without_any_checkpoint(tmp_path):
    (tmp_path / "last_checkpoint").write_text("model_0000001.pth")
    with pytest.raises(UserError, match="names 'model_0000001.pth', and there is no such file"):
        _resumed(tmp_path)


@pytest.mark.parametrize("exists", [True, False])
def test_an_empty_or_missing_folder_is_a_new_run(tmp_path, exists):
    assert _resumed(tmp_path if exists else tmp_path / "none") is None


def test_a_new_run_loads_the_weights_alone(folder, tmp_path):
    checkpointer = _checkpointer(tmp_path / "none")
    checkpointer.resume_or_load(str(folder / "model_0000002.pth"))
    assert checkpointer.model.weight[0, 0] == 2
    assert checkpointer.checkpointables["trainer"].state == {}


def test_without_resume_the_folder_is_left_alone(folder):
    checkpointer = _checkpointer(folder)
    before = checkpointer.model.weight.clone()
    assert checkpointer.resume_point() is not None
    assert checkpointer.resume_or_load("", resume=False) == {}
    assert checkpointer.resumed_from is None
    assert torch.equal(checkpointer.model.weight, before)


def test_a_later_checkpoint_counts_again_after_one_was_passed_over(folder):
    _cut(folder / "model_0000003.pth")
    checkpointer = _checkpointer(folder)
    checkpointer.resume_or_load("")
    _fill(checkpointer, 3)
    checkpointer.save_iteration(3)
    assert _resumed(folder) == 3


def test_leftovers_of_killed_writes_are_deleted_and_nothing_else(folder):
    gone = [".model_0000004.pth.0a1b2c3d.partial", ".last_checkpoint.0a1b2c3d.partial"]
    gone += [".model_final.pth.00000000.partial", ".model_best.pth.ffffffff.partial"]
    stay = [".metrics.json.0a1b2c3d.partial", "model_0000004.pth.0a1b2c3d.partial"]
    stay += [".model_0000004.pth.partial", ".my_model.pth.0a1b2c3d.partial", ".partial"]
    for name in gone + stay:
        (folder / name).write_bytes(b"x")
    assert _resumed(folder) == 3
    left = {path.name for path in folder.iterdir()}
    assert left >= set(stay)
    assert not left & set(gone)


# ---- several processes


def _in_processes(folder, work, count: int = 2) -> list:
    """What `work(rank, folder)` returns in each of `count` processes of one run, or its error."""
    context = multiprocessing.get_context("fork")  # torch need not be imported again
    queue = context.SimpleQueue()
    processes = [
        context.Process(target=_process, args=(rank, count, folder, work, queue))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [answer for _, answer in sorted(queue.get() for _ in processes)]


def _process(rank, count, folder, work, queue) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/.meeting", rank=rank, world_size=count
    )
    try:
        answer = work(rank, folder)
    except UserError as error:
        answer = str(error)
    queue.put((rank, answer))
    comm.synchronize()
    os._exit(0)


def test_the_main_process_decides_for_all(folder):
    """On another machine the folder may look different for a moment (NFS)."""
    _cut(folder / "model_0000003.pth")

    def work(rank, folder):
        if rank != 0:
            module.newest_whole = None  # nobody else may look
        return _resumed(folder)

    assert _in_processes(folder, work) == [2, 2]


def test_a_process_that_cannot_read_the_checkpoint_is_named_in_all(folder):
    def work(rank, folder):
        if rank == 1:

            def missing(path):
                raise UserError(f"weights file {path} does not exist")

            module.read_checkpoint = missing
        return _resumed(folder)

    first, second = _in_processes(folder, work)
    assert first == second
    assert "1 of 2 processes cannot load their start" in first
    assert "process 1: weights file" in first
    assert "model_0000003.pth does not exist" in first


def test_when_none_is_whole_all_processes_end(folder):
    for path in folder.glob("*.pth"):
        _empty(path)
    first, second = _in_processes(folder, lambda rank, folder: _resumed(folder))
    assert first == second
    assert "no checkpoint in" in first


def test_all_processes_save_and_one_writes(tmp_path):
    def work(rank, folder):
        checkpointer = _checkpointer(folder)
        _fill(checkpointer, 4 if rank == 0 else 9)
        checkpointer.save_iteration(4)
        comm.synchronize()
        return _resumed(folder)

    assert _in_processes(tmp_path, work) == [4, 4]
