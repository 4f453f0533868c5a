"""Where `mask-rcnn-ext predict` puts what was found.

DIR/predictions.json      COCO's form: images, categories, annotations with scores and RLE
DIR/overlays/NAME.jpg     the picture with masks, boxes, labels, keypoints; NAME.mp4 of a video
DIR/instances/NAME.png    16 bit: 0 is nothing, k is the image's k-th annotation
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np

from ..engine.prediction import Prediction
from ..errors import UsageError, UserError
from ..files import atomic_write

PREDICTIONS = "predictions.json"
_JPEG_QUALITY = 90


class PredictionsFile:
    """predictions.json, written as predictions come: a long video costs no memory."""

    def __init__(self, file: IO[str], class_names: Sequence[str], category_ids: Sequence[int]):
        categories = [
            {"id": key, "name": name} for key, name in zip(category_ids, class_names, strict=True)
        ]
        self._file = file
        self._images: list[dict[str, Any]] = []
        self.annotations = 0
        file.write('{"categories": ' + json.dumps(categories) + ',\n"annotations": [')

    def add(self, name: str, prediction: Prediction, frame: int | None = None) -> None:
        """Append an image, or a frame of a video (counted from 0)."""
        height, width = prediction.image_size
        image = {"id": len(self._images) + 1, "file_name": name, "height": height, "width": width}
        self._images.append(image if frame is None else image | {"frame": frame})
        for entry in prediction.to_coco(len(self._images)):
            self.annotations += 1
            self._file.write(",\n" if self.annotations > 1 else "\n")
            self._file.write(json.dumps({"id": self.annotations, **entry}))

    def close(self) -> None:
        self._file.write('\n],\n"images": ' + json.dumps(self._images) + "}\n")


@contextlib.contextmanager
def predictions_file(
    out: Path, class_names: Sequence[str], category_ids: Sequence[int], *, force: bool
) -> Iterator[PredictionsFile]:
    """
    Raises:
        UsageError: it is there already, and not `force`
        UserError: the folder cannot be written, the disk is full
    """
    target = out / PREDICTIONS
    if target.exists() and not force:
        raise UsageError(f"{target} exists; choose another --out, or replace it with --force")
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
