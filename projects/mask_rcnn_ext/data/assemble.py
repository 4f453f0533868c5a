"""A data set's COCO dict from its parts: imported, images chosen, joined, classes changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..errors import DataError
from .class_map import ClassChanges, apply_changes
from .formats.base import CocoImport
from .merge import merge

Coco = dict[str, Any]


@dataclass(frozen=True)
class PartFiles:
    """A `spec.Part` with its paths looked up.

    only, without: an annotation file or list of ids, None for no such choice
    """

    annotations: Path
    images: Path | None
    only: Path | None = None
    without: Path | None = None

    @property
    def id_files(self) -> list[Path]:
        return [path for path in (self.only, self.without) if path is not None]


def assemble(
    parts: Sequence[PartFiles],
    read: Callable[[PartFiles], CocoImport],
    changes: ClassChanges,
    where: str,
) -> CocoImport:
    """All parts as one COCO dict.

    Args:
        parts: at least one
        read: the importer of one part
        changes: of classes, applied last
        where: whose data this is, for messages
    """
    imports = [_choose_images(read(part), part) for part in parts]
    joined = imports[0] if len(imports) == 1 else merge(imports)
    coco, notes = apply_changes(joined.coco, changes, where)
    return CocoImport(coco, [*joined.notes, *notes], joined.sources, joined.image_root)


def read_coco(part: PartFiles) -> CocoImport:
    """A COCO file, every key kept; masks stay JSON text, as nothing here looks into them."""
    coco = _decode(part.annotations)
    for section in ("images", "categories"):
        if section not in coco:
            raise DataError(
                f"{part.annotations} lacks the section {section!r}; it has: "
                f"{', '.join(sorted(coco))}"
            )
    for section in ("images", "categories", "annotations"):
        entries = coco.get(section, [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            raise DataError(f"{part.annotations}: section {section!r} is not a list of objects")
    root = part.images if part.images is not None else part.annotations.parent
    return CocoImport(coco, [], [part.annotations], root)


def _decode(path: Path) -> Coco:
    try:
        content = path.read_bytes()
        sections = msgspec.json.decode(content, type=dict[str, msgspec.Raw])
        coco = {
            key: msgspec.json.decode(raw) for key, raw in sections.items() if key != "annotations"
        }
        if "annotations" in sections:
            entries = msgspec.json.decode(
                sections["annotations"], type=list[dict[str, msgspec.Raw]]
            )
            coco["annotations"] = [
                {
                    key: raw if key == "segmentation" else msgspec.json.decode(raw)
                    for key, raw in entry.items()
                }
                for entry in entries
            ]
        return coco
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DataError(
            f"{path} is no annotation file that can be rewritten ({error}); "
            f"`mask-rcnn-ext data check {path}` says more"
        ) from error


def image_ids(path: Path) -> set[Any]:
    """The ids of an annotation file's images, or of a JSON list of ids."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, msgspec.Raw] | list[Any])
        if isinstance(content, dict):
            entries = msgspec.json.decode(content["images"], type=list[dict[str, Any]])
            content = [entry["id"] for entry in entries]
        return set(content)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, KeyError, TypeError) as error:
        raise DataError(
            f"{path} gives no image ids ({type(error).__name__}: {error}); expected an annotation "
            "file with images, or a JSON list of ids"
        ) from error


def _choose_images(part: CocoImport, files: PartFiles) -> CocoImport:
    if not files.id_files:
        return part
    coco, notes = part.coco, list(part.notes)
    present = {_key(image.get("id")) for image in coco["images"]}
    kept = present
    if files.only is not None:
        only = image_ids(files.only)
        lacking = len(only - present)
        if lacking:
            notes.append(
                f"{lacking} of the {len(only)} images of {files.only} are not in "
                f"{files.annotations}"
            )
        kept = kept & only
    if files.without is not None:
        kept = kept - image_ids(files.without)
    images = [image for image in coco["images"] if _key(image.get("id")) in kept]
    if not images:
        raise DataError(
            f"no image of {files.annotations} is left by {' and '.join(map(str, files.id_files))}"
        )
    chosen = {**coco, "images": images}
    if "annotations" in coco:
        chosen["annotations"] = [
            annotation
            for annotation in coco["annotations"]
            # What belongs to no image stays, so that the check of the data set can tell.
            if _key(annotation.get("image_id")) in kept
            or _key(annotation.get("image_id")) not in present
        ]
    return CocoImport(chosen, notes, [*part.sources, *files.id_files], part.image_root)


def _key(value: Any) -> Any:
    """An id as a key of a set; what is no id equals nothing."""
    return value if isinstance(value, int | str | float) else ("no id", id(value))


def all_sources(
    parts: Iterable[PartFiles], sources: Callable[[PartFiles], Iterable[Path]]
) -> list[Path]:
    """Every file whose change makes an earlier result stale."""
    return [path for part in parts for path in (*sources(part), *part.id_files)]
