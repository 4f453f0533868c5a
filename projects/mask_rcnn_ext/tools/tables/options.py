"""What the verbs of `tables` are asked in the same words: tables, rows, data, folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from ...paper import Paper
from ...paper.spec import IN_TEXT

OUT = Path("output", "tables")
RECORDS = OUT / "records"
ALL = "all"


def add_tables(parser: argparse.ArgumentParser, *, required: bool = False) -> None:
    """--table; where it must be given, `all` is a word for all."""
    between = f"{IN_TEXT} for what the paper says between them"
    all_of_them = f"or {ALL}" if required else "(default: all)"
    parser.add_argument(
        "--table",
        nargs="+",
        default=[],
        required=required,
        metavar="T",
        help=f"1, 2a, ..., 9, {between}, {all_of_them}",
    )


def add_rows(parser: argparse.ArgumentParser, more: str) -> None:
    """--row; `more` is what they are asked for."""
    parser.add_argument(
        "--row", nargs="+", default=[], metavar="R", help=f"rows of that name{more}"
    )


def add_data(parser: argparse.ArgumentParser) -> None:
    """--data"""
    parser.add_argument(
        "--data",
        choices=("coco", "scenes"),
        default="coco",
        help="the paper's own protocol, or in small on generated scenes (default: coco)",
    )


def tables_asked(paper: Paper, names: list[str]) -> list[str]:
    """Tables as --table gives them, in the paper's order, the text last; [] for none.

    Raises:
        UsageError: one that is not there
    """
    wanted = {name if _is_text(name) else paper.table(name).table for name in names}
    in_text = [IN_TEXT] if any(map(_is_text, wanted)) else []
    return [*(name for name in paper.tables if name in wanted), *in_text]


def _is_text(name: str) -> bool:
    return name.lower().replace("_", "-") == IN_TEXT
