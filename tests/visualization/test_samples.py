"""samples.png shows what the files say."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from mask_rcnn_ext.visualization.draw import Drawn, class_colour, draw_instances
from mask_rcnn_ext.visualization.samples import draw_samples


def test_a_mask_is_tinted_where_it_is_and_nowhere_else():
    image = np.full((40, 60, 3), 100, np.uint8)
    mask = np.zeros((40, 60), bool)
    mask[10:30, 20:50] = True
    drawn = draw_instances(image, [Drawn(mask, (20, 10, 50, 30), "", 0)], scale=1.0)
    red, green, blue = class_colour(0)
    tinted = (0.55 * 100 + 0.45 * np.array([red, green, blue])).astype(np.uint8)
    assert (drawn[22:28, 25:45] == tinted).all()
    assert (drawn[32:, :] == 100).all()
    assert (image == 100).all()


def test_scale_enlarges_picture_and_instances_alike():
    image = np.zeros((20, 30, 3), np.uint8)
    mask = np.zeros((20, 30), bool)
    mask[5:10, 5:10] = True
    drawn = draw_instances(image, [Drawn(mask, (5, 5, 10, 10), "", 1)], scale=3)
    assert drawn.shape == (60, 90, 3)
    assert drawn[22, 22].any()
    assert not drawn[50:, 50:].any()


def test_labels_do_not_cover_each_other():
    image = np.zeros((200, 200, 3), np.uint8)
    same_box = [Drawn(None, (50, 50, 150, 150), f"label {i}", i) for i in range(4)]
    drawn = draw_instances(image, same_box)
    for i in range(4):  # each label's background is still there, text apart
        area = (drawn == class_colour(i)).all(axis=2).sum()
        assert area > 300, i


@pytest.mark.parametrize("count", [1, 3, 50])
def test_pictures_of_a_set(scenes, tmp_path, count):
    DatasetCatalog.get("scenes_val")
    truth = json.loads((scenes / "scenes/annotations/instances_val.json").read_text())
    detections = [
        {key: a[key] for key in ("image_id", "category_id", "bbox", "segmentation")}
        | {"score": 0.9 if a["id"] % 2 else 0.1}
        for a in truth["annotations"]
    ]
    (tmp_path / "results.json").write_text(json.dumps(detections))
    target = draw_samples(
        "scenes_val",
        tmp_path / "results.json",
        tmp_path / "samples.png",
        count=count,
        score_threshold=0.5,
    )
    picture = cv2.imread(str(target))
    pairs = min(count, len(truth["images"]))
    assert picture.shape[0] >= 400 * -(-pairs // 2)
    assert picture.shape[1] >= 800 * min(2, pairs)
    assert picture.std() > 20  # not a blank sheet


def test_no_detection_at_all_still_draws_the_truth(scenes, tmp_path):
    DatasetCatalog.get("scenes_val")
    (tmp_path / "results.json").write_text("[]")
    target = draw_samples(
        "scenes_val", tmp_path / "results.json", tmp_path / "s.png", count=2, score_threshold=0.5
    )
    assert target.stat().st_size > 10000
