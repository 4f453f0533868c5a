"""
Every row of the paper's tables: the paper's figures in percent, and for ours the hours that it
takes with all its stages, what of its data and weights is not there, and its state.

  mask-rcnn-ext tables list
  mask-rcnn-ext tables list --table 2c
  mask-rcnn-ext tables list --table 2c --row roipool
  mask-rcnn-ext tables list --table in-text
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ...files import write_json
from ...paper import load_paper
from ...paper.spec import IN_TEXT, Comparison, Paper, Row, Table, nearest
from .lacking import Looking
from .listing_json import as_json
from .listing_text import Text

HELP = "rows, the paper's figures, what each takes, state"
Entry = tuple[Table, Row] | Comparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--table",
        nargs="+",
        default=[],
        metavar="T",
        help=f"1, 2a, ..., 9, or {IN_TEXT} for what the paper says between them (default: all)",
    )
    parser.add_argument(
        "--row", nargs="+", default=[], metavar="R", help="rows of that name, with their stages"
    )
    parser.add_argument(
        "--data",
        choices=("coco", "scenes"),
        default="coco",
        help="the paper's own protocol, or in small on generated scenes (default: coco)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it here, too")


def run(args: argparse.Namespace) -> int:
    paper = load_paper()
    chosen = choose(paper, args.table, args.row)
    looking = Looking(paper)
    text = Text(paper, args.data, looking)
    print(text.rows(chosen) if args.row else text.overview(chosen, notes=bool(args.table)))
    if args.json:
        write_json(args.json, as_json(paper, chosen, args.data, looking))
    return 0


def choose(paper: Paper, tables: list[str], rows: list[str]) -> list[Entry]:
    """Rows and comparisons in the paper's order.

    Args:
        tables: as a user calls them; [] for all, what is said in the text included
        rows: ids; [] for all of these tables
    Raises:
        UsageError: one that is not there
    """
    in_text = [name for name in tables if name.lower().replace("_", "-") == IN_TEXT]
    asked = {paper.table(name).table for name in tables if name not in in_text}
    some = [table for table in paper.tables.values() if table.table in asked or not tables]
    found: list[Entry] = [(table, row) for table in some for row in table.rows]
    found += paper.comparisons.values() if in_text or not tables else []
    known = [_id(one) for one in found]
    for name in rows:
        if name.lower() not in known:
            where = f"table {', '.join(tables)}" if tables else "any table"
            near = nearest(name, dict.fromkeys(known))
            raise UsageError(f"there is no row {name!r} in {where}{near}")
    return [one for one in found if not rows or _id(one) in {name.lower() for name in rows}]


def _id(entry: Entry) -> str:
    return entry.id if isinstance(entry, Comparison) else entry[1].id
