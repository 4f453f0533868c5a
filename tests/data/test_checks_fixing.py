"""`--fix`: what is certain is mended, every change is listed, a second time changes nothing."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import broken_files
import pytest
from broken_files import BROKEN, Broken, all_of, each, good, put, rle, with_keypoints, write
from PIL import Image

from mask_rcnn_ext.data.checks.fixing import Repaired, changes_path, repair_file
from mask_rcnn_ext.data.checks.pixels import OpenImages


def _fix(path: Path, out: str = "fixed.json", **options) -> Repaired:
    return repair_file(str(path), str(path.parent / "images"), path.parent / out, **options)


def _annotation(repaired: Repaired, annotation_id: int = 101) -> dict:
    data = json.loads(repaired.written.read_text())
    return next(a for a in data["annotations"] if a["id"] == annotation_id)


def _codes(repaired: Repaired) -> set[str]:
    return {one.code for one in [*repaired.changes, *repaired.moved_out]}


def test_nothing_is_written_for_a_good_file(tmp_path):
    repaired = _fix(write(tmp_path, good()))
    assert repaired.written is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["annotations.json", "images"]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_every_broken_file_is_mended_once_and_for_all(tmp_path, broken: Broken):
    path = write(tmp_path, broken.data())
    before = path.read_bytes()
    repaired = _fix(path)
    assert path.read_bytes() == before
    again = path
    if repaired.written:
        again = repaired.written
        # What was changed for a reason is no longer a finding.
        assert not _codes(repaired) & set(repaired.report.counts_by_code())
    second = _fix(again, "again.json")
    assert second.written is None
    assert second.changes == second.moved_out == []
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


FIRST = "annotations.0"
BOX, MASK = [30, 20, 20, 16], [[30, 20, 50, 20, 50, 36, 30, 36]]
PARTLY = [[30, 20, 50, 20, 50, 36, 30, 36], [1, 2, 3, 4]]
MENDED = [
    ("box-xyxy", put(FIRST + ".bbox", [30, 20, 50, 36]), "bbox", BOX),
    ("box-not-around-mask", put(FIRST + ".bbox", [2, 2, 20, 16]), "bbox", BOX),
    ("box-loose", put(FIRST + ".bbox", [27, 20, 23, 16]), "bbox", BOX),
    ("box-malformed", put(FIRST + ".bbox", [1, 2, float("nan"), 4]), "bbox", BOX),
    ("box-malformed", put(FIRST + ".bbox", ...), "bbox", BOX),
    ("box-empty", put(FIRST + ".bbox", [30, 20, 20, 0]), "bbox", BOX),
    ("box-negative", put(FIRST + ".bbox", [50, 36, -20, -16]), "bbox", BOX),
    ("box-outside", put(FIRST + ".bbox", [300, 20, 20, 16]), "bbox", BOX),
    ("box-normalised", put(FIRST + ".bbox", [0.375, 1 / 3, 0.25, 4 / 15]), "bbox", BOX),
    ("mask-flat", put(FIRST + ".segmentation", MASK[0]), "segmentation", MASK),
    ("polygon-short", put(FIRST + ".segmentation", PARTLY), "segmentation", MASK),
    ("area-missing", put(FIRST + ".area", ...), "area", 320),
    ("area-not-positive", put(FIRST + ".area", -1), "area", 320),
    ("area-differs", put(FIRST + ".area", 9000.0), "area", 320),
    ("crowd-flag", put(FIRST + ".iscrowd", "1"), "iscrowd", 1),
    ("crowd-missing", put(FIRST + ".iscrowd", ...), "iscrowd", 0),
    ("unknown-image", put(FIRST + ".image_id", "11"), "image_id", 11),
    ("unknown-category", put(FIRST + ".category_id", "3"), "category_id", 3),
]


@pytest.mark.parametrize(("code", "change", "key", "value"), MENDED)
def test_the_right_value_is_written(tmp_path, code, change, key, value):
    data = good()
    change(data)
    repaired = _fix(write(tmp_path, data))
    assert _annotation(repaired)[key] == value
    (change,) = [one for one in repaired.changes if one.code == code]
    assert (change.section, change.id, change.key, change.after) == (
        "annotations",
        101,
        key,
        value,
    )
    assert code not in repaired.report.counts_by_code()


def test_the_list_of_changes_holds_what_was_there_and_both_fingerprints(tmp_path):
    data = good()
    data["annotations"][0]["bbox"] = [30, 20, 50, 36]
    data["annotations"][1]["image_id"] = 99
    data["extra"] = {"kept": True}
    data["annotations"][2]["note"] = "kept"
    path = write(tmp_path, data)
    repaired = _fix(path)
    listed = json.loads(changes_path(repaired.written).read_text())
    (change,) = listed["changes"]
    assert change["before"] == [30, 20, 50, 36]
    assert change["after"] == BOX
    assert change["id"] == 101
    (moved,) = listed["moved_out"]
    assert moved["code"] == "unknown-image"
    assert moved["entry"] == data["annotations"][1]
    for key, file in (("input_sha256", path), ("output_sha256", repaired.written)):
        assert listed[key] == hashlib.sha256(file.read_bytes()).hexdigest()
    fixed = json.loads(repaired.written.read_text())
    data["annotations"][0]["bbox"] = BOX
    del data["annotations"][1]
    assert fixed == data  # everything else is as it was


def test_a_whole_file_of_corners_without_masks(tmp_path):
    data = good()
    boxes = [annotation["bbox"] for annotation in good()["annotations"]]
    for annotation in data["annotations"]:
        del annotation["segmentation"]
        broken_files.xyxy(annotation)
    repaired = _fix(write(tmp_path, data))
    fixed = json.loads(repaired.written.read_text())
    assert [annotation["bbox"] for annotation in fixed["annotations"]] == boxes


def test_normalised_masks_and_boxes(tmp_path):
    data = good()
    all_of(
        each("annotations", broken_files.normalise_mask),
        each("annotations", broken_files.normalise_box),
    )(data)
    repaired = _fix(write(tmp_path, data))
    assert repaired.report.counts()["error"] == 0
    assert _annotation(repaired)["segmentation"] == MASK
    assert _annotation(repaired)["bbox"] == BOX


def test_normalised_boxes_without_masks_only_where_the_form_is_certain(tmp_path):
    data = good()
    for annotation in data["annotations"]:
        del annotation["segmentation"]
        broken_files.normalise_box(annotation)
    path = write(tmp_path, data)
    assert _annotation(_fix(path))["bbox"] == BOX
    # One that leaves the image as a corner with sides: they may be centres, as YOLO writes them.
    data["annotations"][3]["bbox"] = [0.9, 0.5, 0.2, 0.2]
    path = write(tmp_path, data, "centres.json")
    repaired = _fix(path, "centres_fixed.json")
    assert repaired.written is None
    assert repaired.report.counts_by_code()["box-normalised"] == 7


def test_ids_of_text_become_numbers_with_all_that_refers_to_them(tmp_path):
    data = good()
    each("images", broken_files.text_id("id"))(data)
    each("categories", broken_files.text_id("id"))(data)
    each("annotations", broken_files.text_id("id", "image_id", "category_id"))(data)
    data["annotations"][0]["image_id"] = 11  # as a number there, as text here
    repaired = _fix(write(tmp_path, data))
    assert json.loads(repaired.written.read_text()) == good()


def test_ids_that_are_no_numbers_stay(tmp_path):
    data = good()
    for image, name in zip(data["images"], "pqr", strict=True):
        for annotation in data["annotations"]:
            if annotation["image_id"] == image["id"]:
                annotation["image_id"] = name
        image["id"] = name
    repaired = _fix(write(tmp_path, data))
    assert repaired.written is None
    assert repaired.report.counts_by_code() == {"string-ids": 1}


def test_annotation_ids_are_numbered_anew_from_the_largest(tmp_path):
    data = good()
    data["annotations"][1]["id"] = 101
    data["annotations"][2]["id"] = 0
    del data["annotations"][3]["id"]
    fixed = json.loads(_fix(write(tmp_path, data)).written.read_text())
    ids = [annotation["id"] for annotation in fixed["annotations"]]
    assert sorted(ids[1:4]) == [108, 109, 110]
    assert ids[0] == 101


def test_most_of_a_file_is_never_moved_out(tmp_path):
    data = good()
    for annotation in data["annotations"][:5]:
        annotation["category_id"] = 99
    repaired = _fix(write(tmp_path, data))
    assert repaired.written is None
    assert repaired.report.counts_by_code()["unknown-category"] == 5


def test_an_image_listed_twice_word_for_word(tmp_path):
    data = good()
    data["images"].append(dict(data["images"][0]))
    repaired = _fix(write(tmp_path, data))
    assert json.loads(repaired.written.read_text()) == good()
    assert repaired.moved_out[0].entry == data["images"][0]


def test_an_odd_polygon_that_is_all_there_is_takes_its_annotation_along(tmp_path):
    data = good()
    data["annotations"][0]["segmentation"] = [[1, 2, 3, 4, 5, 6, 7]]
    repaired = _fix(write(tmp_path, data))
    assert repaired.moved_out[0].entry == data["annotations"][0]
    assert repaired.report.counts()["error"] == 0


def test_several_faults_of_one_annotation_are_mended_in_turn(tmp_path):
    data = good()
    data["annotations"][0] |= {"segmentation": MASK[0], "bbox": [0, 0, 3, 3], "area": None}
    repaired = _fix(write(tmp_path, data))
    annotation = _annotation(repaired)
    assert (annotation["segmentation"], annotation["bbox"], annotation["area"]) == (MASK, BOX, 320)
    assert list(repaired.report.findings()) == []


def test_byte_order_mark_is_removed(tmp_path):
    path = write(tmp_path, good())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    repaired = _fix(path)
    assert json.loads(repaired.written.read_bytes()) == good()
    assert list(repaired.report.findings()) == []


def test_keypoints(tmp_path):
    data = with_keypoints()
    data["annotations"][0]["num_keypoints"] = 3
    del data["annotations"][1]["keypoints"]
    fixed = json.loads(_fix(write(tmp_path, data)).written.read_text())
    assert fixed["annotations"][0]["num_keypoints"] == 2
    assert fixed["annotations"][1]["keypoints"] == [0] * 9
    assert fixed["annotations"][1]["num_keypoints"] == 0


def test_sizes_from_the_pictures(tmp_path):
    data = good()
    del data["images"][0]["height"]
    data["images"][1] |= {"height": 90, "width": 100}
    repaired = _fix(write(tmp_path, data), more=[OpenImages(1)])
    assert json.loads(repaired.written.read_text()) == good()


def test_a_size_is_not_guessed_where_both_are_possible(tmp_path):
    """A picture that was shrunk, and one that was turned, with boxes that fit either way."""
    data = good()
    data["images"][0] |= {"height": 120, "width": 160}
    data["images"][1] |= {"height": 80, "width": 60}
    for annotation in data["annotations"][:4]:
        annotation |= {"bbox": [30, 20, 20, 16], "segmentation": MASK}
    repaired = _fix(write(tmp_path, data), more=[OpenImages(1)])
    assert repaired.written is None
    assert repaired.report.counts_by_code()["image-size-differs"] == 2


def test_exif_rotation_is_mended_where_the_boxes_need_it(tmp_path):
    data = good()
    data["images"][0] |= {"file_name": "a.jpg", "height": 80, "width": 60}
    data["annotations"][0]["bbox"] = [58, 20, 20, 16]
    data["annotations"][0]["segmentation"] = [[58, 20, 78, 20, 78, 36, 58, 36]]
    path = write(tmp_path, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 80)).save(tmp_path / "images" / "a.jpg", exif=exif)
    repaired = _fix(path, more=[OpenImages(1)])
    assert "exif-rotated" in _codes(repaired)
    image = json.loads(repaired.written.read_text())["images"][0]
    assert (image["height"], image["width"]) == (60, 80)


def test_a_doubtful_mask_does_not_make_a_box(tmp_path):
    data = good()
    data["annotations"][0]["bbox"] = [2, 2, 20, 16]
    data["annotations"][0]["segmentation"] = rle(30, 20, 20, 16, (60, 90))
    repaired = _fix(write(tmp_path, data))
    assert repaired.written is None
    assert "rle-size" in repaired.report.counts_by_code()
