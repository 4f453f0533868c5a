"""PNGs whose pixel values are labels, not colours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...errors import DataError

Labels = NDArray[np.int64]


def read_labels(path: Path, *, colours: bool = False) -> Labels:
    """(H, W) int64 values of a grey PNG (8 or 16 bits) or of a palette PNG's indices.

    Args:
        path: the PNG
        colours: read an RGB picture as R + 256 * G + 65536 * B, else refuse it
    Raises:
        DataError: unreadable, or of a form that holds no labels
    """
    try:
        with Image.open(path) as picture:
            mode, values = picture.mode, np.asarray(picture)
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if mode in ("RGB", "RGBA") and colours:
        return values[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
    if mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L"):
        raise DataError(
            f"{path} is a picture of mode {mode}; expected one grey value or palette index a pixel"
        )
    return values.astype(np.int64)


def check_same_size(path: Path, labels: Labels, image: dict[str, Any]) -> None:
    """DataError when the map is not as large as its picture."""
    if labels.shape != (image["height"], image["width"]):
        raise DataError(
            f"{path} has {labels.shape[1]}x{labels.shape[0]} pixels, its picture "
            f"{image['file_name']} has {image['width']}x{image['height']}"
        )
