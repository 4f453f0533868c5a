"""What is counted in the labelled set: images, objects, keypoints. Crowds do not count.

Letter: C classes, in the order of the model's outputs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from ...data.coco_table import CocoTable
from ...data.records import load_coco_records
from ...data.registration import (
    check_same_classes,
    class_names_of,
    keypoint_schema_of,
    locate_dataset,
    require_files_of,
)
from ...errors import DataError, UsageError


@dataclass(frozen=True)
class LabelledSet:
    """
    Attributes:
        names: of the data sets that it consists of
        categories: C of them, as in the annotation file
        images: how many, those without an object included
        instances: (C,) int64, how many of each class
        keypoint_names: () for a set without keypoints
        has_keypoints: (C,) bool, classes whose objects have keypoints
        keypoints: how many are labelled (visibility 1 or 2), of all objects of those classes
        files: paths of the images
    """

    names: tuple[str, ...]
    categories: list[dict[str, Any]]
    images: int
    instances: np.ndarray
    keypoint_names: tuple[str, ...]
    has_keypoints: np.ndarray
    keypoints: int
    files: frozenset[str]

    @property
    def class_names(self) -> list[str]:
        return [category["name"] for category in self.categories]

    def per_image(self, label: int | None = None) -> Fraction:
        """Objects an image: all of them, or those of one class."""
        count = self.instances.sum() if label is None else self.instances[label]
        return Fraction(int(count), self.images)

    def keypoints_per_instance(self) -> Fraction:
        """Labelled keypoints an object, of the classes that have some."""
        instances = int(self.instances[self.has_keypoints].sum())
        return Fraction(self.keypoints, instances) if instances else Fraction(0)


def read_labelled(names: Sequence[str]) -> LabelledSet:
    """
    Args:
        names: registered data sets in COCO's format with the same classes
    Raises:
        UsageError: an unknown name, classes that differ, no annotation file
        DataError: files that are missing or cannot be read, a set without any object
    """
    for name in names:
        class_names_of(name)  # refuses a name that nobody registered
        require_files_of(name)
    check_same_classes(names)
    parts = [_read_one(name) for name in names]
    whole = LabelledSet(
        names=tuple(names),
        categories=parts[0].categories,
        images=sum(part.images for part in parts),
        instances=np.sum([part.instances for part in parts], axis=0),
        keypoint_names=parts[0].keypoint_names,
        has_keypoints=parts[0].has_keypoints,
        keypoints=sum(part.keypoints for part in parts),
        files=frozenset().union(*(part.files for part in parts)),
    )
    if any(part.keypoint_names != whole.keypoint_names for part in parts):
        raise UsageError(f"the sets {', '.join(names)} have different keypoints")
    if not whole.instances.any():
        raise DataError(
            f"{', '.join(names)}: no annotation that is not a crowd; the labelled set says how "
            "many objects an image has, so it needs some"
        )
    return whole


def _read_one(name: str) -> LabelledSet:
    location = locate_dataset(name)
    if location is None:
        raise UsageError(f"data set {name!r} has no annotation file in COCO's format")
    json_file, root = location
    records = load_coco_records(json_file, root)
    table = records.table
    # Detectron2's order of the classes: that of the ids.
    categories = sorted(table.categories, key=lambda c: (isinstance(c["id"], str), c["id"]))
    schema = keypoint_schema_of(name)
    has_keypoints = np.array([bool(category.get("keypoints")) for category in categories])
    if schema is None or not has_keypoints.any():  # a schema of the YAML is for all classes
        has_keypoints[:] = schema is not None
    with_keypoints = {c["id"] for c, has in zip(categories, has_keypoints, strict=True) if has}
    return LabelledSet(
        names=(name,),
        categories=categories,
        images=len(records),
        instances=records.class_histogram(len(categories)),
        keypoint_names=schema.names if schema is not None else (),
        has_keypoints=has_keypoints,
        keypoints=_labelled_keypoints(table, with_keypoints) if with_keypoints else 0,
        files=frozenset(
            os.path.abspath(os.path.join(root, table.file_name(row)))
            for row in range(table.num_images)
        ),
    )


def _labelled_keypoints(table: CocoTable, categories: set[Any]) -> int:
    count = 0
    for row in np.flatnonzero((table.crowd == 0) & (table.image_of >= 0)).tolist():
        if table.annotation_category_ids[row] in categories:
            count += sum(v > 0 for v in (table.keypoints(row) or [])[2::3])
    return count
