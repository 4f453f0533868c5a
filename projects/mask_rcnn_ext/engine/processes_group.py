"""The process group of a run: met, checked, and made known to Detectron2."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm

from ..errors import UserError
from .preflight import Report, preflight_seconds, roll_call, seconds_of, wait_for_store
from .processes import Place
from .processes_children import Follower
from .provenance import code_version

COLLECTIVE_SECONDS = "MASK_RCNN_EXT_COLLECTIVE_SECONDS"
_SIOCGIFADDR = 0x8915  # Linux: the IPv4 address of an interface


@contextlib.contextmanager
def process_group(place: Place, *, device: str, config: str) -> Iterator[None]:
    """Meet the other processes, check that they fit, and form the group that Detectron2 uses.

    It is left when the work went well. After an error its threads may wait for the other
    processes: then they are left alone.

    Args:
        device: "cpu" or "cuda"; which GPU follows from the local rank
        config: a hash; ranks with another one are refused
    Raises:
        UserError: a rank is missing, does not fit, or does not answer
    """
    limit = preflight_seconds()
    timeout = timedelta(seconds=seconds_of(COLLECTIVE_SECONDS, 1800))
    if not place.hosts_store:
        wait_for_store(place, limit)
    store = _connect(place, timeout, place.hosts_store)
    roll_call(store, report_of(place, device, config), place, limit=limit)
    interface = interface_towards(place.address, place.port)
    if interface:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)
    _form(place, device, store, limit, timeout)
    _make_local_group(place)
    yield
    dist.destroy_process_group()


def serve_store(port: int, timeout: timedelta = timedelta(seconds=60)) -> dist.TCPStore:
    """A store that lives as long as this object does.

    Args:
        port: 0 for one that is free, see the result's `port`
    """
    try:
        return dist.TCPStore("localhost", port, None, True, timeout, wait_for_workers=False)
    except RuntimeError as error:
        if "EADDRINUSE" not in str(error):
            raise
        raise UserError(
            f"port {port} of this machine is in use: another run, or a second --machine-rank 0? "
            "Choose another port: --dist-url tcp://ADDRESS_OF_MACHINE_0:PORT"
        ) from None


def _connect(place: Place, timeout: timedelta, serve: bool = False) -> Any:
    """Args: serve: be the store that others connect to, too."""
    store = dist.TCPStore(
        place.address, place.port, None, serve, timeout, wait_for_workers=False, multi_tenant=serve
    )
    # Where torchrun's store outlives its processes, those of the last attempt have left their keys.
    return dist.PrefixStore(f"mask_rcnn_ext/{place.attempt}", store)


def report_of(place: Place, device: str, config: str) -> Report:
    """What this process says of itself in the roll call."""
    name, gpu, trouble = device, "", ""
    if device == "cuda":
        name, gpu, trouble = _gpu(place)
    try:
        package = version("mask_rcnn_ext")
    except PackageNotFoundError:
        package = ""
    return Report(
        rank=place.rank,
        world_size=place.world_size,
        local_rank=place.local_rank,
        local_size=place.local_size,
        machine=place.machine,
        host=socket.gethostname(),
        pid=os.getpid(),
        device=name,
        gpu=gpu,
        torch=torch.__version__,
        package=package,
        commit=code_version()["commit"] or "",
        config=config,
        trouble=trouble,
    )


def _gpu(place: Place) -> tuple[str, str, str]:
    """Name, number in the world, and what is wrong."""
    if not torch.cuda.is_available():
        return "cuda", "", f"PyTorch {torch.__version__} sees no GPU (CPU run: MODEL.DEVICE cpu)"
    count = torch.cuda.device_count()
    if place.local_rank >= count:
        trouble = f"GPU {place.local_rank} is not there, this process sees {count}. "
        advice = "Start one process for each GPU, and let each see all GPUs of its machine"
        return "cuda", "", trouble + advice
    try:
        properties = torch.cuda.get_device_properties(place.local_rank)
    except RuntimeError as error:
        return "cuda", "", f"GPU {place.local_rank} does not work: {error}"
    return properties.name, str(getattr(properties, "uuid", place.local_rank)), ""


def _form(place: Place, device: str, store: Any, limit: float, timeout: timedelta) -> None:
    """Form the group and add one number over all ranks, in a thread that can be given up on."""
    # NCCL looks for all links between the GPUs first.
    limit = limit if device == "cpu" else 6 * limit
    problem: list[Exception] = []
    # A client of its own: waiting for a key locks a client, and `store` is asked meanwhile.
    group_store = dist.PrefixStore("group", _connect(place, timeout))

    def form() -> None:
        try:
            where = torch.device(f"cuda:{place.local_rank}" if device == "cuda" else "cpu")
            if device == "cuda":
                torch.cuda.set_device(where)
            dist.init_process_group(
                "nccl" if device == "cuda" else "gloo",
                store=group_store,
                rank=place.rank,
                world_size=place.world_size,
                timeout=timeout,
            )
            total = torch.ones(1, device=where)
            dist.all_reduce(total)
            if total.item() != place.world_size:
                problem.append(RuntimeError(f"{place.world_size} ones make {total.item():g}"))
        except Exception as error:
            problem.append(error)

    thread = threading.Thread(target=form, daemon=True)
    thread.start()
    thread.join(limit)
    if thread.is_alive() or problem:
        atexit.register(_leave_at_once)
        raise _silence(place, device, store, limit, problem[0] if problem else None)
    store.set(f"answered/{place.rank}", "")
    if device == "cuda":
        torch.cuda.set_device(place.local_rank)  # the choice belongs to a thread


def _silence(
    place: Place, device: str, store: Any, limit: float, error: Exception | None
) -> UserError:
    library = "NCCL" if device == "cuda" else "gloo"
    store.set(f"failed/{place.rank}", "")
    heard = [
        any(store.check([f"{what}/{rank}"]) for what in ("answered", "failed"))
        for rank in range(place.world_size)
    ]
    silent = [str(rank) for rank, spoke in enumerate(heard) if not spoke]
    text = f"all ranks are there, but {library} does not work between them: "
    if error is None:
        text += f"rank {place.rank} got no answer within {limit:g} s"
    else:
        text += f"rank {place.rank} got: {str(error).strip().partition(chr(10))[0]}"
    if silent:
        text += f"; not heard of: rank {', '.join(silent)}"
    if place.rank != 0:
        return Follower(text)
    variable = "NCCL_SOCKET_IFNAME" if device == "cuda" else "GLOO_SOCKET_IFNAME"
    chosen = os.environ.get(variable)
    text += (
        f". Check that no firewall closes the ports between the machines, and that {variable} "
        f"({f'now {chosen}' if chosen else 'not set'}) names the interface that joins them"
    )
    return UserError(text + (". NCCL_DEBUG=INFO tells more" if device == "cuda" else ""))


def _leave_at_once() -> None:
    """The thread that hangs in the library would keep the interpreter from ending."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def _make_local_group(place: Place) -> None:
    """Detectron2's group of the processes of one machine."""
    if hasattr(comm, "create_local_process_group"):  # main
        comm.create_local_process_group(place.local_size)
        return
    for first in range(0, place.world_size, place.local_size):
        group = dist.new_group(list(range(first, first + place.local_size)))
        if first <= place.rank < first + place.local_size:
            comm._LOCAL_PROCESS_GROUP = group


def interface_towards(address: str, port: int) -> str | None:
    """The network interface over which this machine reaches an address, None if that is unknown.

    Gloo asks for the address of the machine's own name instead, which on many machines is one
    that no other can reach.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, port))  # sends nothing
            ours = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                request = struct.pack("256s", name.encode()[:15])
                with contextlib.suppress(OSError):  # an interface without an IPv4 address
                    answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
                    if socket.inet_ntoa(answer[20:24]) == ours:
                        return name
    except OSError:
        pass
    return None
