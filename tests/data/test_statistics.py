"""Figures of a data set, against numbers counted by hand and against Detectron2's resize."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.data import transforms as T
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from mask_rcnn_ext.data.coco_table import read_coco_table
from mask_rcnn_ext.data.figures import Histogram, quantiles
from mask_rcnn_ext.data.statistics import Statistics, data_statistics, training_scale

SQUARE = [[10, 10, 30, 10, 30, 30, 10, 30]]  # 20 x 20


def _statistics(path: Path, data: dict[str, Any], *sizes: int) -> Statistics:
    path.write_text(json.dumps(data))
    return data_statistics(read_coco_table(path), *sizes)


def _image(key: int, height: int = 100, width: int = 200) -> dict[str, Any]:
    return {"id": key, "file_name": f"{key}.png", "height": height, "width": width}


def _annotation(key: int, image: int, category: int = 1, **more: Any) -> dict[str, Any]:
    box = {"bbox": [10, 10, 20, 20], "area": 400, "iscrowd": 0, "segmentation": SQUARE}
    return {"id": key, "image_id": image, "category_id": category, **box, **more}


CATEGORIES = [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "newt"}]


@pytest.fixture
def counted(tmp_path: Path) -> Statistics:
    data = {
        "images": [_image(1), _image(2, 400, 300), _image(3)],
        "annotations": [
            _annotation(1, 1),
            _annotation(2, 1, area=1600, bbox=[0, 0, 80, 40]),
            _annotation(3, 1, 7, area=10000, bbox=[0, 0, 100, 100]),
            _annotation(4, 2, 7, area=36, bbox=[0, 0, 3, 12]),
            _annotation(5, 2, 7, iscrowd=1),
            _annotation(6, 99),
            _annotation(7, 1, 99),
        ],
        "categories": CATEGORIES,
    }
    return _statistics(tmp_path / "a.json", data, 200, 1000)


def test_counts(counted):
    assert (counted.images, counted.empty_images, counted.annotations) == (3, 1, 7)
    assert (counted.instances, counted.crowds) == (4, 1)
    assert counted.skipped == {"of an unknown image": 1, "of an unknown class": 1}
    rows = [(c.name, c.instances, c.images, c.crowds) for c in counted.classes]
    assert rows == [("cat", 2, 1, 0), ("dog", 2, 2, 1), ("newt", 0, 0, 0)]
    assert counted.classes_without_instance == ["newt"]
    assert counted.per_image_histogram.counts[:4] == (1, 1, 0, 1)
    assert counted.per_image["max"] == 3
    assert counted.classes_per_image["max"] == 2


def test_sizes_in_the_file_and_in_training(counted):
    # Sizes 20, 40, 100 in an image that becomes 200 x 400, 6 in one that becomes 267 x 200.
    assert counted.coco_sizes == {"small": 2, "medium": 1, "large": 1}
    assert counted.coco_sizes_training == {"small": 1, "medium": 2, "large": 1}
    assert counted.sizes["max"] == 100
    assert counted.sizes_training["max"] == pytest.approx(200)
    assert counted.sizes_training["min"] == pytest.approx(4, abs=0.01)
    assert dict(counted.below_stride) == {4: 0, 8: 1, 16: 1, 32: 1, 64: 2}


def test_shares_aspects_and_image_sizes(counted):
    assert counted.image_share["max"] == 0.5
    assert counted.box_fill["min"] == 0.5
    assert (counted.aspects["min"], counted.aspects["max"]) == (0.25, 2)
    assert counted.common_sizes == ((100, 200, 2), (400, 300, 1))
    assert counted.image_aspects == {"landscape": 2, "square": 0, "portrait": 1}
    assert counted.image_heights["max"] == 400


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 1500), st.integers(1, 2000))
def test_training_scale_is_that_of_detectron2(height, width, short_edge, max_size):
    new = T.ResizeShortestEdge.get_output_shape(height, width, short_edge, max_size)
    expected = np.sqrt(new[0] * new[1] / (height * width))
    found = training_scale(np.array([[height, width]]), short_edge, max_size)[0]
    # Both round sides that end in about .5; one pixel of a side may differ.
    slack = 1 / max(1, 2 * min(new)) + 1e-9
    assert found == pytest.approx(expected, rel=slack)


@pytest.mark.parametrize(
    ("segmentation", "source", "size"),
    [
        (SQUARE, "mask", 20),
        (SQUARE[0], "mask", 20),
        ({"size": [100, 200], "counts": [0, 900, 19100]}, "mask", 30),
        ({"size": [100, 200], "counts": [0, 900]}, "box", 40),
        ([[1, 2, 3]], "box", 40),
        ([[float("1e9")] * 6], "box", 40),
        (None, "box", 40),
        ("text", "box", 40),
    ],
)
def test_an_area_that_is_missing_comes_from_the_mask_or_else_the_box(
    tmp_path, segmentation, source, size
):
    one = _annotation(1, 1, segmentation=segmentation, bbox=[0, 0, 80, 20])
    del one["area"]
    data = {"images": [_image(1)], "annotations": [one], "categories": CATEGORIES}
    found = _statistics(tmp_path / "a.json", data)
    assert found.area_from[source] == 1
    assert sum(found.area_from.values()) == 1
    assert found.sizes["max"] == pytest.approx(size)


def test_an_instance_without_anything_is_counted_and_has_no_size(tmp_path):
    one = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, "x"]}
    data = {"images": [_image(1)], "annotations": [one], "categories": CATEGORIES}
    found = _statistics(tmp_path / "a.json", data)
    assert found.instances == 1
    assert found.area_from["unknown"] == 1
    assert found.sizes == found.aspects == found.box_fill == {}


def test_images_with_more_instances_than_the_cap(tmp_path):
    annotations = [_annotation(k, 1 if k < 103 else 2) for k in range(150)]
    data = {"images": [_image(1), _image(2)], "annotations": annotations, "categories": CATEGORIES}
    found = _statistics(tmp_path / "a.json", data)
    assert (found.images_beyond_cap, found.beyond_cap) == (1, 3)
    full = [n for edge, n in zip(found.per_image_histogram.edges, found.per_image_histogram.counts,
                                 strict=False) if edge > 100]  # fmt: skip
    assert sum(full) == 1


def test_keypoints_are_counted_point_by_point(tmp_path):
    category = {"id": 1, "name": "person", "keypoints": ["nose", "tail"]}
    points = ([1, 1, 2, 5, 5, 1], [1, 1, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 2])
    annotations = [
        _annotation(k, 1, keypoints=p, num_keypoints=sum(v > 0 for v in p[2::3]))
        for k, p in enumerate(points)
    ]
    data = {"images": [_image(1)], "annotations": annotations, "categories": [category]}
    found = _statistics(tmp_path / "a.json", data).keypoints
    assert [(p.name, p.labelled, p.visible) for p in found] == [("nose", 2, 2), ("tail", 1, 0)]


@pytest.mark.parametrize(
    "data",
    [
        {"images": [], "annotations": [], "categories": []},
        {"images": [{"id": 1}], "categories": CATEGORIES},
        {"images": [_image(1)], "annotations": [_annotation(1, 1)], "categories": []},
        {"images": [{}, {}], "annotations": [{}, {"id": "a"}], "categories": [{}, {"id": 1}]},
    ],
)
def test_a_poor_file_has_figures_too(tmp_path, data):
    found = _statistics(tmp_path / "a.json", data)
    json.dumps(found.as_json(), allow_nan=False)
    assert found.instances == 0


def test_every_instance_of_the_scenes_as_pycocotools_counts_them(scenes_root):
    path = scenes_root / "scenes/annotations/instances_train.json"
    found = data_statistics(read_coco_table(path))
    coco = COCO(str(path))
    plain = [a for a in coco.anns.values() if not a["iscrowd"]]
    assert found.instances == len(plain)
    for each in found.classes:
        key = coco.getCatIds(catNms=[each.name])
        assert each.images == len({a["image_id"] for a in plain if a["category_id"] in key})
    assert sum(found.sizes_histogram.counts) == found.instances
    assert found.sizes["max"] == pytest.approx(max(a["area"] for a in plain) ** 0.5)
    # Without "area" the same figures come from the masks.
    data = json.loads(path.read_text())
    for annotation in data["annotations"]:
        del annotation["area"]
    assert _statistics(path.with_name("no_area.json"), data).sizes == pytest.approx(found.sizes)


def test_histogram_and_quantiles():
    histogram = Histogram.of(np.array([0, 1, 1, 2, 5, np.nan, -1]), (0, 1, 2, np.inf))
    assert histogram.counts == (1, 2, 2)
    assert quantiles(np.array([1.0, 3.0, np.nan, np.inf]))["median"] == 2
    assert quantiles(np.array([np.nan])) == {}
