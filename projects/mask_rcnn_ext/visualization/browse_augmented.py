"""What the model gets: draws of a training mapper beside the image, for `data browse`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.structures import BitMasks, Instances, PolygonMasks

from ..data.dataset import SampleDataset
from .browse_page import Picture, Row, Shown
from .html import picture_uri
from .outlines import path_of_mask, path_of_polygons

Mapper = Callable[[dict[str, Any]], Any]


class DrawMaker:
    """Makes the rows of one image: all augmentations together, then each by itself."""

    def __init__(
        self,
        records: Sequence[dict[str, Any]],
        mapper: Mapper,
        *,
        class_names: Sequence[str],
        skeletons: Sequence[Sequence[tuple[int, int]]],
        image_format: str,
        draws: int,
        seed: int,
        longest: int,
    ):
        """
        Args:
            records: of Detectron2's standard form; copy-paste takes its partners from them
            mapper: a training mapper
            class_names: of the numbers in `gt_classes`
            skeletons: of each class, pairs of keypoints that a line joins
            image_format: of the mapper's "image", INPUT.FORMAT
            draws: pictures in a row
            seed: the same seed, the same draws
            longest: side of an embedded picture, pixels, at most
        """
        self._datasets = [
            (title, SampleDataset(records, variant, seed)) for title, variant in variants(mapper)
        ]
        self._class_names = class_names
        self._skeletons = skeletons
        self._is_bgr = image_format == "BGR"
        self._draws = draws
        self._longest = longest

    def __call__(self, index: int) -> tuple[Row, ...]:
        """The rows of a record; a row whose draws are all the same has one.

        Raises:
            DataError: from the mapper; names the image
        """
        rows = []
        for title, dataset in self._datasets:
            samples = [dataset[draw, index] for draw in range(self._draws)]
            first = samples[0]["image"]
            if all(_same(first, sample["image"]) for sample in samples[1:]):
                samples = samples[:1]
            pictures = [self._picture(sample, n) for n, sample in enumerate(samples, start=1)]
            rows.append(Row(title, tuple(pictures)))
        return tuple(rows)

    def _picture(self, sample: dict[str, Any], draw: int) -> Picture:
        image = sample["image"].numpy().transpose(1, 2, 0)  # (3, H, W) -> (H, W, 3)
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        image = np.ascontiguousarray(image[:, :, ::-1] if self._is_bgr else image)
        height, width = image.shape[:2]
        instances = sample["instances"]
        return Picture(
            picture_uri(image.astype(np.uint8), self._longest),
            height,
            width,
            self._shown(instances),
            f"draw {draw}: {width} × {height}, {len(instances)} instances",
        )

    def _shown(self, instances: Instances) -> tuple[Shown, ...]:
        tolerance = 0.4 * max(instances.image_size) / self._longest
        paths = _paths(instances, tolerance)
        boxes = instances.gt_boxes.tensor.tolist()
        classes = instances.gt_classes.tolist()
        keypoints: list[Any] = [()] * len(instances)
        if instances.has("gt_keypoints"):
            keypoints = instances.gt_keypoints.tensor.tolist()
        shown = []
        for n, (x0, y0, x1, y1) in enumerate(boxes):
            path, holes, area = paths[n]
            shown.append(
                Shown(
                    identity="",
                    class_name=self._class_names[classes[n]],
                    class_index=classes[n],
                    box=(x0, y0, x1, y1),
                    path=path,
                    holes=holes,
                    area=area if area > 0 else (x1 - x0) * (y1 - y0),
                    keypoints=tuple((x, y, seen) for x, y, seen in keypoints[n]),
                    skeleton=tuple(self._skeletons[classes[n]]) if len(keypoints[n]) else (),
                )
            )
        return tuple(sorted(shown, key=lambda one: -one.size))


def variants(mapper: Mapper) -> list[tuple[str, Mapper]]:
    """The mapper itself, and one for each of its augmentations alone, under titles for people.

    A mapper that does not keep them as Detectron2's `DatasetMapper` does has no others.
    """
    together = [("all augmentations together, as in training", mapper)]
    augmentations = getattr(getattr(mapper, "augmentations", None), "augs", None)
    paste = getattr(mapper, "copy_paste", None)
    if not augmentations or len(augmentations) + (paste is not None) < 2:
        return together
    alone = []
    for one in augmentations:
        variant = copy.copy(mapper)
        variant.augmentations = T.AugmentationList([one])  # type: ignore[attr-defined]
        if paste is not None:
            variant.copy_paste = None  # type: ignore[attr-defined]
        alone.append((f"{one} alone", variant))
    if paste is not None:
        variant = copy.copy(mapper)
        variant.augmentations = T.AugmentationList([])  # type: ignore[attr-defined]
        variant.copy_paste = always = copy.copy(paste)  # type: ignore[attr-defined]
        always.probability = 1.0
        title = f"copy-paste alone, in every draw (in training: {paste.probability:.0%} of them)"
        alone.append((title, variant))
    return together + alone


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(torch.equal(a, b))


def _paths(instances: Instances, tolerance: float) -> list[tuple[str, bool, float]]:
    """(path, evenodd, area) of each mask; the area of polygons is left open, 0."""
    masks = instances.gt_masks if instances.has("gt_masks") else None
    if isinstance(masks, PolygonMasks):
        parts = [[points.reshape(-1, 2) for points in polygons] for polygons in masks.polygons]
        areas = masks.area().tolist()
        return [
            (path_of_polygons(polygons), False, area)
            for polygons, area in zip(parts, areas, strict=True)
        ]
    if isinstance(masks, BitMasks):
        bits = masks.tensor.numpy()
        return [(path_of_mask(one, 0, 0, tolerance), True, float(one.sum())) for one in bits]
    return [("", False, 0.0)] * len(instances)
