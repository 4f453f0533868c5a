"""Weights in files: look into them, bring them into a config's model, give them other classes.

They may be torchvision's state dicts (ResNet, ResNeXt), the .pkl files of Detectron2's zoo, Caffe2
and MSRA, checkpoints of Detectron2 and of this project (.pth), or .safetensors. Nothing that a file
says is executed. See `mask-rcnn-ext weights ACTION --help`.
"""

from __future__ import annotations

import argparse
import sys

from ...config import DETECTRON2_MISSING
from ...errors import UsageError, UserError
from ..actions import add_actions, run_action
from . import convert, show, transfer, verify

HELP = "look into weights files, convert them for a config's model, give them other classes"

ACTIONS = {"show": show, "convert": convert, "transfer": transfer, "verify": verify}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_actions(parser, ACTIONS)


def run(args: argparse.Namespace) -> int:
    """Do what the action says; 0 if it succeeded, 1 if not, 2 for a wrong call."""
    try:
        return run_action(args)
    except UserError as error:
        print(f"mask-rcnn-ext weights {args.action}: {error}", file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        raise UsageError(DETECTRON2_MISSING) from error
