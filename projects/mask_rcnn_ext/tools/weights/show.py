"""
Say what a weights file holds: kind, tensors part by part, classes, iteration, and what lies beside
the model (an optimizer's state, an average). With a config: what of the model it would fill.
"""

from __future__ import annotations

import argparse
import json

from ...config import load_config

HELP = "what a weights file holds; with a config, what fits its model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a path; detectron2://, catalog:// and https:// are fetched"
    )
    parser.add_argument("--config-file", metavar="F", help="compare with the model it builds")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "--opts",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="KEY VALUE",
        help="config overrides, at the end",
    )


def run(args: argparse.Namespace) -> int:
    from ...engine.weights.contents import as_json, as_text, contents
    from ...engine.weights.convert import build_on_cpu
    from ...engine.weights.fetch import local_path
    from ...engine.weights.matching import match
    from ...engine.weights.report import as_json as fit_json
    from ...engine.weights.report import as_text as fit_text
    from ...engine.weights.requirements import requirements

    found = contents(local_path(args.file))
    report, text = as_json(found), as_text(found)
    if args.config_file or args.opts:
        cfg = load_config(args.config_file, args.opts)
        fit = (
            found.source,
            match(build_on_cpu(cfg), found.source),
            requirements(found.source, cfg),
        )
        report["model"] = fit_json(*fit)
        text += f"\n\nin the model of {args.config_file or 'the default config'}:\n\n"
        text += fit_text(*fit)
    print(json.dumps(report, indent=2) if args.json else text)
    return 0
