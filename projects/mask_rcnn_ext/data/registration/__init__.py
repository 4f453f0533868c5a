"""Data sets by name: YAMLs and Python calls -> Detectron2's catalogs.

A data set is registered without looking at its files. When it is first used, whatever its format
is, it becomes an annotation file in COCO's format and a folder of images: the user's own file where
that serves, one in a cache otherwise. docs/datasets.md says how to describe one.
"""

from __future__ import annotations

from .catalog import load_records, locate_dataset, records_of, require_files_of
from .classes import check_same_classes, class_names_of, keypoint_schema_of, num_classes_of
from .paths import DATASETS_ENV, datasets_root
from .sources import (
    REGISTRY_ENV,
    describe_unknown,
    register_coco_dataset,
    register_dataset,
    register_from,
    register_shipped,
)

__all__ = [
    "DATASETS_ENV",
    "REGISTRY_ENV",
    "check_same_classes",
    "class_names_of",
    "datasets_root",
    "describe_unknown",
    "keypoint_schema_of",
    "load_records",
    "locate_dataset",
    "num_classes_of",
    "records_of",
    "register_coco_dataset",
    "register_dataset",
    "register_from",
    "require_files_of",
]

register_shipped()
