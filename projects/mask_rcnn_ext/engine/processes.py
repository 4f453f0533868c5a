"""Where a process stands among the processes of a run, and who started it.

Three starters: this program itself (`--num-gpus`, `--num-machines`), torchrun, and srun. The last
two start the command once a process and tell each its place by environment variables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import UsageError


@dataclass(frozen=True)
class Place:
    """One process of a run of `world_size`, `local_size` of them on each machine.

    rank: 0 ... world_size - 1, machine by machine
    local_rank: 0 ... local_size - 1 within its machine; the GPU it uses
    machine: 0 ... machines - 1
    address, port: of the store where the processes meet, on machine 0
    starter: "train_net.py", "torchrun" or "srun"
    hosts_store: whether this process serves the store (else somebody outlives the processes)
    attempt: how often the starter has started these processes again
    """

    rank: int
    world_size: int
    local_rank: int
    local_size: int
    machine: int
    address: str
    port: int
    starter: str
    hosts_store: bool = False
    attempt: int = 0

    @property
    def machines(self) -> int:
        return self.world_size // self.local_size

    @property
    def url(self) -> str:
        return f"tcp://{self.address}:{self.port}"


def place_from_environment(environment: Mapping[str, str]) -> Place | None:
    """The place that torchrun or srun gave this process; None when neither started it.

    Raises:
        UsageError: the variables are there, but do not fit together
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        return _of_torchrun(environment)
    # A batch script's own shell has SLURM_PROCID too; only in a step there are several tasks.
    if "SLURM_STEP_ID" in environment and _number(environment, "SLURM_STEP_NUM_TASKS", 1) > 1:
        return _of_srun(environment)
    return None


def _of_torchrun(environment: Mapping[str, str]) -> Place:
    rank, world = _number(environment, "RANK"), _number(environment, "WORLD_SIZE")
    local_size = _number(environment, "LOCAL_WORLD_SIZE", world)
    if world < 1 or not 0 <= rank < world or local_size < 1:
        raise UsageError(
            f"the environment says RANK={rank}, WORLD_SIZE={world}, LOCAL_WORLD_SIZE={local_size}, "
            "which do not fit together. Unset them, or start the command with torchrun"
        )
    _refuse_unequal(world, local_size, "torchrun", "--nproc-per-node")
    if world > 1 and not environment.get("MASTER_ADDR"):
        raise UsageError(
            "the environment has RANK and WORLD_SIZE, but no MASTER_ADDR. Start the command with "
            "torchrun, which sets all of them, or unset RANK and WORLD_SIZE"
        )
    return Place(
        rank=rank,
        world_size=world,
        local_rank=_number(environment, "LOCAL_RANK", rank % local_size),
        local_size=local_size,
        machine=_number(environment, "GROUP_RANK", rank // local_size),
        address=environment.get("MASTER_ADDR", "127.0.0.1"),
        port=_number(environment, "MASTER_PORT", 29500),
        starter="torchrun",
        hosts_store=rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True",
        attempt=_number(environment, "TORCHELASTIC_RESTART_COUNT", 0),
    )


def _of_srun(environment: Mapping[str, str]) -> Place:
    rank, world = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_STEP_NUM_TASKS")
    sizes = _tasks_per_node(environment)
    if len(set(sizes)) > 1:
        raise UsageError(
            f"srun gave the machines different numbers of processes ({sizes}); this program needs "
            "equal ones: srun --ntasks-per-node N"
        )
    local_size = sizes[0] if sizes else world
    _refuse_unequal(world, local_size, "srun", "--ntasks-per-node")
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    # Each step of each job meets at another port.
    job = _number(environment, "SLURM_JOB_ID", 0) * 7 + _number(environment, "SLURM_STEP_ID", 0)
    return Place(
        rank=rank,
        world_size=world,
        local_rank=_number(environment, "SLURM_LOCALID"),
        local_size=local_size,
        machine=_number(environment, "SLURM_NODEID", 0),
        address=environment.get("MASTER_ADDR") or first_host(nodes),
        port=_number(environment, "MASTER_PORT", port_for(job)),
        starter="srun",
        hosts_store=rank == 0,
    )


def port_for(number: int) -> int:
    """A port for the job of this number, below those that Linux gives to outgoing connections."""
    return 20000 + number % 12000


def first_host(nodes: str) -> str:
    """The first of SLURM's list of hosts: "gpu[007-009,12],login1" gives "gpu007"."""
    found = re.match(r"([^,\[]*)(?:\[([^\],-]+)[^\]]*\]([^,]*))?", nodes.strip())
    host = "".join(part or "" for part in found.groups()) if found else ""
    if not host:
        raise UsageError(
            f"SLURM_JOB_NODELIST is {nodes!r}, which names no host; set MASTER_ADDR to one"
        )
    return host


def _tasks_per_node(environment: Mapping[str, str]) -> list[int]:
    """The number of tasks on each node: "2(x3),1" gives [2, 2, 2, 1]."""
    text = environment.get("SLURM_STEP_TASKS_PER_NODE", "")
    pairs = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, times in pairs for _ in range(int(times or 1))]


def _refuse_unequal(world: int, local_size: int, starter: str, option: str) -> None:
    if world % local_size:
        raise UsageError(
            f"{starter} started {world} processes, {local_size} of them on this machine: the "
            f"machines have different numbers. Give each the same: {starter} {option} N"
        )


def _number(environment: Mapping[str, str], name: str, default: int | None = None) -> int:
    text = environment.get(name, "" if default is None else str(default))
    try:
        return int(text)
    except ValueError:
        raise UsageError(
            f"the environment variable {name} is {text!r}; a whole number was expected"
        ) from None
