"""One `tables run` at a time in a folder: who is refused, who waits, who blocks nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.paper.lock import NAME, FolderLock

# A stage, as far as the lock is concerned: plain Python, which starts at once.
STAGE = (sys.executable, "-S", "-c", "print('up', flush=True); input()")


@pytest.fixture
def stage():
    """Start a process that keeps a lock open; it ends when the test does."""
    started = []

    def start(lock: FolderLock) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            STAGE,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=[lock.descriptor],
        )
        started.append(process)
        assert process.stdout.readline() == "up\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_second_one_is_told_who_has_the_folder(tmp_path):
    # A lock belongs to an opened file: a second one of this process is refused as any other.
    with FolderLock(tmp_path):
        with pytest.raises(UserError, match=rf"process {os.getpid()} on .* since 2") as error:
            FolderLock(tmp_path).__enter__()
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid(), "left as it was"
    assert error.value.exit_code == 1
    assert "--wait" in str(error.value)
    assert "gone" not in str(error.value)


def test_it_is_free_again_afterwards(tmp_path):
    for _ in range(2):
        with FolderLock(tmp_path / "new" / "folder"):
            pass


def test_stages_hold_the_folder_though_their_runner_was_killed(stage, tmp_path):
    with FolderLock(tmp_path) as lock:
        process = stage(lock)
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    owner = json.loads((tmp_path / NAME).read_text())
    (tmp_path / NAME).write_text(json.dumps({**owner, "pid": gone.pid}))
    with pytest.raises(UserError, match="it has gone, but a stage that it started still runs"):
        FolderLock(tmp_path).__enter__()
    process.kill()
    process.wait()
    with FolderLock(tmp_path):  # nobody is left: what the file says counts for nothing
        assert json.loads((tmp_path / NAME).read_text())["pid"] == os.getpid()


def test_waiting_for_the_first(tmp_path):
    first, said, pauses = FolderLock(tmp_path), [], []
    first.__enter__()

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            first.__exit__()

    with FolderLock(tmp_path, wait=True, say=said.append, sleep=sleep):
        pass
    assert len(pauses) == 2
    assert [f"process {os.getpid()}" in text for text in said] == [True], "told once"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write"):
        FolderLock(tmp_path / "file").__enter__()


def test_an_owner_that_has_not_written_yet(tmp_path):
    with FolderLock(tmp_path):
        (tmp_path / NAME).write_text("{")
        with pytest.raises(UserError, match="has not said yet who it is"):
            FolderLock(tmp_path).__enter__()
