"""The images that get labels: those of a folder, or those that an annotation file lists."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from ...data.coco_table import read_coco_table
from ...errors import UsageError


@dataclass(frozen=True)
class Unlabelled:
    """
    Attributes:
        id: of the image in the new annotation file
        file_name: relative to the folder of the images
        path: the file
    """

    id: int | str
    file_name: str
    path: Path


def images_in_folder(folder: str | Path, endings: Collection[str]) -> list[Unlabelled]:
    """All images in a folder and below it, in alphabetical order; ids count from 1.

    Args:
        endings: of image files, lower case, with the point
    Raises:
        UsageError: there is none
    """
    root = Path(folder)
    files = sorted(
        file for file in root.rglob("*") if file.suffix.lower() in endings and file.is_file()
    )
    if not files:
        raise UsageError(f"the folder {folder} holds no image ({', '.join(endings)})")
    return [
        Unlabelled(number, file.relative_to(root).as_posix(), file)
        for number, file in enumerate(files, 1)
    ]


def images_of_file(json_file: str, image_root: str) -> list[Unlabelled]:
    """The images that an annotation file lists, in its order; its annotations are not looked at.

    Raises:
        DataError: no such file, or no annotation file
        UsageError: it lists no image; two have the same id
    """
    table = read_coco_table(json_file)
    root = Path(image_root)
    names = [table.file_name(row) for row in range(table.num_images)]
    found = [
        Unlabelled(key, name, root / name)
        for key, name in zip(table.image_ids.tolist(), names, strict=True)
    ]
    if not found:
        raise UsageError(f"{json_file} lists no images: there is nothing to label")
    if len({one.id for one in found}) < len(found):
        raise UsageError(f"{json_file} has image ids twice; `mask-rcnn-ext data check` names them")
    return found
