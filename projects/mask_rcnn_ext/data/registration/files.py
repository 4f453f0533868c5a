"""The annotation file and image folder of a data set, whatever its format is.

Importers are imported where they are used: most runs need none of them.
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import DataError
from ..class_map import apply_changes
from ..spec import DatasetSpec, Part
from .paths import found_instead, path_of, root_hint, root_of

if TYPE_CHECKING:
    from ..assemble import PartFiles
    from ..formats.base import CocoImport


# Options of importers that name a file, which is then relative to the set's root.
_FILE_OPTIONS = {"labelme": ("labels",), "png": ("classes",)}


@dataclass(frozen=True)
class Location:
    """Where a set is: an annotation file in COCO's format, its images, Cityscapes' own folders."""

    json_file: str
    image_root: str
    image_dir: str = ""
    gt_dir: str = ""

    def metadata(self) -> dict[str, str]:
        """The folders that this set has, under Detectron2's names."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value}


def locate(spec: DatasetSpec) -> Location:
    """Where a set is; a set that is no plain COCO file is made in the cache if needed.

    Raises:
        UserError: sources that are missing or broken, a cache that cannot be written; a plain
            COCO file is not looked for
    """
    if spec.format == "cityscapes":
        return _locate_cityscapes(spec)
    parts = spec.parts
    if spec.if_missing and not os.path.exists(path_of(spec, parts[0].annotations)):
        parts = spec.if_missing
    if dataclasses.replace(spec, parts=parts).is_plain:
        json_file = path_of(spec, parts[0].annotations)
        images = parts[0].images
        return Location(json_file, path_of(spec, images) if images else os.path.dirname(json_file))
    from ..assemble import all_sources, assemble
    from ..import_cache import cached_coco

    files = [_part_files(spec, part) for part in parts]
    identity = {
        "parts": [{k: str(v) for k, v in vars(part).items()} for part in files],
        **_identity(spec),
    }
    target, root = cached_coco(
        spec.name,
        identity,
        all_sources(files, lambda part: _sources(spec, part)),
        lambda: assemble(files, lambda part: _read(spec, part), spec.classes, spec.where),
    )
    return Location(str(target), str(root))


def require_files(spec: DatasetSpec, location: Location) -> None:
    """Refuse a set whose annotation file or image folder is not there.

    Raises:
        DataError: says what was found instead
    """
    for path, is_sound in (
        (location.json_file, os.path.isfile),
        (location.image_root, os.path.isdir),
    ):
        if not is_sound(path):
            raise DataError(
                f"{_missing(spec, path)}\nExpected:\n  {location.json_file}\n"
                f"  {os.path.join(location.image_root, '<images>')}"
            )


def _locate_cityscapes(spec: DatasetSpec) -> Location:
    from ..cityscapes.reader import cityscapes_sources, read_cityscapes
    from ..import_cache import cached_coco

    root, source = root_of(spec), str(spec.options.get("source", "polygons"))
    if not os.path.isdir(root):
        raise DataError(_missing(spec, root))

    def build() -> CocoImport:
        whole = read_cityscapes(root, spec.split, source, progress=True)
        coco, notes = apply_changes(whole.coco, spec.classes, spec.where)
        return dataclasses.replace(whole, coco=coco, notes=[*whole.notes, *notes])

    identity = {"root": os.path.abspath(root), "split": spec.split, **_identity(spec)}
    target, image_root = cached_coco(
        spec.name, identity, cityscapes_sources(root, spec.split, source), build
    )
    return Location(
        str(target),
        str(image_root),
        image_dir=os.path.join(root, "leftImg8bit", spec.split),
        gt_dir=os.path.join(root, "gtFine", spec.split),
    )


def _identity(spec: DatasetSpec) -> dict[str, Any]:
    return {
        "format": spec.format,
        "classes": dataclasses.asdict(spec.classes),
        "options": _options(spec),
    }


def _options(spec: DatasetSpec) -> dict[str, Any]:
    files = _FILE_OPTIONS.get(spec.format, ())
    return {
        key: path_of(spec, value) if key in files and isinstance(value, str) else value
        for key, value in spec.options.items()
    }


def _part_files(spec: DatasetSpec, part: Part) -> PartFiles:
    from ..assemble import PartFiles

    annotations = path_of(spec, part.annotations)
    # A device or a pipe is no file, and reading it might not end.
    if not (os.path.isfile(annotations) or (spec.format != "coco" and os.path.isdir(annotations))):
        raise DataError(_missing(spec, annotations))
    if part.images and not os.path.isdir(path_of(spec, part.images)):
        raise DataError(_missing(spec, path_of(spec, part.images)))
    return PartFiles(
        Path(annotations),
        Path(path_of(spec, part.images)) if part.images else None,
        _first(spec, "only_images_of", part.only_images_of),
        _first(spec, "without_images_of", part.without_images_of),
    )


def _first(spec: DatasetSpec, key: str, texts: tuple[str, ...]) -> Path | None:
    paths = [path_of(spec, text) for text in texts]
    for path in paths:
        if os.path.isfile(path):
            return Path(path)
    if not paths:
        return None
    raise DataError(
        f"data set {spec.name!r} ({spec.where}): {key} needs {' or '.join(paths)}, not found. "
        f"{found_instead(paths[0])}{root_hint(spec)}"
    )


def _sources(spec: DatasetSpec, part: PartFiles) -> list[Path]:
    if spec.format == "coco":
        return [part.annotations]
    from ..formats import IMPORTERS

    return IMPORTERS[spec.format].sources(part.annotations, part.images, _options(spec))


def _read(spec: DatasetSpec, part: PartFiles) -> CocoImport:
    from ..assemble import read_coco
    from ..formats import IMPORTERS

    if spec.format == "coco":
        return read_coco(part)

    return IMPORTERS[spec.format].read(part.annotations, part.images, _options(spec))


def _how_to_make(spec: DatasetSpec) -> str:
    """The command that writes generated sets; "" for all others."""
    if spec.folder is not None or spec.root not in ("scenes", "cityscapes_scenes"):
        return ""
    layout = " --layout cityscapes --size 256x512" if spec.root == "cityscapes_scenes" else ""
    return f" Make them: mask-rcnn-ext scenes --out {root_of(spec)} --images 2000{layout}"


def _missing(spec: DatasetSpec, path: str) -> str:
    what = "not found"
    if os.path.isdir(path):
        what = "is a folder, expected a file"
    elif os.path.exists(path):
        what = "is not what was expected there"
    where = f" ({spec.where})" if spec.where else ""
    found = "" if os.path.exists(path) else f" {found_instead(path)}"
    return (
        f"data set {spec.name!r}{where}: {path} {what}.{found}{root_hint(spec)}{_how_to_make(spec)}"
    )
