"""Divide a data set into parts, each an annotation file OUT/NAME_PART.json; pictures stay in place.

By chance, with the classes shared out from the rarest on, so that each part has some of each class
where there are enough. Images without objects are shared out, too. The same seed gives the same
parts. --by-group keeps images together of which the regular expression finds the same text in the
file name, for example frames of a video ("^[^/]+/") or of a city ("^([a-z]+)_").
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from .coco_output import (
    add_output_arguments,
    check_output,
    check_report,
    count_line,
    counts_of,
    next_command,
    read_whole,
    write_coco,
    write_report,
)
from .source import add_source_arguments, resolve_source

HELP = "divide a set into parts, by image or by group"


def parse_part(text: str) -> tuple[str, float]:
    """ "train=0.8" -> ("train", 0.8)."""
    name, _, fraction = text.partition("=")
    try:
        if name and name == Path(name).name:
            return name, float(fraction)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FRACTION, such as train=0.8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the files to write")
    parser.add_argument(
        "--parts",
        nargs="+",
        required=True,
        type=parse_part,
        metavar="NAME=FRACTION",
        help="such as train=0.8 val=0.1 test=0.1; 1 together",
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="K", help="same seed, same parts (default: 0)"
    )
    parser.add_argument(
        "--by-group", metavar="REGEX", help="images in whose file name it finds the same stay whole"
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the files; 0."""
    from ...data.rearrange import instances_per_class, split
    from ...errors import UsageError, UserError

    fractions = dict(args.parts)
    if len(fractions) < max(2, len(args.parts)):
        raise UsageError("--parts needs two names at least, each once")
    source = resolve_source(args.source, args.images, args.registry)
    try:
        Path(args.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make the folder {args.out}: {error.strerror}") from error
    targets = {
        part: check_output(
            Path(args.out) / f"{source.name}_{part}.json", [source.json_file], args.force
        )
        for part in fractions
    }
    check_report(args, [source.json_file, *map(str, targets.values())])
    coco = read_whole(source).coco
    parts = split(coco, fractions, seed=args.seed, group=args.by_group)
    for part, target in targets.items():
        write_coco(target, parts[part])
    classes = {part: instances_per_class(made) for part, made in parts.items()}
    print(_table(classes))
    counts = {part: counts_of(made) for part, made in parts.items()}
    for part, target in targets.items():
        print(count_line(target, counts[part]))
    print(next_command(next(iter(targets.values())), source.image_root))
    facts: dict[str, Any] = {
        part: {"out": str(targets[part]), "counts": counts[part], "instances": classes[part]}
        for part in targets
    }
    write_report(args, {"image_root": source.image_root, "seed": args.seed, "parts": facts})
    return 0


def _table(classes: dict[str, dict[str, int]]) -> str:
    """Instances per class and part, crowds not counted."""
    names = list(next(iter(classes.values())))
    columns = [[part, *(str(counts[name]) for name in names)] for part, counts in classes.items()]
    widths = [max(map(len, column)) for column in columns]
    first = ["instances", *names]
    wide = max(map(len, first))
    return "\n".join(
        "  ".join([head.ljust(wide), *(v.rjust(w) for v, w in zip(row, widths, strict=True))])
        for head, *row in zip(first, *columns, strict=True)
    )
