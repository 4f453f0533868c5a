"""Where `mask-rcnn-ext predict` puts what was found.

DIR/predictions.json      COCO's form: images, categories, annotations with scores and RLE
DIR/overlays/NAME.jpg     the picture with masks, boxes, labels, keypoints; NAME.mp4 of a video
DIR/instances/NAME.png    16 bit: 0 is nothing, k is the image's k-th annotation; of a video
                          DIR/instances/NAME.mp4/000000.png and so on, with its own ending
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

from ..engine.prediction import Prediction
from ..errors import UsageError, UserError
from ..files import atomic_write

PREDICTIONS = "predictions.json"
_JPEG_QUALITY = 90


class PredictionsFile:
    """predictions.json, written as predictions come: a long video costs no memory.

    Attributes:
        images, annotations: how many were added
    """

    def __init__(self, file: IO[str], class_names: Sequence[str], category_ids: Sequence[int]):
        categories = [
            {"id": key, "name": name} for key, name in zip(category_ids, class_names, strict=True)
        ]
        self._file = file
        self._image_list = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self.images = self.annotations = 0
        file.write('{"categories": ' + json.dumps(categories) + ',\n"annotations": [')

    def add(self, name: str, prediction: Prediction, frame: int | None = None) -> None:
        """Append an image, or a frame of a video (counted from 0)."""
        height, width = prediction.image_size
        self.images += 1
        image = {"id": self.images, "file_name": name, "height": height, "width": width}
        image |= {} if frame is None else {"frame": frame}
        self._image_list.write((",\n" if self.images > 1 else "\n") + json.dumps(image))
        for entry in prediction.to_coco(self.images):
            self.annotations += 1
            full = {"id": self.annotations, **entry, "area": _area(entry), "iscrowd": 0}
            self._file.write((",\n" if self.annotations > 1 else "\n") + json.dumps(full))

    def close(self) -> None:
        """Write what is left."""
        self._file.write('\n],\n"images": [')
        self._image_list.seek(0)
        shutil.copyfileobj(self._image_list, self._file)
        self._image_list.close()
        self._file.write("\n]}\n")


def _area(entry: dict[str, Any]) -> float:
    """Pixels, of the mask where there is one, else of the box."""
    if "segmentation" in entry:
        return float(coco_mask.area(entry["segmentation"]))
    return entry["bbox"][2] * entry["bbox"][3]


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to replace predictions, before any work is done.

    Raises:
        UsageError: they are there already, and not `force`
    """
    target = out / PREDICTIONS
    if target.exists() and not force:
        raise UsageError(f"{target} exists; choose another --out, or replace it with --force")


@contextlib.contextmanager
def predictions_file(
    out: Path, class_names: Sequence[str], category_ids: Sequence[int]
) -> Iterator[PredictionsFile]:
    """
    Raises:
        UserError: the folder cannot be written, the disk is full
    """
    target = out / PREDICTIONS
    try:
        out.mkdir(parents=True, exist_ok=True)
        with atomic_write(target, "w") as file:
            writer = PredictionsFile(file, class_names, category_ids)
            yield writer
            writer.close()
    except OSError as error:
        where = error.filename or target
        raise UserError(f"cannot write {where}: {error.strerror or error}") from error


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """A JPEG of (H, W, 3) uint8 RGB, or a PNG of (H, W) uint16, by the path's ending."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[:, :, ::-1])
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    encoded = cv2.imencode(path.suffix, content, options)[1]
    with atomic_write(path) as file:
        file.write(encoded.tobytes())
