"""Weights in files: bring published ones into the model that a config builds.

`convert` reads torchvision's state dicts (ResNet, ResNeXt), the .pkl files of Detectron2's zoo,
Caffe2 and MSRA, and Detectron2's .pth checkpoints. It executes nothing that a file says.
See `mask-rcnn-ext weights convert --help`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from ..config import DETECTRON2_MISSING, load_config
from ..errors import UsageError, UserError

HELP = "convert published weights for a config's model, and say what fits"

_CONVERT = """
Convert published weights for the model that a config builds.

Prints, part by part, how many of the model's tensors the file has, then every name that is missing,
left over or of another shape, and the input statistics that the weights need. The .pth can be given
as MODEL.WEIGHTS. Exit code: 0 written, 1 not written (nothing fits; with --strict, something is
missing; a file that cannot be read), 2 wrong usage.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_convert(actions)


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


def _add_convert(actions: argparse._SubParsersAction) -> None:
    parser = actions.add_parser(
        "convert",
        help="published weights -> a .pth for a config's model",
        description=_CONVERT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--config-file", required=True, metavar="F", help="config that builds the model"
    )
    parser.add_argument(
        "--weights",
        required=True,
        metavar="W",
        help="a .pth or .pkl; detectron2://, catalog:// and https:// are fetched",
    )
    parser.add_argument("--output", required=True, metavar="O", help="the .pth to write")
    parser.add_argument("--json", metavar="FILE", help="write the report there, for programs")
    parser.add_argument(
        "--strict", action="store_true", help="fail if any of the model's weights is missing"
    )
    parser.add_argument("--force", action="store_true", help="replace --output if it exists")
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides, at the end"
    )
    parser.set_defaults(work=_convert)


def _convert(args: argparse.Namespace) -> int:
    from ..engine.weights import check_output, convert, save
    from ..engine.weights.report import as_json, as_text, warnings
    from ..files import write_json

    output = check_output(args.output, args.weights, force=args.force)
    cfg = load_config(args.config_file, args.opts)
    done = convert(cfg, args.weights)
    found = (done.source, done.matching, done.needs)
    print(as_text(*found))
    for warning in warnings(*found):
        print(f"warning: {warning}", file=sys.stderr)
    if args.json:
        try:
            write_json(args.json, {**as_json(*found), "weights": args.weights})
        except OSError as error:
            raise UserError(f"cannot write {args.json}: {error.strerror}") from error

    lacking = len(done.matching.missing) + len(done.matching.mismatched)
    if not done.matching.matched:
        raise UserError(
            f"nothing in {args.weights} fits the model of {args.config_file}; {output} not written"
        )
    if args.strict and lacking:
        raise UserError(f"--strict: {lacking} of the model's tensors lack; {output} not written")
    save(done.state, output, source=Path(args.weights).name, kind=done.source.kind)
    print(f"\nwrote {output}: {len(done.state)} tensors")
    return 0
