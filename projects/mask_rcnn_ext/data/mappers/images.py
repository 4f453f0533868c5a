"""Image files to arrays as Detectron2 reads them, JPEGs faster."""

from __future__ import annotations

import contextlib
import io

import cv2
import numpy as np
from detectron2.data import detection_utils as utils
from detectron2.utils.file_io import PathManager
from PIL import Image

_EXIF_ORIENTATION = 274
_UPRIGHT = (None, 1)
_JPEG_END = b"\xff\xd9"


def read_image(path: str, image_format: str) -> np.ndarray:
    """The pixels of a file, turned upright by its EXIF tag.

    Whole 8-bit RGB and gray JPEGs are decoded by OpenCV, to the values that Pillow gives; all
    others (CMYK, PNG, 16 bit, turned by EXIF, ...) by Detectron2's `read_image`.

    Args:
        path: of any kind that Detectron2's PathManager opens
        image_format: INPUT.FORMAT, "BGR", "RGB", "L" or another one of Detectron2's
    Returns:
        (H, W, C), uint8 for "BGR", "RGB" and "L"; may be a view with negative strides
    Raises:
        OSError, SyntaxError, ValueError, Image.DecompressionBombError: cannot be read or decoded
    """
    if image_format in ("BGR", "RGB"):
        with PathManager.open(path, "rb") as file:
            data = file.read()
        if _is_plain_jpeg(data):
            flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
            bgr = None
            with contextlib.suppress(cv2.error):  # Pillow then says what is wrong, or can read it
                bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
            if bgr is not None:
                return bgr if image_format == "BGR" else bgr[:, :, ::-1]
    return utils.read_image(path, format=image_format)


def _is_plain_jpeg(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as image:  # the header only
        if image.format != "JPEG" or image.mode not in ("RGB", "L"):
            return False
        # Some versions of OpenCV fill the rest of a cut file with gray and say nothing.
        if not data.endswith(_JPEG_END):
            return False
        try:
            return image.getexif().get(_EXIF_ORIENTATION) in _UPRIGHT
        except Exception:  # Pillow raises various things for broken EXIF; Detectron2 copes
            return False
