"""Child processes: their errors, their ends, and the signals that reach them."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import forkserver
from pathlib import Path

import launch_work as work
import pytest

from mask_rcnn_ext.engine import processes_children
from mask_rcnn_ext.engine.processes_children import Follower, ProcessFailed
from mask_rcnn_ext.errors import DataError, Interrupted, UsageError, UserError

# Children that share one import of torch; programs start theirs by "spawn".
run = functools.partial(processes_children.run_children, ranks=[4, 5], start_method="forkserver")


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(work.__file__).parent), prepend=os.pathsep)
        multiprocessing.set_forkserver_preload(["launch_work"])
        forkserver.ensure_running()


@pytest.fixture
def _short_grace(monkeypatch):
    monkeypatch.setattr(processes_children, "GRACE_SECONDS", 0.5)


def _gone(pid: int) -> bool:
    for _ in range(500):
        try:
            if Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("codes", [(0, 0), (3, 0), (0, 3)])
def test_the_exit_code_is_the_first_that_is_not_zero(codes):
    assert run(functools.partial(work.code, codes)) == max(codes)


def test_a_silent_end_keeps_its_code():
    assert run(functools.partial(work.leave, (0, 9))) == 9


def test_children_get_variables_of_their_own(tmp_path, monkeypatch):
    monkeypatch.delenv("H4_OWN", raising=False)
    # The server of the other tests has its environment from before.
    processes_children.run_children(
        functools.partial(work.variable, tmp_path, "H4_OWN"),
        [0],
        environment={"H4_OWN": "7"},
        start_method="fork",
    )
    assert (tmp_path / "0").read_text() == "7"
    assert "H4_OWN" not in os.environ


@pytest.mark.usefixtures("_short_grace")
def test_a_users_error_keeps_class_and_message_and_ends_the_others(tmp_path):
    with pytest.raises(DataError, match="^image 7 is broken$"):
        run(functools.partial(work.data_error, tmp_path))
    assert not (tmp_path / "went on").exists()


def test_an_error_that_cannot_travel_keeps_its_message():
    with pytest.raises(UserError, match="a.json:7 is wrong"):
        run(work.picky)


def test_a_long_message_does_not_block_its_process():
    with pytest.raises(DataError) as caught:
        run(work.many_words)
    assert len(str(caught.value)) == 300_000


@pytest.mark.usefixtures("_short_grace")
def test_a_bug_keeps_its_traceback():
    with pytest.raises(ProcessFailed, match=r"(?s)in bug.*KeyError: 'surprise'"):
        run(work.bug)


def test_a_pointer_to_another_rank_is_not_the_reason():
    with pytest.raises(UsageError, match="the reason"):
        run(work.explained_elsewhere)


def test_a_stop_on_request_is_no_failure_of_the_others(tmp_path):
    with pytest.raises(Interrupted, match="saved") as caught:
        run(functools.partial(work.stopped_then_lost, tmp_path))
    assert caught.value.exit_code == 75


def test_a_stop_that_could_not_save_is_a_failure():
    with pytest.raises(DataError, match="disk full"):
        run(work.stopped_but_not_saved)


@pytest.mark.parametrize(
    ("number", "cause"), [(signal.SIGKILL, "memory"), (signal.SIGSEGV, "another PyTorch")]
)
def test_a_killed_child_is_named_with_the_likely_cause(tmp_path, number, cause):
    with pytest.raises(UserError) as caught:
        run(functools.partial(work.killed, tmp_path, number))
    assert "rank 5 (pid" in str(caught.value)
    assert signal.Signals(number).name in str(caught.value)
    assert cause in str(caught.value)


def test_what_a_failed_child_has_started_goes_with_it(tmp_path):
    with pytest.raises(DataError):
        run(functools.partial(work.grandchild, tmp_path))
    assert _gone(int((tmp_path / "pid").read_text()))


def _when_ready(folder: Path, *steps: float | signal.Signals) -> threading.Thread:
    """Once both children are ready: send signals to this process, with pauses in between."""

    def send() -> None:
        while not all((folder / f"ready{index}").exists() for index in (0, 1)):
            time.sleep(0.01)
        for step in steps:
            if isinstance(step, signal.Signals):
                os.kill(os.getpid(), step)
            else:
                time.sleep(step)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("number", processes_children.FORWARDED)
def test_a_signal_reaches_each_child_once_and_the_parent_waits(tmp_path, number):
    """Also when a scheduler sends it to all processes, and so twice."""
    before = signal.getsignal(number)
    sender = _when_ready(tmp_path, number, 0.1, number)
    with pytest.raises(Interrupted, match="after iteration 3"):
        run(functools.partial(work.counts_signals, tmp_path))
    sender.join()
    assert [(tmp_path / f"seen{i}").read_text() for i in (0, 1)] == [number.name] * 2
    assert signal.getsignal(number) is before


def test_a_second_signal_kills(tmp_path, monkeypatch):
    monkeypatch.setattr(processes_children, "SAME_REQUEST_SECONDS", 0.05)
    sender = _when_ready(tmp_path, signal.SIGTERM, 0.3, signal.SIGUSR1, 0.3, signal.SIGINT)
    with pytest.raises(UserError, match="stopped at once by a second SIGINT") as caught:
        run(functools.partial(work.deaf, tmp_path))
    sender.join()
    assert caught.value.exit_code == 1
    assert (tmp_path / "heard0").exists(), "the first one went on to the children"


def test_a_signal_before_the_children_listen_is_a_stop_too(tmp_path):
    sender = _when_ready(tmp_path, signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM before"):
        run(functools.partial(work.unprepared, tmp_path))
    sender.join()


def test_a_signal_while_they_start_stops_the_start(tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")

    class Slow(context.Process):
        def start(self) -> None:
            os.kill(os.getpid(), signal.SIGUSR1)

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGUSR1)
            type(self).made = getattr(type(self), "made", 0) + 1
            self.start = super().start

    monkeypatch.setattr(context, "Process", Slow)
    monkeypatch.setattr(processes_children.multiprocessing, "get_context", lambda method: context)
    code = functools.partial(work.code, (0, 0))
    with contextlib.suppress(Interrupted):
        processes_children.run_children(code, [0, 1])
    assert Slow.made == 1


def test_an_ignored_signal_stays_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        sender = _when_ready(tmp_path, signal.SIGINT, 0.2, signal.SIGTERM)
        with pytest.raises(Interrupted):
            run(functools.partial(work.counts_signals, tmp_path))
        sender.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "seen0").read_text() == "SIGTERM"


def test_children_do_not_outlive_a_killed_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, work.__file__, str(tmp_path)], start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not all((tmp_path / f"ready{i}").exists() for i in (0, 1)):
        assert parent.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert all(_gone(int((tmp_path / f"pid{i}").read_text())) for i in (0, 1))


def test_follower_is_a_failure_of_its_own():
    assert Follower("x").exit_code == 1
