"""
Say whether a weights file is whole: it can be read and holds only data, its archive's CRCs hold,
its numbers are finite, and its checksum is the one that you give, that its name has (torchvision,
Detectron2's zoo) or that SHA256SUMS or FILE.sha256 beside it says. Exit code 1 if not.
"""

from __future__ import annotations

import argparse

HELP = "whether a weights file is whole, finite and the one that was published"
_SHOWN = 20  # findings that are printed; a broken training has hundreds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", metavar="FILE", help="a path; detectron2://, catalog:// and https:// are fetched"
    )
    parser.add_argument(
        "--sha256",
        default="",
        metavar="H",
        help="what its sha256 is, or the first 8 digits or more",
    )


def run(args: argparse.Namespace) -> int:
    from ...engine.weights.fetch import local_path
    from ...engine.weights.verify import verify

    path = local_path(args.file)
    verdict = verify(path, args.sha256)
    for line in verdict.checked:
        print(f"ok: {line}")
    for line in verdict.findings[:_SHOWN]:
        print(f"FINDING: {line}")
    if len(verdict.findings) > _SHOWN:
        print(f"and {len(verdict.findings) - _SHOWN} findings more")
    if verdict.sha256:
        print(f"sha256 {verdict.sha256}  {path.name}")
    return 1 if verdict.findings else 0
