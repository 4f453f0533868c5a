"""Predictions as arrays, maps, COCO entries and `supervision.Detections`."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from mask_rcnn_ext.engine.prediction import Prediction
from mask_rcnn_ext.errors import UserError

SIZE = (20, 30)


def rle(x0: int, y0: int, x1: int, y1: int) -> dict:
    bits = np.zeros(SIZE, np.uint8, order="F")
    bits[y0:y1, x0:x1] = 1
    found = coco_mask.encode(bits)
    return {"size": list(SIZE), "counts": found["counts"].decode()}


def prediction(**changes) -> Prediction:
    boxes = np.array([[2, 3, 12, 13], [8, 8, 20.5, 18]], np.float32)
    values = {
        "image_size": SIZE,
        "boxes": boxes,
        "scores": np.array([0.9, 0.6], np.float32),
        "classes": np.array([1, 0]),
        "class_names": ["cat", "dog"],
        "category_ids": [17, 18],
        "rles": [rle(2, 3, 12, 13), rle(8, 8, 20, 18)],
    }
    return Prediction(**values | changes)


def empty(**changes) -> Prediction:
    nothing = {
        "boxes": np.zeros((0, 4), np.float32),
        "scores": np.zeros(0, np.float32),
        "classes": np.zeros(0, np.int64),
        "rles": [],
    }
    return prediction(**nothing | changes)


def test_labels_and_masks():
    found = prediction()
    assert len(found) == 2
    assert found.labels == ["dog", "cat"]
    masks = found.masks()
    assert masks.shape == (2, 20, 30)
    assert masks.dtype == bool
    assert masks[0, 3:13, 2:12].all()
    assert masks[0].sum() == 100


def test_where_masks_overlap_the_map_shows_the_better():
    instances = prediction().instance_map()
    assert instances.dtype == np.uint16
    assert instances.shape == SIZE
    assert instances[10, 10] == 1  # both cover it
    assert instances[15, 15] == 2
    assert instances[0, 0] == 0


def test_no_detection_is_a_case():
    found = empty()
    assert len(found) == 0
    assert found.labels == []
    assert found.masks().shape == (0, 20, 30)
    assert not found.instance_map().any()
    assert found.to_coco(1) == []


def test_without_masks_they_cannot_be_had():
    found = prediction(rles=None)
    for ask in (found.masks, found.instance_map):
        with pytest.raises(UserError, match="no masks"):
            ask()
    assert "segmentation" not in found.to_coco(1)[0]


def test_coco_entries():
    points = np.zeros((2, 3, 3), np.float32)
    points[0, 1] = [4.5, 6, 0.25]
    entries = prediction(keypoints=points).to_coco(7)
    first = entries[0]
    assert first["image_id"] == 7
    assert first["category_id"] == 18
    assert first["bbox"] == [2, 3, 10, 10]
    assert entries[1]["bbox"] == [8, 8, 12.5, 10]
    assert first["score"] == pytest.approx(0.9)
    assert first["segmentation"] == rle(2, 3, 12, 13)
    # The middle of a pixel in our frame is its index in COCO's.
    assert first["keypoints"][3:6] == [4, 5.5, 0.25]


def test_supervision_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UserError, match="pip install supervision"):
        prediction().to_supervision()


def test_supervision():
    supervision = pytest.importorskip("supervision", reason="needs the package supervision")
    found = prediction().to_supervision()
    assert isinstance(found, supervision.Detections)
    assert np.array_equal(found.xyxy, prediction().boxes)
    assert np.array_equal(np.asarray(found.mask), prediction().masks())
    assert found.class_id.tolist() == [1, 0]
    assert found["class_name"].tolist() == ["dog", "cat"]
    assert len(empty().to_supervision()) == 0
    assert prediction(rles=None).to_supervision().mask is None
