"""Each defect is found, by file and ids, and nothing else is said about the file."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import broken_files
import numpy as np
import pytest
from broken_files import BROKEN, Broken, good, put, with_keypoints, write, write_pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data import checks
from mask_rcnn_ext.data.checks import Settings, check_table
from mask_rcnn_ext.data.checks.findings import Report
from mask_rcnn_ext.data.checks.pixels import OpenImages
from mask_rcnn_ext.data.checks.runs import expand_runs, measure_runs
from mask_rcnn_ext.data.checks.splits import SharedImages
from mask_rcnn_ext.data.coco_table import read_coco_table


def _check(path, **options) -> Report:
    return check_table(read_coco_table(path), str(path.parent / "images"), **options)


def _lines(report: Report, code: str) -> list[str]:
    return [finding.line() for finding in report.findings() if finding.code == code]


@pytest.mark.parametrize("start", [good, with_keypoints])
def test_a_good_file_has_no_finding(tmp_path, start):
    report = _check(write(tmp_path, start()), more=(OpenImages(1),))
    assert list(report.findings()) == []
    assert report.unchecked == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_each_defect_is_named_with_file_and_ids(tmp_path, broken: Broken):
    report = _check(write(tmp_path, broken.data()))
    found = [finding for finding in report.findings() if finding.code == broken.code]
    assert {finding.severity for finding in found} == {broken.severity}
    assert any(re.search(broken.say, finding.line()) for finding in found), found
    line = found[0].line()
    assert line.startswith(f"{broken.severity}: {tmp_path}/annotations.json: ")
    assert line.endswith(f"[{broken.code}]")
    assert "\n" not in line
    expected = {broken.code, *broken.also, "nan-literal"}
    assert set(report.counts_by_code()) <= expected


def test_every_code_of_the_package_is_tested():
    sources = Path(checks.__file__).parent.glob("*.py")
    text = "".join(path.read_text() for path in sources)
    codes = set(re.findall(r'"([a-z]+(?:-[a-z]+)+)",\n? *(?:ERROR|WARNING|NOTE|partly)', text))
    assert len(codes) > 40, codes
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    assert {code for code in codes if f'"{code}"' not in tests} == set()


def test_boxes_without_masks_tell_xyxy_by_leaving_their_images(tmp_path):
    data = good()
    for annotation in data["annotations"]:
        del annotation["segmentation"]
        broken_files.xyxy(annotation)
    report = _check(write(tmp_path, data))
    assert report.counts_by_code()["box-xyxy"] == 7
    assert "box-outside" not in report.counts_by_code()
    assert "read as width and height, boxes leave their images" in _lines(report, "box-xyxy")[0]
    # The same numbers are right where they stay inside: nothing proves the contrary.
    for annotation in data["annotations"]:
        annotation["bbox"] = [1, 2, 30, 30]
    assert "box-xyxy" not in _check(write(tmp_path, data)).counts_by_code()


def test_a_box_that_is_cut_at_the_edge_as_its_mask_is_no_finding(tmp_path):
    data = good()
    data["annotations"][0]["segmentation"] = [[65, 20, 81.5, 20, 81.5, 36, 65, 36]]
    data["annotations"][0]["bbox"] = [65, 20, 15, 16]
    report = _check(write(tmp_path, data))
    assert set(report.counts_by_code()) <= {"area-differs"}


def test_an_annotation_twice_in_cocos_own_minival_is_a_warning(tmp_path):
    data = good()
    data["annotations"][1]["id"] = 101
    report = _check(write(tmp_path, data, "instances_minival2014.json"))
    assert report.counts()["error"] == 0
    assert report.counts_by_code() == {"duplicate-annotation-id": 1}


def test_area_of_overlapping_polygons_is_counted_not_added(tmp_path):
    """Two equal polygons: the formula gives twice their area, the pixels are right."""
    data = good()
    annotation = data["annotations"][0]
    annotation["segmentation"] = annotation["segmentation"] * 3
    assert list(_check(write(tmp_path, data)).findings()) == []


def test_more_objects_than_detections_are_kept(tmp_path):
    data = good()
    report = _check(write(tmp_path, data), settings=Settings(detection_cap=1))
    lines = _lines(report, "more-than-detection-cap")
    assert len(lines) == 3
    assert "image 11 (a.png): has 2 objects, but 1 detections an image are kept" in lines[0]


def test_byte_order_mark(tmp_path):
    path = write(tmp_path, good())
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "byte order mark" in _lines(_check(path), "byte-order-mark")[0]


def test_nan_in_a_field_that_nobody_reads(tmp_path):
    data = good()
    data["annotations"][0]["score"] = float("nan")
    report = _check(write(tmp_path, data))
    assert report.counts_by_code() == {"nan-literal": 1}
    data["annotations"][0]["score"] = "NaN is text"
    assert _check(write(tmp_path, data)).counts_by_code() == {}


def test_masks_can_be_left_out(tmp_path):
    data = good()
    data["annotations"][0]["segmentation"] = "somewhere"
    report = _check(write(tmp_path, data), settings=Settings(masks=False))
    assert report.counts()["error"] == 0
    assert report.unchecked == ["masks: the model has none"]


def test_a_sample_of_the_masks(tmp_path):
    data = good()
    data["annotations"][1]["segmentation"] = "somewhere"
    report = _check(write(tmp_path, data), settings=Settings(most_masks=2))
    assert report.unchecked == ["the masks of 5 of 7 annotations"]
    assert "mask-malformed" in report.counts_by_code()  # seen without reading it


# ---- pictures


def _open(path) -> Report:
    return _check(path, more=(OpenImages(1),))


def test_truncated_unreadable_and_empty_pictures(tmp_path):
    path = write(tmp_path, good())
    content = (tmp_path / "images" / "a.png").read_bytes()
    (tmp_path / "images" / "a.png").write_bytes(content[:-2000])
    (tmp_path / "images" / "b.png").write_bytes(b"<html>not found</html>")
    (tmp_path / "images" / "c.png").write_bytes(b"")
    report = _open(path)
    assert re.search(r"image 11 \(a\.png\): .*truncated", _lines(report, "image-truncated")[0])
    html, empty = _lines(report, "image-unreadable")
    assert re.search(r"image 12 \(b\.png\): the picture is no picture: .*<html>", html)
    assert re.search(r"image 13 \(c\.png\): the picture is an empty file", empty)
    assert report.counts()["error"] == 3
    assert _check(path).counts()["error"] == 0  # needs opening


def test_a_truncated_jpeg(tmp_path):
    data = good()
    data["images"][0]["file_name"] = "a.jpg"
    path = write(tmp_path, data)
    Image.open(tmp_path / "images" / "a.png").save(tmp_path / "images" / "a.jpg", quality=95)
    content = (tmp_path / "images" / "a.jpg").read_bytes()
    assert _open(path).counts()["error"] == 0
    (tmp_path / "images" / "a.jpg").write_bytes(content[: len(content) // 2])
    assert "a.jpg): the picture does not decode: " in _lines(_open(path), "image-truncated")[0]


def test_pictures_of_another_size(tmp_path):
    path = write(tmp_path, good())
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / "a.png")
    Image.new("RGB", (60, 80)).save(tmp_path / "images" / "b.png")
    smaller, turned = _lines(_open(path), "image-size-differs")
    assert "image 11 (a.png): the file says 80 x 60 (width x height), the picture is 40 x 30" in (
        smaller
    )
    assert "the picture is 60 x 80, height and width exchanged" in turned


def test_exif_rotation(tmp_path):
    data = good()
    data["images"][0]["file_name"] = "a.jpg"
    path = write(tmp_path, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 60)).save(tmp_path / "images" / "a.jpg", exif=exif)
    report = _open(path)
    (line,) = _lines(report, "exif-rotated")
    assert "image 11 (a.jpg): " in line
    assert "turned by its EXIF orientation 6" in line
    # Stored the other way round, it is 80 x 60 once it is turned: nothing is wrong.
    Image.new("RGB", (60, 80)).save(tmp_path / "images" / "a.jpg", exif=exif)
    assert _open(path).counts()["error"] == 0


def test_deep_pictures_and_equal_ones(tmp_path):
    path = write(tmp_path, good())
    deep = Image.fromarray(np.full((60, 80), 40000, np.uint16))
    deep.save(tmp_path / "images" / "a.png")
    shutil.copy(tmp_path / "images" / "b.png", tmp_path / "images" / "c.png")
    report = _open(path)
    assert "more than 8 bits a channel" in _lines(report, "image-depth")[0]
    (line,) = _lines(report, "same-content")
    assert "image 13 (c.png): has the same content as image 12 (b.png)" in line


def test_pictures_that_two_splits_share(tmp_path):
    val = tmp_path / "val"
    val.mkdir()
    path = write(tmp_path, good())
    other = write(val, good())
    for number, name in enumerate(broken_files.NAMES):
        Image.new("RGB", (80, 60), (number, 9, 9)).save(val / "images" / name)
    shutil.copy(tmp_path / "images" / "b.png", val / "images" / "c.png")
    shared = SharedImages("val", read_coco_table(other), str(val / "images"))
    (line,) = _lines(_check(path, more=(shared,)), "shared-image")
    assert "image 12 (b.png): is the same picture as image 13 (c.png) of val" in line


# ---- runs


@settings(deadline=None, max_examples=60)
@given(st.lists(hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), max_size=6))
def test_runs_of_good_masks_are_those_of_pycocotools(masks):
    rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    runs, ends, well_formed = expand_runs([one["counts"] for one in rles])
    heights = np.array([mask.shape[0] for mask in masks], np.int64)
    widths = np.array([mask.shape[1] for mask in masks], np.int64)
    good_ones, areas, boxes = measure_runs(runs, ends, heights, widths)
    assert well_formed.all()
    assert good_ones.all()
    for mask, area, box in zip(masks, areas, boxes, strict=True):
        assert area == mask.sum()
        if not area:
            assert np.isnan(box).all()
            continue
        rows, columns = np.nonzero(mask)
        expected = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
        assert tuple(box) == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(st.binary(max_size=20), max_size=5))
def test_runs_of_any_bytes(texts):
    runs, ends, _ = expand_runs(texts)
    sizes = np.full(len(texts), 7, np.int64)
    good_ones, areas, _ = measure_runs(runs, ends, sizes, sizes)
    assert (areas[~good_ones] == 0).all()
    for text, is_good, area in zip(texts, good_ones, areas, strict=True):
        if is_good:
            decoded = coco_mask.decode({"size": [7, 7], "counts": text})
            assert decoded.sum() == area


def test_one_broken_mask_leaves_its_neighbours_alone(tmp_path):
    texts = [b"4", b"\xff", b"o", b"52203", b"4"]
    runs, ends, well_formed = expand_runs(texts)
    assert well_formed.tolist() == [True, False, False, True, True]
    assert runs[: ends[0]].tolist() == [4]
    assert runs[ends[3] :].tolist() == [4]


def test_findings_of_odd_names_can_be_printed(tmp_path):
    write_pictures(tmp_path)
    data = good()
    put("images.0.file_name", "x\n\0.png")(data)
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(data))
    for finding in _check(path).findings():
        finding.line().encode("utf-8")
