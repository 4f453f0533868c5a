"""The picture of `data stats` is there, whole and legible, whatever the data is like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mask_rcnn_ext.data.coco_table import read_coco_table
from mask_rcnn_ext.data.statistics import Statistics, data_statistics
from mask_rcnn_ext.visualization.statistics_chart import draw_statistics, statistics_figure


def _statistics(folder: Path, names: list[str], counts: list[int]) -> Statistics:
    annotations: list[dict[str, Any]] = []
    for category, count in enumerate(counts, start=1):
        for k in range(count):
            side = 4 + 11 * (k % 30)
            box = [0, 0, side, side * (1 + k % 3) / 2]
            annotations.append(
                {"id": len(annotations), "image_id": k % 9, "category_id": category, "bbox": box}
            )
    data = {
        "images": [{"id": k, "height": 400 + 10 * k, "width": 500} for k in range(10)],
        "annotations": annotations,
        "categories": [{"id": k, "name": name} for k, name in enumerate(names, start=1)],
    }
    path = folder / "counted.json"
    path.write_text(json.dumps(data))
    return data_statistics(read_coco_table(path))


def _drawn_texts(figure: Any) -> list[str]:
    texts = [text.get_text() for text in figure.texts]
    for axes in figure.axes:
        texts += [axes.get_title(loc="left"), *(text.get_text() for text in axes.texts)]
        texts += [label.get_text() for label in axes.get_xticklabels()]
    return texts


def test_the_same_figures_give_the_same_png(tmp_path):
    statistics = _statistics(tmp_path, ["cat", "dog"], [30, 4])
    first = draw_statistics(statistics, tmp_path / "a.png", "my set").read_bytes()
    second = draw_statistics(statistics, tmp_path / "b.png", "my set").read_bytes()
    assert first == second
    picture = cv2.imread(str(tmp_path / "a.png"))
    assert picture.shape == (1450, 1600, 3)
    # Each panel has bars, in the lower two rows of three and in the row of classes.
    for place in ((250, 0), (700, 0), (700, 1100), (1150, 0), (1150, 600), (1150, 1150)):
        part = picture[place[0] : place[0] + 260, place[1] : place[1] + 400]
        assert len(np.unique(part.reshape(-1, 3), axis=0)) > 20, place


def test_names_that_are_formulas_or_foreign_or_long(tmp_path):
    names = ["$x^$", "a_b$c^$", "猫", "n" * 300, "line\nbreak", "<b>"]
    statistics = _statistics(tmp_path, names, [3] * 6)
    figure = statistics_figure(statistics, "a $ set")
    assert "line break" in _drawn_texts(figure)
    assert max(len(text) for text in figure.axes[0].get_xticklabels()[3].get_text().split()) <= 22
    assert draw_statistics(statistics, tmp_path / "a.png", "a $ set").stat().st_size > 20_000


@pytest.mark.parametrize("count", [3, 14, 40, 80, 100])
def test_class_names_do_not_cover_each_other(tmp_path, count):
    names = [f"a class of number {k} and more" for k in range(count)]
    figure = statistics_figure(_statistics(tmp_path, names, [k % 7 + 1 for k in range(count)]), "s")
    figure.canvas.draw()
    axes = figure.axes[0]
    assert len(axes.get_xticklabels()) == count
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    for left, right in zip(boxes[:-1], boxes[1:], strict=True):
        assert left.x1 <= right.x0 + 1, count
    # Nor does one reach the titles of the next row.
    below = max(other.get_tightbbox().y1 for other in figure.axes[1:])
    assert min(box.y0 for box in boxes) > below


def test_of_many_classes_the_frequent_ones_are_drawn_and_the_rest_is_said(tmp_path):
    counts = [1 + (k % 2) for k in range(150)] + [0] * 10
    statistics = _statistics(tmp_path, [f"c{k}" for k in range(160)], counts)
    figure = statistics_figure(statistics, "s")
    assert len(figure.axes[0].get_xticklabels()) == 100
    texts = " ".join(_drawn_texts(figure))
    assert "50 more have fewer" in texts
    assert "10 without an instance" in texts


def test_nothing_to_draw_is_said(tmp_path):
    figure = statistics_figure(_statistics(tmp_path, ["cat"], [0]), "empty")
    texts = _drawn_texts(figure)
    assert "no instance of any class" in texts
    assert "no box" in texts
    assert draw_statistics(
        _statistics(tmp_path, ["cat"], [0]), tmp_path / "e.png", "empty"
    ).is_file()


def test_keypoints_get_a_row(scenes_root, tmp_path):
    path = scenes_root / "scenes/annotations/person_keypoints_train.json"
    figure = statistics_figure(data_statistics(read_coco_table(path)), "people")
    assert "left ankle" in _drawn_texts(figure)
    assert len(figure.axes) == 7


def test_strides_of_the_levels_and_the_cap_are_marked(tmp_path):
    texts = _drawn_texts(statistics_figure(_statistics(tmp_path, ["cat"], [40]), "s"))
    assert {"P2", "P3", "P4", "P5", "P6"} <= set(texts)
    crowded = statistics_figure(_statistics(tmp_path, ["cat"], [950]), "s")
    assert any("images have more than 100" in text for text in _drawn_texts(crowded))
