"""Small random COCO sets for the tests of the analyses, and pycocotools' view of them."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import tempfile
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mask_rcnn_ext.data.coco_table import read_coco_table
from mask_rcnn_ext.evaluation.analysis import compare

CATEGORIES = (3, 7, 20)
NAMES = ("cat", "dog", "emu")


def encode(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": rle["size"], "counts": rle["counts"].decode()}


def rectangle(size, x, y, w, h):
    mask = np.zeros(size, bool)
    mask[max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)] = True
    return mask


def annotation(number, image, category, mask, crowd=0, area=None):
    rle = encode(mask)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": rle,
        "bbox": coco_mask.toBbox(rle).tolist(),
        "area": float(mask.sum()) if area is None else area,
        "iscrowd": crowd,
    }


def result(image, category, mask, score):
    rle = encode(mask)
    box = coco_mask.toBbox(rle).tolist()
    return {
        "image_id": image,
        "category_id": category,
        "segmentation": rle,
        "bbox": box,
        "score": score,
    }


def random_set(seed, images=5, objects=6, categories=CATEGORIES):
    """Objects that overlap, crowds, polygons; results near them, doubled, misnamed, elsewhere.

    Scores are of few levels, so that many are equal.
    """
    rng = np.random.default_rng(seed)
    size = (48, 64)
    annotations, results = [], []
    ids = [int(i) for i in rng.permutation(np.arange(images) * 3 + 1)]

    def draw():
        w, h = rng.integers(4, 30, 2)
        return [int(v) for v in (rng.integers(-3, 55), rng.integers(-3, 40), w, h)]

    for image in ids:
        for _ in range(int(rng.integers(0, objects + 1))):
            box = draw()
            mask = rectangle(size, *box)
            if rng.random() < 0.3:
                mask &= ~rectangle(size, box[0] + 2, box[1] + 2, box[2] // 2, box[3] // 2)
            if not mask.any():
                continue
            category = int(rng.choice(categories))
            crowd = int(rng.random() < 0.15)
            one = annotation(len(annotations) + 1, image, category, mask, crowd)
            if not crowd and rng.random() < 0.3:
                x, y, w, h = one["bbox"]
                one["segmentation"] = [[x, y, x + w, y, x + w, y + h - 0.5, x, y + h]]
            annotations.append(one)
            for _ in range(int(rng.integers(0, 4))):
                shift = [int(v) for v in rng.integers(-4, 5, 4)]
                near = [a + b for a, b in zip(box, shift, strict=True)]
                if rng.random() < 0.3:
                    near = box
                found = rectangle(size, near[0], near[1], max(near[2], 1), max(near[3], 1))
                if rng.random() < 0.2:
                    found &= rectangle(size, near[0] + 1, near[1], 64, max(near[3] // 2, 1))
                label = int(rng.choice(categories)) if rng.random() < 0.2 else category
                results.append(result(image, label, found, int(rng.integers(1, 10)) / 10))
        for _ in range(int(rng.integers(0, 2))):
            found = rectangle(size, *draw())
            label = int(rng.choice(categories))
            results.append(result(image, label, found, int(rng.integers(1, 10)) / 10))
    order = rng.permutation(len(results))
    truth = {
        "images": [
            {"id": image, "file_name": f"{image}.png", "height": size[0], "width": size[1]}
            for image in ids
        ],
        "annotations": annotations,
        "categories": [
            {"id": one, "name": name} for one, name in zip(CATEGORIES, NAMES, strict=True)
        ],
    }
    return truth, [results[i] for i in order]


def table_of(truth):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "truth.json"
        path.write_text(json.dumps(truth))
        return read_coco_table(path)


def comparison_of(truth, results, iou_type="segm", max_dets=100):
    return compare(table_of(truth), results, iou_type, max_dets)


def official(truth, results, iou_type="segm", max_dets=100, area_ranges=((0, 1e10),)):
    """COCOeval after accumulate(); None if there are no results, which it cannot take."""
    if not results:
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        results = copy.deepcopy(results)
        if iou_type == "segm":  # with a box, COCO would take the box's area
            for one in results:
                one.pop("bbox")
        evaluation = COCOeval(coco, coco.loadRes(results), iou_type)
        evaluation.params.maxDets = [max_dets]
        evaluation.params.areaRng = [list(pair) for pair in area_ranges]
        evaluation.params.areaRngLbl = [str(pair) for pair in area_ranges]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
