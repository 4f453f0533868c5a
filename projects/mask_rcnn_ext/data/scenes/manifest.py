"""scenes.json: what a folder of scenes was made with, and whether it is all there.

A split under way has a marker file instead of an entry here. The entry is written last, so a folder
with neither, or with a marker, is never taken for a complete one.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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


def annotation_paths(out: Path, split: str) -> tuple[Path, Path]:
    """The instances file and the keypoints file of a split."""
    folder = out / "annotations"
    return folder / f"instances_{split}.json", folder / f"person_keypoints_{split}.json"


def marker_path(out: Path, split: str) -> Path:
    return out / f".scenes-{split}.partial"


def read_entry(out: Path, split: str) -> dict[str, Any] | None:
    """The manifest's entry of a split, or None."""
    return _read(out)["splits"].get(split)


def write_entry(out: Path, split: str, entry: dict[str, Any] | None) -> None:
    """Add or, with None, remove an entry, leaving those of other splits."""
    manifest = _read(out)
    manifest["splits"].pop(split, None)
    if entry is not None:
        manifest["splits"][split] = entry
    manifest["splits"] = dict(sorted(manifest["splits"].items()))
    write_json(out / MANIFEST, manifest)


def _read(out: Path) -> dict[str, Any]:
    path = out / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        if manifest["generator"] != GENERATOR:
            raise KeyError("generator")
        manifest["splits"].items()
    except FileNotFoundError:
        return {"generator": GENERATOR, "shares": SHARES, "splits": {}}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path} is not one of ours; choose another --out") from None
    return manifest


def is_complete(out: Path, split: str, parameters: Parameters, overwrite: bool) -> bool:
    """Whether the split is there with these parameters, so that nothing is to be done.

    Raises:
        UsageError: the folder holds something else, which must not be lost
    """
    entry = read_entry(out, split)
    if entry is None:
        if not marker_path(out, split).exists():
            _refuse_foreign_files(out, split)
        return False
    if entry["parameters"] != asdict(parameters):
        if overwrite:
            return False
        found = Parameters(**entry["parameters"]).describe()
        raise UsageError(
            f"{out} already holds a split {split!r} made with {found}; asked for "
            f"{parameters.describe()}. Choose another --out, or replace it with --force."
        )
    return _all_there(out, split, entry, overwrite)


def _refuse_foreign_files(out: Path, split: str) -> None:
    folder = out / split
    found = [path for path in annotation_paths(out, split) if path.exists()]
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        found.append(folder)
    if found:
        raise UsageError(f"{found[0]} is not one of our scenes; choose another --out or --split")


def _all_there(out: Path, split: str, entry: dict[str, Any], overwrite: bool) -> bool:
    for path in annotation_paths(out, split):
        if not path.exists():
            return False
        if file_sha256(path) != entry["annotations"][path.name]:
            if overwrite:
                return False
            raise UsageError(f"{path} was changed after it was generated; --force replaces it")
    folder = out / split
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return sum(bool(IMAGE_PATTERN.fullmatch(n)) for n in names) == entry["parameters"]["images"]


def file_sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
