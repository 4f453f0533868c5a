"""Annotation files as columns: everything that is in the file, in whatever form it is there."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.data import coco_table
from mask_rcnn_ext.data.coco_table import (
    FLAT,
    NO_SEGMENTATION,
    OTHER,
    POLYGONS,
    RLE,
    RLE_LIST,
    Texts,
    read_coco_table,
)
from mask_rcnn_ext.errors import DataError, UserError

SQUARE = [[1.0, 2.0, 5.0, 2.0, 5.0, 6.5, 1.0, 6.5]]


def annotation(number, **changes):
    return {
        "id": number,
        "image_id": 7,
        "category_id": 3,
        "bbox": [1, 2, 4.0, 4.5],
        "area": 18,
        "iscrowd": 0,
        "segmentation": SQUARE,
    } | changes


def content(annotations, **sections):
    return {
        "images": [
            {"id": 9, "file_name": "b/ü.png", "height": 10, "width": 20},
            {"id": 7, "file_name": "a.png", "height": 30, "width": 40},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 1, "name": "dog"}],
        "annotations": annotations,
    } | sections


@pytest.fixture
def table(tmp_path):
    def make(data, **how):
        path = tmp_path / "a.json"
        path.write_text(data if isinstance(data, str) else json.dumps(data, **how))
        return read_coco_table(path)

    return make


def test_columns(table):
    other = annotation(6, image_id=9, iscrowd=1, category_id=1, ignore=1)
    found = table(content([annotation(5), other]))
    assert (found.num_images, found.num_annotations) == (2, 2)
    assert found.keys == ("images", "categories", "annotations")
    assert [found.file_name(i) for i in range(2)] == ["b/ü.png", "a.png"]
    assert found.image_ids.tolist() == [9, 7]
    assert found.image_sizes.tolist() == [[10, 20], [30, 40]]
    assert found.annotation_ids.tolist() == [5, 6]
    assert found.image_of.tolist() == [1, 0]
    assert found.category_of.tolist() == [0, 1]
    assert found.boxes.tolist() == [[1, 2, 4, 4.5]] * 2
    assert found.areas.tolist() == [18, 18]
    assert found.crowd.tolist() == [0, 1]
    assert found.ignored.tolist() == [False, True]
    assert found.num_keypoints.tolist() == [-1, -1]
    assert found.segmentation(0) == SQUARE
    assert found.keypoints(0) is None
    assert found.annotations_of(0).tolist() == [1]
    assert found.annotations_of(1).tolist() == [0]


@pytest.mark.parametrize(
    ("segmentation", "kind"),
    [
        (None, NO_SEGMENTATION),
        ([], NO_SEGMENTATION),
        (SQUARE, POLYGONS),
        ([[]], POLYGONS),
        ([1, 2, 3, 4, 5, 6], FLAT),
        ({"size": [30, 40], "counts": [3, 4, 1193]}, RLE_LIST),
        ({"counts": "abc", "size": [30, 40]}, RLE),
        ({"size": [30, 40]}, OTHER),
        ("text", OTHER),
        (3, OTHER),
        ([{"a": 1}], OTHER),
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_forms_of_masks(table, segmentation, kind, indent):
    found = table(content([annotation(1, segmentation=segmentation)]), indent=indent)
    assert found.segmentation_kind.tolist() == [kind]
    assert found.segmentation(0) == (segmentation if kind != NO_SEGMENTATION else None)


def test_white_space_is_not_kept(table):
    found = table(content([annotation(1, keypoints=[1, 2, 2])]), indent=8)
    assert b" " not in found.segmentation_text(0)
    assert found.keypoints_text(0) == b"[1,2,2]"


@pytest.mark.parametrize(
    ("bbox", "is_box"),
    [
        ([1, 2, 3, 4], True),
        ([1, 2, 3], False),
        ([1, 2, 3, "4"], False),
        ([1, 2, 3, True], False),
        ([1, 2, 3, None], False),
        (None, False),
        ("1234", False),
        ({}, False),
    ],
)
def test_boxes_that_are_none_are_nan_and_spoil_no_other(table, bbox, is_box):
    found = table(content([annotation(1), annotation(2, bbox=bbox), annotation(3)]))
    assert np.isfinite(found.boxes).all(axis=1).tolist() == [True, is_box, True]
    assert not np.isfinite(found.boxes[1]).any() or is_box


def test_ids_are_compared_with_their_type(table):
    strange = [annotation(k, image_id=v) for k, v in enumerate([7, "7", 7.0, True, None, [7]])]
    found = table(content(strange, images=[{"id": 7}, {"id": "7"}, {"id": 7}, {"id": 1}]))
    assert found.image_of.tolist() == [0, 1, -1, -1, -1, -1]
    assert found.image_ids.dtype == object
    assert found.annotation_image_ids.tolist() == [7, "7", 7.0, True, None, [7]]
    assert found.file_name(0) == ""
    assert found.image_sizes.tolist() == [[-1, -1]] * 4


def test_numbers_that_json_does_not_have(table):
    text = json.dumps(content([annotation(1, bbox=[1, 2, 3, float("nan")]), annotation(2)]))
    assert "NaN" in text
    found = table(text)
    assert np.isnan(found.boxes[0]).all()
    assert found.boxes[1].tolist() == [1, 2, 4, 4.5]
    polygon = table(content([annotation(1, segmentation=[[1, 2, 3, float("inf"), 5, 6]])]))
    assert polygon.segmentation_kind.tolist() == [POLYGONS]
    assert polygon.segmentation(0) == [[1, 2, 3, "inf", 5, 6]]


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content([annotation(1)])).encode())
    assert read_coco_table(path).num_annotations == 1


def test_a_test_set_has_no_annotations(table):
    data = content([])
    del data["annotations"]
    found = table(data)
    assert found.num_annotations == 0
    assert found.annotations_of(1).tolist() == []
    assert found.boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [', "is not JSON.*12 bytes.*broke off"),
        ("", "is not JSON"),
        ("[]", "JSON list, expected an object.*results file"),
        ('{"images": []}', "lacks the section 'categories'; it has: images"),
        ('{"images": 3, "categories": []}', "section 'images' is not a list of objects"),
        ('{"images": [3], "categories": []}', "section 'images' is not a list of objects"),
        ('{"images": [], "categories": [], "annotations": [3]}', "'annotations' is not a list"),
        ("[" * 100_000, "nests too deep"),
    ],
)
def test_what_is_no_annotation_file(table, text, message):
    with pytest.raises(DataError, match=message) as caught:
        table(text)
    assert "a.json" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot read .*none.json: No such file"):
        read_coco_table(tmp_path / "none.json")


def test_many_chunks_are_one_table(table, monkeypatch):
    annotations = [
        annotation(k, image_id=[7, 9][k % 2], keypoints=[k, 0, 1] if k % 3 else None)
        for k in range(10)
    ]
    whole = table(content(annotations))
    monkeypatch.setattr(coco_table, "_CHUNK", 3)
    done = []
    path = whole.path
    chunked = read_coco_table(path, lambda *progress: done.append(progress))
    assert done == [(3, 10), (6, 10), (9, 10), (10, 10)]
    assert chunked.annotation_ids.tolist() == list(range(10))
    assert [chunked.keypoints(k) for k in range(10)] == [whole.keypoints(k) for k in range(10)]
    assert [chunked.segmentation(k) for k in range(10)] == [SQUARE] * 10
    assert chunked.annotations_of(0).tolist() == [1, 3, 5, 7, 9]


@given(st.lists(st.lists(st.binary(max_size=5), max_size=4), max_size=4))
def test_texts(groups):
    joined = Texts.joined([Texts(group) for group in groups])
    assert [joined[k] for k in range(len(joined))] == [text for group in groups for text in group]


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(
        ["id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation", "keypoints"]
    ),
    _VALUES,
)
def test_whatever_an_annotation_holds(tmp_path_factory, key, value):
    path = tmp_path_factory.mktemp("t") / "a.json"
    path.write_text(json.dumps(content([annotation(1), annotation(2, **{key: value})])))
    try:
        found = read_coco_table(path)
    except UserError:
        return  # a clear refusal
    assert found.boxes[0].tolist() == [1, 2, 4, 4.5]
    assert len(found.image_of) == 2
    found.segmentation(1)
    found.keypoints(1)


@pytest.mark.parametrize("side", [0, -5, 2.5, "10", None, True])
def test_sides_that_are_no_positive_whole_number(table, side):
    found = table(content([], images=[{"id": 1, "file_name": "a", "height": side, "width": 20.0}]))
    assert found.image_sizes.tolist() == [[-1, 20]]
