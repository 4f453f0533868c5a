"""Several data sets as one annotation file; pictures stay in place.

Classes are joined by name. Ids stay as they are unless sets share some; then they are counted anew.
File names become relative to the nearest folder that holds all image folders. A picture that is in
several sets becomes one image with the annotations of all. Every key is kept; conflicts are said.
"""

from __future__ import annotations

import argparse

from .coco_output import (
    add_output_arguments,
    check_output,
    check_report,
    count_line,
    counts_of,
    next_command,
    print_notes,
    read_whole,
    write_coco,
    write_report,
)
from .source import add_registry_argument, resolve_source

HELP = "several sets as one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="NAME|FILE",
        nargs="+",
        help="two or more: names as in DATASETS.TRAIN, or annotation files in COCO's format",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="annotation file to write")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="DIR",
        help="image folders of FILEs: one for all of them, or one for each "
        "(default: the folder that the file is in)",
    )
    add_registry_argument(parser)
    add_output_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file; 0."""
    from ...data.merge import merge
    from ...errors import UsageError

    if len(args.source) < 2:
        raise UsageError("one data set is nothing to merge: give two or more")
    folders = args.images or [None]
    if len(folders) not in (1, len(args.source)):
        raise UsageError(
            f"{len(folders)} folders for {len(args.source)} data sets: --images takes one for all, "
            "or one for each"
        )
    folders = folders * len(args.source) if len(folders) == 1 else folders
    sources = [
        resolve_source(text, folder, args.registry)
        for text, folder in zip(args.source, folders, strict=True)
    ]
    inputs = [source.json_file for source in sources]
    out = check_output(args.out, inputs, args.force)
    check_report(args, [*inputs, str(out)])
    merged = merge([read_whole(source) for source in sources])
    write_coco(out, merged.coco)
    print_notes(merged.notes)
    counts = counts_of(merged.coco)
    print(count_line(out, counts))
    print(next_command(out, merged.image_root))
    facts = {"out": str(out), "image_root": str(merged.image_root), "counts": counts}
    write_report(args, {**facts, "notes": merged.notes})
    return 0
