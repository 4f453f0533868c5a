"""Write scenes to disk, in COCO's layout here; `cityscapes_dataset` has the other one.

OUT/scenes.json                                  parameters, counts, hashes
OUT/annotations/instances_{split}.json           all classes, no keypoints
OUT/annotations/person_keypoints_{split}.json    persons, with keypoints
OUT/{split}/000000000001.png ...
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import UsageError, UserError
from ...files import atomic_write
from . import manifest
from .coco_records import (
    Record,
    annotation_records,
    image_name,
    image_record,
    instance_categories,
    keypoint_categories,
    without_keypoints,
)
from .manifest import CocoFiles, DiskLayout, Parameters
from .png import encode_png, png_size
from .pool import available_cpus, collect_jobs
from .render import render_scene
from .shapes import CLASSES, PERSON

LAYOUTS = ("coco", "cityscapes")
SMALLEST_SIDE, LARGEST_SIDE = 32, 4096  # pixels


@dataclass(frozen=True)
class ScenesSummary:
    """What a split holds.

    Attributes:
        out: the data set's folder
        split: "train", "val", ...
        folder: where its pictures are
        written: False if it was there already
        counts: images, empty_images, instances, crowds, one a class name and, in COCO's layout,
            keypoint_persons
        sha256: over all images and annotation files
    """

    out: Path
    split: str
    folder: Path
    written: bool
    counts: dict[str, int]
    sha256: str


def generate_scenes(
    out: str | os.PathLike[str],
    images: int,
    size: int | tuple[int, int],
    seed: int,
    split: str = "train",
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    layout: str = "coco",
) -> ScenesSummary:
    """Generate one split of a data set, unless it is there already.

    Args:
        out: folder of the data set, made if need be; other splits in it are left alone
        images: how many; the first k images are the same for any number
        size: side in pixels, or (height, width), 32 to 4096
        seed: non-negative; the same seed gives the same bytes on any machine
        split: part of the folder and file names; each split has images of its own
        workers: processes, by default one a CPU; has no influence on the result
        progress: whether to show it on stderr
        overwrite: replace a split that was generated with other parameters
        layout: "coco", or "cityscapes", whose splits are train and val

    Raises:
        UsageError: bad arguments, or `out` holds something else
        UserError: the disk is full, the folder cannot be written, ...
    """
    splits = {split: images}
    return generate_splits(out, splits, size, seed, workers, progress, overwrite, layout)[0]


def generate_splits(
    out: str | os.PathLike[str],
    splits: Mapping[str, int],
    size: int | tuple[int, int],
    seed: int,
    workers: int | None = None,
    progress: bool = True,
    overwrite: bool = False,
    layout: str = "coco",
) -> list[ScenesSummary]:
    """`generate_scenes` for several splits (name -> images), all checked before the first one."""
    folder = Path(out)
    disk = _disk_layout(layout)
    if workers is not None and workers < 1:
        raise UsageError(f"the number of workers must be at least 1, got {workers}")
    plans = [
        (split, _parameters(disk, split, images, size, seed)) for split, images in splits.items()
    ]
    try:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{folder} is a file, not a folder; choose another --out")
        there = [manifest.is_complete(folder, *plan, overwrite, disk.files) for plan in plans]
        missing = [plan for plan, done in zip(plans, there, strict=True) if not done]
        if missing:
            _check_space(folder, [parameters for _, parameters in missing], disk)
        for split, parameters in missing:
            disk.write_split(folder, split, parameters, workers, progress)
        return [
            _summary(folder, split, layout, not done)
            for (split, _), done in zip(plans, there, strict=True)
        ]
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"cannot write {where}: {error.strerror or error}") from error


def _disk_layout(name: str) -> DiskLayout:
    if name == "coco":
        return DiskLayout(Parameters, _image_bytes, _write_split, CocoFiles())
    if name == "cityscapes":
        # Not at the top: COCO's layout needs neither OpenCV nor Pillow.
        from .cityscapes_dataset import LAYOUT

        return LAYOUT
    raise UsageError(f"the layout is {' or '.join(LAYOUTS)}, got {name!r}")


def _parameters(
    disk: DiskLayout, split: str, images: int, size: int | tuple[int, int], seed: int
) -> Parameters:
    """Check what the caller asks for."""
    height, width = (size, size) if isinstance(size, int) else size
    if not re.fullmatch(r"[A-Za-z0-9_-]+", split) or split == "annotations":
        raise UsageError(f"a split's name is letters, digits, _ and -, got {split!r}")
    if disk.splits is not None and split not in disk.splits:
        raise UsageError(f"this layout has the splits {', '.join(disk.splits)}, got {split!r}")
    if images < 1:
        raise UsageError(f"the number of images of {split!r} must be at least 1, got {images}")
    for side in (height, width):
        if not SMALLEST_SIDE <= side <= LARGEST_SIDE:
            raise UsageError(
                f"a side must be {SMALLEST_SIDE} to {LARGEST_SIDE} pixels, got {height}x{width}"
            )
    if seed < 0:
        raise UsageError(f"the seed must not be negative, got {seed}")
    return disk.parameters(images=images, height=height, width=width, seed=seed)


def _image_bytes(height: int, width: int) -> int:
    return png_size(height, width) + 4096


def _check_space(out: Path, plans: list[Parameters], disk: DiskLayout) -> None:
    """Fail at once rather than after minutes."""
    need = sum(p.images * disk.image_bytes(p.height, p.width) for p in plans)
    parent = out.absolute()
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    if free < need:
        raise UserError(
            f"{parent}: the scenes need {need / 1e6:.0f} MB, the disk has {free / 1e6:.0f} MB free"
        )


@dataclass(frozen=True)
class _ImageJob:
    """Renders and writes one image; runs in a worker process."""

    folder: Path
    split: str
    parameters: Parameters

    def __call__(self, index: int) -> tuple[list[Record], str]:
        """The image's annotation records, and its file's sha256."""
        p = self.parameters
        scene = render_scene(p.seed, index, (p.height, p.width), self.split)
        data = encode_png(scene.image)
        (self.folder / image_name(index)).write_bytes(data)
        return annotation_records(scene, index + 1), hashlib.sha256(data).hexdigest()


def _write_split(
    out: Path, split: str, parameters: Parameters, workers: int | None, progress: bool
) -> None:
    """Images first, then the annotations, then the manifest."""
    marker = _clear(out, split, parameters)
    job = _ImageJob(out / split, split, parameters)
    workers = min(workers or available_cpus(), 1 + parameters.images // 32)
    results = collect_jobs(job, parameters.images, workers, f"scenes {split}", progress)
    records = [records for records, _ in results]
    digest = hashlib.sha256("".join(sha for _, sha in results).encode("ascii"))
    hashes = {}
    for path, content in _annotation_files(out, split, parameters, records):
        with atomic_write(path) as file:
            file.write(content)
        hashes[path.name] = hashlib.sha256(content).hexdigest()
        digest.update(hashes[path.name].encode("ascii"))
    entry = {
        "parameters": asdict(parameters),
        "counts": _count(records),
        "sha256": digest.hexdigest(),
        "annotations": hashes,
    }
    manifest.write_entry(out, split, entry)
    marker.unlink()


def _clear(out: Path, split: str, parameters: Parameters) -> Path:
    """Make the folders, mark the split as unfinished and remove what is left of an earlier one."""
    for folder in (out / split, out / "annotations"):
        folder.mkdir(parents=True, exist_ok=True)
    marker = manifest.begin_split(out, split, parameters)
    for path in manifest.annotation_paths(out, split):
        path.unlink(missing_ok=True)
    for path in (out / split).iterdir():
        if manifest.IMAGE_PATTERN.fullmatch(path.name):
            path.unlink()
    return marker


def _annotation_files(
    out: Path, split: str, parameters: Parameters, records: list[list[Record]]
) -> list[tuple[Path, bytes]]:
    """Both files' paths and contents; an annotation has the same id in both, as in COCO."""
    flat = [record for group in records for record in group]
    for number, record in enumerate(flat):
        record["id"] = number + 1
    size = (parameters.height, parameters.width)
    head = {
        "info": _info(split, parameters),
        "licenses": [],
        "images": [image_record(index, *size) for index in range(parameters.images)],
    }
    instances = [without_keypoints(record) for record in flat]
    persons = [record for record in flat if record["category_id"] == PERSON]
    paths = manifest.annotation_paths(out, split)
    contents = (
        {**head, "annotations": instances, "categories": instance_categories()},
        {**head, "annotations": persons, "categories": keypoint_categories()},
    )
    return [
        (path, json.dumps(content, separators=(",", ":")).encode("ascii"))
        for path, content in zip(paths, contents, strict=True)
    ]


def _info(split: str, parameters: Parameters) -> Record:
    return {
        "description": "generated scenes: shapes and persons with exact masks and keypoints",
        "generator": manifest.GENERATOR,
        "version": str(parameters.version),
        "parameters": {"split": split, **asdict(parameters)},
        "shares": manifest.SHARES,
    }


def _count(records: list[list[Record]]) -> dict[str, int]:
    flat = [record for group in records for record in group]
    objects = [record for record in flat if not record["iscrowd"]]
    classes = Counter(record["category_id"] for record in objects)
    return {
        "images": len(records),
        "empty_images": sum(not group for group in records),
        "instances": len(objects),
        "crowds": len(flat) - len(objects),
        "keypoint_persons": sum(record.get("num_keypoints", 0) > 0 for record in objects),
        **{name: classes[key] for key, (name, _) in CLASSES.items()},
    }


def _summary(out: Path, split: str, layout: str, written: bool) -> ScenesSummary:
    entry = manifest.read_entry(out, split)
    assert entry is not None, f"{split} was just checked or written"
    folder = out / split if layout == "coco" else out / "leftImg8bit" / split
    return ScenesSummary(out, split, folder, written, entry["counts"], entry["sha256"])
