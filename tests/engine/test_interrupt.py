"""Signals: remembered while a run works, obeyed where its state is safe."""

from __future__ import annotations

import os
import signal

import pytest

from mask_rcnn_ext.engine.interrupt import Interruptible, StopRequest, outlive_termination
from mask_rcnn_ext.errors import Interrupted, exit_code_of

ALL = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


@pytest.fixture
def stop():
    before = [signal.getsignal(number) for number in ALL]
    request = StopRequest().install()
    yield request
    request.uninstall()
    assert [signal.getsignal(number) for number in ALL] == before


@pytest.mark.parametrize("number", ALL)
def test_a_signal_is_remembered_while_a_run_works(stop, number, capfd):
    with stop.deferred():
        assert not stop.agreed()
        os.kill(os.getpid(), number)
        assert stop.agreed()
    assert "finishing this step" in capfd.readouterr().err
    with pytest.raises(Interrupted, match="run the same command again; exit code 75"):
        stop.raise_if_requested()


@pytest.mark.parametrize("number", ALL)
def test_a_signal_at_another_time_ends_the_run(stop, number):
    with pytest.raises(Interrupted):
        os.kill(os.getpid(), number)


def test_the_exit_code_is_documented(capsys):
    def work():
        raise StopRequest().interruption(" after iteration 3 of 9")

    assert exit_code_of(work, "train_net.py") == 75
    assert "after iteration 3 of 9. To go on" in capsys.readouterr().err


def test_a_second_ctrl_c_ends_the_run_at_once_and_a_second_sigterm_does_not(stop):
    with stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_deferring_nests(stop):
    with stop.deferred():
        with stop.deferred():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal == "SIGTERM"


def test_other_processes_that_inherit_the_handler_ignore_it(stop):
    pid = os.fork()
    if not pid:
        os.kill(os.getpid(), signal.SIGINT)
        os._exit(7 if stop.signal is None else 8)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_batches_end_at_a_request(stop):
    batches = Interruptible(["a", "b", "c"], stop)
    assert len(batches) == 3
    assert list(batches) == ["a", "b", "c"]
    got = []
    with stop.deferred(), pytest.raises(Interrupted):
        for batch in batches:
            got.append(batch)
            os.kill(os.getpid(), signal.SIGUSR1)
    assert got == ["a"]


def test_a_worker_that_a_signal_killed_is_the_signals_fault(stop):
    def batches():
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Terminated.")
        yield

    with pytest.raises(RuntimeError):
        list(Interruptible(batches(), stop))
    stop.signal = "SIGTERM"
    with pytest.raises(Interrupted):
        list(Interruptible(batches(), stop))


def test_a_worker_outlives_the_signal_for_a_while():
    pid = os.fork()
    if not pid:
        outlive_termination()
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(9 if 0 < signal.alarm(0) <= 30 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
