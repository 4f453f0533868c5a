"""Predictions as the Cityscapes benchmark takes them: a text file an image, a PNG an instance.

FOLDER/{name}_pred.txt                    a line a prediction: PNG, label id, score
FOLDER/{name}_{number}_{label}.png        8 bits, 255 inside
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from ...data.cityscapes.labels import BY_ID
from ...errors import DataError, UserError
from ...files import atomic_write

_OWN = re.compile(r".+_(pred\.txt|\d{4}_[a-z_]+\.png)")


def write_submission(
    folder: str | Path,
    name: str,
    masks: np.ndarray | Sequence[Mapping[str, Any]],
    label_ids: Sequence[int],
    scores: Sequence[float] | np.ndarray,
) -> Path:
    """Write one image's files; the text file comes last, so an image with one is complete.

    Args:
        folder: made if need be
        name: of the image, e.g. munster_000000_000019
        masks: (P, H, W), not zero inside, or P of COCO's run lengths
        label_ids, scores: P of each
    Returns:
        the text file
    Raises:
        DataError: an unknown label id
        UserError: the folder cannot be written
    """
    folder = Path(folder)
    lines = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for index, (mask, label_id, score) in enumerate(zip(masks, label_ids, scores, strict=True)):
            if label_id not in BY_ID:
                raise DataError(f"{name}: prediction {index} has the unknown label id {label_id}")
            label = BY_ID[label_id].name.replace(" ", "_")
            png = f"{name}_{index:04d}_{label}.png"
            with atomic_write(folder / png) as file:
                file.write(_png(mask))
            lines.append(f"{png} {label_id} {float(score)!r}\n")
        path = folder / f"{name}_pred.txt"
        with atomic_write(path, "w") as file:
            file.write("".join(lines))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    return path


def foreign_file(folder: str | Path) -> Path | None:
    """Something in the folder that is no file of a submission; None if there is nothing such."""
    folder = Path(folder)
    if not folder.exists():
        return None
    if not folder.is_dir():
        return folder
    others = (entry.name for entry in os.scandir(folder) if not _OWN.fullmatch(entry.name))
    first = min(others, default=None)
    return folder / first if first is not None else None


def clear_submission(folder: str | Path) -> None:
    """Remove the files of an earlier submission: the benchmark takes one text file an image."""
    if Path(folder).is_dir():
        for entry in os.scandir(folder):
            if _OWN.fullmatch(entry.name):
                os.unlink(entry.path)


def _png(mask: Any) -> bytes:
    bits = coco_mask.decode(mask) if isinstance(mask, Mapping) else np.asarray(mask)
    buffer = io.BytesIO()
    Image.fromarray(np.where(bits, np.uint8(255), np.uint8(0))).save(buffer, "PNG")
    return buffer.getvalue()
