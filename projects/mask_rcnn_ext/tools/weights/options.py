"""Options and output that several actions share."""

from __future__ import annotations

import argparse
from typing import Any

from ..json_file import write_json_file


def add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", required=True, metavar="O", help="the .pth or .safetensors to write"
    )
    parser.add_argument("--force", action="store_true", help="replace --output if it exists")


def add_weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        required=True,
        metavar="W",
        help="the file; detectron2://, catalog:// and https:// are fetched",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", metavar="FILE", help="write the report there, for programs")


def add_overrides(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides, at the end"
    )


def write_report(path: str | None, report: dict[str, Any]) -> None:
    """
    Raises:
        UserError: the file cannot be written
    """
    if path:
        write_json_file(path, report)
