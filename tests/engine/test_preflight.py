"""The roll call: absent, doubled and unfit ranks are named; nobody waits for ever."""

from __future__ import annotations

import dataclasses
import json
import re
import socket
import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from mask_rcnn_ext.engine import preflight, processes_group
from mask_rcnn_ext.engine.preflight import Report, find_fault, roll_call
from mask_rcnn_ext.engine.processes import Place
from mask_rcnn_ext.engine.processes_children import Follower
from mask_rcnn_ext.errors import UsageError, UserError

LIMIT = 10.0


def place(rank: int = 0, each: int = 2, world: int = 4, **changes) -> Place:
    there = Place(
        rank=rank,
        world_size=world,
        local_rank=rank % each,
        local_size=each,
        machine=rank // each,
        address="10.0.0.1",
        port=5000,
        starter="train_net.py",
    )
    return dataclasses.replace(there, **changes)


def report(rank: int, each: int = 2, world: int = 4, **changes) -> Report:
    there = Report(
        rank=rank,
        world_size=world,
        local_rank=rank % each,
        local_size=each,
        machine=rank // each,
        host=f"host{rank // each}",
        pid=100 + rank,
        device="cpu",
        gpu="",
        torch="2.6",
        package="1",
        commit="abc",
        config="c0",
    )
    return dataclasses.replace(there, **changes)


class Clock:
    """A clock that only sleep moves; what is due happens during the sleep."""

    def __init__(self) -> None:
        self.now = 0.0
        self.due: list[tuple[float, object]] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 1000, "waits for ever"
        while self.due and self.due[0][0] <= self.now:
            self.due.pop(0)[1]()


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(preflight, "time", clock)
    return clock


@pytest.fixture
def store():
    return dist.HashStore()


def arrive(store, new: Report) -> None:
    """As another process does."""
    store.set(f"arrival/{store.add('arrivals', 1)}", json.dumps(dataclasses.asdict(new)))


def call(store, rank: int = 0, **changes) -> list[str]:
    said: list[str] = []
    mine = report(rank, **changes)
    roll_call(store, mine, place(rank, world=mine.world_size), limit=LIMIT, say=said.append)
    return said


def test_all_there(store, clock):
    for rank in (3, 1, 2):
        arrive(store, report(rank))
    assert call(store) == []
    assert clock.now < 1


def test_the_clock_starts_again_with_each_rank(store, clock):
    """Three processes that import from a slow disk, eight seconds apart."""
    clock.due = [(8.0 * n, lambda n=n: arrive(store, report(n))) for n in (1, 2, 3)]
    said = call(store)
    assert clock.now == pytest.approx(24, abs=0.2)
    assert said[0] == "waiting for ranks 1, 2, 3 of 4"
    assert said[-1] == "waiting for rank 3 of 4"
    assert len(said) <= 24 / 3


def test_a_missing_rank_is_named(store, clock):
    for rank in (1, 2):
        arrive(store, report(rank))
    with pytest.raises(UserError) as caught:
        call(store)
    text = str(caught.value)
    assert not isinstance(caught.value, Follower)
    assert clock.now == pytest.approx(LIMIT, abs=0.2)
    assert text.startswith(
        "rank 3 (machine 1, local rank 1) has not reported within 10 s; present: "
        "rank 0 (host0, pid 100), rank 1 (host0, pid 101), rank 2 (host1, pid 102); "
    )
    for hint in ("--machine-rank 1", "port 5000 of 10.0.0.1", preflight.SECONDS):
        assert hint in text


def test_of_many_missing_ranks_a_few_are_named(store, clock):
    with pytest.raises(UserError, match="and 55 more have not reported") as caught:
        call(store, world=64)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(("starter", "hint"), [("torchrun", "torchrun"), ("srun", "srun")])
def test_the_advice_fits_the_starter(store, clock, starter, hint):
    with pytest.raises(UserError, match=hint) as caught:
        roll_call(store, report(0), place(0, starter=starter), limit=LIMIT, say=print)
    assert "--machine-rank" not in str(caught.value)


def test_another_rank_says_it_in_one_line(store, clock):
    verdict = {"brief": "rank 3 has overslept", "full": "long", "judge": "rank 0", "number": "1"}
    clock.due = [(5.0, lambda: store.set("verdict", json.dumps(verdict)))]
    arrive(store, report(0))
    with pytest.raises(Follower, match="^rank 2 does not start: rank 3 has overslept; rank 0 says"):
        call(store, rank=2)


def test_when_rank_0_is_missing_another_one_tells(store, clock):
    for rank in (1, 3):
        arrive(store, report(rank))
    with pytest.raises(UserError, match=r"^rank 0 \(machine 0, local rank 0\) has not") as caught:
        call(store, rank=2)
    assert not isinstance(caught.value, Follower)
    assert clock.now == pytest.approx(LIMIT + preflight.BENEFIT_SECONDS, abs=0.2)


def test_rank_0_leaves_the_others_the_first_word(store, clock):
    """A verdict that is there already is the one that counts."""
    verdict = {"brief": "too late", "full": "x", "judge": "rank 1", "number": "9"}
    clock.due = [(9.99, lambda: store.set("verdict", json.dumps(verdict)))]
    with pytest.raises(Follower, match="too late"):
        call(store)


def test_who_serves_the_store_lets_the_others_read_first(store, clock):
    arrive(store, report(1, torch="2.9"))
    seen: list[float] = []
    clock.due = [(0.5, lambda: (seen.append(clock.now), store.add("read", 1)))]
    with pytest.raises(UserError):
        roll_call(store, report(0), place(0, hosts_store=True), limit=LIMIT)
    assert seen
    assert clock.now == pytest.approx(0.5, abs=0.1)


def test_a_store_that_goes_away_is_no_traceback(clock):
    class Gone:
        def add(self, *args):
            raise dist.DistNetworkError("Connection reset by peer\nException raised from ...")

    with pytest.raises(Follower, match=r"rank 1 .*tcp://10.0.0.1:5000 is gone \(Connection reset"):
        call(Gone(), rank=1)


FAULTS = {
    "duplicate": (
        [report(2), report(2, host="other", pid=7)],
        ["rank 2 is there 2 times", "rank 2 (host1, pid 102)", "rank 2 (other, pid 7)",
         "--machine-rank 1", "0 to 1"],
    ),
    "numbers": (
        [report(0, world=3), report(2)],
        ["2 of 3 on host0 (machine 0)", "2 of 4 on host1 (machine 1)", "--num-gpus"],
    ),
    "local numbers": ([report(0, each=4), report(2)], ["4 of 4 on host0", "2 of 4 on host1"]),
    "torch": ([report(0), report(2, torch="2.9")],
              ["versions of torch", "2.6 on rank 0 (host0", "2.9 on rank 2 (host1"]),
    "package": ([report(0), report(1), report(2, package="2")],
                ["versions of mask_rcnn_ext", "1 on ranks 0, 1", "2 on rank 2"]),
    "commit": ([report(0), report(2, commit="def")], ["commits", "abc on rank 0"]),
    "config": ([report(0), report(2, config="c1")], ["configs", "c1 on rank 2"]),
    "device": ([report(0), report(2, device="H100", gpu="u1")], ["kinds of device"]),
    "trouble": ([report(0), report(3, trouble="GPU 1 is not there")],
                ["rank 3 (host1, pid 103): GPU 1 is not there"]),
    "same gpu": ([report(0, gpu="u1", device="H100"), report(1, gpu="u1", device="H100")],
                 ["rank 0 (host0, pid 100) and rank 1 (host0, pid 101) use the same GPU", "H100"]),
    "layout": ([report(0), report(1, machine=1, local_rank=0)],
               ["rank 1 (host0, pid 101) is process 0 of machine 1", "block"]),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_does_not_fit_is_named(name):
    present, texts = FAULTS[name]
    brief, full = find_fault(present)
    assert brief
    assert "\n" not in brief
    for text in texts:
        assert text in full


def test_what_fits():
    gpus = [report(rank, gpu=f"u{rank % 2}", device="H100") for rank in range(4)]
    assert find_fault(gpus) == ("", "")  # the same number on another host is another GPU
    unknown = [report(0), report(2, commit="", package="")]  # no checkout there: no difference
    assert find_fault(unknown) == ("", "")


def test_a_fault_is_told_without_waiting_for_the_absent(store, clock):
    arrive(store, report(2, torch="2.9"))
    with pytest.raises(UserError, match="different versions of torch"):
        call(store)
    assert clock.now < 1


@pytest.mark.parametrize("text", ["ten", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none(monkeypatch, text):
    monkeypatch.setenv(preflight.SECONDS, text)
    with pytest.raises(UsageError, match=preflight.SECONDS):
        preflight.preflight_seconds()


def test_the_limit(monkeypatch):
    monkeypatch.delenv(preflight.SECONDS, raising=False)
    assert preflight.preflight_seconds() == 10
    monkeypatch.setenv(preflight.SECONDS, "2.5")
    assert preflight.preflight_seconds() == 2.5


@pytest.mark.parametrize(
    ("error", "texts"),
    [
        (ConnectionRefusedError(), ["nothing listens", "--machine-rank 0"]),
        (TimeoutError(), ["firewall"]),
        (socket.gaierror(), ["by the name '10.0.0.1'"]),
        (OSError(113, "No route to host"), ["No route to host"]),
    ],
)
def test_machine_0_cannot_be_reached(clock, monkeypatch, error, texts):
    def refuse(*args, **kwargs):
        raise error

    monkeypatch.setattr(preflight.socket, "create_connection", refuse)
    with pytest.raises(UserError) as caught:
        preflight.wait_for_store(place(2), LIMIT)
    assert clock.now == pytest.approx(LIMIT, abs=0.2)
    for text in ["rank 0 has not reported within 10 s: machine 1", "tcp://10.0.0.1:5000", *texts]:
        assert text in str(caught.value)


def test_a_loopback_address_on_another_machine(clock, monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionRefusedError

    monkeypatch.setattr(preflight.socket, "create_connection", refuse)
    with pytest.raises(UserError, match="127.0.0.1 is this machine itself: give all machines"):
        preflight.wait_for_store(place(2, address="127.0.0.1"), LIMIT)


def test_a_store_that_comes_late_is_met(clock):
    server = socket.socket()
    clock.due = [(5.0, server.listen)]
    server.bind(("127.0.0.1", 0))
    with server:
        preflight.wait_for_store(place(2, address="127.0.0.1", port=server.getsockname()[1]), LIMIT)
    assert clock.now == pytest.approx(5, abs=0.2)


def test_a_port_in_use_is_told():
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        with pytest.raises(UserError, match="in use.*--machine-rank 0.*--dist-url"):
            processes_group.serve_store(taken.getsockname()[1])


def test_a_library_without_an_answer_is_told(monkeypatch):
    """Both ranks were at the roll call; rank 1 never comes to the first collective."""
    at_exit: list[object] = []
    monkeypatch.setattr(processes_group.atexit, "register", at_exit.append)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    server = processes_group.serve_store(0)
    here = place(0, world=2, address="127.0.0.1", port=server.port)
    store = processes_group._connect(here, timedelta(seconds=5))
    threads = set(threading.enumerate())
    with pytest.raises(UserError) as caught:
        processes_group._form(here, "cpu", store, 0.3, timedelta(seconds=1))
    text = str(caught.value)
    assert "gloo does not work between them: rank 0 got no answer within 0.3 s" in text
    assert "not heard of: rank 1" in text
    assert "GLOO_SOCKET_IFNAME (now lo)" in text
    assert at_exit == [processes_group._leave_at_once]
    for thread in set(threading.enumerate()) - threads:
        thread.join(30)
    assert not dist.is_initialized()


def test_the_interface_is_the_one_that_leads_there():
    assert processes_group.interface_towards("127.0.0.1", 80) == "lo"
    assert processes_group.interface_towards("no such host.invalid", 80) is None


def test_a_report_of_this_process():
    mine = processes_group.report_of(place(3), "cpu", "c0")
    assert (mine.rank, mine.machine, mine.local_rank, mine.config) == (3, 1, 1, "c0")
    assert mine.host == socket.gethostname()
    assert mine.trouble == ""
    assert Report(**json.loads(json.dumps(dataclasses.asdict(mine)))) == mine


@pytest.mark.parametrize(
    ("available", "count", "text"),
    [(False, 0, "sees no GPU.*MODEL.DEVICE cpu"), (True, 1, "GPU 1 is not there, .* sees 1")],
)
def test_a_gpu_that_is_not_there(monkeypatch, available, count, text):
    monkeypatch.setattr(processes_group.torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(processes_group.torch.cuda, "device_count", lambda: count)
    _, full = find_fault([processes_group.report_of(place(3), "cuda", "c0")])
    assert re.search(text, full)
