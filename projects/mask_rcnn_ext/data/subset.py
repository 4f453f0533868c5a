"""The first N annotated images of a data set as a set of its own, with its own annotation file.

For smoke runs and for the proof that a model can learn a handful of images by heart: training and
evaluation then see exactly the same N images.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
from detectron2.data import MetadataCatalog

from ..errors import UsageError
from ..files import atomic_write
from .assemble import PartFiles, read_coco
from .rearrange import subset
from .registration import locate_dataset, register_coco_dataset


def register_subset(name: str, max_images: int, folder: str | Path) -> str:
    """Register `<name>_first<N>` and write its annotation file into `folder`.

    Args:
        name: a registered set in COCO's format, checked already
        max_images: N, at least 1; images without an annotation (crowds not counted) are passed
            over; all images where there are fewer
        folder: where the annotation file goes; made if needed
    Returns:
        the new name
    """
    location = locate_dataset(name)
    if location is None:
        raise UsageError(f"DATASETS.MAX_IMAGES works for sets in COCO's format; {name!r} is not")
    json_file, image_root = location
    filled = subset(read_coco(PartFiles(Path(json_file), None)).coco, drop_empty=True)
    chosen = subset(filled, count=min(max_images, len(filled["images"])))

    target = Path(folder) / f"{name}_first{max_images}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    # Each process of a run writes the same text; the file is whole at any time.
    with atomic_write(target) as file:
        file.write(msgspec.json.encode(chosen))

    metadata = MetadataCatalog.get(name).as_dict()
    for derived in ("name", "json_file", "image_root", "evaluator_type"):
        metadata.pop(derived, None)
    register_coco_dataset(target.stem, target, image_root, **metadata)
    return target.stem
