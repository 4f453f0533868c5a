"""Names of data sets in Detectron2's catalogs.

Detectron2 registers COCO and others under `$DETECTRON2_DATASETS` (default `./datasets`); here the
generated scenes join them in the same way, and a function registers any other set in COCO's format.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin_meta, load_coco_json

from ..errors import UsageError

DATASETS_ENV = "DETECTRON2_DATASETS"
# name -> (annotation file, image folder), below the datasets root, as `mask-rcnn-ext scenes` writes
SCENES = {
    f"scenes{kind}_{split}": (
        f"scenes/annotations/{prefix}_{split}.json",
        f"scenes/{split}",
    )
    for kind, prefix in (("", "instances"), ("_keypoints", "person_keypoints"))
    for split in ("train", "val")
}


def datasets_root() -> str:
    """The folder below which built-in data sets are looked for, read anew at each call."""
    return os.environ.get(DATASETS_ENV, "datasets")


def register_coco_dataset(
    name: str, json_file: str | Path, image_root: str | Path, **metadata: Any
) -> None:
    """Register a set in COCO's format; class names and their order come from the file.

    Args:
        name: what DATASETS.TRAIN and DATASETS.TEST call it
        json_file: annotations (images, annotations, categories), read when the set is first used
        image_root: folder that the `file_name`s are relative to
        metadata: more for the MetadataCatalog, e.g. keypoint_names
    Raises:
        UsageError: the name stands for other files already; the same again is fine
    """
    json_file, image_root = str(json_file), str(image_root)
    if name in DatasetCatalog.list():
        known = MetadataCatalog.get(name)
        before = (known.get("json_file"), known.get("image_root"))
        if before == (json_file, image_root):
            return
        raise UsageError(
            f"data set {name!r} is registered already with {before[0]} and images in {before[1]}; "
            f"now {json_file} and {image_root} were given under the same name"
        )
    _register(name, lambda: (json_file, image_root), metadata)
    MetadataCatalog.get(name).set(json_file=json_file, image_root=image_root)


def _register(name: str, locate: Callable[[], tuple[str, str]], metadata: dict[str, Any]) -> None:
    def load() -> list[dict[str, Any]]:
        json_file, image_root = locate()
        return load_coco_json(json_file, image_root, name)

    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(evaluator_type="coco", **metadata)


def locate_dataset(name: str) -> tuple[str, str] | None:
    """(annotation file, image folder) of a set in COCO's format, None for any other.

    For the scenes, which follow the environment variable of this moment, the metadata that
    evaluators read is brought up to date on the way.
    """
    metadata = MetadataCatalog.get(name)
    if name in SCENES:
        json_file, image_root = (os.path.join(datasets_root(), part) for part in SCENES[name])
        if metadata.get("json_file") != json_file:
            # Metadata refuses to change a value that is set: these two are derived, not facts.
            for key in ("json_file", "image_root"):
                metadata.__dict__.pop(key, None)
            metadata.set(json_file=json_file, image_root=image_root)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    return (json_file, image_root) if json_file and image_root else None


def _locate_scenes(name: str) -> tuple[str, str]:
    location = locate_dataset(name)
    assert location is not None, name
    return location


def _register_scenes() -> None:
    person = {
        "keypoint_names": builtin_meta.COCO_PERSON_KEYPOINT_NAMES,
        "keypoint_flip_map": builtin_meta.COCO_PERSON_KEYPOINT_FLIP_MAP,
        "keypoint_connection_rules": builtin_meta.KEYPOINT_CONNECTION_RULES,
    }
    for name in SCENES:
        if name not in DatasetCatalog.list():
            _register(
                name,
                functools.partial(_locate_scenes, name),
                person if "keypoints" in name else {},
            )


_register_scenes()
