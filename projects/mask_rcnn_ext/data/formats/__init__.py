"""Annotation formats: importers to COCO's form, exporters from it.

`IMPORTERS[name]` reads a format, see `base.Importer`; `EXPORTERS[name]` writes one, see
`base.Exporter`. COCO itself
and Cityscapes need no importer here: registration reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ...errors import UsageError
from . import cvat, labelme, png_instances, via, voc_masks, yolo_export, yolo_seg
from .base import CocoImport, Exporter, Importer

IMPORTERS: Mapping[str, Importer] = MappingProxyType(
    {
        "via": via,
        "labelme": labelme,
        "cvat": cvat,
        "yolo-seg": yolo_seg,
        "voc-masks": voc_masks,
        "png": png_instances,
    }
)
EXPORTERS: Mapping[str, Exporter] = MappingProxyType({"yolo-seg": yolo_export})

__all__ = [
    "EXPORTERS",
    "IMPORTERS",
    "CocoImport",
    "Exporter",
    "Importer",
    "import_dataset",
    "sources_of",
]


def import_dataset(
    fmt: str, annotations: str | Path, images: str | Path | None = None, **options: Any
) -> CocoImport:
    """Read a data set of format `fmt`; see `base.Importer.read` for the rest."""
    return _importer(fmt).read(Path(annotations), Path(images) if images else None, options)


def sources_of(
    fmt: str, annotations: str | Path, images: str | Path | None = None, **options: Any
) -> list[Path]:
    """Files whose change makes an earlier import stale; see `base.Importer.sources`."""
    return _importer(fmt).sources(Path(annotations), Path(images) if images else None, options)


def _importer(fmt: str) -> Importer:
    if fmt not in IMPORTERS:
        raise UsageError(f"no importer for format {fmt!r}; there are: {', '.join(IMPORTERS)}")
    return IMPORTERS[fmt]
