"""The page of `inspect`: its numbers are the tensors', and it is whole without a script."""

from __future__ import annotations

import base64
import json
import re

import cv2
import numpy as np
import pytest
import torch
from browser import Browser, elements
from detectron2.structures import BitMasks, Boxes, Instances
from tiny_model import CLASSES, save_tiny_model

from mask_rcnn_ext.engine.stages import collect_stages
from mask_rcnn_ext.engine.trained import load_trained
from mask_rcnn_ext.visualization.inspect_numbers import numbers_of
from mask_rcnn_ext.visualization.inspect_page import GENERATOR, inspect_page

EVIL = "<script>document.body.remove()</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (144, 190, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def stages(tmp_path_factory, image):
    config, weights = save_tiny_model(tmp_path_factory.mktemp("tiny"))
    trained = load_trained(config, weights, score_threshold=0.05, max_detections=6)
    objects = Instances((144, 190))
    objects.gt_boxes = Boxes(torch.tensor([[20.0, 30.0, 90.0, 100.0]]))
    objects.gt_classes = torch.tensor([4])
    masks = torch.zeros(1, 144, 190, dtype=torch.bool)
    masks[0, 40:90, 20:60] = True
    objects.gt_masks = BitMasks(masks)
    return collect_stages(trained.model, trained.input_of(image), objects)


@pytest.fixture(scope="module")
def numbers(stages):
    return numbers_of(stages, CLASSES, top=12, masks=4)


@pytest.fixture(scope="module")
def page(tmp_path_factory, numbers, image):
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_bytes(inspect_page(numbers, image, image, name="shot.jpg", model="tiny"))
    return path


def boxes_of(html: str, figure_id: str) -> np.ndarray:
    """(N, 4) x0, y0, x1, y1 of the rectangles in one figure."""
    found = [
        [float(one[key]) for key in ("x", "y", "width", "height")]
        for one in elements(html, "rect")
        if one.parent is not None and one.parent.get("id") == figure_id
    ]
    boxes = np.array(found)
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def test_the_page_carries_its_numbers(page, numbers):
    html = page.read_text()
    data = re.search(
        r'<script type="application/json" id="numbers">(.*?)</script>', html, re.DOTALL
    )
    assert json.loads(data[1]) == numbers
    assert f'<meta name="generator" content="{GENERATOR}">' in html


def test_what_is_drawn_are_the_tensors(page, stages):
    html = page.read_text()
    for name, tensors in (("before", stages.before_nms), ("after", stages.proposals)):
        drawn = boxes_of(html, name)
        assert np.allclose(drawn[::-1], tensors.boxes[:12].numpy(), atol=0.011)
    levels = elements(html, "figure", "anchors")
    assert len(levels) == len(stages.anchors)
    for figure, level in zip(levels, stages.anchors, strict=True):
        rows, columns, per_cell = level.logits.shape
        count = f"{rows} × {columns} cells × {per_cell} = {level.logits.numel():,} anchors"
        assert count in " ".join(figure.text.split())


def test_the_points_are_drawn_where_they_are(page, numbers):
    html = page.read_text()
    paths = [
        one["d"]
        for one in elements(html, "path")
        if one.parent is not None and one.parent.get("id") == "sampling"
    ]
    dots = np.array(
        [[float(v) for v in dot.split()] for dot in re.findall(r"M([^h]+)h0", paths[2])]
    )
    layer = numbers["roi_layer"]
    x = {round(value, 2) for values in layer["samples_x"] for value in values}
    y = {round(value, 2) for values in layer["samples_y"] for value in values}
    assert len(dots) == sum(map(len, layer["samples_x"])) * sum(map(len, layer["samples_y"])) > 0
    assert np.allclose(sorted(set(dots[:, 0])), sorted(x), atol=0.011)
    assert np.allclose(sorted(set(dots[:, 1])), sorted(y), atol=0.011)


def test_masks_are_pictures_of_their_values(page, numbers):
    """Brighter where the probability is higher, pixel by pixel; a target has two colours."""
    figures = re.findall(r'<figure class="mask">(.*?)</figure>', page.read_text(), re.DOTALL)
    masks = numbers["sampled_masks"] + numbers["detected_masks"]
    assert len(figures) == len(masks)
    for figure, one in zip(figures, masks, strict=True):
        sources = re.findall(r'src="data:image/png;base64,([^"]+)"', figure)
        pictures = [cv2.imdecode(np.frombuffer(base64.b64decode(s), np.uint8), 1) for s in sources]
        levels = (np.array(one["probabilities"]) * 255).round().astype(np.uint8)
        assert levels.shape == (28, 28)
        assert np.array_equal(pictures[0], cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO))
        assert len(pictures) == (2 if "target" in one else 1)
        if "target" in one:
            bright = pictures[1].sum(axis=2) > 300
            assert np.array_equal(bright, np.array(one["target"]).astype(bool))


def test_it_loads_nothing_and_runs_nothing(numbers, image):
    hostile = json.loads(json.dumps(numbers).replace("shape e", "</script>" + "<b>x"))
    html = inspect_page(hostile, image, None, name=EVIL, model=EVIL, notes=[EVIL]).decode()
    assert html.count("<script") == 2, "the empty one of the frame, and the numbers"
    assert "<img src=x" not in html
    assert "<b>x" not in html
    assert "script-src 'none'" in html
    for name in ("img", "image", "use"):
        for one in elements(html, name):
            source = one.get("src") or one.get("href")
            assert source.startswith(("data:", "#")), source
    data = re.search(r'id="numbers">(.*?)</script>', html, re.DOTALL)
    assert json.loads(data[1]) == hostile


def test_a_browser_shows_it(page, tmp_path):
    """The page has no script: disabled or not, the same picture."""
    browser = Browser(tmp_path)
    shot = browser.screenshot(page, size=(1200, 1600))
    assert shot.std() > 15
    dom = browser.dom(page)
    ids = [one.get("id") for one in elements(dom, "section")]
    assert ids == ["anchors", "objectness", "proposals", "rois", "layer", "masks", "detections"]
    # The photo is really there: it is noise, unlike everything else.
    anchors = shot[350:1200, 100:1100].astype(int)
    assert np.abs(np.diff(anchors, axis=1)).mean() > 3


def test_stages_that_are_missing(numbers, image):
    rpn = {
        **numbers,
        **dict.fromkeys(("rois", "roi_layer", "sampled_masks", "detected_masks", "detections")),
    }
    html = inspect_page(rpn, image, None, name="a", model="b", notes=["no second stage"]).decode()
    assert [one.get("id") for one in elements(html, "section")] == [
        "anchors",
        "objectness",
        "proposals",
    ]
    assert "no second stage" in html

    boxes_only = {**numbers, "sampled_masks": None, "detected_masks": None}
    html = inspect_page(boxes_only, image, image, name="a", model="b").decode()
    ids = [one.get("id") for one in elements(html, "section")]
    assert "masks" not in ids
    assert "layer" in ids

    nothing = {**numbers, "sampled_masks": None, "detected_masks": [], "detections": []}
    assert "No detection." in inspect_page(nothing, image, image, name="a", model="b").decode()


def test_a_roi_without_extent_is_drawn(numbers, image):
    layer = {**numbers["roi_layer"], "box": [5.0, 6.0, 5.0, 6.0]}
    layer["samples_x"] = layer["samples_y"] = [[] for _ in range(14)]
    html = inspect_page({**numbers, "roi_layer": layer}, image, image, name="a", model="b").decode()
    assert "at 0 points" in html
