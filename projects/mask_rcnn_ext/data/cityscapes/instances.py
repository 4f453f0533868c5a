"""From an image of instance ids to COCO annotations.

H, W are the image's height and width. Nothing is done per object: the image is cut into runs down
its columns, as COCO's run lengths are, and the runs are sorted by id.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...errors import DataError
from ...ops.rle import encode_changes, key_stride
from .labels import BY_ID, INSTANCE_STEP, THINGS

_HIGHEST = INSTANCE_STEP * (max(BY_ID) + 1)
_THING_IDS = {label.id for label in THINGS}


def read_instance_ids(path: Path) -> np.ndarray:
    """The ids of an *_instanceIds.png, (H, W) uint16 or int32.

    Raises:
        DataError: no readable PNG, not one channel of 16 bits, or a value that is no id
    """
    try:
        with Image.open(path) as image:
            mode, ids = image.mode, np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(
            f"cannot read {path}: {error}; unpack it again from the downloaded archive"
        ) from error
    if ids.ndim != 2 or ids.dtype.itemsize < 2:
        raise DataError(
            f"{path} has mode {mode}, expected one channel of 16 bits; is it a label or colour "
            "image instead of an instance image?"
        )
    return ids


def annotations_from_ids(ids: np.ndarray, where: str) -> list[dict[str, Any]]:
    """The eight things' instances, in the order of their ids.

    Args:
        ids: (H, W) integers: label id * 1000 + number for an object, the label id alone for a group
            and for all that is no object
        where: name of the file, for messages
    Returns:
        annotations with category_id (the label's id), iscrowd (1 for a class's group regions, all
        in one), bbox (x, y, width, height in pixels, tight), area in pixels, segmentation
        (compressed RLE, text) and instance_id
    Raises:
        DataError: a value that is no id
    """
    height, width = ids.shape
    starts, values = _runs(ids)
    found = np.unique(values).tolist()
    things = [value for value in found if _label_id(value, where) in _THING_IDS]
    if not things:
        return []
    rank = np.full(max(found) + 1, -1, dtype=np.int64)
    rank[things] = np.arange(len(things))
    owner = rank[values]  # (runs,) which thing, -1 none
    ends = np.append(starts[1:], ids.size)
    order = np.flatnonzero(owner >= 0)
    order = order[np.argsort(owner[order], kind="stable")]
    owner, starts, ends = owner[order], starts[order], ends[order]

    keys = np.stack([starts, ends], axis=1) + owner[:, None] * key_stride(height, width)
    masks = encode_changes(keys.ravel(), len(things), height, width)
    areas = np.bincount(owner, weights=ends - starts, minlength=len(things)).astype(np.int64)
    boxes = _boxes(starts, ends, np.flatnonzero(np.diff(owner, prepend=-1)), height)
    return [
        {
            "category_id": _label_id(value, where),
            "iscrowd": int(value < INSTANCE_STEP),
            "instance_id": value,
            "bbox": box,
            "area": area,
            "segmentation": {"size": mask["size"], "counts": mask["counts"].decode("ascii")},
        }
        for value, box, area, mask in zip(things, boxes, areas.tolist(), masks, strict=True)
    ]


def _label_id(value: int, where: str) -> int:
    label_id = value // INSTANCE_STEP if value >= INSTANCE_STEP else value
    label = BY_ID.get(label_id)
    if label is None or label_id < 0 or (value >= INSTANCE_STEP and not label.has_instances):
        raise DataError(
            f"{where} holds the value {value}, which is no Cityscapes instance id "
            "(label id * 1000 + number for objects, the label id for the rest)"
        )
    return label_id


def _runs(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal ids begin, pixels counted down the columns, and their ids: (T,) each."""
    flat = ids.ravel(order="F")
    starts = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], starts])
    return starts, flat[starts].astype(np.int64)


def _boxes(
    starts: np.ndarray, ends: np.ndarray, firsts: np.ndarray, height: int
) -> list[list[int]]:
    """x, y, width, height of each thing, whose runs begin at `firsts`."""
    last = ends - 1
    x0, x1 = starts // height, last // height
    # A run that goes on in the next column touches the last row and the first.
    y0 = np.where(x0 == x1, starts % height, 0)
    y1 = np.where(x0 == x1, last % height, height - 1)
    left, top = np.minimum.reduceat(x0, firsts), np.minimum.reduceat(y0, firsts)
    right, bottom = np.maximum.reduceat(x1, firsts), np.maximum.reduceat(y1, firsts)
    return np.stack([left, top, right - left + 1, bottom - top + 1], axis=1).tolist()
