"""Verbs that have actions of their own, a module each with HELP, add_arguments and run."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from types import ModuleType


def add_actions(
    parser: argparse.ArgumentParser, modules: Mapping[str, ModuleType], name: str = "action"
) -> None:
    """A subparser for each; `run_action` calls the one that was asked for.

    Args:
        modules: word of the command line -> module, whose docstring is the description
        name: under which the word is in the arguments, and in capitals in the usage
    """
    actions = parser.add_subparsers(dest=name, metavar=name.upper(), required=True)
    for word, module in modules.items():
        action = actions.add_parser(
            word,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(action)
        action.set_defaults(work=module.run)


def run_action(args: argparse.Namespace) -> int:
    """Run the action; its exit code."""
    code: int = args.work(args)
    return code
