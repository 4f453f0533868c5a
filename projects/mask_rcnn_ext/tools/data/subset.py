"""Some images or classes of a data set as an annotation file of its own; pictures stay in place.

Chosen in this order: classes, images by id, images with objects, their number. Annotations of other
classes are left out; images stay, also those that have no object any more, unless --drop-empty.
"""

from __future__ import annotations

import argparse

from ..bench import positive
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

HELP = "some images or classes of a set"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--out", required=True, metavar="FILE", help="annotation file to write")
    parser.add_argument("--count", type=positive, metavar="N", help="number of images: the first N")
    parser.add_argument(
        "--seed", type=int, metavar="K", help="with --count: N images by chance; same K, same N"
    )
    parser.add_argument("--ids", nargs="+", metavar="ID", help="ids of the images")
    parser.add_argument("--classes", metavar="A,B", help="names of the classes, with commas")
    parser.add_argument(
        "--drop-empty", action="store_true", help="leave out images without objects"
    )
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file; 0."""
    from ...data.rearrange import subset
    from ...errors import UsageError

    if args.count is None and args.seed is not None:
        raise UsageError("--seed goes with --count")
    if args.count is None and not (args.ids or args.classes or args.drop_empty):
        raise UsageError("say what to keep: --count, --ids, --classes or --drop-empty")
    source = resolve_source(args.source, args.images, args.registry)
    out = check_output(args.out, [source.json_file], args.force)
    check_report(args, [source.json_file, str(out)])
    coco = subset(
        read_whole(source).coco,
        classes=[name.strip() for name in args.classes.split(",")] if args.classes else None,
        ids=args.ids,
        count=args.count,
        seed=args.seed,
        drop_empty=args.drop_empty,
    )
    write_coco(out, coco)
    counts = counts_of(coco)
    print(count_line(out, counts))
    print(next_command(out, source.image_root))
    write_report(args, {"out": str(out), "image_root": source.image_root, "counts": counts})
    return 0
