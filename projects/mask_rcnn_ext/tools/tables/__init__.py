"""`mask-rcnn-ext tables`: the paper's tables, each row with what it takes to measure it.

  tables list   every row: the paper's figures, data, weights and hours that it takes, its state

The tables are in configs/paper/, the stages that make their rows in configs/paper/stages.yaml.
"""

from __future__ import annotations

import argparse

from . import listing

HELP = "the paper's tables, and what each row takes to be measured"

ACTIONS = {"list": listing}


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
        action.set_defaults(run_action=module.run)


def run(args: argparse.Namespace) -> int:
    """Run the action; its exit code."""
    code: int = args.run_action(args)
    return code
