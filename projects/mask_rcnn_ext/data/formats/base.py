"""What an importer gives: a COCO dict, notes on all that COCO could not hold, the files read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ...errors import UsageError


@dataclasses.dataclass(frozen=True)
class CocoImport:
    """A data set in COCO's form.

    Attributes:
        coco: images (id, file_name relative to `image_root`, height, width), annotations (id,
            image_id, category_id, bbox as x, y, width, height in pixels, area, iscrowd,
            segmentation as polygons or compressed RLE with text counts), categories (id, name);
            ids count from 1; it can be written with json.dump as it is
        notes: one sentence each for whatever was left out or changed, with its count and the
            first places; empty when the source is wholly kept
        sources: the annotation files that were read, sorted
        image_root: folder that the `file_name`s are relative to
    """

    coco: dict[str, Any]
    notes: list[str]
    sources: list[Path]
    image_root: Path


class Importer(Protocol):
    """Reads one format. A module of this package is one, see `formats.IMPORTERS`."""

    OPTIONS: Mapping[str, str]
    """Option name -> what it does."""

    def read(
        self, annotations: Path, images: Path | None, options: Mapping[str, Any]
    ) -> CocoImport:
        """Read it all.

        Args:
            annotations: a file or folder, by format
            images: folder of the pictures; None for the format's own place
            options: see OPTIONS
        Raises:
            DataError: names the file and the element at fault, or the picture that is missing
            UsageError: an unknown option, a path that is not there
        """
        ...

    def sources(
        self, annotations: Path, images: Path | None, options: Mapping[str, Any]
    ) -> list[Path]:
        """The annotation files whose change makes an earlier result stale, sorted.

        Quick: names are listed, contents are not read. Pictures are not among them where only
        their size is used.
        """
        ...


class Exporter(Protocol):
    """Writes one format. A module of this package is one, see `formats.EXPORTERS`."""

    OPTIONS: Mapping[str, str]
    """Option name -> what it does."""

    def write(
        self,
        coco: dict[str, Any],
        image_root: Path,
        out: Path,
        options: Mapping[str, Any],
        *,
        force: bool,
    ) -> list[str]:
        """Write it all, or nothing.

        Args:
            coco: COCO dict
            image_root: folder of its file names
            out: must not be there; with `force` one that the exporter wrote is replaced
            options: see OPTIONS
        Returns:
            notes, as those of `CocoImport`
        Raises:
            UsageError: an option, or `out` is there
            DataError: an entry or picture that cannot be used
        """
        ...


def check_options(fmt: str, options: Mapping[str, Any], known: Mapping[str, str]) -> None:
    """Refuse options that the format does not have (UsageError with those that it has)."""
    unknown = sorted(set(options) - set(known))
    if unknown:
        has = ", ".join(f"{name} ({text})" for name, text in known.items()) or "none"
        raise UsageError(f"format {fmt!r} has no option {', '.join(unknown)}; it has: {has}")
