"""Data sets: names -> files -> samples. Imports nothing of `modeling` or `engine`."""

from importlib.util import find_spec

if find_spec("detectron2") is not None:
    from . import registration as _registration  # noqa: F401  # only registration
    from .registration import register_coco_dataset, register_dataset

    __all__ = ["register_coco_dataset", "register_dataset"]
