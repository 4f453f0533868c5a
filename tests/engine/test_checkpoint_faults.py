"""Whatever call fails, and whenever the process is killed: a whole checkpoint is there.

A save is repeated with its first call failing, then its second, and so on until none is left to
fail: once through Python's `os` module with each error that a disk may give, once with the real
system calls (strace), and once with a kill in place of the error.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from mask_rcnn_ext.engine.checkpoint import Checkpointer
from mask_rcnn_ext.errors import UserError

logging.getLogger("fvcore.common.checkpoint").setLevel(logging.ERROR)

ERRORS = [errno.ENOSPC, errno.EACCES, errno.EIO, errno.EDQUOT]
# Each call that a save makes, in order; "write" once or more each time.
FILE = ["open", "write", "fsync", "replace", "open", "fsync", "close"]
SAVE = [*FILE, *FILE, "unlink"]


def _checkpointer(folder) -> Checkpointer:
    model = nn.Linear(100, 100)  # more than a buffer, so that there are several writes
    return Checkpointer(
        model, str(folder), keep_last=2, optimizer=torch.optim.SGD(model.parameters())
    )


def _save(checkpointer: Checkpointer, iteration: int) -> None:
    nn.init.constant_(checkpointer.model.weight, iteration)
    checkpointer.checkpointables["optimizer"].param_groups[0]["lr"] = iteration
    checkpointer.save_iteration(iteration)


def _resumed(folder) -> int:
    """The iteration gone on from; everything that was loaded must be of it."""
    checkpointer = _checkpointer(folder)
    iteration = checkpointer.resume_or_load("")["iteration"]
    assert torch.equal(checkpointer.model.weight, torch.full((100, 100), float(iteration)))
    assert checkpointer.checkpointables["optimizer"].param_groups[0]["lr"] == iteration
    return iteration


def _usable(folder, *iterations: int) -> None:
    """After a save of 3 into a folder with 1 and 2: one goes on from `iterations`, saves, again."""
    two = torch.load(folder / "model_0000002.pth", weights_only=True)
    assert torch.equal(two["model"]["weight"], torch.full((100, 100), 2.0))
    assert _resumed(folder) in iterations
    _save(_checkpointer(folder), 4)
    assert _resumed(folder) == 4
    assert not _leftovers(folder)


def _leftovers(folder) -> list[Path]:
    return list(folder.glob(".*.partial"))


class Calls:
    """Stands before the functions of `os` that write; notes them, and does `fault` at the n-th."""

    NAMES = ("open", "write", "fsync", "close", "replace", "unlink")

    def __init__(
        self, at: int, fault: Callable[[str, Callable, tuple], None], *, ever: bool = False
    ):
        """
        Args:
            at: which call, 0-based; with `ever` all that follow too
            fault: of the call's name, the call and its arguments; goes on if it returns
        """
        self.seen: list[str] = []
        self._at, self._fault, self._ever = at, fault, ever

    @contextlib.contextmanager
    def armed(self) -> Iterator[Calls]:
        with pytest.MonkeyPatch.context() as patch:
            for name in self.NAMES:
                patch.setattr(os, name, self._guarded(name, getattr(os, name)))
            yield self

    @property
    def failed(self) -> str | None:
        """The name of the call at which it did."""
        return self.seen[self._at] if len(self.seen) > self._at else None

    def _guarded(self, name: str, call: Callable) -> Callable:
        def guarded(*args, **kwargs):
            self.seen.append(name)
            if len(self.seen) - 1 == self._at or (self._ever and len(self.seen) > self._at):
                self._fault(name, call, args)
            return call(*args, **kwargs)

        return guarded


def _fail(code: int, *, partly: bool = False) -> Callable[[str, Callable, tuple], None]:
    def fault(name: str, call: Callable, args: tuple) -> None:
        if name == "close":
            call(*args)  # as the system does: the descriptor is free afterwards
        if partly and name == "write":
            call(args[0], memoryview(args[1])[: len(args[1]) // 2])
        raise OSError(code, os.strerror(code))

    return fault


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    """A folder with the checkpoints 1 and 2."""
    folder = tmp_path_factory.mktemp("start")
    checkpointer = _checkpointer(folder)
    for iteration in (1, 2):
        _save(checkpointer, iteration)
    return folder


def _copies(start: Path, tmp_path: Path) -> Iterator[tuple[int, Path]]:
    for n in itertools.count():
        folder = tmp_path / str(n)
        shutil.copytree(start, folder)
        yield n, folder


def test_the_calls_of_a_save_are_those_that_the_faults_below_hit(start, tmp_path):
    folder = shutil.copytree(start, tmp_path / "0")
    with Calls(-1, _fail(0)).armed() as calls:
        _save(_checkpointer(folder), 3)
    assert [name for name, _ in itertools.groupby(calls.seen)] == SAVE
    assert calls.seen.count("write") > 3


@pytest.mark.parametrize(
    ("code", "partly"), [*((code, False) for code in ERRORS), (errno.ENOSPC, True)]
)
def test_each_call_fails_once(start, tmp_path, caplog, code, partly):
    hit = set()
    for n, folder in _copies(start, tmp_path):
        checkpointer = _checkpointer(folder)
        calls = Calls(n, _fail(code, partly=partly))
        message = ""
        with calls.armed():
            try:
                _save(checkpointer, 3)
            except UserError as error:
                message = str(error)
        if calls.failed is None:
            break
        hit.add(calls.failed)
        # A folder need not be one that can be opened; what is not deleted is a warning.
        harmless = calls.failed == "unlink" or calls.seen[n - 1 : n + 1] == ["replace", "open"]
        assert bool(message) is not harmless, (n, calls.seen)
        if message:
            file = "last_checkpoint" if calls.seen[:n].count("close") else "model_0000003.pth"
            assert f"{folder / file}: {os.strerror(code)}" in message
            assert "is whole: mend the cause" in message
        assert not _leftovers(folder)
        _usable(folder, *((2, 3) if message else (3,)))
    assert hit == set(SAVE)
    assert "Cannot delete an old checkpoint" in caplog.text


def test_each_call_and_all_that_follow_fail(start, tmp_path):
    """A disk that has died: the rest of a write cannot be deleted either, until the next start."""
    for n, folder in _copies(start, tmp_path):
        calls = Calls(n, _fail(errno.EIO), ever=True)
        failed = False
        with calls.armed():
            try:
                _save(_checkpointer(folder), 3)
            except UserError:
                failed = True
        if calls.failed is None:
            break
        _usable(folder, *((2, 3) if failed else (3,)))


# ---- kills

WORKED, REFUSED, BROKE = 0, 3, 1


def _child(work: Callable[[], None]) -> int:
    """The process id of a fork that does `work` and ends with one of the codes above."""
    pid = os.fork()
    if pid:
        return pid
    code = BROKE
    try:
        work()
        code = WORKED
    except UserError:
        code = REFUSED
    except BaseException as error:
        print(repr(error), file=sys.__stderr__, flush=True)
    finally:
        os._exit(code)


def test_a_kill_at_each_call(start, tmp_path):
    for n, folder in _copies(start, tmp_path):

        def kill(name: str, call: Callable, args: tuple) -> None:
            if name == "write":
                call(args[0], memoryview(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

        def work(n: int = n, folder: Path = folder) -> None:
            with Calls(n, kill).armed():
                _save(_checkpointer(folder), 3)

        _, status = os.waitpid(_child(work), 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == WORKED
            break
        assert os.WTERMSIG(status) == signal.SIGKILL
        _usable(folder, 2, 3)
    assert n > len(SAVE)


def test_fifteen_kills_at_any_moment(tmp_path):
    """One run after the other goes on from where the one before was killed."""
    moments = random.Random(0)
    _save(_checkpointer(tmp_path), 0)
    reached = [0]
    for _ in range(15):
        reading, writing = os.pipe()

        def work(first: int = reached[-1] + 1, pipe: int = writing) -> None:
            checkpointer = _checkpointer(tmp_path)
            for iteration in itertools.count(first):
                _save(checkpointer, iteration)
                os.write(pipe, b".")

        pid = _child(work)
        os.read(reading, 1)  # it is saving
        time.sleep(moments.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status)
        os.close(reading)
        os.close(writing)
        reached.append(_resumed(tmp_path))
        assert reached[-1] > reached[-2]
    # Not three: the last kill may have been between the pointer and the deletion.
    assert len(list(tmp_path.glob("model_*.pth"))) in (2, 3, 4)


# ---- real failures


def _traced(work: Callable[[], None], log: Path, *options: str) -> tuple[int, list[str]]:
    """The exit code of a process that does `work` under strace, and the lines of its log."""

    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        work()

    pid = _child(stopped)
    os.waitpid(pid, os.WUNTRACED)
    command = ["strace", "-qq", "-p", str(pid), "-o", str(log), "-e", "trace=%file,%desc"]
    with subprocess.Popen([*command, *options]) as strace:
        status = Path(f"/proc/{pid}/status")
        while "TracerPid:\t0\n" in status.read_text() and strace.poll() is None:
            time.sleep(0.002)
        os.kill(pid, signal.SIGCONT)
        _, code = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(code), log.read_text().splitlines()


def _can_trace() -> bool:
    if shutil.which("strace") is None:
        return False
    probe = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True)
    return probe.returncode == 0


@pytest.mark.skipif(not _can_trace(), reason="needs strace, and to be allowed to use it")
@pytest.mark.parametrize(
    "code",
    [
        "EIO",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("ENOSPC", "EACCES", "EDQUOT")),
    ],
)
def test_each_system_call_fails_once(start, tmp_path, code):
    copies = _copies(start, tmp_path)
    log = tmp_path / "log"
    checkpointer = _checkpointer(next(copies)[1])
    _, lines = _traced(lambda: _save(checkpointer, 3), log)
    calls = Counter(line.split("(")[0] for line in lines if re.match(r"\w+\(", line))
    assert set(calls) >= {"openat", "write", "fsync", "close", "unlink"}
    assert set(calls) & {"rename", "renameat", "renameat2"}

    each = [(call, n + 1) for call, count in calls.items() for n in range(count)]
    for (call, n), (_, folder) in zip(each, copies, strict=False):
        checkpointer = _checkpointer(folder)
        result, lines = _traced(
            lambda c=checkpointer: _save(c, 3), log, "-e", f"inject={call}:error={code}:when={n}"
        )
        assert [line for line in lines if "(INJECTED)" in line], (call, n)
        assert result in (WORKED, REFUSED), (call, n)
        assert not _leftovers(folder)
        _usable(folder, *((2, 3) if result == REFUSED else (3,)))


@contextlib.contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may write anywhere."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_folder_that_may_only_be_read(start):
    with tempfile.TemporaryDirectory() as name:
        folder = shutil.copytree(start, Path(name) / "run")
        Path(name).chmod(0o755)
        checkpointer = _checkpointer(folder)
        folder.chmod(0o555)
        with _as_nobody():
            with pytest.raises(
                UserError, match="Permission denied. This user may not write"
            ) as caught:
                _save(checkpointer, 3)
            assert "model_0000002.pth of iteration 2 is whole" in str(caught.value)
            assert _resumed(folder) == 2  # that leftovers cannot be deleted matters to nobody
        folder.chmod(0o000)
        with _as_nobody():
            with pytest.raises(UserError, match="Permission denied.* No earlier checkpoint"):
                _save(checkpointer, 3)
            with pytest.raises(UserError, match=f"cannot look into {folder}: Permission denied"):
                _resumed(folder)
        folder.chmod(0o755)
        _usable(folder, 2)


FULL_DISK = """
import os, subprocess, sys
sys.path[:0] = {path!r}
import test_checkpoint_faults as t
folder = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", folder], check=True)
folder = t.Path(folder)
t._save(t._checkpointer(folder), 2)
for code, prepare in (
    ("No space left on device. It needs ", None),
    ("Read-only file system.", ["mount", "-o", "remount,ro", str(folder)]),
):
    if prepare:
        subprocess.run(prepare, check=True)
    else:
        (folder / "other").write_bytes(bytes(50_000))
    try:
        t._save(t._checkpointer(folder), 3)
    except t.UserError as error:
        assert code in str(error), str(error)
        assert "of iteration 2 is whole" in str(error), str(error)
    else:
        raise AssertionError("it was written")
    assert not t._leftovers(folder)
    assert t._resumed(folder) == 2
subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
(folder / "other").unlink()
t._usable(folder, 2)
"""


@pytest.mark.slow
def test_a_real_full_disk_and_a_real_read_only_one(tmp_path):
    """In name spaces of their own, where the machine lets us make them."""
    unshare = ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"]).returncode:
        pytest.skip("needs a mount name space of its own")
    script = FULL_DISK.format(path=[str(Path(__file__).parent), *sys.path])
    result = subprocess.run(
        [*unshare, sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
