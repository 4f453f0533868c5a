"""Find what is wrong with a data set before an hour is lost: file, image id, annotation id, remedy.

One line a finding: severity, file, image, annotation, what is wrong, what to do, [code]. An error
means that training would fail or learn something wrong without a word; a warning that it works,
but hardly as meant. Training runs the fast part of this by itself.

Exit code 0 without errors (warnings may be there), 1 with errors, 2 for a wrong call. With --fix
it is the corrected file that counts.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bench import positive
from .coco_output import MADE_BY, check_report, write_report
from .source import Source, add_scale_arguments, add_source_arguments, resolve_source
from .target import check_target

if TYPE_CHECKING:
    from ...data.checks import Report, Settings
    from ...data.checks.facts import Progress
    from ...data.checks.fixing import Repaired
    from ...data.checks.suite import Check

HELP = "every defect by file, image id and annotation id; --fix writes a corrected file"

OPENED_BY_DEFAULT = 5000  # images at most; a minute or so on one core
_LIMIT = 5  # lines of each kind that are printed
_NO_MARK = "\0"  # annotation files carry no mark: they are replaced with --force only
_DRAWN = 200  # thumbnails of each kind


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source_arguments(parser)
    parser.add_argument(
        "--open-images",
        action=argparse.BooleanOptionalAction,
        help="decode every image: unreadable, truncated, another size, EXIF rotation, same content "
        f"(default: where there are at most {OPENED_BY_DEFAULT})",
    )
    parser.add_argument(
        "--against",
        metavar="NAME|FILE",
        action="append",
        default=[],
        help="another split, whose pictures must not be in this one; compared by content; may be "
        "repeated",
    )
    parser.add_argument(
        "--against-images",
        metavar="DIR",
        help="folder of the images of an --against FILE (default: the folder that the file is in)",
    )
    parser.add_argument("--all", action="store_true", help=f"every finding, not {_LIMIT} of a kind")
    parser.add_argument("--json", metavar="FILE", help="write all findings there, too")
    parser.add_argument(
        "--thumbnails",
        metavar="DIR",
        help=f"draw the findings there, with an index.html (with --all more than {_DRAWN} of a "
        "kind)",
    )
    parser.add_argument(
        "--fix",
        metavar="OUT",
        help="write a corrected annotation file and OUT's list of changes beside it; the input "
        "stays as it is",
    )
    add_scale_arguments(parser)
    parser.add_argument(
        "--detection-cap",
        type=positive,
        default=100,
        metavar="N",
        help="detections an image that are kept (default: 100)",
    )
    parser.add_argument(
        "--workers", type=positive, metavar="W", help="processes (default: one for each CPU)"
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")
    parser.add_argument("--quiet", action="store_true", help="no progress line")


def run(args: argparse.Namespace) -> int:
    """Check, print, draw, mend; 1 if errors are left."""
    from ...data.checks import ERROR, Settings, check_table
    from ...data.coco_table import read_coco_table
    from ...errors import DataError

    source = resolve_source(args.source, args.images, args.registry)
    _check_targets(args, source)
    others = [resolve_source(text, args.against_images, args.registry) for text in args.against]
    settings = Settings(args.short_edge, args.max_size, args.detection_cap)
    with _progress_bars(args.quiet) as progress:
        try:
            table = read_coco_table(
                source.json_file, lambda done, total: progress("annotations", done, total)
            )
        except DataError as error:
            write_report(args, {"file": source.json_file, "refused": str(error)})
            raise
        open_images = args.open_images
        if open_images is None:
            open_images = table.num_images <= OPENED_BY_DEFAULT
        more = _more_checks(args, others, open_images)
        report = check_table(table, source.image_root, settings, more=more, progress=progress)
        if not open_images:
            report.unchecked.append("the images' content: add --open-images")
        _print_report(report, None if args.all else _LIMIT)
        write_report(args, _as_json(report, source, settings))
        if args.thumbnails:
            _draw(args, report, source, progress)
        if args.fix:
            repaired = _fix(args, source, settings, more, progress)
            report = repaired.report
    return 1 if report.counts()[ERROR] else 0


@contextlib.contextmanager
def _progress_bars(quiet: bool) -> Iterator[Progress]:
    """One bar a task, on a terminal only; all are gone in the end."""
    from tqdm import tqdm

    bars: dict[str, tqdm] = {}

    def progress(label: str, done: int, total: int) -> None:
        if label not in bars:
            disable = True if quiet else None  # None: where stderr is no terminal
            bars[label] = tqdm(total=total, desc=label, disable=disable, leave=False)
        bars[label].update(done - bars[label].n)
        if done >= total:
            bars.pop(label).close()

    try:
        yield progress
    finally:
        for bar in bars.values():
            bar.close()


def _check_targets(args: argparse.Namespace, source: Source) -> None:
    from ...data.checks.fixing import changes_path
    from ...errors import UsageError

    inputs = [source.json_file]
    check_report(args, inputs)
    if args.fix:
        for target, marker in ((Path(args.fix), _NO_MARK), (changes_path(Path(args.fix)), MADE_BY)):
            check_target(target, "--fix", marker, inputs=tuple(inputs), force=args.force)
    if args.thumbnails:
        folder = Path(args.thumbnails)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--thumbnails {folder} is a file, expected a folder")
        used = folder.is_dir() and any(folder.iterdir())
        if used and not (folder / "index.html").is_file() and not args.force:
            raise UsageError(
                f"--thumbnails {folder} holds other files; choose another folder, or add --force"
            )


def _more_checks(
    args: argparse.Namespace, others: list[Source], open_images: bool
) -> tuple[Check, ...]:
    from ...data.checks.pixels import OpenImages
    from ...data.checks.splits import SharedImages
    from ...data.coco_table import read_coco_table

    more: list[Check] = [OpenImages(args.workers)] if open_images else []
    for other in others:
        table = read_coco_table(other.json_file)
        more.append(SharedImages(other.name, table, other.image_root))
    return tuple(more)


def _print_report(report: Report, limit: int | None) -> None:
    table = report.table
    shown: dict[str, int] = {}
    for finding in report.findings(limit):
        shown[finding.code] = shown.get(finding.code, 0) + 1
        print(finding.line())
    counts = report.counts_by_code()
    if any(counts[code] > count for code, count in shown.items()):
        print("More of a kind than is printed; --all prints all:")
        for code, count in counts.items():
            if count > shown[code]:
                print(f"  {code}: {count}, {shown[code]} of them printed")
    print(_summary_line(report, table.path))
    for left_out in report.unchecked:
        print(f"not looked at: {left_out}")


def _summary_line(report: Report, path: str | Path) -> str:
    table = report.table
    return (
        f"{path}: {table.num_images} images, {table.num_annotations} annotations, "
        f"{len(table.categories)} classes: {report.summary()}"
    )


def _as_json(report: Report, source: Source, settings: Settings) -> dict[str, Any]:
    from dataclasses import asdict

    table = report.table
    return {
        "name": source.name,
        "file": table.path,
        "sha256": table.sha256,
        "image_root": source.image_root,
        "images": table.num_images,
        "annotations": table.num_annotations,
        "classes": len(table.categories),
        "settings": asdict(settings),
        "counts": dict(report.counts()),
        "counts_by_code": report.counts_by_code(),
        "not_looked_at": report.unchecked,
        "findings": [_plain(finding.as_dict()) for finding in report.findings()],
    }


def _plain(finding: dict[str, Any]) -> dict[str, Any]:
    """Ids may be anything that a file holds; what JSON lacks becomes text."""
    for key in ("image_id", "annotation_id"):
        value = finding[key]
        if isinstance(value, float) and value - value != 0:
            finding[key] = str(value)
    return finding


def _draw(args: argparse.Namespace, report: Report, source: Source, progress: Progress) -> None:
    from ...errors import UserError
    from ...visualization.findings import draw_findings

    folder = Path(args.thumbnails)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        count = draw_findings(
            report,
            source.image_root,
            folder,
            limit=None if args.all else _DRAWN,
            progress=lambda done, total: progress("thumbnails", done, total),
        )
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from error
    print(f"{count} pictures: {folder / 'index.html'}")


def _fix(
    args: argparse.Namespace,
    source: Source,
    settings: Settings,
    more: tuple[Check, ...],
    progress: Progress,
) -> Repaired:
    from ...data.checks.fixing import changes_path, repair_file

    repaired = repair_file(
        source.json_file,
        source.image_root,
        Path(args.fix),
        settings,
        more=more,
        progress=progress,
    )
    if repaired.written is None:
        print("--fix: nothing that can be corrected with certainty; no file was written")
        return repaired
    moved = len(repaired.moved_out)
    print(
        f"--fix: {len(repaired.changes)} values changed, {moved} entries moved out; all of them in "
        f"{changes_path(repaired.written)}"
    )
    print(_summary_line(repaired.report, repaired.written))
    for code, count in repaired.report.counts_by_code().items():
        print(f"  not fixed: {code}: {count}")
    return repaired
