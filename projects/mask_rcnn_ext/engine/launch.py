"""From a command line to one or several processes that run it."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence

import torch.distributed as dist
from detectron2.engine import launch

from ..errors import UserError
from .arguments import argument_parser


def parse_and_launch(argv: Sequence[str], main: Callable[[argparse.Namespace], int]) -> int:
    """
    Args:
        argv: the words after the program's name
        main: what each process runs; picklable when there are several
    Returns:
        the exit code
    """
    parser = argument_parser()
    args = parser.parse_args(argv)
    if not args.config_file:
        parser.error("--config-file is required; the configs that come with us are in configs/")
    # Detectron2's default port is the same for all runs of a user: two at once would collide.
    chosen = args.dist_url != parser.get_default("dist_url")
    dist_url = args.dist_url if chosen or args.num_machines > 1 else "auto"
    try:
        code = launch(
            functools.partial(_run_and_leave, main),
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=dist_url,
            args=(args,),
        )
    except Exception as error:
        raise _from_child(error) from error
    return code or 0


def _run_and_leave(main: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run `main`; leave the process group if that went well.

    The group's threads may otherwise ask for Python while the interpreter shuts down, which aborts
    the process. After an error they may wait for the other processes: then they are left alone.
    """
    code = main(args)
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    return code


def _from_child(error: Exception) -> Exception:
    """A child process hands its exception over as text; take our own messages out of it."""
    text = str(error)
    if type(error).__name__ == "ProcessRaisedException" and "mask_rcnn_ext.errors." in text:
        return UserError(text.rpartition("mask_rcnn_ext.errors.")[2].partition(": ")[2].strip())
    return error
