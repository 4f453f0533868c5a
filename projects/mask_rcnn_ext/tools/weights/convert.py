"""
Convert published weights for the model that a config builds.

Prints, part by part, how many of the model's tensors the file has, then every name that is missing,
left over or of another shape, and the input statistics that the weights need. What is written can
be given as MODEL.WEIGHTS. Exit code: 0 written, 1 not written (nothing fits; with --strict,
something is missing; a file that cannot be read), 2 wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ...config import load_config
from ...errors import UserError
from .options import add_json, add_output, add_overrides, add_weights, write_report

HELP = "published weights -> a .pth or .safetensors for a config's model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file", required=True, metavar="F", help="config that builds the model"
    )
    add_weights(parser)
    add_output(parser)
    add_json(parser)
    parser.add_argument(
        "--strict", action="store_true", help="fail if any of the model's weights is missing"
    )
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    from ...engine.weights import check_output, convert, save
    from ...engine.weights.report import as_json, as_text, warnings

    output = check_output(args.output, args.weights, force=args.force)
    cfg = load_config(args.config_file, args.opts)
    done = convert(cfg, args.weights)
    found = (done.source, done.matching, done.needs)
    print(as_text(*found))
    for warning in warnings(*found):
        print(f"warning: {warning}", file=sys.stderr)
    write_report(args.json, {**as_json(*found), "weights": args.weights})

    lacking = len(done.matching.missing) + len(done.matching.mismatched)
    if not done.matching.matched:
        raise UserError(
            f"nothing in {args.weights} fits the model of {args.config_file}; {output} not written"
        )
    if args.strict and lacking:
        raise UserError(f"--strict: {lacking} of the model's tensors lack; {output} not written")
    save(
        done.state,
        output,
        class_names=done.class_names,
        source=Path(args.weights).name,
        kind=done.source.kind,
    )
    print(f"\nwrote {output}: {len(done.state)} tensors")
    return 0
