"""Scenes as COCO records: plain dicts of ints, floats and strings, in a fixed key order."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as mask_util

from .person import KEYPOINT_NAMES, SKELETON
from .render import Scene, SceneInstance
from .shapes import CLASSES, PERSON

Record = dict[str, Any]


def image_name(index: int) -> str:
    """File name of the image with this index, from 0; ids start at 1."""
    return f"{index + 1:012d}.png"


def image_record(index: int, height: int, width: int) -> Record:
    return {"id": index + 1, "file_name": image_name(index), "height": height, "width": width}


def instance_categories() -> list[Record]:
    """Categories of the instances file; ids are contiguous from 1."""
    return [
        {"supercategory": "person" if key == PERSON else "shape", "id": key, "name": name}
        for key, (name, _) in CLASSES.items()
    ]


def keypoint_categories() -> list[Record]:
    """The one category of the keypoints file, with names and skeleton."""
    person = instance_categories()[0]
    return [
        {
            **person,
            "keypoints": list(KEYPOINT_NAMES),
            "skeleton": [list(pair) for pair in SKELETON],
        }
    ]


def compressed_rle(mask: np.ndarray) -> Record:
    """COCO's compressed run lengths of an (H, W) bool mask."""
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(side) for side in rle["size"]], "counts": rle["counts"].decode("ascii")}


def uncompressed_rle(mask: np.ndarray) -> Record:
    """Run lengths as a list, column by column and zeros first, as COCO's own crowds have them."""
    flat = mask.ravel(order="F")
    change = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], change, [flat.size]))
    counts = np.diff(edges).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def annotation_records(scene: Scene, image_id: int) -> list[Record]:
    """A scene's annotations, keypoints included where there are any, ids not yet given."""
    return [_annotation(instance, image_id) for instance in scene.instances]


def _annotation(instance: SceneInstance, image_id: int) -> Record:
    encode = uncompressed_rle if instance.iscrowd else compressed_rle
    record: Record = {
        "id": 0,
        "image_id": image_id,
        "category_id": instance.category_id,
        "iscrowd": int(instance.iscrowd),
        "area": instance.area,
        "bbox": [float(value) for value in instance.bbox],
        "segmentation": encode(instance.mask),
    }
    if instance.category_id == PERSON:
        table = instance.keypoints  # None for a crowd, which COCO writes as 51 zeros
        flat = [0] * (3 * len(KEYPOINT_NAMES)) if table is None else table.ravel().tolist()
        record["num_keypoints"] = sum(v > 0 for v in flat[2::3])
        record["keypoints"] = flat
    return record


def without_keypoints(record: Record) -> Record:
    return {k: v for k, v in record.items() if k not in ("num_keypoints", "keypoints")}
