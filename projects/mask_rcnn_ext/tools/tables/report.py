"""
The paper's tables with what was measured beside what is printed, from run records alone.

  mask-rcnn-ext tables report
  mask-rcnn-ext tables report --records records --data scenes --markdown docs/tables.md
  mask-rcnn-ext tables report --table 2c 2d --html tables.html --json tables.json

Without --markdown, --html or --json it only prints a summary. The same records and the same version
of this project make the same files on any machine. Drawings of the Markdown file go to a folder
beside it that has its name.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ...errors import UsageError, UserError
from ...files import atomic_write, write_json
from ...paper import Paper, Sorted, find_records
from ...paper.spec import IN_TEXT
from .options import RECORDS, add_tables, tables_asked

if TYPE_CHECKING:
    from ...paper.report import Report
    from ...paper.report_markdown import Written

HELP = "the tables with what was measured beside what is printed, as Markdown, HTML, JSON"

_REPORTS: tuple[Literal["coco", "scenes", "smoke"], ...] = ("coco", "scenes", "smoke")
_FILES = ("markdown", "html", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--records",
        type=Path,
        default=RECORDS,
        metavar="DIR",
        help=f"folder of the run records (default: {RECORDS})",
    )
    parser.add_argument(
        "--data",
        choices=_REPORTS,
        help="which records: the paper's own protocol, generated scenes, or smoke runs on stand-in "
        "data (default: the first of these that there are)",
    )
    add_tables(parser)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write it as Markdown")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write it as one page")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write its numbers")
    parser.add_argument(
        "--pictures",
        action="store_true",
        help="put the records' pictures beside the Markdown file, too; the page always has them",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there already")


def run(args: argparse.Namespace) -> int:
    """Write what is asked for and print a summary; 0. No such folder is a UsageError."""
    from tqdm import tqdm

    from ...config import require_detectron2

    require_detectron2()
    from ...paper import load_paper
    from ...paper.report import make_report
    from ...paper.report_markdown import as_markdown
    from ...paper.report_summary import summary

    if args.pictures and not args.markdown:
        raise UsageError("--pictures is for --markdown; the page of --html always has them")
    if not args.records.is_dir():
        raise UsageError(
            f"--records {args.records}: there is no such folder; `mask-rcnn-ext tables run` "
            "makes records"
        )
    _check_targets(args)
    paper = load_paper()
    asked = tables_asked(paper, args.table) or [*paper.tables, IN_TEXT]
    of = args.data or _first_with_records(args.records)
    with tqdm(desc="draws", unit=" runs", disable=None, leave=False) as bar:

        def tell(done: int, runs: int) -> None:
            bar.total = runs
            bar.update(done - bar.n)

        report = make_report(
            paper,
            of,
            sorted_by_records(paper, args.records, of),
            folder=args.records,
            tables=[name for name in asked if name != IN_TEXT],
            in_text=IN_TEXT in asked,
            asked=asked if args.table else (),
            progress=tell,
        )
    written = None
    if args.markdown:
        links = _configs_from(args.markdown)
        written = as_markdown(report, args.markdown.name, configs=links, pictures=args.pictures)
        _check_drawings(args, written)
    _write(args, report, written)
    print(summary(report))
    return 0


def sorted_by_records(paper: Paper, folder: Path, of: str) -> Sorted:
    """By the records alone: what data this machine has must not change the report.

    Args:
        folder: of the records
        of: coco, scenes or smoke
    """
    from ...paper.smoke import load_smoke, stand_ins
    from .kept import sorted_records

    smoke = None
    if of == "smoke":
        stand_in = load_smoke()
        paper, smoke = stand_ins(paper, stand_in), stand_in.as_json
    return sorted_records(paper, folder, of, smoke, look=False)


def _first_with_records(folder: Path) -> Literal["coco", "scenes", "smoke"]:
    return next((of for of in _REPORTS if any(find_records(folder, of))), "coco")


# ---- files


def _check_targets(args: argparse.Namespace) -> None:
    from ...paper.report import GENERATOR
    from ..data.target import check_target

    places: dict[Path, str] = {}
    for name in _FILES:
        target = getattr(args, name)
        if target is None:
            continue
        check_target(target, f"--{name}", GENERATOR, inputs=(), force=args.force)
        other = places.setdefault(Path(os.path.abspath(target)), name)
        if other != name:
            raise UsageError(f"--{other} and --{name} are both {target}")


def _check_drawings(args: argparse.Namespace, written: Written) -> None:
    """Nothing of somebody else's in the folder is replaced, either."""
    from ...paper.report import GENERATOR

    folder = _folder_of(args.markdown)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"drawings of {args.markdown} go to {folder}, which is a file")
    for name, content in written.files.items():
        path = folder / name
        if args.force or not path.exists():
            continue
        there = path.read_bytes() if path.is_file() else b""
        if there != content and GENERATOR.encode() not in there[:4096]:
            raise UsageError(
                f"{path} is there already and was not written by this command; add --force, or "
                "give --markdown another name"
            )


def _write(args: argparse.Namespace, report: Report, written: Written | None) -> None:
    from ...paper.report_numbers import as_numbers
    from ...paper.report_page import as_page

    target = Path()
    try:
        if written is not None:
            folder = _folder_of(args.markdown)
            if written.files:
                folder.mkdir(exist_ok=True)
            for name, content in written.files.items():
                target = folder / name
                with atomic_write(target) as file:
                    file.write(content)
            target = args.markdown
            with atomic_write(target) as file:
                file.write(written.text)
        if args.html:
            target = args.html
            with atomic_write(target) as file:
                file.write(as_page(report, target.name))
        if args.json:
            target = args.json
            write_json(target, as_numbers(report))
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error


def _folder_of(markdown: Path) -> Path:
    return markdown.with_name(markdown.stem)


def _configs_from(markdown: Path) -> str | None:
    """The folder of configs as a file in the same checkout links to it; None for any other file."""
    from ...resources import configs_dir

    configs = configs_dir().resolve()
    folder = markdown.absolute().parent.resolve()
    if not folder.is_relative_to(configs.parent):
        return None
    return Path(os.path.relpath(configs, folder)).as_posix()
