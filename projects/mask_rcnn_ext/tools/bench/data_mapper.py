"""From an image file and its annotations to a training sample: ours beside Detectron2's mapper.

Both get the same records and the same random numbers, image by image in turns, in this process with
one thread, as a data loader's worker runs. Detectron2's mapper keeps polygons or draws bitmasks;
both are measured, each beside ours with the same setting.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, DatasetMapper
from detectron2.data.datasets import load_coco_json
from detectron2.structures import BitMasks, Instances

from ...config import load_config
from ...data.mappers import CocoMapper
from ...data.scenes import generate_splits
from ...errors import DataError, UserError
from .timing import Spread, clock, environment, say, table

FORMATS = ("polygon", "bitmask")
DEFAULT_NAME = "coco_2017_train"
_SEED = 0
_CPU = torch.device("cpu")
_SCENES_SIDE = 480  # pixels
Record = dict[str, Any]
Mapper = Callable[[Record], Record]


@dataclass
class Result:
    """One row pair of the table: a mask format.

    ours, stock: seconds of each repeat, all images together
    boxes_equal, masks_equal: bit for bit; polygons number for number
    pixel_difference: the largest, of 255
    pixels_different: share of values that differ at all
    """

    mask_format: str
    images: int
    boxes_equal: bool = True
    masks_equal: bool = True
    pixel_difference: int = 0
    pixels_different: float = 0.0
    ours: list[float] = field(default_factory=list)
    stock: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> Spread:
        """Stock's time over ours, repeat by repeat; above 1 ours is faster."""
        return Spread.of([s / o for s, o in zip(self.stock, self.ours, strict=True)])

    def as_json(self) -> dict[str, Any]:
        return {
            "mask_format": self.mask_format,
            "images": self.images,
            "boxes_equal": self.boxes_equal,
            "masks_equal": self.masks_equal,
            "pixel_difference": self.pixel_difference,
            "pixels_different": self.pixels_different,
            "ours": {"seconds": self.ours, **Spread.of(self.ours).as_json()},
            "stock": {"seconds": self.stock, **Spread.of(self.stock).as_json()},
            "ratio": self.ratio.as_json(),
        }


@contextmanager
def benchmark_records(name: str | None, images: int) -> Iterator[tuple[str, list[Record]]]:
    """The first annotated images of a data set, or of generated scenes.

    Args:
        name: of a registered set; None takes coco_2017_train if its files are there, else scenes
        images: at most so many
    Yields:
        what to call them, and the records; generated files are gone afterwards
    Raises:
        UserError: `name` is given and cannot be loaded, or has no annotated image
    """
    if name is None:
        try:
            records = _annotated(DatasetCatalog.get(DEFAULT_NAME), images)
        except (UserError, OSError, KeyError):
            records = []
        if records:
            yield DEFAULT_NAME, records
            return
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "scenes"
            generate_splits(root, {"train": images}, _SCENES_SIDE, _SEED, workers=1, progress=False)
            found = load_coco_json(
                str(root / "annotations" / "instances_train.json"), str(root / "train")
            )
            yield f"generated scenes of {_SCENES_SIDE} pixels", _annotated(found, images)
        return
    try:
        found = DatasetCatalog.get(name)
    except KeyError as error:
        raise UserError(f"{name!r} is no registered data set") from error
    except OSError as error:
        raise DataError(f"{name}: {error}") from error
    records = _annotated(found, images)
    if not records:
        raise DataError(f"{name} has no annotated image")
    yield name, records


def _annotated(records: Any, images: int) -> list[Record]:
    chosen: list[Record] = []
    for record in records:
        if any(not a.get("iscrowd", 0) for a in record["annotations"]):
            chosen.append(record)
        if len(chosen) == images:
            break
    return chosen


def compare(records: Sequence[Record], mask_format: str, repeats: int) -> Result:
    """Check that both make the same of each record, then time them."""
    opts = ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", mask_format]
    cfg = load_config("", opts)
    ours, stock = CocoMapper(cfg, is_train=True), DatasetMapper(cfg, is_train=True)
    result = Result(mask_format, len(records))
    shares: list[float] = []
    for number, record in enumerate(records):
        first, second = (_seeded(mapper, record, number) for mapper in (ours, stock))
        _check(result, first, second, shares)
    result.pixels_different = float(np.mean(shares))
    for _ in range(repeats):
        totals = [0.0, 0.0]
        for number, record in enumerate(records):
            for side, mapper in enumerate((ours, stock)):
                np.random.seed(_SEED + number)
                totals[side] += clock(lambda m=mapper, r=record: m(r), _CPU)[0]  # type: ignore[misc]
        result.ours.append(totals[0])
        result.stock.append(totals[1])
    return result


def _has_rle(record: Record) -> bool:
    kept = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
    return any(isinstance(a.get("segmentation"), dict) for a in kept)


def _seeded(mapper: Mapper, record: Record, number: int) -> Record:
    np.random.seed(_SEED + number)
    return mapper(record)


def _check(result: Result, ours: Record, stock: Record, shares: list[float]) -> None:
    different = (ours["image"].int() - stock["image"].int()).abs()
    result.pixel_difference = max(result.pixel_difference, int(different.max()))
    shares.append(float((different > 0).float().mean()))
    a, b = ours["instances"], stock["instances"]
    result.boxes_equal &= torch.equal(a.gt_boxes.tensor, b.gt_boxes.tensor)
    result.masks_equal &= _same_masks(a, b)


def _same_masks(a: Instances, b: Instances) -> bool:
    if not len(a) or not len(b):
        return len(a) == len(b)
    if isinstance(a.gt_masks, BitMasks):
        return torch.equal(a.gt_masks.tensor, b.gt_masks.tensor)
    return all(
        len(one) == len(other) and all(map(np.array_equal, one, other))
        for one, other in zip(a.gt_masks.polygons, b.gt_masks.polygons, strict=True)
    )


def run_data_mapper(
    name: str | None, images: int, repeats: int
) -> tuple[list[Result], dict[str, Any]]:
    """Both mask formats, and the facts that go with them; see `benchmark_records` for the name.

    Images with RLE cannot be measured as polygons, where Detectron2 refuses them; if all have it
    (scenes), that row is missing.
    """
    threads = torch.get_num_threads(), cv2.getNumThreads()
    state = np.random.get_state()
    try:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        with benchmark_records(name, images) as (called, records):
            results = []
            for mask_format in FORMATS:
                usable = [r for r in records if mask_format == "bitmask" or not _has_rle(r)]
                say(f"{len(usable)} images of {called}, masks as {mask_format}")
                if usable:
                    results.append(compare(usable, mask_format, repeats))
            objects = sum(len(record["annotations"]) for record in records)
            facts = {
                **environment(_CPU),
                "repeats": repeats,
                "data": called,
                "images": len(records),
                "objects": objects,
                "augmentations": "shortest edge 800, longest 1333, horizontal flip",
                "seed": _SEED,
            }
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
        np.random.set_state(state)
    return results, facts


def as_text(results: Sequence[Result], facts: dict[str, Any]) -> str:
    """The table, two rows a mask format, and what one must know to read it."""
    header = ["masks", "whose", "ms an image", "stock / ours", "same boxes", "same masks"]
    header.append("largest pixel difference")
    rows = []
    for result in results:
        for whose, seconds in (("ours", result.ours), ("stock", result.stock)):
            first = whose == "ours"
            rows.append(
                [
                    result.mask_format if first else "",
                    whose,
                    Spread.of(seconds).text(1e3 / max(result.images, 1)),
                    result.ratio.text(digits=2) if first else "",
                    _yes(result.boxes_equal) if first else "",
                    _yes(result.masks_equal) if first else "",
                    _pixels(result) if first else "",
                ]
            )
    return "\n".join(
        [
            f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; "
            f"{facts['repeats']} repeats, ours and stock in turns, image by image",
            f"{facts['images']} images with {facts['objects']} objects of {facts['data']}; "
            f"{facts['augmentations']}; seed {facts['seed']}",
            table(header, rows),
            "Times are medians (quartiles) of the repeats; the ratio is taken repeat by repeat.",
            "stock: Detectron2's DatasetMapper with the same INPUT.MASK_FORMAT.",
        ]
    )


def _yes(equal: bool) -> str:
    return "yes" if equal else "NO"


def _pixels(result: Result) -> str:
    return f"{result.pixel_difference} of 255, in {result.pixels_different:.2%}"
