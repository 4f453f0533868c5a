"""Where Cityscapes' files are, and what is wrong with a folder that is not quite Cityscapes.

Reads folder listings only, never a file.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError, UsageError

IMAGES, ANNOTATIONS = "leftImg8bit", "gtFine"
IMAGE_SUFFIX = "_leftImg8bit.png"
# What masks can be read from -> how its files' names end.
SOURCES = {
    "polygons": "_gtFine_polygons.json",
    "instanceIds": "_gtFine_instanceIds.png",
}
SPLITS = ("train", "val", "test")
_SHOWN = 3  # examples named in a message


@dataclass(frozen=True)
class CityscapesImage:
    """One image of a split.

    Attributes:
        name: as the benchmark calls it, e.g. aachen_000000_000019
        image: the picture
        annotation: the polygon or instance file; None in a test split without annotations
    """

    name: str
    image: Path
    annotation: Path | None


def find_images(root: str | Path, split: str, source: str) -> list[CityscapesImage]:
    """All images of a split with their annotations, sorted by city, then name.

    Args:
        root: the folder that holds leftImg8bit/ and gtFine/
        split: train, val or test
        source: a key of SOURCES
    Raises:
        UsageError: an unknown source, no such folder
        DataError: the folder is not such a tree, or a part of it is missing; says what was found
    """
    root = Path(root)
    if source not in SOURCES:
        raise UsageError(f"Cityscapes masks come from {' or '.join(SOURCES)}, not from {source!r}")
    if not root.is_dir():
        what = "is a file" if root.exists() else "does not exist"
        raise UsageError(f"{root} {what}; expected a folder with\n{expected_tree(split, source)}")
    _check_top(root, split, source)
    images = _collect(root / IMAGES / split, IMAGE_SUFFIX)
    annotations = _collect(root / ANNOTATIONS / split, SOURCES[source])
    if not images:
        raise DataError(_no_images(root, split, source))
    if split == "test" and not annotations:
        return [CityscapesImage(Path(key).name, path, None) for key, path in images.items()]
    _check_pairs(root, split, source, set(images), set(annotations))
    return [CityscapesImage(Path(key).name, path, annotations[key]) for key, path in images.items()]


def expected_tree(split: str, source: str) -> str:
    """The tree drawn, two lines of text."""
    return (
        f"  ROOT/{IMAGES}/{split}/CITY/NAME{IMAGE_SUFFIX}\n"
        f"  ROOT/{ANNOTATIONS}/{split}/CITY/NAME{SOURCES[source]}"
    )


def _collect(folder: Path, suffix: str) -> dict[str, Path]:
    """ "city/name" -> path of all files below the city folders whose names end so, sorted."""
    found = {}
    for city in _folders(folder):
        for name in sorted(_names(folder / city)):
            if name.endswith(suffix):
                found[f"{city}/{name.removesuffix(suffix)}"] = folder / city / name
    return found


def _names(folder: Path) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError as error:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return []
        raise DataError(f"cannot read {folder}: {error.strerror or error}") from error


def _folders(folder: Path) -> list[str]:
    return [name for name in _names(folder) if (folder / name).is_dir()]


def _check_top(root: Path, split: str, source: str) -> None:
    """Both top folders and the split in them; test may come without annotations."""
    needed = [IMAGES] if split == "test" else [IMAGES, ANNOTATIONS]
    missing = [f"{top}/{split}" for top in needed if not (root / top / split).is_dir()]
    if not missing:
        return
    found = ", ".join(_found(root)) or "nothing"
    raise DataError(
        f"{root} lacks {' and '.join(missing)}; found there: {found}. "
        f"{_advice(root, split)}\nExpected:\n{expected_tree(split, source)}"
    )


def _found(root: Path) -> list[str]:
    """The top of the tree as it is: known folders with their splits, then other names."""
    known = [top for top in (IMAGES, ANNOTATIONS, "gtCoarse") if (root / top).is_dir()]
    lines = []
    for top in known:
        splits = _folders(root / top)
        lines.append(f"{top}/ ({_some(splits, 6) or 'empty'})")
    others = [name for name in _names(root) if name not in known and not name.startswith(".")]
    return lines + ([_some(others, 6)] if others else [])


def _advice(root: Path, split: str) -> str:
    """What is probably the matter."""
    tops = (IMAGES, ANNOTATIONS)
    for parent in (root.absolute().parent, root.absolute().parent.parent):
        if any((parent / top).is_dir() for top in tops):
            return f"The path is too deep: give {parent}."
    names = _names(root)
    if not any(name in tops for name in names):
        below = [
            name for name in _folders(root) if any((root / name / top).is_dir() for top in tops)
        ]
        if len(below) == 1:
            return f"The path is not deep enough: give {root / below[0]}."
        if below:
            return (
                f"The archives were unpacked into folders of their own ({_some(below)}): move "
                f"{IMAGES} and {ANNOTATIONS} from there into {root}."
            )
    archives = [name for name in names if name.endswith(".zip")]
    if archives:
        return f"Unpack {_some(archives)} here (unzip -n FILE)."
    if "gtCoarse" in names and ANNOTATIONS not in names:
        return (
            "gtCoarse holds the coarse annotations, which have no instances of their own: fetch "
            "gtFine_trainvaltest.zip and unpack it here."
        )
    other = [name for name in SPLITS if name != split and (root / IMAGES / name).is_dir()]
    if other:
        return f"There is {_some(other)}, but not {split!r}: fetch or unpack the rest."
    return f"Give the folder that holds {IMAGES} and {ANNOTATIONS}."


def _no_images(root: Path, split: str, source: str) -> str:
    folder = root / IMAGES / split
    here = [name for name in _names(folder) if not (folder / name).is_dir()]
    below = [f"{city}/{name}" for city in _folders(folder) for name in _names(folder / city)]
    if any(name.endswith(IMAGE_SUFFIX) for name in here):
        why = f"its {len(here)} files are not in city folders: {_some(here)}"
    elif below:
        why = f"its {len(below)} files have other names: {_some(below)}"
    else:
        why = f"it has {len(_folders(folder))} city folders, all empty"
    return f"{folder} has no image: {why}.\nExpected:\n{expected_tree(split, source)}"


def _check_pairs(
    root: Path, split: str, source: str, images: set[str], annotations: set[str]
) -> None:
    """Every image with its annotation and the reverse."""
    bare, orphans = sorted(images - annotations), sorted(annotations - images)
    if not bare and not orphans:
        return
    lines = [f"{root}, split {split!r}: {len(images)} images, {len(annotations)} annotations."]
    if bare:
        lines.append(f"{len(bare)} images have no *{SOURCES[source]}: {_some(bare)}.")
    if orphans:
        lines.append(f"{len(orphans)} *{SOURCES[source]} have no image: {_some(orphans)}.")
    other = next(name for name in SOURCES if name != source)
    if bare and not set(bare) - set(_collect(root / ANNOTATIONS / split, SOURCES[other])):
        lines.append(f"Those images do have *{SOURCES[other]}: masks can come from {other!r}.")
    else:
        lines.append("Unpack the archives again, or take the odd ones out.")
    raise DataError("\n".join([*lines, "Expected:", expected_tree(split, source)]))


def _some(examples: Iterable[str], limit: int = _SHOWN) -> str:
    listed = list(examples)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
