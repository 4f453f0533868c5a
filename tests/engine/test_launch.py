"""How processes are started: by this program, by torchrun, by srun."""

from __future__ import annotations

import argparse
import os

import pytest
import torch

from mask_rcnn_ext.engine import launch, processes_group
from mask_rcnn_ext.engine.processes import Place, first_host, place_from_environment
from mask_rcnn_ext.errors import UsageError

CONFIG = ["--config-file", "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"]
TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29400",
    "TORCHELASTIC_RESTART_COUNT": "2",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}
SRUN = {
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in list(os.environ):
        if name in TORCHRUN or name.startswith("SLURM_"):
            monkeypatch.delenv(name)


@pytest.fixture
def started(monkeypatch) -> dict:
    """Instead of processes: what they would have got."""
    seen: dict = {}

    def run_children(work, ranks, environment):
        seen.update(zip(("main", "args", "place", "facts"), work.args, strict=True))
        seen.update(ranks=list(ranks), environment=environment)
        return 0

    def serve_store(port):
        seen["served"] = port
        return argparse.Namespace(port=port or 4242)

    monkeypatch.setattr(launch, "run_children", run_children)
    monkeypatch.setattr(processes_group, "serve_store", serve_store)
    return seen


def start(*words: str) -> int:
    return launch.parse_and_launch([*CONFIG, *words, "MODEL.DEVICE", "cpu"], max)


def refuse(*words: str) -> None:
    raise AssertionError("must not run")


@pytest.mark.parametrize("words", [(), ("--num-gpus", "0"), ("--num-gpus", "1")])
def test_one_process_is_this_one(started, words):
    seen = []
    code = launch.parse_and_launch([*CONFIG, *words], lambda args: seen.append(args) or 7)
    assert code == 7
    assert len(seen) == 1
    assert not started


def test_processes_of_one_machine_meet_at_a_free_port(started):
    """Two runs of one user would otherwise ask for the same one."""
    assert start("--num-gpus", "2") == 0
    assert started["served"] == 0
    assert started["place"] == Place(
        rank=0,
        world_size=2,
        local_rank=0,
        local_size=2,
        machine=0,
        address="127.0.0.1",
        port=4242,
        starter="train_net.py",
    )
    assert started["ranks"] == [0, 1]
    assert started["facts"][0] == "cpu"


def test_a_port_that_is_given_is_taken(started):
    start("--num-gpus", "2", "--dist-url", "tcp://127.0.0.1:5000")
    assert started["served"] == 5000
    assert started["place"].port == 5000


def test_the_second_machine_serves_no_store(started):
    start("--num-gpus", "3", "--num-machines", "2", "--machine-rank", "1",
          "--dist-url", "tcp://a:1")  # fmt: skip
    assert "served" not in started
    assert started["ranks"] == [3, 4, 5]
    assert (started["place"].url, started["place"].world_size) == ("tcp://a:1", 6)


def test_each_child_knows_its_place(monkeypatch, started):
    places = []
    monkeypatch.setattr(launch, "_in_group", lambda main, args, place, *facts: places.append(place))
    start(
        "--num-gpus", "2", "--num-machines", "2", "--machine-rank", "1", "--dist-url", "tcp://a:1"
    )
    for index in (0, 1):
        launch._child(max, started["args"], started["place"], started["facts"], index)
    assert [(p.rank, p.local_rank, p.machine, p.machines) for p in places] == [
        (2, 0, 1, 2),
        (3, 1, 1, 2),
    ]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--num-machines", "2", "--machine-rank", "2"), "it is 0 to 1"),
        (("--machine-rank", "1"), "it is 0 to 0"),
        (("--num-machines", "0"), "at least one machine"),
        (("--num-gpus", "-1"), "at least one machine"),
        (("--num-gpus", "2", "--dist-url", "file:///x"), "tcp://ADDRESS_OF_MACHINE_0:PORT"),
        (("--num-gpus", "2", "--dist-url", "tcp://host"), "tcp://ADDRESS_OF_MACHINE_0:PORT"),
        (("--num-gpus", "2", "--dist-url", "tcp://host:port"), "tcp://ADDRESS"),
        (("--num-machines", "2", "--dist-url", "auto"), "tcp://ADDRESS_OF_MACHINE_0:PORT"),
        (("--num-gpus", "2", "SOLVER.BASE_LRR", "1"), "nearest: SOLVER.BASE_LR"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_is_started(started, words, text):
    with pytest.raises(UsageError, match=text):
        start(*words)
    assert "args" not in started


def test_one_gpu_for_all_processes_is_refused(started):
    with pytest.raises(UsageError, match="MODEL.DEVICE is cuda:1, one GPU, for 2 processes"):
        launch.parse_and_launch([*CONFIG, "--num-gpus", "2", "MODEL.DEVICE", "cuda:1"], refuse)


def test_a_config_hash_tells_configs_apart(started):
    hashes = []
    for rate in ("0.1", "0.2", "0.2"):
        start("--num-gpus", "2", "SOLVER.BASE_LR", rate)
        hashes.append(started["facts"][1])
    assert hashes[0] != hashes[1] == hashes[2]


def test_cores_are_shared_out(started, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(12)), raising=False)
    start("--num-gpus", "5")
    assert started["environment"] == {"OMP_NUM_THREADS": "2"}
    assert launch.threads_each(64) == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    start("--num-gpus", "5")
    assert started["environment"] == {"OMP_NUM_THREADS": "3"}


def under(monkeypatch, environment: dict[str, str], *words: str) -> argparse.Namespace:
    """What `main` and the group get."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    seen = argparse.Namespace()

    def in_group(main, args, place, device, config):
        vars(seen).update(args=args, place=place, device=device)
        return 0

    monkeypatch.setattr(launch, "_in_group", in_group)
    start(*words)
    return seen


def test_torchrun_is_taken_at_its_word(monkeypatch, started):
    seen = under(monkeypatch, TORCHRUN)
    assert seen.place == Place(
        rank=5,
        world_size=8,
        local_rank=1,
        local_size=4,
        machine=1,
        address="node1",
        port=29400,
        starter="torchrun",
        hosts_store=False,
        attempt=2,
    )
    assert (seen.args.num_gpus, seen.args.num_machines, seen.args.machine_rank) == (4, 2, 1)
    assert seen.device == "cpu"
    assert not started


def test_torchrun_with_one_process_needs_no_group(monkeypatch):
    one = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    for name, value in one.items():
        monkeypatch.setenv(name, value)
    assert launch.parse_and_launch(CONFIG, lambda args: args.num_gpus) == 1


@pytest.mark.parametrize(
    ("words", "agrees"),
    [
        (("--num-gpus", "4"), True),
        (("--num-gpus", "2"), False),
        (("--num-machines", "2"), True),
        (("--num-machines", "3"), False),
    ],
)
def test_numbers_beside_torchrun_must_agree(monkeypatch, words, agrees):
    if agrees:
        assert under(monkeypatch, TORCHRUN, *words).args.num_gpus == 4
    else:
        with pytest.raises(UsageError, match=f"{words[0]} {words[1]}, but torchrun has started 4"):
            under(monkeypatch, TORCHRUN, *words)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"LOCAL_WORLD_SIZE": "3"}, "different numbers.*--nproc-per-node"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many'"),
        ({"RANK": "8"}, "do not fit together"),
        ({"MASTER_ADDR": ""}, "no MASTER_ADDR"),
    ],
)
def test_a_torchrun_environment_that_does_not_fit(changes, text):
    with pytest.raises(UsageError, match=text):
        place_from_environment(TORCHRUN | changes)


@pytest.mark.parametrize(("rank", "agent", "hosts"), [(0, "False", True), (0, "True", False),
                                                      (5, "False", False)])  # fmt: skip
def test_rank_0_serves_the_store_where_the_agent_does_not(rank, agent, hosts):
    changes = {"RANK": str(rank), "TORCHELASTIC_USE_AGENT_STORE": agent}
    assert place_from_environment(TORCHRUN | changes).hosts_store is hosts


def test_srun_is_taken_at_its_word(monkeypatch, started):
    seen = under(monkeypatch, SRUN)
    assert (seen.place.rank, seen.place.world_size, seen.place.local_rank) == (3, 4, 1)
    assert (seen.place.machine, seen.place.local_size, seen.place.address) == (1, 2, "gpu07")
    assert seen.place.starter == "srun"
    assert not seen.place.hosts_store
    assert seen.args.num_gpus == 2


def test_the_tasks_of_a_step_agree_on_a_port():
    ports = {place_from_environment(SRUN | {"SLURM_PROCID": str(rank)}).port for rank in range(4)}
    assert len(ports) == 1
    other = place_from_environment(SRUN | {"SLURM_STEP_ID": "1"}).port
    assert 1024 < other < 32768  # below the ports that Linux gives to outgoing connections
    assert other not in ports
    assert place_from_environment(SRUN | {"MASTER_PORT": "9"}).port == 9


@pytest.mark.parametrize("tasks", ["2,1", "2(x1),3"])
def test_machines_of_different_sizes_are_refused(tasks):
    with pytest.raises(UsageError, match="different numbers of processes.*--ntasks-per-node"):
        place_from_environment(SRUN | {"SLURM_STEP_TASKS_PER_NODE": tasks})


def test_a_batch_script_is_no_step():
    """There, `python train_net.py --num-gpus 4` starts its processes itself."""
    script = {k: v for k, v in SRUN.items() if k != "SLURM_STEP_ID"} | {"SLURM_NTASKS": "4"}
    assert place_from_environment(script) is None
    assert place_from_environment(SRUN | {"SLURM_STEP_NUM_TASKS": "1"}) is None
    assert place_from_environment({}) is None


def test_srun_of_one_command_a_machine(monkeypatch, started):
    under(monkeypatch, SRUN, "--num-gpus", "4", "--num-machines", "2", "--machine-rank", "1",
          "--dist-url", "tcp://a:1")  # fmt: skip
    assert started["ranks"] == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("node1", "node1"),
        ("node1,node2", "node1"),
        ("gpu[007-009,12],login1", "gpu007"),
        ("gpu[3,5]", "gpu3"),
        ("rack[1-2]-a.cluster", "rack1-a.cluster"),
    ],
)
def test_first_host(nodes, host):
    assert first_host(nodes) == host


def test_no_host():
    with pytest.raises(UsageError, match="MASTER_ADDR"):
        first_host("")


@pytest.mark.gpu
def test_gpus_are_told_apart():
    reports = [
        processes_group.report_of(Place(i, 2, i, 2, 0, "127.0.0.1", 1, "torchrun"), "cuda", "c")
        for i in range(min(2, torch.cuda.device_count()))
    ]
    assert all(r.gpu and not r.trouble for r in reports)
    assert len({r.gpu for r in reports}) == len(reports)
