"""What a `mask-rcnn-ext data` command works on: a registered data set, or an annotation file."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from ..bench import positive

_WHAT = "a data set's name as in DATASETS.TRAIN, or an annotation file in COCO's format"


@dataclass(frozen=True)
class Source:
    """An annotation file and the folder that its file names are relative to.

    name: the data set's, or the file's without its ending
    registered: whether `name` is a data set of Detectron2's catalog
    """

    name: str
    json_file: str
    image_root: str
    registered: bool = False


def add_source_arguments(parser: argparse.ArgumentParser, *, many: bool = False) -> None:
    """Add the words NAME|FILE (`args.source`, a list with `many`), --images and --registry."""
    parser.add_argument("source", metavar="NAME|FILE", nargs="+" if many else None, help=_WHAT)
    add_images_argument(parser)
    add_registry_argument(parser)


def add_images_argument(parser: argparse.ArgumentParser) -> None:
    """Add --images, the second argument of `resolve_source`."""
    parser.add_argument(
        "--images",
        metavar="DIR",
        help="folder of a FILE's images (default: the folder that the file is in)",
    )


def add_registry_argument(parser: argparse.ArgumentParser) -> None:
    """Add --registry, the third argument of `resolve_source`."""
    parser.add_argument(
        "--registry",
        metavar="YAML",
        action="append",
        default=[],
        help="a data set's YAML, or a folder of them, to look names up in; may be repeated",
    )


def add_scale_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --short-edge and --max-size, by which training resizes images."""
    parser.add_argument(
        "--short-edge",
        type=positive,
        default=800,
        metavar="S",
        help="what an image's shorter side becomes in training, pixels (default: 800)",
    )
    parser.add_argument(
        "--max-size",
        type=positive,
        default=1333,
        metavar="M",
        help="limit of the longer side, pixels (default: 1333)",
    )


def resolve_source(
    text: str, images: str | None = None, registry: list[str] | None = None
) -> Source:
    """
    Args:
        text: a registered name, or the path of an annotation file
        images: folder of the file's images; only for a file
        registry: YAMLs or folders to register first
    Raises:
        UsageError: neither a name nor a file; or a set that has no annotation file in COCO's form
        DataError: the set's files cannot be read
    """
    from detectron2.data import DatasetCatalog

    from ...data import registration

    registration.register_from(registry or ())
    if text in DatasetCatalog.list():
        if images:
            raise UsageError(f"--images goes with a file; {text!r} is a registered data set")
        location = registration.locate_dataset(text)
        if location is None:
            raise UsageError(
                f"data set {text!r} has no annotation file in COCO's format; registered sets "
                "that have one, or the file itself, can be used here"
            )
        return Source(text, *location, registered=True)
    path = Path(text).expanduser()
    if path.is_file():
        folder = Path(images).expanduser() if images else path.parent
        return Source(path.stem, str(path), str(folder))
    if path.suffix or os.sep in text:
        what = "is a folder, not an annotation file" if path.is_dir() else "does not exist"
        raise UsageError(f"{text} {what}; give {_WHAT}")
    raise UsageError(f"{registration.describe_unknown(text)}; nor is there a file {text}")
