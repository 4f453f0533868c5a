"""What the settings of training and evaluation make of the data."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .facts import Facts
from .findings import WARNING, Defect, numbers


def lost_at_training_size(facts: Facts) -> Iterator[Defect]:
    """Objects that are less than a pixel wide or high after the resize."""
    boxes = facts.table.boxes[:, 2:]
    settings = facts.settings
    shorter, longer = facts.sizes.min(axis=1), facts.sizes.max(axis=1)
    with np.errstate(invalid="ignore"):
        # As Detectron2's ResizeShortestEdge: the shorter edge first, unless the longer one exceeds.
        scale = np.minimum(settings.short_edge / shorter, settings.max_size / longer)
        side = boxes.min(axis=1) * scale
        lost = facts.is_instance & (side < 1) & (boxes > 0).all(axis=1)
        lost &= ~(boxes <= 1).all(axis=1) | (scale < 1)
    yield facts.annotations(
        "lost-at-training-size",
        WARNING,
        lost,
        lambda row: (
            f"bbox {numbers(facts.table.boxes[row])} is {side[row]:.2f} px on its shorter side "
            f"after the resize to {settings.short_edge} (longest {settings.max_size})"
        ),
        "Train at a larger size, cut the pictures into tiles, or take it out.",
    )


def more_than_the_cap(facts: Facts) -> Iterator[Defect]:
    """More objects in an image than detections are kept: recall cannot reach 1."""
    owners = facts.table.image_of[facts.is_instance]
    counts = np.bincount(owners, minlength=facts.table.num_images)
    cap = facts.settings.detection_cap
    yield facts.images(
        "more-than-detection-cap",
        WARNING,
        counts > cap,
        lambda row: f"has {counts[row]} objects, but {cap} detections an image are kept",
        "Raise TEST.DETECTIONS_PER_IMAGE; COCO's AP counts 100 at most.",
    )


CHECKS = (lost_at_training_size, more_than_the_cap)
