"""Overlays that people can read: colours that stay, labels that keep apart, size that grows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from mask_rcnn_ext.engine.prediction import Prediction
from mask_rcnn_ext.visualization.draw import Drawn, class_colour, draw_instances
from mask_rcnn_ext.visualization.labels import fitting, place_labels, shrinking
from mask_rcnn_ext.visualization.overlay import _shades, draw_prediction

GRAY = 110


def prediction(boxes, classes=None, *, size=(480, 640), masks=True, **changes) -> Prediction:
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    rles = []
    for x0, y0, x1, y1 in boxes.round().astype(int).tolist():
        bits = np.zeros(size, np.uint8, order="F")
        bits[max(y0, 0) : y1, max(x0, 0) : x1] = 1
        found = coco_mask.encode(bits)
        rles.append({"size": list(size), "counts": found["counts"].decode()})
    values = {
        "image_size": size,
        "boxes": boxes,
        "scores": np.linspace(0.99, 0.5, len(boxes), dtype=np.float32),
        "classes": np.array([0] * len(boxes) if classes is None else classes),
        "class_names": ["person", "dining table", "cat"],
        "category_ids": [1, 2, 3],
        "rles": rles if masks else None,
    }
    return Prediction(**values | changes)


def blank(height: int = 480, width: int = 640) -> np.ndarray:
    return np.full((height, width, 3), GRAY, np.uint8)


def tint(class_index: int, shade: int = 0) -> np.ndarray:
    colour = np.array(class_colour(class_index, shade), np.float32)
    return (np.float32(GRAY) * 0.55 + colour * 0.45).astype(np.uint8)


def test_a_class_has_its_colour_in_every_picture_and_its_instances_shades_of_it():
    alone = draw_prediction(blank(), prediction([[100, 100, 200, 200]], [2]))
    boxes = [[10, 100, 90, 200], [100, 100, 200, 200], [300, 300, 400, 400]]
    among = draw_prediction(blank(), prediction(boxes, [0, 2, 2]))
    assert (alone[150, 150] == tint(2)).all()
    assert (among[150, 150] == tint(2)).all()
    assert (among[350, 350] == tint(2, 1)).all()
    assert len({class_colour(2, shade) for shade in range(5)}) == 5
    assert len({class_colour(i) for i in range(80)}) == 80
    hues = [np.argsort(class_colour(2, shade)).tolist() for shade in range(5)]
    assert hues == [hues[0]] * 5, "shades of one hue"


def test_shades_follow_the_order_of_a_class():
    assert _shades(np.array([4, 1, 4, 4, 1])) == [0, 0, 1, 2, 1]


def test_the_image_is_not_changed_and_outside_of_masks_it_stays():
    image = blank()
    drawn = draw_prediction(image, prediction([[100, 100, 200, 200]]))
    assert (image == GRAY).all()
    assert (drawn[250:, 250:] == GRAY).all()


def test_masks_are_drawn_where_they_are_at_any_scale():
    """A mask given as a window equals the whole one, at scales that cut through pixels."""
    image = blank(50, 70)
    whole = np.zeros((50, 70), bool)
    whole[11:31, 23:47] = np.random.default_rng(0).random((20, 24)) < 0.7
    window = whole[11:31, 23:47]
    for scale in (0.37, 1.0, 1.7, 3.0):
        one = draw_instances(image, [Drawn(whole, (0, 0, 0, 0), "", 1)], scale=scale)
        other = draw_instances(
            image, [Drawn(window, (0, 0, 0, 0), "", 1, corner=(23, 11))], scale=scale
        )
        assert np.array_equal(one, other), scale
        assert one.shape == (round(50 * scale), round(70 * scale), 3)


def test_contours_have_the_full_colour():
    bits = np.zeros((100, 100), bool)
    bits[20:80, 20:80] = True
    bits[40:60, 40:60] = False
    drawn = draw_instances(np.zeros((100, 100, 3), np.uint8), [Drawn(bits, (0, 0, 0, 0), "", 0)])
    inside, colour = drawn[30, 50].sum(), sum(class_colour(0))
    assert drawn[20, 50].sum() > 0.85 * colour > 1.5 * inside
    assert drawn[39, 50].sum() > 0.85 * colour, "the hole has one, too"
    assert not drawn[50, 50].any()


def test_nothing_to_draw():
    drawn = draw_prediction(blank(), prediction([]))
    assert (drawn == GRAY).all()
    small = draw_prediction(blank(20, 30), prediction([], size=(20, 30)))
    assert small.shape == (320, 480, 3), "small pictures are enlarged"
    frame = draw_prediction(blank(20, 30), prediction([], size=(20, 30)), enlarge=False)
    assert frame.shape == (20, 30, 3)


def test_boxes_only_and_empty_masks():
    drawn = draw_prediction(blank(), prediction([[100, 100, 200, 200]], masks=False))
    assert (drawn[150, 150] == GRAY).all()
    assert (drawn[150, 100] == class_colour(0)).all()
    empty = prediction([[100, 100, 100, 100]])
    assert draw_prediction(blank(), empty).shape == (480, 640, 3)


@pytest.mark.parametrize("side", [800, 4000])
def test_lines_and_letters_grow_with_the_picture(side):
    """Shown at the same size, a picture of 4000 pixels has as much ink as one of 800."""
    box = [0.2 * side, 0.2 * side, 0.6 * side, 0.6 * side]
    found = prediction([box], size=(side, side), masks=False)
    drawn = draw_prediction(blank(side, side), found)
    inked = (drawn != GRAY).any(axis=2)
    row = inked[int(0.4 * side)]
    line = row.sum() / 2
    assert (line == 1) if side == 800 else (3 <= line <= 5)
    label = inked[: int(0.2 * side)].any(axis=1).sum()
    assert 0.012 < label / side < 0.03


def test_a_crowded_picture_is_enlarged_for_its_labels():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, [600, 440], (50, 2))
    boxes = np.hstack([corners, corners + 30])
    drawn = draw_prediction(blank(), prediction(boxes))
    assert 1200 < drawn.shape[1] <= 1600
    assert drawn.shape[1] / drawn.shape[0] == pytest.approx(640 / 480, rel=0.01)


def test_a_huge_picture_is_shrunk_to_what_a_jpeg_holds():
    drawn = draw_prediction(blank(10, 40000), prediction([[1, 1, 9, 9]], size=(10, 40000)))
    assert drawn.shape == (4, 16384, 3)


rectangles = st.tuples(
    st.floats(-50, 700), st.floats(-50, 500), st.floats(0, 300), st.floats(0, 300)
)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(rectangles, min_size=1, max_size=40),
    st.tuples(st.integers(10, 500), st.integers(10, 700)),
    st.integers(10, 120),
    st.integers(8, 20),
)
def test_labels_keep_apart_and_inside(found, picture, width, height):
    boxes = np.array([[x, y, x + w, y + h] for x, y, w, h in found])
    places = place_labels(boxes, np.full((len(boxes), 2), (width, height)), picture)
    taken = np.zeros(picture, int)
    for place in places:
        if place is None:
            continue
        x, y, _ = place
        assert 0 <= x <= picture[1] - width
        assert 0 <= y <= picture[0] - height
        taken[y : y + height, x : x + width] += 1
    assert taken.max() <= 1
    if width <= picture[1] and height <= picture[0]:
        assert any(place is not None for place in places)


def test_fifty_labels_all_find_a_place():
    rng = np.random.default_rng(1)
    corners = rng.uniform(0, [500, 350], (50, 2))
    boxes = np.hstack([corners, corners + rng.uniform(10, 120, (50, 2))])
    places = place_labels(boxes, np.full((50, 2), (80, 16)), (480, 640))
    assert None not in places


def test_a_label_stands_above_its_box_or_inside_a_large_one():
    above = place_labels(np.array([[100, 100, 160, 130]]), np.array([[50, 15]]), (480, 640))
    assert above == [(100, 85, False)]
    inside = place_labels(np.array([[100, 0, 400, 300]]), np.array([[50, 15]]), (480, 640))
    assert inside == [(100, 0, False)]
    right = place_labels(np.array([[620, 100, 640, 130]]), np.array([[50, 15]]), (480, 640))
    assert right == [(590, 85, False)]


def test_a_label_does_not_hide_a_small_object():
    boxes = np.array([[100, 100, 160, 130], [100, 86, 130, 98]])
    places = place_labels(boxes, np.array([[50, 15], [50, 15]]), (480, 640))
    for x, y, _ in places:
        assert min(x + 50, 130) <= max(x, 100) or min(y + 15, 98) <= max(y, 86)


def test_long_labels_are_cut_to_the_picture():
    assert fitting("person 0.99", 70, 100) == "person 0.99"
    assert fitting("a very long class name 0.99", 200, 100).endswith("…")
    name = "a class with a name that is longer than its picture is wide"
    found = prediction([[5, 20, 50, 90]], size=(100, 120), class_names=[name])
    drawn = draw_prediction(blank(100, 120), found, enlarge=False)
    assert drawn.shape == (100, 120, 3)
    assert (drawn[:, :, :] == class_colour(0)).all(axis=2).sum() > 300, "it has a label"


def test_labels_shrink_where_there_are_very_many():
    sizes = np.full((10, 2), (80, 16))
    assert shrinking(sizes, (480, 640), 0.75) == 1
    assert shrinking(np.repeat(sizes, 50, axis=0), (480, 640), 0.75) == 0.75


def test_keypoints_and_skeleton_are_drawn_but_no_guesses():
    points = np.array([[[100, 100, 0.9], [200, 100, 0.9], [150, 300, 0.01]]], np.float32)
    found = prediction(
        [[80, 80, 220, 320]], masks=False, keypoints=points, skeleton=[(0, 1), (1, 2)]
    )
    drawn = draw_prediction(blank(), found)
    assert (drawn[100, 150] == class_colour(0)).all(), "a bone"
    assert (drawn[100, 100] == 255).all(), "a joint"
    assert (drawn[200:310, 120:180] == GRAY).all(), "a keypoint of score 0.01 is a guess"


def test_what_lies_far_outside_does_no_harm():
    found = [Drawn(None, (-1e9, -1e9, 1e9, 1e9), "x", 0, np.array([[1e12, -1e12, 1.0]]))]
    assert draw_instances(blank(), found).shape == (480, 640, 3)
