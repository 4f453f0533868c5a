"""Class lists of published weights that do not say theirs."""

from __future__ import annotations

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ...data.cityscapes.labels import THINGS

_COCO = [category["name"] for category in COCO_CATEGORIES if category["isthing"]]
_CITYSCAPES = [label.name for label in THINGS]


def guess_classes(count: int | None) -> tuple[str, list[str]] | None:
    """The published list of so many classes: (its name, the classes in order), or None."""
    known = {"COCO": _COCO, "Cityscapes": _CITYSCAPES}
    return next(((who, names) for who, names in known.items() if len(names) == count), None)
