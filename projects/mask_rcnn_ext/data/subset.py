"""The first N annotated images of a data set as a set of its own, with its own annotation file.

For smoke runs and for the proof that a model can learn a handful of images by heart: training and
evaluation then see exactly the same N images.
"""

from __future__ import annotations

import json
from pathlib import Path

from detectron2.data import MetadataCatalog

from ..errors import UsageError
from ..files import atomic_write
from .checks import parse_annotations
from .registration import locate_dataset, register_coco_dataset


def register_subset(name: str, max_images: int, folder: str | Path) -> str:
    """Register `<name>_first<N>` and write its annotation file into `folder`.

    Args:
        name: a registered set in COCO's format, checked already
        max_images: N, at least 1; images without an annotation (crowds not counted) are passed over
        folder: where the annotation file goes; made if needed
    Returns:
        the new name
    """
    location = locate_dataset(name)
    if location is None:
        raise UsageError(f"DATASETS.MAX_IMAGES works for sets in COCO's format; {name!r} is not")
    json_file, image_root = location
    data = parse_annotations(Path(json_file).read_bytes(), json_file)
    usable = {a["image_id"] for a in data["annotations"] if not a.get("iscrowd")}
    data["images"] = [image for image in data["images"] if image["id"] in usable][:max_images]
    kept = {image["id"] for image in data["images"]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]

    target = Path(folder) / f"{name}_first{max_images}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    # Each process of a run writes the same text; the file is whole at any time.
    with atomic_write(target, "w") as file:
        json.dump(data, file)

    metadata = MetadataCatalog.get(name).as_dict()
    for derived in ("name", "json_file", "image_root", "evaluator_type"):
        metadata.pop(derived, None)
    register_coco_dataset(target.stem, target, image_root, **metadata)
    return target.stem
