"""Broken data is refused before the first iteration, with file and ids in the message."""

from __future__ import annotations

import copy
import json
import re

import cv2
import numpy as np
import pytest

from mask_rcnn_ext.data.checks import check_datasets
from mask_rcnn_ext.data.registration import register_coco_dataset
from mask_rcnn_ext.errors import DataError, UsageError

_names = iter(range(10**6))


@pytest.fixture
def good() -> dict:
    """A minimal set of two images, two classes and two instances."""
    box = {"iscrowd": 0, "area": 16.0, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}
    return {
        "images": [
            {"id": 11, "file_name": "a.png", "height": 20, "width": 30},
            {"id": 12, "file_name": "sub/b.png", "height": 20, "width": 30},
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": 101, "image_id": 11, "category_id": 3, "bbox": [1, 1, 4, 4], **box},
            {"id": 102, "image_id": 12, "category_id": 7, "bbox": [1, 1, 4, 4], **box},
        ],
    }


@pytest.fixture
def check(tmp_path):
    """Write a set to disk, register it, check it; returns the fingerprints."""
    (tmp_path / "images" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.png"):
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((20, 30, 3), np.uint8))

    def run(content: dict | list | str | bytes, num_classes: int = 2, **options):
        path = tmp_path / "annotations.json"
        if isinstance(content, str | bytes):
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        else:
            path.write_text(json.dumps(content))
        name = f"check_{next(_names)}"
        register_coco_dataset(name, path, tmp_path / "images")
        settings = {"needs_annotations": True, "wants_masks": True} | options
        return check_datasets([name], num_classes, **settings)

    return run


def test_good_data_passes_and_has_a_fingerprint_of_its_content(check, good):
    first, again = (next(iter(check(good).values())) for _ in range(2))
    good["images"][0]["width"] = 31
    other = next(iter(check(good).values()))
    assert first == again != other
    assert len(first) == 16


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b'{"images": [', "is not JSON .* 12 bytes"),
        (b"\xff\xd8\xff\xe0", "is not JSON"),
        (b"", "is not JSON"),
        ("[1, 2]", "holds a JSON list, expected an object"),
        ("[" * 100000, "is not JSON|nests too deep"),
    ],
)
def test_what_is_not_an_annotation_file(check, content, expected):
    with pytest.raises(DataError, match=expected) as caught:
        check(content)
    assert "annotations.json" in str(caught.value)


@pytest.mark.parametrize("section", ["images", "annotations", "categories"])
def test_missing_section(check, good, section):
    del good[section]
    with pytest.raises(DataError, match=f"lacks the section '{section}'; it has: "):
        check(good)


def test_a_test_set_may_come_without_annotations(check, good):
    del good["annotations"]
    assert check(good, needs_annotations=False)


def _change(path: str, value: object):
    def apply(data: dict) -> None:
        *parents, last = path.split(".")
        node = data
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        if value is None:
            del node[last]
        else:
            node[int(last) if isinstance(node, list) else last] = value

    return apply


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("images", {"a": 1}, "section 'images' is not a list"),
        ("images", [], "has no images"),
        ("annotations", [], "no annotations to train on"),
        ("annotations.0", "text", "section 'annotations' is not a list of objects"),
        ("images.1.height", None, r"image 12 \(sub/b\.png\): lacks height"),
        ("images.1.id", None, r"image number 1 \(sub/b\.png\): .* lacks id"),
        ("annotations.0.bbox", None, "annotation 101: lacks bbox"),
        (
            "annotations.0.category_id",
            99,
            r"image 11 \(a\.png\), annotation 101: has category_id 99",
        ),
        ("annotations.1.image_id", 99, "annotation 102: belongs to image_id 99"),
        ("annotations.1.image_id", "12", "annotation 102: .* 1 is not '1'"),
        ("annotations.0.bbox", [1, 2, 3], r"annotation 101: .*bbox \[1, 2, 3\]"),
        ("annotations.0.bbox", [1, 2, 3, float("nan")], "annotation 101: .*four finite numbers"),
        ("annotations.0.bbox", [1, 2, 3, "4"], "annotation 101: .*four finite numbers"),
        ("categories.0.name", None, "category 3 lacks name"),
        ("images.0.id", [1], r"the id of image number 0 is \[1\], expected a whole number"),
    ],
)
def test_broken_entries_are_named(check, good, path, value, expected):
    broken = copy.deepcopy(good)
    _change(path, value)(broken)
    with pytest.raises(DataError, match=expected) as caught:
        check(broken)
    assert "annotations.json" in str(caught.value)


def test_missing_images_are_counted_and_named(check, good):
    good["images"][1]["file_name"] = "sub/gone.png"
    with pytest.raises(DataError, match=r"image 12 \(sub/gone\.png\): .*images \(1 of 2\)"):
        check(good)


def test_no_masks_at_all(check, good):
    for annotation in good["annotations"]:
        del annotation["segmentation"]
    with pytest.raises(DataError, match="MODEL.MASK_ON False"):
        check(good)
    assert check(good, wants_masks=False)


def test_num_classes_that_disagrees_says_the_number_to_set(check, good):
    with pytest.raises(UsageError, match=r"NUM_CLASSES is 80, .* has 2 classes: cat, dog") as error:
        check(good, num_classes=80)
    assert "Set MODEL.ROI_HEADS.NUM_CLASSES 2" in str(error.value)
    assert error.value.exit_code == 2


def test_unregistered_name_gives_the_nearest():
    with pytest.raises(UsageError, match="'coco_2017_trian' is not registered; .*coco_2017_train"):
        check_datasets(["coco_2017_trian"], 80, needs_annotations=True, wants_masks=True)


def test_missing_root_says_folder_variable_and_tree(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "nowhere"))
    with pytest.raises(DataError) as caught:
        check_datasets(["scenes_train"], 9, needs_annotations=True, wants_masks=True)
    message = str(caught.value)
    root = tmp_path / "nowhere"
    assert f"DETECTRON2_DATASETS is {root}. Make them" in message
    assert f"\n  {root}/scenes/annotations/instances_train.json\n" in message
    assert f"\n  {root}/scenes/train/<images>" in message
    assert "mask-rcnn-ext scenes --out" in message
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)  # ./datasets of a checkout may hold scenes
    with pytest.raises(DataError, match="DETECTRON2_DATASETS is not set"):
        check_datasets(["scenes_val"], 9, needs_annotations=True, wants_masks=True)


def test_same_name_for_other_files_is_refused_with_both(tmp_path):
    name = f"check_{next(_names)}"
    register_coco_dataset(name, tmp_path / "a.json", tmp_path)
    register_coco_dataset(name, tmp_path / "a.json", tmp_path)  # the same again is fine
    with pytest.raises(UsageError, match=r"a\.json .*b\.json"):
        register_coco_dataset(name, tmp_path / "b.json", tmp_path)


def test_errors_are_counted_and_the_command_for_all_is_named(check, good):
    for annotation in good["annotations"]:
        annotation["bbox"] = [1, 1, -4, 4]
    good["annotations"] = [dict(good["annotations"][0], id=i) for i in range(101, 121)]
    with pytest.raises(DataError) as caught:
        check(good)
    message = str(caught.value)
    assert "20 errors in " in message
    assert message.count("has a negative width") == 3  # of each kind, a few
    assert "and 17 more" in message
    assert re.search(r"mask-rcnn-ext data check check_\d+$", message)


def test_warnings_are_counted_in_one_line_of_the_log(check, good, caplog):
    good["annotations"][0]["bbox"] = [1, 1, 4, 0]
    good["annotations"][1]["area"] = 0
    with caplog.at_level("WARNING"):
        check(good)
    (record,) = [r for r in caplog.records if "mask-rcnn-ext data check" in r.getMessage()]
    assert re.search(r"2 warnings \(box-empty 1, area-not-positive 1\)", record.getMessage())


def test_a_test_set_needs_what_evaluation_reads(check, good):
    """pycocotools ends in a KeyError without these two; training does not read them."""
    for key in ("area", "iscrowd"):
        broken = copy.deepcopy(good)
        del broken["annotations"][0][key]
        assert check(broken)
        with pytest.raises(DataError, match=f"{key}"):
            check(broken, needs_annotations=False)


def test_masks_and_keypoints_that_no_model_reads_stop_nothing(check, good):
    good["annotations"][0]["segmentation"] = [1, 2, 3]
    good["annotations"][1]["keypoints"] = ["x"]
    assert check(good, wants_masks=False, wants_keypoints=False)
    with pytest.raises(DataError, match="annotation 101: its segmentation"):
        check(good, wants_keypoints=False)
    with pytest.raises(DataError, match="annotation 102: its keypoints"):
        check(good, wants_masks=False)


def test_a_table_that_was_read_already_is_used(check, good, monkeypatch):
    from mask_rcnn_ext.data.checks import gate
    from mask_rcnn_ext.data.coco_table import read_coco_table

    check(good)
    name = f"check_{next(_names) - 1}"
    json_file = gate.locate_dataset(name)[0]
    table = read_coco_table(json_file)
    monkeypatch.setattr(gate, "read_table", None)
    found = check_datasets(
        [name], 2, needs_annotations=True, wants_masks=True, table_of=lambda name: table
    )
    assert found == {name: table.sha256[:16]}
