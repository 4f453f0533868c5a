"""Convert annotations of other tools to COCO's format, or any of them to YOLO-seg.

What ANNOTATIONS is:
  via        VIA's JSON or project file (VGG Image Annotator 1 and 2)
  labelme    folder of JSON files, or one
  cvat       XML of "CVAT for images 1.1"; of "for video 1.1" with frame_000000.png ... as pictures
  yolo-seg   data.yaml, or a folder with it, or a folder with classes.txt, labels/ and images/
  voc-masks  folder with JPEGImages/, SegmentationObject/, SegmentationClass/
  png        folder of instance maps, one PNG a picture, values are objects
  coco       a registered data set, or an annotation file

--out is a file for coco, a folder for yolo-seg. Whatever the result cannot hold is counted in a
note. docs/formats.md says what each format keeps.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from .source import resolve_source

if TYPE_CHECKING:
    from ...data.formats.base import CocoImport

HELP = "VIA, labelme, CVAT, YOLO-seg, VOC masks, PNG maps to COCO's format; any to YOLO-seg"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from ...data.formats import EXPORTERS, IMPORTERS

    parser.add_argument("annotations", metavar="ANNOTATIONS", help="file or folder, see above")
    parser.add_argument(
        "--from",
        dest="source_format",
        choices=(*IMPORTERS, "coco"),
        metavar="FORMAT",
        help=f"{', '.join((*IMPORTERS, 'coco'))} (default: found out where that is certain)",
    )
    parser.add_argument(
        "--to",
        dest="target_format",
        choices=("coco", *EXPORTERS),
        default="coco",
        help="default: coco",
    )
    parser.add_argument("--images", metavar="DIR", help="folder of the pictures")
    parser.add_argument("--out", required=True, metavar="OUT", help="file or folder to write")
    parser.add_argument(
        "--registry", metavar="YAML", action="append", default=[], help="where coco looks names up"
    )
    add_output_arguments(parser)
    for title, formats in (("reading", IMPORTERS), ("writing", EXPORTERS)):
        group = parser.add_argument_group(f"options for {title}")
        texts: dict[str, list[str]] = {}
        for name, module in formats.items():
            for option, text in module.OPTIONS.items():
                texts.setdefault(option, []).append(f"{name}: {text}")
        for option, lines in texts.items():
            flag = "--" + option.replace("_", "-")
            group.add_argument(flag, dest=f"option_{option}", metavar="V", help="; ".join(lines))


def run(args: argparse.Namespace) -> int:
    """Write the result; 0."""
    from ...data.formats import EXPORTERS
    from ...data.formats.guess import guess_format
    from ...errors import UsageError

    path = Path(args.annotations).expanduser()
    source_format = args.source_format or guess_format(path)
    if source_format == args.target_format:
        raise UsageError(f"{args.annotations} is {source_format} already: nothing to convert")
    given = {
        key.removeprefix("option_"): value
        for key, value in vars(args).items()
        if key.startswith("option_") and value is not None
    }
    exporter = EXPORTERS.get(args.target_format)
    of_exporter = set(exporter.OPTIONS) if exporter else set()
    reading = {key: value for key, value in given.items() if key not in of_exporter}
    writing = {key: value for key, value in given.items() if key in of_exporter}
    inputs = [str(path)] if path.is_file() else []
    out = Path(args.out) if exporter else check_output(args.out, inputs, args.force)
    check_report(args, [*inputs, str(out)])
    if args.source_format is None:
        print(f"{args.annotations}: taken as {source_format}")

    found = _read(args, source_format, reading)
    counts = counts_of(found.coco)
    notes = list(found.notes)
    if exporter:
        notes += exporter.write(found.coco, found.image_root, out, writing, force=args.force)
    else:
        write_coco(out, found.coco)
    print_notes(notes)
    what = args.annotations if exporter else out
    print(count_line(what, counts))
    print(f"Written: {out}" if exporter else next_command(out, found.image_root))
    facts: dict[str, Any] = {"from": source_format, "to": args.target_format, "out": str(out)}
    facts |= {"image_root": str(found.image_root), "counts": counts, "notes": notes}
    write_report(args, facts)
    return 0


def _read(args: argparse.Namespace, source_format: str, options: dict[str, Any]) -> CocoImport:
    from ...data.formats import import_dataset
    from ...data.formats.base import check_options

    if source_format != "coco":
        images = str(Path(args.images).expanduser()) if args.images else None
        return import_dataset(source_format, Path(args.annotations).expanduser(), images, **options)
    check_options("coco", options, {})
    return _plain(read_whole(resolve_source(args.annotations, args.images, args.registry)))


def _plain(found: CocoImport) -> CocoImport:
    """With masks parsed, which `read_whole` leaves as JSON text."""
    import dataclasses

    import msgspec

    coco = msgspec.json.decode(msgspec.json.encode(found.coco))
    return dataclasses.replace(found, coco={"annotations": [], **coco})
