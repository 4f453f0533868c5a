"""scenes.json: what a folder of scenes was made with, and whether it is all there.

A split under way has a marker file instead of an entry here. The entry is written last, so a folder
with neither, or with a marker, is never taken for a complete one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ...errors import UsageError
from ...files import write_json
from . import layout
from .render import GENERATOR_VERSION

MANIFEST = "scenes.json"
GENERATOR = "mask_rcnn_ext scenes"
IMAGE_PATTERN = re.compile(r"\d{12}\.png")

SHARES = {
    "images_without_objects": layout.EMPTY_PER_MILLE / 1000,
    "images_with_a_crowd": layout.CROWD_PER_MILLE / 1000,
    "images_with_heaped_objects": layout.CLUSTER_PER_MILLE / 1000,
    "objects_of_class_person": layout.PERSON_PER_MILLE / 1000,
    "objects_tiny": layout.TINY_PER_MILLE / 1000,
    "objects_large": layout.LARGE_PER_MILLE / 1000,
    "objects_cut_by_the_border": layout.BORDER_PER_MILLE / 1000,
}


@dataclass(frozen=True)
class Parameters:
    """What determines the bytes of a split; lengths in pixels."""

    images: int
    height: int
    width: int
    seed: int
    version: int = GENERATOR_VERSION

    def describe(self) -> str:
        return (
            f"--images {self.images} --size {self.height}x{self.width} --seed {self.seed} "
            f"(generator version {self.version})"
        )


class SplitFiles(Protocol):
    """Where a layout keeps a split's files, and whether they are as they were written."""

    def foreign(self, out: Path, split: str) -> Path | None:
        """Something in the split's place, although no manifest or marker says that it is ours."""
        ...

    def other_layout(self, out: Path) -> Path | None:
        """A folder that only scenes in another layout have."""
        ...

    def changed(self, out: Path, split: str, entry: dict[str, Any]) -> Path | None:
        """An annotation file with other content than the entry says; missing ones are not that."""
        ...

    def all_there(self, out: Path, split: str, entry: dict[str, Any]) -> bool: ...


@dataclass(frozen=True)
class DiskLayout:
    """A way to lay scenes out on disk.

    Attributes:
        parameters: what determines the bytes, called with images, height, width and seed
        image_bytes: most bytes that an image of (height, width) and its annotations take
        write_split: (out, split, parameters, workers, progress); writes the manifest's entry last
        files: where they are
        splits: the names it allows; None for any
    """

    parameters: Callable[..., Parameters]
    image_bytes: Callable[[int, int], int]
    write_split: Callable[[Path, str, Parameters, int | None, bool], None]
    files: SplitFiles
    splits: tuple[str, ...] | None = None


def annotation_paths(out: Path, split: str) -> tuple[Path, Path]:
    """The instances file and the keypoints file of a split."""
    folder = out / "annotations"
    return folder / f"instances_{split}.json", folder / f"person_keypoints_{split}.json"


def marker_path(out: Path, split: str) -> Path:
    return out / f".scenes-{split}.partial"


def read_entry(out: Path, split: str) -> dict[str, Any] | None:
    """The manifest's entry of a split, or None."""
    return _read(out)["splits"].get(split)


def begin_split(out: Path, split: str, parameters: Parameters) -> Path:
    """Mark a split as unfinished and forget an earlier one. Remove the marker at the end."""
    marker = marker_path(out, split)
    marker.write_text(parameters.describe() + "\n", encoding="utf-8")
    if read_entry(out, split) is not None:
        write_entry(out, split, None)
    return marker


def write_entry(
    out: Path, split: str, entry: dict[str, Any] | None, shares: Mapping[str, float] = SHARES
) -> None:
    """Add or, with None, remove an entry, leaving those of other splits.

    Args:
        out: the data set's folder
        split: its name
        entry: parameters, counts and hashes
        shares: what the generator aims at; kept if the manifest has them already
    """
    manifest = _read(out, shares)
    manifest["splits"].pop(split, None)
    if entry is not None:
        manifest["splits"][split] = entry
    manifest["splits"] = dict(sorted(manifest["splits"].items()))
    write_json(out / MANIFEST, manifest)


def _read(out: Path, shares: Mapping[str, float] = SHARES) -> dict[str, Any]:
    path = out / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["generator"] != GENERATOR:
            raise KeyError("generator")
        manifest["splits"].items()
    except FileNotFoundError:
        return {"generator": GENERATOR, "shares": dict(shares), "splits": {}}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is not one of ours; choose another --out") from None
    return manifest


def is_complete(
    out: Path, split: str, parameters: Parameters, overwrite: bool, files: SplitFiles
) -> bool:
    """Whether the split is there with these parameters, so that nothing is to be done.

    Raises:
        UsageError: the folder holds something else, which must not be lost
    """
    entry = read_entry(out, split)
    other = files.other_layout(out)
    if other is not None:
        raise UsageError(
            f"{other}: {out} holds a data set in another layout; asked for scenes with "
            f"{parameters.describe()}. Choose another --out."
        )
    if entry is None:
        foreign = None if marker_path(out, split).exists() else files.foreign(out, split)
        if foreign is not None:
            raise UsageError(f"{foreign} is not one of our scenes; choose another --out or --split")
        return False
    if entry["parameters"] != asdict(parameters):
        if overwrite:
            return False
        found = type(parameters)(**entry["parameters"]).describe()
        raise UsageError(
            f"{out} already holds a split {split!r} made with {found}; asked for "
            f"{parameters.describe()}. Choose another --out, or replace it with --force."
        )
    changed = files.changed(out, split, entry)
    if changed is not None:
        if overwrite:
            return False
        raise UsageError(f"{changed} was changed after it was generated; --force replaces it")
    return files.all_there(out, split, entry)


class CocoFiles:
    """Two annotation files for all images, pictures in a folder named as the split."""

    def foreign(self, out: Path, split: str) -> Path | None:
        folder = out / split
        found = [path for path in annotation_paths(out, split) if path.exists()]
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            found.append(folder)
        return found[0] if found else None

    def other_layout(self, out: Path) -> Path | None:
        folder = out / "leftImg8bit"
        return folder if folder.exists() else None

    def changed(self, out: Path, split: str, entry: dict[str, Any]) -> Path | None:
        for path in annotation_paths(out, split):
            if path.exists() and file_sha256(path) != entry["annotations"][path.name]:
                return path
        return None

    def all_there(self, out: Path, split: str, entry: dict[str, Any]) -> bool:
        if not all(path.exists() for path in annotation_paths(out, split)):
            return False
        folder = out / split
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        count = sum(bool(IMAGE_PATTERN.fullmatch(name)) for name in names)
        return count == entry["parameters"]["images"]


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
