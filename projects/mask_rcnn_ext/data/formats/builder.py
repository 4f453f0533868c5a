"""Puts a COCO dict together: ids, boxes and areas from the shapes, classes by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ...errors import DataError
from .base import CocoImport
from .notes import Notes
from .pictures import Pictures

Mask = NDArray[np.bool_]
Part = list[float] | Mask  # a flat polygon, or (H, W) bool of the whole image

TOO_FEW_POINTS = "polygon of fewer than 3 points: left out"
_FAR = 10  # picture sides; pycocotools takes memory for each pixel on the way to a point
EMPTY_MASK = "mask without a pixel: left out"


class CocoBuilder:
    """Images and objects in the order in which they are added; ids count from 1."""

    def __init__(self, pictures: Pictures, notes: Notes):
        self.pictures = pictures
        self.notes = notes
        self._images: list[dict[str, Any]] = []
        self._objects: list[dict[str, Any]] = []
        self._classes: list[str] = []  # of each object
        self._seen: dict[str, str] = {}

    def add_image(
        self, file_name: str, who: str, attributes: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Add a picture; its size is read.

        Args:
            file_name: as `Pictures.find` gives it
            who: annotation file and element, for messages
            attributes: more about the image, kept under "attributes" unless empty
        Returns:
            the COCO image
        Raises:
            DataError: it was added before, or cannot be read
        """
        if file_name in self._seen:
            raise DataError(
                f"{who}: picture {file_name} has annotations already, from {self._seen[file_name]};"
                " keep one of them, or give them one list"
            )
        self._seen[file_name] = who
        height, width = self.pictures.size(file_name, who)
        image: dict[str, Any] = {
            "id": len(self._images) + 1,
            "file_name": file_name,
            "height": height,
            "width": width,
        }
        if attributes:
            image["attributes"] = attributes
        self._images.append(image)
        return image

    def add_object(
        self,
        image: dict[str, Any],
        class_name: str,
        parts: Sequence[Part],
        who: str,
        attributes: dict[str, Any] | None = None,
    ) -> bool:
        """Add an object that covers the union of `parts`; False where none of them is an area."""
        good: list[Part] = []
        far = _FAR * max(image["height"], image["width"])
        for part in parts:
            if isinstance(part, list) and any(abs(v) > far for v in part):
                raise DataError(
                    f"{who}: a point lies more than {_FAR} picture sides away from picture "
                    f"{image['file_name']} ({image['width']}x{image['height']} pixels)"
                )
            if isinstance(part, list) and len(part) < 6:
                self.notes.add(TOO_FEW_POINTS, who)
            elif not isinstance(part, list) and not part.any():
                self.notes.add(EMPTY_MASK, who)
            else:
                good.append(part)
        if not good:
            return False
        fields = segmentation_fields(good, image)
        if not fields["area"]:
            self.notes.add("object that covers no pixel of its picture: kept", who)
        self._add(image, class_name, fields, attributes)
        return True

    def add_box(
        self,
        image: dict[str, Any],
        class_name: str,
        box: Sequence[float],
        attributes: dict[str, Any] | None = None,
    ) -> None:
        """Add an object of which only the box is known: x, y, width, height in pixels."""
        fields = {"bbox": [float(v) for v in box], "area": float(box[2] * box[3])}
        self._add(image, class_name, fields, attributes)

    def note_unused_pictures(self) -> None:
        """Say which pictures of the folder have no annotations of this format."""
        for file_name in self.pictures.all():
            if file_name not in self._seen:
                self.notes.add("picture without an annotation file: not taken", file_name)

    def _add(
        self,
        image: dict[str, Any],
        class_name: str,
        fields: dict[str, Any],
        attributes: dict[str, Any] | None,
    ) -> None:
        more = {"attributes": attributes} if attributes else {}
        self._classes.append(class_name)
        head = {"id": len(self._objects) + 1, "image_id": image["id"], "category_id": 0}
        self._objects.append({**head, **fields, "iscrowd": 0, **more})

    def finish(self, declared: Sequence[str], sources: Sequence[Path]) -> CocoImport:
        """The import.

        Args:
            declared: classes in the source's order; names that only objects have follow, sorted
            sources: files that were read
        Raises:
            DataError: no picture, or no class at all
        """
        if not self._images:
            raise DataError(
                f"no annotated picture found; pictures were looked for below {self.pictures.root}"
            )
        names = [*dict.fromkeys(declared)]
        names += sorted(set(self._classes) - set(names))
        if not names:
            raise DataError(
                f"{self._seen[self._images[0]['file_name']]}: no class found: nothing is declared, "
                "and there is no object"
            )
        number = {name: k for k, name in enumerate(names, 1)}
        for annotation, name in zip(self._objects, self._classes, strict=True):
            annotation["category_id"] = number[name]
        coco = {
            "images": self._images,
            "annotations": self._objects,
            "categories": [{"id": k, "name": name} for name, k in number.items()],
        }
        return CocoImport(coco, self.notes.lines(), sorted(set(sources)), self.pictures.root)


def segmentation_fields(parts: Sequence[Part], image: dict[str, Any]) -> dict[str, Any]:
    """bbox, area and segmentation of the union of `parts`.

    Polygons stay as they are, their box is that of their points; as soon as one part is a mask,
    the union becomes RLE. The area is always that of the pixels.
    """
    height, width = image["height"], image["width"]
    polygons = [part for part in parts if isinstance(part, list)]
    masks = [part for part in parts if not isinstance(part, list)]
    rles = coco_mask.frPyObjects(polygons, height, width) if polygons else []
    rles += [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
    rle = rles[0] if len(rles) == 1 else coco_mask.merge(rles)
    fields: dict[str, Any] = {"area": float(coco_mask.area(rle))}
    if masks:
        fields["bbox"] = coco_mask.toBbox(rle).tolist()
        counts = rle["counts"].decode("ascii")
        fields["segmentation"] = {"size": [height, width], "counts": counts}
    else:
        x = [v for polygon in polygons for v in polygon[::2]]
        y = [v for polygon in polygons for v in polygon[1::2]]
        fields["bbox"] = [min(x), min(y), max(x) - min(x), max(y) - min(y)]
        fields["segmentation"] = polygons
    return fields
