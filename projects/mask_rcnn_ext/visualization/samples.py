"""`samples.png`: ground truth beside prediction, from files in COCO's format."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import MetadataCatalog
from detectron2.data.detection_utils import read_image
from pycocotools.coco import COCO

from ..files import atomic_write
from .draw import Drawn, draw_instances

_TILE = 400  # longest side of one drawn picture, px
_TITLE = 26  # height of the line of text above it, px
_GAP = 6


def draw_samples(
    dataset_name: str,
    results_file: str | Path,
    target: str | Path,
    *,
    count: int,
    score_threshold: float,
) -> Path:
    """Draw test images, ground truth on the left and predictions on the right, into one PNG.

    Args:
        dataset_name: a set in COCO's format, as Detectron2's catalog knows it
        results_file: detections in COCO's results format
        target: the PNG
        count: images to draw, spread evenly over the set; all of them when it has fewer
        score_threshold: detections below it are not drawn
    Returns:
        `target`
    """
    metadata = MetadataCatalog.get(dataset_name)
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth = COCO(metadata.json_file)
    detections: dict[Any, list[dict[str, Any]]] = {}
    for detection in json.loads(Path(results_file).read_text()):
        if detection["score"] >= score_threshold:
            detections.setdefault(detection["image_id"], []).append(detection)

    image_ids = list(ground_truth.imgs)
    chosen = np.linspace(0, len(image_ids) - 1, min(count, len(image_ids))).round().astype(int)
    pairs = []
    for index in chosen:
        record = ground_truth.imgs[image_ids[index]]
        image = read_image(str(Path(metadata.image_root) / record["file_name"]), "RGB")
        truth = ground_truth.imgToAnns[record["id"]]
        found = sorted(detections.get(record["id"], []), key=lambda d: d["score"])
        pairs.append(
            _pair(
                _tile(
                    image,
                    drawn_annotations(truth, ground_truth, record),
                    f"ground truth, {record['id']}",
                ),
                _tile(
                    image,
                    drawn_annotations(found, ground_truth, record),
                    f"prediction, score >= {score_threshold:g}",
                ),
            )
        )
    target = Path(target)
    encoded = cv2.imencode(".png", cv2.cvtColor(_sheet(pairs), cv2.COLOR_RGB2BGR))[1]
    with atomic_write(target) as file:
        file.write(encoded.tobytes())
    return target


def drawn_annotations(
    annotations: Iterable[Mapping[str, Any]], coco: COCO, record: Mapping[str, Any]
) -> list[Drawn]:
    """COCO annotations or results of one image as things to draw; large ones first."""
    classes = {category: index for index, category in enumerate(sorted(coco.cats))}
    result = []
    for annotation in sorted(annotations, key=lambda a: -a["bbox"][2] * a["bbox"][3]):
        x, y, w, h = annotation["bbox"]
        category = coco.cats[annotation["category_id"]]
        label = category["name"]
        if "score" in annotation:
            label += f" {annotation['score']:.2f}"
        if annotation.get("iscrowd"):
            label += " (crowd)"
        mask = None
        if annotation.get("segmentation"):
            with_size = {**annotation, "image_id": record["id"]}
            mask = coco.annToMask(with_size).astype(bool)
        keypoints = annotation.get("keypoints")
        result.append(
            Drawn(
                mask=mask,
                box=(x, y, x + w, y + h),
                label=label,
                class_index=classes[annotation["category_id"]],
                keypoints=None if not keypoints else np.array(keypoints, float).reshape(-1, 3),
                skeleton=[(a - 1, b - 1) for a, b in category.get("skeleton", [])],
            )
        )
    return result


def _tile(image: np.ndarray, instances: Sequence[Drawn], title: str) -> np.ndarray:
    """(h + title, w, 3): the picture, enlarged or shrunk to the tile's size, under its title."""
    picture = draw_instances(image, instances, scale=_TILE / max(image.shape[:2]))
    line = np.full((_TITLE, picture.shape[1], 3), 255, np.uint8)
    cv2.putText(line, title, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.vstack([line, picture])


def _pair(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    return np.hstack([left, np.full((left.shape[0], _GAP, 3), 255, np.uint8), right])


def _sheet(pairs: Sequence[np.ndarray], columns: int = 2) -> np.ndarray:
    """Pairs in rows; each padded with white to the largest."""
    height = max(pair.shape[0] for pair in pairs) + _GAP
    width = max(pair.shape[1] for pair in pairs) + 3 * _GAP
    padded = []
    for pair in pairs:
        cell = np.full((height, width, 3), 255, np.uint8)
        cell[: pair.shape[0], : pair.shape[1]] = pair
        padded.append(cell)
    while len(padded) % columns and len(padded) > columns:
        padded.append(np.full((height, width, 3), 255, np.uint8))
    columns = min(columns, len(padded))
    rows = [np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]
    return np.vstack(rows)
