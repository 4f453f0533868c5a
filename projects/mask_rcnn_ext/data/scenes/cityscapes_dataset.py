"""Write scenes to disk in Cityscapes' layout.

OUT/scenes.json                                                  parameters, counts, hashes
OUT/leftImg8bit/{split}/{city}/{name}_leftImg8bit.png            the picture
OUT/gtFine/{split}/{city}/{name}_gtFine_polygons.json            the polygons, in drawing order
OUT/gtFine/{split}/{city}/{name}_gtFine_instanceIds.png          16 bits, drawn from the polygons
OUT/gtFine/{split}/{city}/{name}_gtFine_{labelIds,color}.png     likewise, 8 bits and RGBA

{name} is {city}_{number}_000019, as the benchmark's; both splits have cities of their own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..cityscapes.instances import annotations_from_ids
from ..cityscapes.labels import BY_ID, THINGS
from ..cityscapes.polygons import draw_colours, draw_instance_ids, draw_label_ids
from ..cityscapes.tree import ANNOTATIONS, IMAGE_SUFFIX, IMAGES, SOURCES
from . import cityscapes_scene, cityscapes_street, manifest
from .cityscapes_scene import (
    CITYSCAPES_VERSION,
    CityscapesScene,
    object_name,
    render_cityscapes_scene,
)
from .manifest import DiskLayout, Parameters
from .png import encode_png, png_size
from .pool import available_cpus, collect_jobs

CITIES = {
    "train": ("atlantis", "avalon", "lyonesse", "utopia", "ys"),
    "val": ("camelot", "eldorado"),
}
_SUFFIXES = (*SOURCES.values(), "_gtFine_labelIds.png", "_gtFine_color.png")

SHARES = {
    "images_without_things": cityscapes_scene.EMPTY_PER_MILLE / 1000,
    "images_with_a_group": cityscapes_scene.GROUP_PER_MILLE / 1000,
    "images_with_heaped_objects": manifest.SHARES["images_with_heaped_objects"],
    "images_with_a_pole": cityscapes_street.POLE_PER_MILLE / 1000,
    "images_with_ego_vehicle": cityscapes_street.EGO_PER_MILLE / 1000,
    "images_with_rectification_border": cityscapes_street.BORDER_PER_MILLE / 1000,
    "images_with_out_of_roi": cityscapes_street.ROI_PER_MILLE / 1000,
}


@dataclass(frozen=True)
class CityscapesParameters(Parameters):
    """What determines the bytes of a split in this layout."""

    layout: str = "cityscapes"
    layout_version: int = CITYSCAPES_VERSION

    def describe(self) -> str:
        return f"--layout {self.layout} {super().describe()[:-1]}, layout {self.layout_version})"


def image_place(split: str, index: int) -> tuple[str, str]:
    """City and name of the image with this index, from 0."""
    cities = CITIES[split]
    city = cities[index % len(cities)]
    return city, f"{city}_{index // len(cities):06d}_000019"


def polygon_json(scene: CityscapesScene) -> bytes:
    """The content of a polygon file."""
    height, width = scene.image.shape[:2]
    content = {
        "imgHeight": height,
        "imgWidth": width,
        "objects": [
            {"label": object_name(drawn), "polygon": [list(point) for point in drawn.points]}
            for drawn in scene.objects
        ],
    }
    return json.dumps(content, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True)
class _ImageJob:
    """Renders and writes one image and its four annotation files; runs in a worker process."""

    out: Path
    split: str
    parameters: Parameters

    def __call__(self, index: int) -> tuple[Counter[str], str, str]:
        """Counts, and the sha256 of the picture and of the annotation files after each other."""
        p = self.parameters
        size = (p.height, p.width)
        city, name = image_place(self.split, index)
        scene = render_cityscapes_scene(p.seed, index, size, self.split)
        ids = draw_instance_ids(scene.objects, *size)
        labels = encode_png(draw_label_ids(scene.objects, *size), runs=True)
        colours = encode_png(draw_colours(scene.objects, *size), runs=True)
        instances = encode_png(ids.astype(np.uint16), runs=True)
        contents = (polygon_json(scene), instances, labels, colours)
        digest = hashlib.sha256()
        for suffix, content in zip(_SUFFIXES, contents, strict=True):
            path = self.out / ANNOTATIONS / self.split / city / (name + suffix)
            path.write_bytes(content)
            digest.update(content)
        picture = encode_png(scene.image)
        (self.out / IMAGES / self.split / city / (name + IMAGE_SUFFIX)).write_bytes(picture)
        return _count(ids), hashlib.sha256(picture).hexdigest(), digest.hexdigest()


def _count(ids: np.ndarray) -> Counter[str]:
    found = annotations_from_ids(ids, "the scene")
    single = [record for record in found if not record["iscrowd"]]
    counts = Counter(BY_ID[record["category_id"]].name for record in single)
    counts["images"] = 1
    counts["empty_images"] = int(not found)
    counts["instances"] = len(single)
    counts["crowds"] = len(found) - len(single)
    return counts


def _write_split(
    out: Path, split: str, parameters: Parameters, workers: int | None, progress: bool
) -> None:
    """The files of all images, then the manifest."""
    for top in (IMAGES, ANNOTATIONS):
        for city in CITIES[split]:
            (out / top / split / city).mkdir(parents=True, exist_ok=True)
    marker = manifest.begin_split(out, split, parameters)
    for path in _ours(out, split):
        path.unlink()
    job = _ImageJob(out, split, parameters)
    workers = min(workers or available_cpus(), 1 + parameters.images // 16)
    results = collect_jobs(job, parameters.images, workers, f"scenes {split}", progress)
    names = [image_place(split, index)[1] for index in range(parameters.images)]
    total: Counter[str] = sum((counts for counts, _, _ in results), Counter())
    keys = ["images", "empty_images", "instances", "crowds", *(label.name for label in THINGS)]
    hashes = "".join(picture + annotation for _, picture, annotation in results)
    entry = {
        "parameters": asdict(parameters),
        "counts": {key: total[key] for key in keys},
        "sha256": hashlib.sha256(hashes.encode("ascii")).hexdigest(),
        "annotations": {
            name: annotation for name, (_, _, annotation) in zip(names, results, strict=True)
        },
    }
    manifest.write_entry(out, split, entry, SHARES)
    marker.unlink()


def _ours(out: Path, split: str) -> Iterator[Path]:
    """All files in the split's place that bear our names."""
    for top, suffixes in ((IMAGES, (IMAGE_SUFFIX,)), (ANNOTATIONS, _SUFFIXES)):
        endings = "|".join(map(re.escape, suffixes))
        for city in CITIES[split]:
            folder = out / top / split / city
            pattern = re.compile(rf"{city}_\d{{6}}_000019({endings})")
            for path in sorted(folder.iterdir()) if folder.is_dir() else ():
                if pattern.fullmatch(path.name):
                    yield path


class CityscapesFiles:
    """Five files an image."""

    def foreign(self, out: Path, split: str) -> Path | None:
        for top in (IMAGES, ANNOTATIONS):
            folder = out / top / split
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                return folder
        return None

    def other_layout(self, out: Path) -> Path | None:
        folder = out / "annotations"
        return folder if folder.exists() else None

    def changed(self, out: Path, split: str, entry: dict[str, Any]) -> Path | None:
        for name, expected in entry["annotations"].items():
            paths = self._annotations(out, split, name)
            if all(path.exists() for path in paths):
                digest = hashlib.sha256(b"".join(path.read_bytes() for path in paths))
                if digest.hexdigest() != expected:
                    return paths[0]
        return None

    def all_there(self, out: Path, split: str, entry: dict[str, Any]) -> bool:
        images = entry["parameters"]["images"]
        expected = {
            path
            for index in range(images)
            for path in self._image_files(out, split, *image_place(split, index))
        }
        return set(_ours(out, split)) == expected

    def _annotations(self, out: Path, split: str, name: str) -> list[Path]:
        folder = out / ANNOTATIONS / split / name.split("_")[0]
        return [folder / (name + suffix) for suffix in _SUFFIXES]

    def _image_files(self, out: Path, split: str, city: str, name: str) -> list[Path]:
        picture = out / IMAGES / split / city / (name + IMAGE_SUFFIX)
        return [picture, *self._annotations(out, split, name)]


def _image_bytes(height: int, width: int) -> int:
    """The picture, and label images at a tenth of their pixels, which is more than they take."""
    return png_size(height, width) + height * width * 7 // 10 + 32768


LAYOUT = DiskLayout(
    CityscapesParameters, _image_bytes, _write_split, CityscapesFiles(), tuple(CITIES)
)
