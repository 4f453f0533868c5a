"""COCO's form to YOLO-seg: data.yaml, labels/SPLIT/*.txt, and the pictures in images/SPLIT.

YOLO-seg has one polygon an object. Holes and parts are joined to it by bridges of no width; a
reader that fills by odd crossings, COCO's tools among them, gets the mask back exactly. One that
draws the outline too (cv2.fillPoly) paints a line one pixel wide where a bridge joins two parts.
"""

from __future__ import annotations

import os
import posixpath
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ...errors import DataError, UsageError
from .base import check_options
from .contours import Points, joined, outlines, simplified
from .notes import Notes
from .reading import tracked

OPTIONS: Mapping[str, str] = {
    "part": "name of the split that is written (default: train)",
    "pieces": "join: parts of an object become one polygon; lines: each part its own object "
    "(default: join)",
    "holes": "keep or fill (default: keep)",
    "tolerance": "pixels by which polygons made from masks may be off (default: 0, exact)",
    "pictures": "link, copy or none (default: link)",
}
_MARK = "# written by mask-rcnn-ext data convert; a later --force may replace this folder\n"
_DIGITS = 7  # of normalised coordinates: half a thousandth of a pixel at 10,000 pixels
_KNOWN = frozenset(("id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"))
_KNOWN_OF_IMAGE = frozenset(("id", "file_name", "height", "width"))
_NO_PLACE = "which YOLO-seg has no place for: dropped"
CROWD = "crowd region: left out"
NO_MASK = "annotation without a usable segmentation: left out"
NO_PIXEL = "object without a pixel inside of the picture: left out"
SPLIT_UP = "object of several parts: each part its own line"


def write(
    coco: dict[str, Any], image_root: Path, out: Path, options: Mapping[str, Any], *, force: bool
) -> list[str]:
    """See `base.Exporter.write`; annotations = lines + those that the notes count as left out."""
    check_options("yolo-seg", options, OPTIONS)
    choices = _Choices(options)
    if out.exists() and not (force and _is_ours(out)):
        how = "it is not of this command's making" if force else "--force replaces it"
        raise UsageError(f"{out} exists; {how}")
    notes = Notes()
    labels = _labels(coco, choices, notes)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        temporary.chmod(0o755)
        _write_folder(temporary, labels, _names(coco), Path(image_root), choices)
        if out.exists():
            shutil.rmtree(out)
        temporary.rename(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return notes.lines()


class _Choices:
    def __init__(self, options: Mapping[str, Any]):
        self.part = str(options.get("part", "train"))
        self.join = self._one_of(options, "pieces", "join", "lines") == "join"
        self.holes = self._one_of(options, "holes", "keep", "fill") == "keep"
        self.pictures = self._one_of(options, "pictures", "link", "copy", "none")
        try:
            self.tolerance = float(options.get("tolerance", 0))
        except (TypeError, ValueError):
            self.tolerance = -1.0
        if not 0 <= self.tolerance < 100:
            raise UsageError(f"tolerance is {options['tolerance']!r}, expected pixels from 0")
        if not self.part or "/" in self.part or os.sep in self.part or self.part.startswith("."):
            raise UsageError(f"part is {self.part!r}, expected a word such as train or val")

    @staticmethod
    def _one_of(options: Mapping[str, Any], name: str, *known: str) -> str:
        value = str(options.get(name, known[0]))
        if value not in known:
            raise UsageError(f"{name} is {value!r}, expected {' or '.join(known)}")
        return value


def _is_ours(out: Path) -> bool:
    try:
        return (out / "data.yaml").read_text("utf-8").startswith(_MARK)
    except (OSError, UnicodeDecodeError):
        return False


def _names(coco: dict[str, Any]) -> list[str]:
    return [str(category["name"]) for category in _sorted_categories(coco)]


def _sorted_categories(coco: dict[str, Any]) -> list[dict[str, Any]]:
    for category in coco["categories"]:
        if not isinstance(category.get("id"), int) or "name" not in category:
            raise DataError(f"category {category} needs a whole number as id, and a name")
    return sorted(coco["categories"], key=lambda category: int(category["id"]))


def _labels(coco: dict[str, Any], choices: _Choices, notes: Notes) -> dict[str, list[str]]:
    """file name -> lines, in the order of the images."""
    index = {category["id"]: k for k, category in enumerate(_sorted_categories(coco))}
    images, lines = {}, dict[str, list[str]]()
    stems: dict[str, str] = {}
    for image in coco["images"]:
        name = _checked_name(image)
        stem = posixpath.splitext(name)[0]
        if stem in stems:
            raise DataError(
                f"images {stems[stem]} and {name} would share one label file, {stem}.txt; "
                "rename one of them"
            )
        stems[stem] = name
        if image.get("id") in images:
            raise DataError(f"image id {image.get('id')!r} is there twice ({name})")
        images[image.get("id")] = image
        for key in sorted(set(image) - _KNOWN_OF_IMAGE):
            notes.add(f"image with {key!r}, {_NO_PLACE}", name)
        lines[name] = []
    for annotation in tracked(coco["annotations"], "annotations"):
        who = f"annotation {annotation.get('id')} (image id {annotation.get('image_id')!r})"
        owner = images.get(annotation.get("image_id"))
        if owner is None or annotation.get("category_id") not in index:
            raise DataError(
                f"{who}: no such image, or category_id {annotation.get('category_id')!r} "
                "unknown; `mask-rcnn-ext data check` lists all of these"
            )
        for key in sorted(set(annotation) - _KNOWN):
            notes.add(f"annotation with {key!r}, {_NO_PLACE}", who)
        name = owner["file_name"]
        number = index[annotation["category_id"]]
        for polygon in _polygons(annotation, owner, choices, notes, who):
            lines[name].append(_line(number, polygon, owner))
    return lines


def _checked_name(image: dict[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"image {image.get('id')!r} has no file_name")
    if name.startswith("/") or ".." in name.split("/") or "\\" in name:
        raise DataError(f"image {image.get('id')!r}: file_name {name!r} is no path below a folder")
    for side in ("height", "width"):
        if not isinstance(image.get(side), int) or image[side] < 1:
            raise DataError(f"image {image.get('id')!r} ({name}) has {side} {image.get(side)!r}")
    return name


def _polygons(
    annotation: dict[str, Any],
    image: dict[str, Any],
    choices: _Choices,
    notes: Notes,
    who: str,
) -> list[Points]:
    """The lines of one object as (n, 2) pixels; [] when it is left out."""
    if annotation.get("iscrowd"):
        notes.add(CROWD, who)
        return []
    # Here, as these need Detectron2, which reading other formats does not.
    from ..checks.segmentations import is_polygon, window_of

    size = (image["height"], image["width"])
    segmentation = annotation.get("segmentation")
    given = segmentation if isinstance(segmentation, list) else []
    lines = [np.array(part, np.float64).reshape(-1, 2) for part in given if is_polygon(part)]
    if lines and len(lines) < len(given):
        text = "part of an object that is no polygon of 3 points: left out"
        notes.add(text, who, len(given) - len(lines))
    if lines and _usable_as_they_are(lines, *size):
        parts = [[line] for line in lines]
    else:
        window = window_of(segmentation, size)
        if window is None or not window.bits.any():
            notes.add(NO_MASK if window is None else NO_PIXEL, who)
            return []
        if lines:
            notes.add("polygons overlap or leave the picture: traced anew from their pixels", who)
        corner = (window.left, window.top)
        parts = [[line + corner for line in part] for part in _traced(window.bits, choices)]
        holes = sum(len(part) - 1 for part in parts)
        if holes and not choices.holes:
            notes.add("hole: filled", who, holes)
            parts = [part[:1] for part in parts]
    if len(parts) == 1:
        return [joined(parts[0])]
    if choices.join:
        notes.add("object of several parts: joined to one polygon", who)
        return [joined([line for part in parts for line in part])]
    notes.add(SPLIT_UP, who)
    return [joined(part) for part in parts]


def _usable_as_they_are(lines: list[Points], height: int, width: int) -> bool:
    """Whether all lie in the picture (YOLO refuses others) and none covers what another does."""
    points = np.concatenate(lines)
    if points.min() < 0 or points[:, 0].max() > width or points[:, 1].max() > height:
        return False
    if len(lines) == 1:
        return True
    rles = coco_mask.frPyObjects([line.ravel().tolist() for line in lines], height, width)
    return int(coco_mask.area(rles).sum()) == int(coco_mask.area(coco_mask.merge(rles)))


def _traced(mask: NDArray[np.bool_], choices: _Choices) -> list[list[Points]]:
    """Of each part of a mask: its outline, then its holes."""
    count, numbers, boxes, _ = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=8
    )
    parts = []
    for number in range(1, count):
        x, y, width, height = boxes[number, :4].tolist()
        # The first line begins at the topmost corner, which is on the outside.
        lines = outlines(numbers[y : y + height, x : x + width] == number)
        parts.append([simplified(line + (x, y), choices.tolerance) for line in lines])
    return parts


def _line(number: int, polygon: Points, image: dict[str, Any]) -> str:
    normalised = polygon / (image["width"], image["height"])
    words = [f"{value:.{_DIGITS}f}".rstrip("0").rstrip(".") for value in normalised.ravel()]
    return " ".join([str(number), *words])


def _write_folder(
    folder: Path,
    labels: dict[str, list[str]],
    names: list[str],
    image_root: Path,
    choices: _Choices,
) -> None:
    pictures = folder / "images" / choices.part
    pictures.mkdir(parents=True)
    for name, lines in labels.items():
        target = folder / "labels" / choices.part / f"{posixpath.splitext(name)[0]}.txt"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(line + "\n" for line in lines), "utf-8")
        source = (image_root / name).resolve()
        if choices.pictures == "none":
            continue
        if not source.is_file():
            raise DataError(f"picture {image_root / name} is not there; --pictures none leaves all")
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        if choices.pictures == "copy":
            shutil.copyfile(source, pictures / name)
        else:
            (pictures / name).symlink_to(source)
    data = {choices.part: f"images/{choices.part}", "names": dict(enumerate(names))}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(_MARK + text, "utf-8")
