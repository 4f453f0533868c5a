"""COCO figures of many detections: ours beside pycocotools as Detectron2 calls it.

Both start from an annotation file and a list of detections, and end with the figures. Both run in
turns. The objects are ellipses with wavy edges on images of 480 x 640 pixels, with 80 classes of
which a few are frequent; most detections are a moved and deformed object, some have another class
or image.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ...evaluation.coco_backends import Arrays, choose_backend
from ...evaluation.coco_metrics import evaluate_coco
from ...evaluation.coco_truth import GroundTruth
from .masks import Side
from .timing import Spread, clock, environment, megabytes, peak_memory, say, table

_SEED = 0
_CPU = torch.device("cpu")
_HEIGHT, _WIDTH = 480, 640
_CLASSES = 80
_OBJECTS = 7.3  # an image; COCO's val has as many
_CROWDS = 0.01  # share of the objects
_CORNERS = 24
_KEYPOINTS = 17
_SIDES = (8.0, 300.0)  # of the objects, pixels; log-uniform
_JITTER = 0.12  # of the detections' edges, in sides
_OTHER_CLASS, _OTHER_IMAGE = 0.2, 0.05  # shares of the detections

Json = dict[str, Any]


@dataclass
class Result:
    """One row pair of the table.

    backend: the library that ours chose
    differences: largest absolute difference of precision, recall and scores
    """

    task: str
    images: int
    detections: int
    backend: str
    differences: dict[str, float]
    ours: Side = field(default_factory=Side)
    stock: Side = field(default_factory=Side)

    @property
    def ratio(self) -> Spread:
        """Stock's time over ours, turn by turn; above 1 ours is faster."""
        pairs = zip(self.stock.seconds, self.ours.seconds, strict=True)
        return Spread.of([stock / ours for stock, ours in pairs])

    def as_json(self) -> Json:
        return {
            "task": self.task,
            "images": self.images,
            "detections": self.detections,
            "backend": self.backend,
            "differences": self.differences,
            "ours": self.ours.as_json(),
            "stock": self.stock.as_json(),
            "ratio": self.ratio.as_json(),
        }


def ours(json_file: str, detections: list[Json], task: str) -> Arrays:
    """The arrays, as `mask-rcnn-ext eval` gets them; the detections are checked."""
    figures = evaluate_coco(GroundTruth.of(json_file), detections, task)
    return Arrays(figures.precision, figures.recall, figures.scores)


def stock(json_file: str, detections: list[Json], task: str) -> Arrays:
    """The arrays of pycocotools, called as Detectron2's COCOEvaluator does."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(json_file)
        if task == "segm":
            # Else a mask would have its box's area.
            detections = copy.deepcopy(detections)
            for one in detections:
                one.pop("bbox", None)
        evaluation = COCOeval(truth, truth.loadRes(detections), task)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Arrays(*(evaluation.eval[key] for key in ("precision", "recall", "scores")))


def made_up(images: int, detections: int, *, keypoints: bool, seed: int) -> tuple[Json, list[Json]]:
    """An annotation file's content, and detections on it.

    Args:
        images: how many of them; there are 7.3 objects an image
        detections: in all
        keypoints: one class, with 17 keypoints; else 80 classes
    """
    generator = np.random.default_rng(seed)
    objects = max(1, round(images * _OBJECTS))
    classes = 1 if keypoints else _CLASSES
    shares = 1 / np.arange(1, classes + 1)
    category = generator.choice(classes, objects, p=shares / shares.sum()) + 1
    image = np.sort(generator.integers(1, images + 1, objects))
    least, most = np.log(_SIDES).tolist()
    side = np.exp(generator.uniform(least, most, (objects, 2)))
    edge = np.array([_WIDTH, _HEIGHT])
    low = np.clip(generator.uniform(0, 1, (objects, 2)) * edge - side / 2, 0, edge - 5)
    high = np.clip(low + side, low + 4, edge)
    crowd = (generator.random(objects) < _CROWDS).astype(int)
    annotations = []
    points = np.zeros((objects, _KEYPOINTS, 3))
    if keypoints:
        share = generator.uniform(0, 1, (objects, _KEYPOINTS, 2))
        points[:, :, :2] = (low[:, None] + (high - low)[:, None] * share).round()
        points[:, :, 2] = generator.integers(0, 3, (objects, _KEYPOINTS))
    outlines = _outlines(low, high, generator)
    for i in range(objects):
        polygon = outlines[i].round(2).ravel().tolist()
        rle = _rle(polygon)
        one = {
            "id": i + 1,
            "image_id": int(image[i]),
            "category_id": int(category[i]),
            "iscrowd": int(crowd[i]),
            "area": float(coco_mask.area(rle)),
            "bbox": [*low[i].round(2).tolist(), *(high - low)[i].round(2).tolist()],
            "segmentation": _as_json(rle) if crowd[i] else [polygon],
        }
        if keypoints:
            one["keypoints"] = points[i].astype(int).ravel().tolist()
            one["num_keypoints"] = int((points[i, :, 2] > 0).sum())
        annotations.append(one)
    truth = {
        "info": {},
        "images": [
            {"id": i, "height": _HEIGHT, "width": _WIDTH, "file_name": f"{i}.jpg"}
            for i in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)],
    }
    of = generator.integers(0, objects, detections)
    moved = generator.normal(0, _JITTER, (2, detections, 2)) * (high - low)[of]
    low, high = np.clip(low[of] + moved[0], 0, edge - 4), high[of] + moved[1]
    high = np.clip(high, low + 3, edge)
    other_class = generator.random(detections) < _OTHER_CLASS
    other_image = generator.random(detections) < _OTHER_IMAGE
    category = np.where(other_class, generator.integers(1, classes + 1, detections), category[of])
    image = np.where(other_image, generator.integers(1, images + 1, detections), image[of])
    scores = generator.random(detections, dtype=np.float32).tolist()
    outlines = _outlines(low, high, generator)
    points = points[of] + generator.normal(0, 4, (detections, _KEYPOINTS, 3))
    points[:, :, 2] = 1
    results = []
    for i in range(detections):
        one = {
            "image_id": int(image[i]),
            "category_id": int(category[i]),
            "bbox": [*low[i].tolist(), *(high - low)[i].tolist()],
            "score": scores[i],
            "segmentation": _as_json(_rle(outlines[i].ravel().tolist())),
        }
        if keypoints:
            one["keypoints"] = points[i].ravel().tolist()
        results.append(one)
    return truth, results


def _outlines(low: np.ndarray, high: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """(N, corners, 2) x, y: an ellipse in each box, its radius uneven."""
    angle = np.linspace(0, 2 * np.pi, _CORNERS, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    uneven = generator.uniform(0.8, 1, (len(low), _CORNERS, 1))
    return ((low + high) / 2)[:, None] + ((high - low) / 2)[:, None] * circle * uneven


def _rle(polygon: list[float]) -> Json:
    return coco_mask.frPyObjects([polygon], _HEIGHT, _WIDTH)[0]


def _as_json(rle: Json) -> Json:
    return {"size": rle["size"], "counts": rle["counts"].decode("utf-8")}


def compare(images: int, detections: int, task: str, repeats: int) -> Result:
    """Time and measure both on the same data, after one call of each as warm-up."""
    truth, found = made_up(images, detections, keypoints=task == "keypoints", seed=_SEED)
    with tempfile.TemporaryDirectory() as folder:
        json_file = str(Path(folder, "annotations.json"))
        Path(json_file).write_text(json.dumps(truth))
        calls: tuple[Callable[[], Arrays], Callable[[], Arrays]] = (
            lambda: ours(json_file, found, task),
            lambda: stock(json_file, found, task),
        )
        first, second = (call() for call in calls)
        differences = {
            key: _difference(getattr(first, key), getattr(second, key))
            for key in ("precision", "recall", "scores")
        }
        backend = choose_backend("auto", task)
        result = Result(task, images, detections, backend, differences)
        sides = (result.ours, result.stock)
        for _ in range(repeats):
            for call, side in zip(calls, sides, strict=True):
                side.seconds.append(clock(call, _CPU)[0])
        for call, side in zip(calls, sides, strict=True):
            side.memory = peak_memory(call, _CPU)
    return result


def _difference(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max()) if one.shape == other.shape else float("inf")


def run_evaluation(
    images: int, detections: Sequence[int], tasks: Sequence[str], repeats: int
) -> tuple[list[Result], Json]:
    """All combinations, and the facts that go with them."""
    results = []
    for task in tasks:
        for count in detections:
            say(f"{task}: {count} detections on {images} images")
            results.append(compare(images, count, task, repeats))
    facts = {
        **environment(_CPU),
        "repeats": repeats,
        "image_size": [_HEIGHT, _WIDTH],
        "objects_per_image": _OBJECTS,
        "seed": _SEED,
    }
    return results, facts


def as_text(results: Sequence[Result], facts: Json) -> str:
    """The table, two rows a case, and what one must know to read it."""
    header = ["task", "images", "detections", "whose", "time, s", "stock / ours", "peak MB"]
    header.append("largest difference")
    rows = []
    for result in results:
        for whose, side in ((f"ours ({result.backend})", result.ours), ("stock", result.stock)):
            first = side is result.ours
            rows.append(
                [
                    result.task if first else "",
                    str(result.images) if first else "",
                    str(result.detections) if first else "",
                    whose,
                    Spread.of(side.seconds).text(1, 2),
                    result.ratio.text() if first else "",
                    megabytes(side.memory),
                    _differences_text(result.differences) if first else "",
                ]
            )
    return "\n".join(
        [
            f"{facts['device_name']}, PyTorch with {facts['threads']} threads; "
            f"{facts['repeats']} repeats, ours and stock in turns",
            table(header, rows),
            "Times are medians (quartiles), from an annotation file and a list of detections to "
            "the figures; the ratio is taken turn by turn. hotcoco uses all cores, pycocotools one "
            "(RAYON_NUM_THREADS=1 gives hotcoco one).",
            "Largest difference: of the arrays precision, recall and scores; 0 is equal to the "
            "last bit. Peak: memory beyond the detections.",
        ]
    )


def _differences_text(differences: dict[str, float]) -> str:
    largest = max(differences.values())
    return "0" if largest == 0 else f"{largest:.1e}"
