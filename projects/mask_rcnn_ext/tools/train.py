"""Train and evaluate: the same as train_net.py, from any folder."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from ..config import DETECTRON2_MISSING
from ..errors import UsageError

HELP = "train and evaluate, as train_net.py does; see `mask-rcnn-ext train --help`"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Only for the list of verbs: the words after `train` go to Detectron2's parser."""


def run(args: argparse.Namespace) -> int:
    return train([])


def train(argv: Sequence[str]) -> int:
    """
    Args:
        argv: as train_net.py takes it
    Returns:
        the exit code
    """
    try:
        from ..engine.launch import parse_and_launch
    except ModuleNotFoundError as error:
        if error.name != "detectron2":
            raise
        raise UsageError(DETECTRON2_MISSING) from error
    return parse_and_launch(argv, main)


def main(args: argparse.Namespace) -> int:
    """What each process runs."""
    from ..engine.run import run

    return run(args)
