"""A mapper around a mapper, for evaluation: a bad image is a message, not the end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...errors import DataError

FAILED = "failed"  # key of a sample that stands for an image that cannot be used; its message


class ForgivingMapper:
    """Calls another mapper; where that raises a DataError, the sample is {"failed": message}."""

    def __init__(self, mapper: Callable[[dict[str, Any]], Any]):
        self.mapper = mapper

    def __call__(self, dataset_dict: dict[str, Any]) -> Any:
        try:
            return self.mapper(dataset_dict)
        except DataError as error:
            return {FAILED: str(error), "image_id": dataset_dict.get("image_id")}
