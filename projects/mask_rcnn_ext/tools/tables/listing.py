"""
Every row of the paper's tables: the paper's figures in percent, and for ours the hours that it
takes with all its stages, what of its data and weights is not there, and its state: with how many
seeds it has been measured.

  mask-rcnn-ext tables list
  mask-rcnn-ext tables list --table 2c
  mask-rcnn-ext tables list --table 2c --row roipool
  mask-rcnn-ext tables list --table in-text
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import UsageError
from ...paper import Paper, load_paper
from ...paper.spec import IN_TEXT, nearest
from ..data.target import check_place
from ..json_file import write_json_file
from .options import RECORDS, add_data, add_rows, add_tables, tables_asked

if TYPE_CHECKING:  # imported when the verb runs: they need Detectron2, --help does not
    from .entry import Entry

HELP = "rows, the paper's figures, what each takes, state"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_tables(parser)
    add_rows(parser, ", with their stages")
    add_data(parser)
    parser.add_argument(
        "--records",
        type=Path,
        metavar="DIR",
        help=f"records of runs, for the state of each row (default: {RECORDS})",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it here, too")


def run(args: argparse.Namespace) -> int:
    """Print the rows; 0."""
    from ...config import require_detectron2

    require_detectron2()
    from .entry import entries
    from .kept import sorted_records
    from .lacking import Looking
    from .listing_json import as_json
    from .listing_text import details, overview

    if args.json:
        check_place(args.json, "--json")
    if args.records is not None and not args.records.is_dir():
        raise UsageError(f"--records {args.records} is not a folder; `tables run` leaves one")
    paper = load_paper()
    records = sorted_records(paper, args.records or RECORDS, args.data)
    every = entries(paper, args.data, Looking(paper), records)
    chosen = choose(paper, every, args.table, args.row)
    if args.json:
        write_json_file(args.json, as_json(paper, chosen, args.data))
    if args.row:
        print("\n\n".join(details(paper, one, records) for one in chosen))
    else:
        print(overview(paper, chosen, notes=bool(args.table)))
    return 0


def choose(paper: Paper, every: list[Entry], tables: list[str], rows: list[str]) -> list[Entry]:
    """
    Args:
        tables: as a user calls them; [] for all
        rows: ids; [] for all of these tables
    Raises:
        UsageError: one that is not there
    """
    asked = tables_asked(paper, tables)
    some = [one for one in every if not tables or table_of(one) in asked]
    known = [one.one.id for one in some]
    for name in rows:
        if name.lower() not in known:
            where = f"table {', '.join(tables)}" if tables else "any table"
            raise UsageError(
                f"there is no row {name!r} in {where}{nearest(name, dict.fromkeys(known))}"
            )
    wanted = {name.lower() for name in rows}
    return [one for one in some if not rows or one.one.id in wanted]


def table_of(entry: Entry) -> str:
    """Its table as a user calls it."""
    return entry.table.table if entry.table else IN_TEXT
