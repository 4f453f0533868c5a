"""Ground truth as COCO's evaluation needs it: checked, its ids in order, only what a task reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..data.checks.runs import expand_runs
from ..data.coco_table import CocoTable, read_coco_table
from ..errors import DataError, UsageError

TASKS = ("bbox", "segm", "keypoints", "boundary")
MASK_TASKS = ("segm", "boundary")

_CHUNK = 4096  # masks whose runs are looked at together
_POINTS = 6  # numbers of the smallest polygon

Json = dict[str, Any]


@dataclass(frozen=True)
class GroundTruth:
    """What is evaluated against.

    Attributes:
        name: the file, or another word for messages
        image_rows: image id -> place in ascending order of ids. COCO's code goes through images
            in this order, which decides between equal scores
        sizes: (height, width) in pixels of each image in that order, -1 where the file has none
        category_rows: category id -> place in ascending order of ids
        category_names: in that order
        source: the file's columns, or its content
    """

    name: str
    image_rows: dict[Any, int]
    sizes: list[tuple[int, int]]
    category_rows: dict[Any, int]
    category_names: tuple[str, ...]
    source: CocoTable | Json

    @classmethod
    def of(
        cls,
        source: GroundTruth | CocoTable | Json | str | Path,
        *,
        image_ids: Sequence[Any] | None = None,
        category_ids: Sequence[Any] | None = None,
    ) -> GroundTruth:
        """
        Args:
            source: an annotation file in COCO's format, its columns, or its content as a dict
            image_ids: evaluate only these; None for all
            category_ids: only these classes; None for all
        Raises:
            DataError: no annotation file, or one without annotations
            UsageError: an id that the file does not have
        """
        if isinstance(source, GroundTruth):
            if image_ids is None and category_ids is None:
                return source
            source = source.source
        if isinstance(source, str | Path):
            source = read_coco_table(source)
        if isinstance(source, CocoTable):
            name, categories = source.path, source.categories
            sizes = dict(zip(source.image_ids.tolist(), source.image_sizes.tolist(), strict=True))
            annotated = "annotations" in source.keys
        else:
            name, categories = "the ground truth", source["categories"]
            sizes = {i["id"]: (i.get("height", -1), i.get("width", -1)) for i in source["images"]}
            annotated = "annotations" in source
        if not annotated:
            raise DataError(
                f"{name} has no annotations (a test set?), so there is nothing to compare "
                "predictions with; its figures come from the benchmark's server"
            )
        names = {c["id"]: str(c.get("name", c["id"])) for c in categories}
        images = _chosen(sizes, image_ids, "image", name)
        classes = _chosen(names, category_ids, "category", name)
        return cls(
            name,
            {image: row for row, image in enumerate(images)},
            [(int(sizes[image][0]), int(sizes[image][1])) for image in images],
            {category: row for row, category in enumerate(classes)},
            tuple(names[category] for category in classes),
            source,
        )

    def annotations(self, task: str) -> list[Json]:
        """The chosen images' and classes' annotations with new ids, for one task.

        COCO's code has two traps that the new ids avoid: an annotation with the id 0 never counts
        as found, and of several with one id some are forgotten.

        Returns:
            dicts of id (1, 2, ...), image_id and category_id (rows plus 1), iscrowd, area, bbox,
            and what the task needs of segmentation, keypoints, num_keypoints
        Raises:
            DataError: an annotation that lacks something, by its id
        """
        answer: list[Json] = []
        for identity, entry in self._entries(task in MASK_TASKS, task == "keypoints"):
            self._check(identity, entry, task)
            entry["id"] = len(answer) + 1
            answer.append(entry)
        self._check_run_lengths(answer)
        return answer

    def has_odd_ids(self) -> bool:
        """Whether annotation ids are such that COCO's own code would miscount."""
        if isinstance(self.source, CocoTable):
            identities = self.source.annotation_ids.tolist()
        else:
            identities = [entry.get("id") for entry in self.source["annotations"]]
        return 0 in identities or len(set(identities)) < len(identities)

    def _entries(self, masks: bool, keypoints: bool) -> Iterator[tuple[Any, Json]]:
        reader = self._of_table if isinstance(self.source, CocoTable) else self._of_dict
        for identity, image, category, crowd, area, box, rest in reader(masks, keypoints):
            if image not in self.image_rows or category not in self.category_rows:
                continue
            yield (
                identity,
                {
                    "image_id": self.image_rows[image] + 1,
                    "category_id": self.category_rows[category] + 1,
                    "iscrowd": crowd,
                    "area": area,
                    "bbox": box,
                    **rest,
                },
            )

    def _of_table(self, masks: bool, keypoints: bool) -> Iterator[tuple[Any, ...]]:
        table = self.source
        assert isinstance(table, CocoTable), table
        columns = zip(
            table.annotation_ids.tolist(),
            table.annotation_image_ids.tolist(),
            table.annotation_category_ids.tolist(),
            table.crowd.tolist(),
            table.areas.tolist(),
            table.boxes.tolist(),
            strict=True,
        )
        for row, column in enumerate(columns):
            rest: Json = {"segmentation": table.segmentation(row)} if masks else {}
            if keypoints:
                rest["keypoints"] = table.keypoints(row)
                rest["num_keypoints"] = int(table.num_keypoints[row])
            yield (*column, rest)

    def _of_dict(self, masks: bool, keypoints: bool) -> Iterator[tuple[Any, ...]]:
        assert isinstance(self.source, dict), self.source
        for entry in self.source["annotations"]:
            rest = {"segmentation": entry.get("segmentation")} if masks else {}
            if keypoints:
                rest["keypoints"] = entry.get("keypoints")
                rest["num_keypoints"] = entry.get("num_keypoints", -1)
            yield (
                entry.get("id"),
                entry.get("image_id"),
                entry.get("category_id"),
                int(entry.get("iscrowd", 0)),
                float(entry.get("area", np.nan)),
                [float(side) for side in entry.get("bbox") or [np.nan] * 4],
                rest,
            )

    def _check(self, identity: Any, entry: Json, task: str) -> None:
        """Refuse what no backend could use, and what they would take for something else."""
        where = f"{self.name}: annotation {identity!r}"
        if entry["iscrowd"] not in (0, 1):
            raise DataError(f"{where} has an iscrowd that is neither 0 nor 1")
        if entry["area"] != entry["area"]:
            raise DataError(
                f"{where} has no area; write its pixels there, COCO's sizes small, medium and "
                "large go by them"
            )
        if entry["bbox"] != entry["bbox"] or entry["bbox"][0] != entry["bbox"][0]:
            raise DataError(f"{where} has no bbox of four numbers x, y, width, height")
        if task == "keypoints":
            points = entry["keypoints"]
            if not isinstance(points, list) or not points or len(points) % 3:
                raise DataError(
                    f"{where} has no keypoints, x, y, v each; without them evaluate bbox and segm "
                    "only"
                )
            if entry["num_keypoints"] < 0:
                entry["num_keypoints"] = sum(flag > 0 for flag in points[2::3])
        if task in MASK_TASKS:
            entry["segmentation"] = self._usable_mask(entry, where)

    def _usable_mask(self, entry: Json, where: str) -> Any:
        height, width = self.sizes[entry["image_id"] - 1]
        if height < 1 or width < 1:
            raise DataError(f"{where}: its image has no height and width in the file")
        shape = entry["segmentation"]
        if not shape:
            raise DataError(f"{where} has no mask; without masks evaluate bbox only (--tasks bbox)")
        if isinstance(shape, dict):
            if list(shape.get("size", [])) != [height, width]:
                raise DataError(
                    f"{where} has a mask of the size {shape.get('size')}, its image is "
                    f"{[height, width]} (height, width)"
                )
            return shape
        for part in shape:
            if not isinstance(part, list) or len(part) < _POINTS or len(part) % 2:
                break
        else:
            return shape
        # What COCO's tools make of polygons that are none is up to them; both backends get it.
        try:
            return coco_mask.merge(coco_mask.frPyObjects(shape, height, width))
        except Exception as error:
            raise DataError(f"{where} has a mask that COCO's tools cannot read: {error}") from error

    def _check_run_lengths(self, entries: Sequence[Json]) -> None:
        shapes = [entry.get("segmentation") for entry in entries]
        rows = [row for row, shape in enumerate(shapes) if isinstance(shape, dict)]
        for row in wrong_run_lengths([shapes[row] for row in rows]):
            raise DataError(
                f"{self.name}: the mask at {self._place(entries[rows[row]])} has run lengths that "
                "do not add up to its size; the file is damaged"
            )

    def _place(self, entry: Json) -> str:
        image = list(self.image_rows)[entry["image_id"] - 1]
        return f"image {image!r}, bbox {entry['bbox']}"


def wrong_run_lengths(shapes: Sequence[Any]) -> list[int]:
    """Places of RLEs whose counts are no text or list, or do not add up to height x width.

    pycocotools reads such a mask from memory that nobody has written to.

    Args:
        shapes: {"size": [height, width], "counts": text, bytes or a list of run lengths}
    """
    wrong = []
    texts: list[tuple[int, bytes]] = []
    for place, shape in enumerate(shapes):
        counts = shape.get("counts")
        if isinstance(counts, str):
            counts = counts.encode("utf-8", "surrogatepass")
        if isinstance(counts, bytes):
            texts.append((place, counts))
        elif not isinstance(counts, list) or not _adds_up(counts, shape["size"]):
            wrong.append(place)
    for start in range(0, len(texts), _CHUNK):
        places = [place for place, _ in texts[start : start + _CHUNK]]
        pixels = np.array([shapes[place]["size"] for place in places], np.int64).prod(axis=1)
        runs, ends, good = expand_runs([text for _, text in texts[start : start + _CHUNK]])
        passed = np.concatenate([[0], np.cumsum(np.clip(runs, -1, 2**31))])
        starts = np.concatenate([[0], ends[:-1]])
        negative = np.concatenate([[0], np.cumsum(runs < 0)])
        good &= passed[ends] - passed[starts] == pixels
        good &= negative[ends] == negative[starts]
        wrong += [places[i] for i in np.flatnonzero(~good).tolist()]
    return sorted(wrong)


def _adds_up(counts: list[Any], size: Sequence[int]) -> bool:
    if not all(type(run) is int and run >= 0 for run in counts):
        return False
    return sum(counts) == size[0] * size[1]


def _chosen(known: dict[Any, Any], asked: Sequence[Any] | None, what: str, name: str) -> list[Any]:
    if asked is not None:
        for one in asked:
            if one not in known:
                raise UsageError(f"{name} has no {what} with the id {one!r}")
        known = {one: known[one] for one in asked}
    # Numbers by size, texts after them: ids may be either.
    return sorted(known, key=lambda one: (isinstance(one, str), one))
