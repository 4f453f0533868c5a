"""
Give a detector's weights other classes: outputs of classes of the same name are carried over, new
classes start at random, everything else stays as it is. The paper starts Cityscapes from COCO so
(appendix A): seven classes are carried over, rider starts at random.

    mask-rcnn-ext weights transfer --config-file F --weights coco.pkl --output start.pth \\
        --to-dataset cityscapes_fine_instance_seg_train

The classes of the weights are those that the file says; else give them, or the file must have as
many as COCO (80) or Cityscapes (8).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ...config import load_config
from ...errors import UsageError, UserError
from .options import add_json, add_output, add_overrides, add_weights, write_report

HELP = "a detector's weights -> weights for other classes, carried over by name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config-file", required=True, metavar="F", help="config that builds the new model"
    )
    add_weights(parser)
    add_output(parser)
    for side, what in (("to", "of the new model"), ("from", "of the weights")):
        group = parser.add_mutually_exclusive_group(required=side == "to")
        group.add_argument(
            f"--{side}-dataset", metavar="NAME", help=f"data set with the classes {what}"
        )
        names = ["--classes", "--to-classes"] if side == "to" else ["--from-classes"]
        group.add_argument(
            *names, dest=f"{side}_classes", metavar="A,B,C", help=f"classes {what}, in their order"
        )
    add_json(parser)
    add_overrides(parser)


def run(args: argparse.Namespace) -> int:
    from ...engine.weights import check_output, save
    from ...engine.weights.transfer import as_json, as_text, transfer

    output = check_output(args.output, args.weights, force=args.force)
    cfg = load_config(args.config_file, args.opts)
    target = _classes(args.to_dataset, args.to_classes, cfg.DATASETS.REGISTRY)
    source = _classes(args.from_dataset, args.from_classes, cfg.DATASETS.REGISTRY)
    done = transfer(cfg, args.weights, target, source)
    print(as_text(done))
    write_report(args.json, {**as_json(done), "weights": args.weights})
    if not done.done.carried:
        raise UserError(
            f"no class of the weights has the name of a new one; {output} not written. Theirs: "
            f"{', '.join(done.source_names[:10])}"
        )
    save(
        done.done.state,
        output,
        class_names=done.target_names,
        source=Path(args.weights).name,
        kind=done.source.kind,
    )
    print(f"\nwrote {output}: {len(done.done.state)} tensors")
    return 0


def _classes(dataset: str | None, names: str | None, registry: Sequence[str]) -> list[str]:
    from ...data.registration import class_names_of, register_from

    if dataset:
        register_from(registry)
        found = class_names_of(dataset)
        if not found:
            raise UsageError(f"data set {dataset!r} does not say its classes; list them instead")
        return found
    listed = [name.strip() for name in (names or "").split(",")] if names is not None else []
    if not all(listed):
        raise UsageError(f"classes {names!r}: expected names with a comma between them")
    twice = sorted({name for name in listed if listed.count(name) > 1})
    if twice:
        raise UsageError(f"classes {names!r}: {', '.join(twice)} more than once")
    return listed
