"""From a command line to one or several processes that run it."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import torch

from ..config import load_config
from ..errors import UsageError
from .arguments import argument_parser
from .processes import Place, place_from_environment
from .processes_children import run_children

Main = Callable[[argparse.Namespace], int]


def parse_and_launch(argv: Sequence[str], main: Main) -> int:
    """Run `main` once, or in the processes that the command line, torchrun or srun asks for.

    Args:
        argv: the words after the program's name
        main: what each process runs; picklable when there are several. The namespace that it gets
            has the numbers of processes and machines that there are, whoever started them.
    Returns:
        the exit code
    Raises:
        UserError: also what a child process raised
    """
    parser = argument_parser()
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is required; the configs that come with us are in configs/")
    _check_numbers(args)
    place = place_from_environment(os.environ)
    if place is not None and place.starter == "srun" and args.num_machines > 1:
        place = None  # srun started one command a machine, and the command says the rest
    if place is not None:
        _take_over(args, place)
        return main(args) if place.world_size == 1 else _in_group(main, args, place, *_facts(args))
    if args.num_gpus * args.num_machines <= 1:
        return main(args)
    return _with_children(main, args, default_url=parser.get_default("dist_url"))


def _check_numbers(args: argparse.Namespace) -> None:
    if args.num_gpus < 0 or args.num_machines < 1:
        raise UsageError(
            f"--num-gpus {args.num_gpus} --num-machines {args.num_machines}: at least one machine "
            "and one process on each were expected"
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise UsageError(
            f"--machine-rank {args.machine_rank}, but with --num-machines {args.num_machines} it "
            f"is 0 to {args.num_machines - 1}"
        )


def _take_over(args: argparse.Namespace, place: Place) -> None:
    """Let the namespace say what the starter has done; refuse one that asked for other numbers."""
    there = {"num_gpus": place.local_size, "num_machines": place.machines}
    for name, count in there.items():
        asked = getattr(args, name)
        if asked not in (1, count):  # 1 is the default
            option = "--" + name.replace("_", "-")
            raise UsageError(
                f"{option} {asked}, but {place.starter} has started {place.local_size} processes "
                f"on each of {place.machines} machines. Leave {option} out under {place.starter}"
            )
        setattr(args, name, count)
    args.machine_rank = place.machine


def _facts(args: argparse.Namespace) -> tuple[str, str]:
    """The kind of device, "cpu" or "cuda", and a hash of the config."""
    from .provenance import config_hash

    cfg = load_config(args.config_file, args.opts)
    device = torch.device(cfg.MODEL.DEVICE)
    if device.index is not None and device.type != "cpu":
        raise UsageError(
            f"MODEL.DEVICE is {cfg.MODEL.DEVICE}, one GPU, for {args.num_gpus} processes on this "
            "machine; with MODEL.DEVICE cuda each takes its own"
        )
    return device.type, config_hash(cfg)[:12]


def _with_children(main: Main, args: argparse.Namespace, default_url: str) -> int:
    """Start this machine's processes, and on machine 0 the store where all meet."""
    from .processes_group import serve_store

    facts = _facts(args)  # a mistake in the config is told once, before anything is started
    # Detectron2's default port is the same for all runs of a user: two at once would collide.
    free = args.num_machines == 1 and args.dist_url in ("auto", default_url)
    address, port = ("127.0.0.1", 0) if free else _address_of(args.dist_url)
    # Here and not in rank 0, so that it can still tell the others why rank 0 has ended.
    store: Any = serve_store(port) if args.machine_rank == 0 else None
    first = args.machine_rank * args.num_gpus
    place = Place(
        rank=first,
        world_size=args.num_gpus * args.num_machines,
        local_rank=0,
        local_size=args.num_gpus,
        machine=args.machine_rank,
        address=address,
        port=store.port if free else port,
        starter="train_net.py",
    )
    return run_children(
        functools.partial(_child, main, args, place, facts),
        range(first, first + args.num_gpus),
        environment={"OMP_NUM_THREADS": threads_each(args.num_gpus)},
    )


def threads_each(processes: int) -> str:
    """The machine's cores, shared out; OMP_NUM_THREADS where that is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return os.environ.get("OMP_NUM_THREADS") or str(max(1, (cores or 1) // processes))


def _address_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme != "tcp" or not host or not port:
        raise UsageError(
            f"--dist-url {url}: tcp://ADDRESS_OF_MACHINE_0:PORT was expected"
            " (on one machine it can be left out)"
        )
    return host, port


def _child(
    main: Main, args: argparse.Namespace, place: Place, facts: tuple[str, str], local_rank: int
) -> int:
    place = dataclasses.replace(place, rank=place.rank + local_rank, local_rank=local_rank)
    return _in_group(main, args, place, *facts)


def _in_group(main: Main, args: argparse.Namespace, place: Place, device: str, config: str) -> int:
    from .processes_group import process_group

    with process_group(place, device=device, config=config):
        return main(args)
