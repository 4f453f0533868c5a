"""Count what a data set holds: instances of each class, sizes at training scale, masks, images.

The table goes to stdout. Sizes are square roots of areas, in pixels; "in training" is after
Detectron2's resize of the shorter side. No image is opened.
"""

from __future__ import annotations

import argparse

from ..bench import positive
from .coco_output import check_report, write_report
from .source import add_scale_arguments, add_source_arguments, resolve_source
from .target import check_target

HELP = "instances per class, sizes at training scale, masks and images, as a table and a picture"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument("--picture", metavar="PNG", help="draw everything into this file")
    parser.add_argument("--json", metavar="FILE", help="write every figure there, too")
    parser.add_argument(
        "--classes",
        type=_classes,
        default=30,
        metavar="N|all",
        help="how many classes the table lists, the most frequent first (default: 30)",
    )
    add_scale_arguments(parser)
    parser.add_argument("--force", action="store_true", help="replace files that are there already")


def run(args: argparse.Namespace) -> int:
    """Count and print; 0."""
    from ...data.statistics import data_statistics
    from ...errors import UserError
    from ...visualization.statistics_chart import SOFTWARE, draw_statistics
    from .reading import read_with_progress
    from .statistics_text import statistics_text

    source = resolve_source(args.source, args.images, args.registry)
    inputs = (source.json_file,)
    check_report(args, inputs)
    if args.picture:
        check_target(args.picture, "--picture", SOFTWARE, inputs=inputs, force=args.force)
    table = read_with_progress(source.json_file)
    statistics = data_statistics(table, args.short_edge, args.max_size)
    print(statistics_text(statistics, source.name, args.classes))
    write_report(args, {"name": source.name, "sha256": table.sha256, **statistics.as_json()})
    if args.picture:
        try:
            draw_statistics(statistics, args.picture, source.name)
        except OSError as error:
            raise UserError(f"cannot write {args.picture}: {error.strerror}") from error
        print(f"\nPicture: {args.picture}")
    return 0


def _classes(text: str) -> int | None:
    """ "all" is None."""
    return None if text == "all" else positive(text)
