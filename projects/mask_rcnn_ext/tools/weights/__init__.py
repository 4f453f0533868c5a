"""Weights in files: look into them, bring them into a config's model, give them other classes.

They may be torchvision's state dicts (ResNet, ResNeXt), the .pkl files of Detectron2's zoo, Caffe2
and MSRA, checkpoints of Detectron2 and of this project (.pth), or .safetensors. Nothing that a file
says is executed. See `mask-rcnn-ext weights ACTION --help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from ...config import DETECTRON2_MISSING
from ...errors import UsageError, UserError
from . import convert, show, transfer, verify

HELP = "look into weights files, convert them for a config's model, give them other classes"

ACTIONS = {"show": show, "convert": convert, "transfer": transfer, "verify": verify}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, module in ACTIONS.items():
        action = actions.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(action)
        action.set_defaults(work=module.run)


def run(args: argparse.Namespace) -> int:
    """Do what the action says; 0 if it succeeded, 1 if not, 2 for a wrong call."""
    work: Callable[[argparse.Namespace], int] = args.work
    try:
        return work(args)
    except UserError as error:
        print(f"mask-rcnn-ext weights {args.action}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        raise UsageError(DETECTRON2_MISSING) from error
