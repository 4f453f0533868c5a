"""From a dataset record to what the model takes, with errors that name the image."""

from __future__ import annotations

import os
from typing import Any

from detectron2.data import DatasetMapper
from detectron2.data.detection_utils import SizeMismatchError
from PIL import Image

from ..errors import DataError


class CocoMapper(DatasetMapper):
    """Detectron2's `DatasetMapper`; a record that cannot be used raises a `DataError`."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """
        Args:
            dataset_dict: one record of the standard form (file_name, height, width, image_id,
                annotations)
        Returns:
            as Detectron2's: "image" (3, H, W) uint8 in INPUT.FORMAT, "height" and "width" of the
            original, in training "instances" in the frame of "image"
        Raises:
            DataError: the image is missing, does not decode or has another size than the
                annotation file says, or an annotation cannot be used; names file and image id
        """
        try:
            return super().__call__(dataset_dict)
        except SizeMismatchError as error:
            raise DataError(
                f"{_where(dataset_dict)}: {' '.join(str(error).split())} Mend width and height in "
                "the annotation file, or strip the EXIF rotation from the image."
            ) from error
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            path = dataset_dict["file_name"]
            what = "does not decode" if os.path.exists(path) else "does not exist"
            raise DataError(
                f"{_where(dataset_dict)} {what} ({error}). Fetch or restore the file, or take the "
                "image out of the annotation file."
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
            raise DataError(
                f"{_where(dataset_dict)}: its annotations cannot be used: "
                f"{type(error).__name__}: {error}"
            ) from error


def _where(dataset_dict: dict[str, Any]) -> str:
    return f"image {dataset_dict['file_name']} (image id {dataset_dict.get('image_id', 'unknown')})"
