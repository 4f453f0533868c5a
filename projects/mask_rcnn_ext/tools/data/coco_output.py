"""What the commands that write annotation files share: reading whole, writing, counting."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UserError
from ..json_file import write_json_file
from .source import Source
from .target import check_target

if TYPE_CHECKING:
    from ...data.formats.base import CocoImport

MADE_BY = "mask-rcnn-ext data"  # marks reports, which a later call may replace
_NO_MARK = "\0"  # annotation files carry none: they are replaced with --force only


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --json and --force."""
    parser.add_argument("--json", metavar="FILE", help="write the counts and notes there, too")
    parser.add_argument("--force", action="store_true", help="replace what is there already")


def read_whole(source: Source) -> CocoImport:
    """The source's COCO dict with every key of the file."""
    from ...data.assemble import PartFiles, read_coco

    return read_coco(PartFiles(Path(source.json_file), Path(source.image_root)))


def check_output(target: str | Path, inputs: Sequence[str], force: bool) -> Path:
    """Refuse to write over anything, inputs above all; see `check_target`."""
    return check_target(target, "--out", _NO_MARK, inputs=tuple(inputs), force=force)


def check_report(args: argparse.Namespace, inputs: Sequence[str]) -> None:
    """The same for --json, before any work is done."""
    if args.json:
        check_target(args.json, "--json", MADE_BY, inputs=tuple(inputs), force=args.force)


def write_coco(path: Path, coco: dict[str, Any]) -> None:
    """Write an annotation file, whole or not at all."""
    import msgspec

    from ...files import atomic_write

    try:
        with atomic_write(path) as file:
            file.write(msgspec.json.encode(coco))
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error


def write_report(args: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """Write `facts` to --json if that is asked for."""
    if args.json:
        write_json_file(args.json, {"made_by": f"{MADE_BY} {args.command}", **facts})


def counts_of(coco: Mapping[str, Any]) -> dict[str, int]:
    """Images, those without any annotation, objects, crowds and classes."""
    annotations = coco.get("annotations", [])
    crowds = sum(bool(a.get("iscrowd")) for a in annotations)
    return {
        "images": len(coco["images"]),
        "empty_images": len(coco["images"]) - len({a["image_id"] for a in annotations}),
        "objects": len(annotations) - crowds,
        "crowds": crowds,
        "classes": len(coco["categories"]),
    }


def count_line(path: str | Path, counts: Mapping[str, int]) -> str:
    """One line that says what a file holds."""
    return (
        f"{path}: {counts['images']} images ({counts['empty_images']} without objects), "
        f"{counts['objects']} objects, {counts['crowds']} crowds, {counts['classes']} classes"
    )


def next_command(path: Path, image_root: str | Path) -> str:
    """The command that checks the file just written."""
    words = ["mask-rcnn-ext", "data", "check", str(path)]
    if Path(image_root).absolute() != path.absolute().parent:
        words += ["--images", str(image_root)]
    return f"Next: {shlex.join(words)}"


def print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}")
