"""`mask-rcnn-ext VERB ...`: exit code 0 success, 1 findings or failure, 2 wrong usage."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from .. import __version__
from ..errors import exit_code_of

PROGRAM = "mask-rcnn-ext"
# verb -> module here, imported when it is needed: the doctor must run where others cannot
VERBS = {
    "analyze": "analyze",
    "bench": "bench",
    "data": "data",
    "doctor": "doctor",
    "eval": "evaluate",
    "inspect": "inspect_verb",
    "predict": "predict",
    "quickstart": "quickstart",
    "replay": "replay",
    "scenes": "scenes",
    "submit": "submit",
    "tables": "tables",
    "train": "train",
    "weights": "weights",
}


def _module(verb: str) -> ModuleType:
    return import_module(f".{VERBS[verb]}", __package__)


def build_parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Mask R-CNN as a Detectron2 project: data, training, evaluation."
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        module = _module(name)
        verb = verbs.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb)
        verb.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the console command; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    program = " ".join([PROGRAM, *words[:1]])
    if words[:1] == ["doctor"]:
        return exit_code_of(lambda: _module("doctor").main(words[1:], program), program)
    if words[:1] == ["train"]:
        # Detectron2's own parser has the last word there, its --help included.
        return exit_code_of(lambda: _module("train").train(words[1:]), program)
    args = build_parser().parse_args(words)
    return exit_code_of(lambda: args.run(args), program)


if __name__ == "__main__":
    sys.exit(main())
