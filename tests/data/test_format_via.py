"""VIA 1 and 2 to COCO's form."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mask_rcnn_ext.data.formats import import_dataset, sources_of
from mask_rcnn_ext.errors import DataError, UsageError

POLYGON = {
    "name": "polygon",
    "all_points_x": [1, 9, 9, 1.5],
    "all_points_y": [2, 2, 7, 7.25],
}
RECT = {"name": "rect", "x": 3, "y": 4, "width": 10, "height": 5}


def region(shape: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": attributes}


def entry(name: str, regions: Any, **more: Any) -> dict[str, Any]:
    return {"filename": name, "size": -1, "regions": regions, "file_attributes": {}, **more}


def write(folder: Path, data: Any, pictures: tuple[str, ...] = ("a.jpg", "b.png")) -> Path:
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30)).save(folder / name)
    path = folder / "via.json"
    path.write_text(json.dumps(data))
    return path


def project(entries: dict[str, Any], **attributes: Any) -> dict[str, Any]:
    return {
        "_via_settings": {},
        "_via_img_metadata": entries,
        "_via_attributes": {"region": attributes, "file": {}},
        "_via_image_id_list": sorted(entries, reverse=True),
    }


def names(coco: dict[str, Any]) -> list[str]:
    return [category["name"] for category in coco["categories"]]


def test_polygons_are_exact_and_kept_with_class_and_attributes(tmp_path):
    regions = [region(POLYGON, kind="zebra", colour="red"), region(RECT, kind="ant")]
    path = write(tmp_path, {"a.jpg1": entry("a.jpg", regions, file_attributes={"by": "me"})})
    found = import_dataset("via", path, class_attribute="kind")
    assert found.coco["images"] == [
        {"id": 1, "file_name": "a.jpg", "height": 30, "width": 40, "attributes": {"by": "me"}}
    ]
    assert names(found.coco) == ["ant", "zebra"]  # nothing declared: sorted
    first, second = found.coco["annotations"]
    assert first["segmentation"] == [[1, 2, 9, 2, 9, 7, 1.5, 7.25]]
    assert first["bbox"] == [1, 2, 8, 5.25]
    assert first["category_id"] == 2
    assert first["attributes"] == {"colour": "red"}
    assert second["segmentation"] == [[3, 4, 13, 4, 13, 9, 3, 9]]
    assert second["area"] == 50
    assert found.notes == []
    assert found.sources == [path]
    assert found.image_root == tmp_path
    json.dumps(found.coco)


def test_regions_as_object_of_version_1_and_project_form_agree(tmp_path):
    regions = [region(POLYGON, kind="x"), region(RECT, kind="y")]
    as_list = {"a.jpg1": entry("a.jpg", regions), "b.png2": entry("b.png", [])}
    as_object = {
        "a.jpg1": entry("a.jpg", {"0": regions[0], "1": regions[1]}),
        "b.png2": entry("b.png", {}),
    }
    one = import_dataset("via", write(tmp_path, as_list))
    two = import_dataset("via", write(tmp_path, as_object))
    assert one.coco == two.coco
    assert len(one.coco["images"]) == 2  # the one without regions stays
    three = import_dataset("via", write(tmp_path, project(as_list)))
    assert [i["file_name"] for i in three.coco["images"]] == ["b.png", "a.jpg"]  # its own order
    assert len(three.coco["annotations"]) == 2


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ({"dog": "", "cat": ""}, "cat", ["dog", "cat"]),
        ({"1": "total", "2": "date"}, "2", ["total", "date"]),
        ({"dog": "Canis lupus", "cat": "Felis"}, "cat", ["dog", "cat"]),
    ],
)
def test_declared_options_give_classes_and_order(tmp_path, options, value, expected):
    described = {"type": "dropdown", "options": options}
    data = project({"a": entry("a.jpg", [region(POLYGON, kind=value)])}, kind=described)
    found = import_dataset("via", write(tmp_path, data))
    assert names(found.coco) == expected
    assert found.coco["annotations"][0]["category_id"] == 2


def test_round_shapes_lie_on_the_curve(tmp_path):
    shapes = [
        {"name": "circle", "cx": 20, "cy": 15, "r": 10},
        {"name": "ellipse", "cx": 20, "cy": 15, "rx": 12, "ry": 5, "theta": math.pi / 2},
    ]
    path = write(tmp_path, {"a": entry("a.jpg", [region(s) for s in shapes])})
    found = import_dataset("via", path)
    circle, ellipse = found.coco["annotations"]
    flat = circle["segmentation"][0]
    corners = list(zip(flat[::2], flat[1::2], strict=True))
    middles = [
        ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
        for a, b in zip(corners, corners[1:] + corners[:1], strict=True)
    ]
    assert all(abs(math.dist(p, (20, 15)) - 10) < 1e-9 for p in corners)
    assert all(math.dist(p, (20, 15)) >= 9.95 for p in middles)
    assert abs(circle["area"] - math.pi * 100) < 8
    # A quarter turn: the long axis is upright.
    assert ellipse["bbox"] == pytest.approx([15, 3, 10, 24], abs=0.2)
    assert found.notes == [
        "2 x region without any attribute: class 'object' (a.jpg region 0, a.jpg region 1)"
    ]


def test_nothing_is_dropped_without_a_word(tmp_path):
    line = {"name": "polyline", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 3]}
    short = {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}
    regions = [
        region(POLYGON, kind="x"),
        region(line, kind="x"),
        region(line, kind="y"),
        region({"name": "point", "cx": 1, "cy": 1}, kind="x"),
        region(short, kind="x"),
        region({"name": "spline"}, kind="x"),
        region(POLYGON, kind=""),
        region(POLYGON, kind={"x": True, "y": True}),
        region(POLYGON, kind={"x": False, "y": True}),
    ]
    found = import_dataset("via", write(tmp_path, {"a": entry("a.jpg", regions)}))
    left_out = [note for note in found.notes if "left out" in note]
    assert sum(int(note.split(" x ")[0]) for note in left_out) == len(regions) - 2
    assert len(found.coco["annotations"]) == 2
    assert any(
        n.startswith("2 x polyline, not an area: left out (a.jpg region 1") for n in left_out
    )
    named = import_dataset("via", tmp_path / "via.json", class_name="thing")
    assert len(named.coco["annotations"]) == 3


def test_an_object_without_pixels_is_kept_and_noted(tmp_path):
    flat = {**RECT, "height": 0}
    found = import_dataset("via", write(tmp_path, {"a": entry("a.jpg", [region(flat, kind="x")])}))
    assert [a["area"] for a in found.coco["annotations"]] == [0]
    assert found.notes == ["1 x object that covers no pixel of its picture: kept (a.jpg region 0)"]


def test_pictures_in_folders_and_by_url_are_found_by_base_name(tmp_path):
    data = {"a": entry("C:\\data\\a.jpg", []), "b": entry("http://host/p/b.png", [region(POLYGON)])}
    path = write(tmp_path, data, ("pictures/deep/a.jpg", "pictures/b.png"))
    found = import_dataset("via", path, tmp_path / "pictures")
    assert [image["file_name"] for image in found.coco["images"]] == ["deep/a.jpg", "b.png"]
    (tmp_path / "pictures" / "a.jpg").write_bytes(b"")
    with pytest.raises(DataError, match=r"deep/a\.jpg"):
        import_dataset("via", path, tmp_path / "pictures")


def test_size_is_that_of_the_picture_as_shown(tmp_path):
    path = write(tmp_path, {"a": entry("a.jpg", [region(POLYGON)])})
    image = Image.new("RGB", (40, 30))
    exif = image.getexif()
    exif[0x0112] = 6  # a quarter turn
    image.save(tmp_path / "a.jpg", exif=exif)
    found = import_dataset("via", path).coco["images"][0]
    assert (found["height"], found["width"]) == (40, 30)


def test_another_file_than_the_annotated_one_is_noted(tmp_path):
    path = write(tmp_path, {"a": entry("a.jpg", [region(POLYGON)], size=17)})
    assert any("another size in bytes" in note for note in import_dataset("via", path).notes)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([1], ["no VIA file"]),
        ({"a": {"regions": 3, "filename": "a.jpg"}}, ["a: regions"]),
        ({"a": {"x": 1}}, ["'a'", "VIA 3"]),
        ({"a": entry("missing.jpg", [])}, ["missing.jpg", "--images"]),
        ({"a": entry("", [])}, ["no filename"]),
        ({"a": entry("a.jpg", [3])}, ["region 0", "shape_attributes"]),
        ({"a": entry("a.jpg", [region({**RECT, "width": "?"})])}, ["region 0", "width", "'?'"]),
        ({"a": entry("a.jpg", [region({**POLYGON, "all_points_x": [1]})])}, ["region 0", "length"]),
        ({"a": entry("a.jpg", [region({**RECT, "x": 1e9})])}, ["a.jpg region 0", "sides away"]),
        ({"a": entry("a.jpg", []), "b": entry("a.jpg", [])}, ["a.jpg", "already"]),
    ],
)
def test_broken_files_are_refused_with_file_and_element(tmp_path, data, words):
    path = write(tmp_path, data)
    with pytest.raises(DataError) as caught:
        import_dataset("via", path)
    for word in ["via.json" if "sides away" not in words else "a.jpg", *words]:
        assert word in str(caught.value)


def test_unreadable_picture(tmp_path):
    path = write(tmp_path, {"a": entry("a.jpg", [region(POLYGON)])})
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.jpg cannot be read"):
        import_dataset("via", path)


def test_wrong_calls(tmp_path):
    path = write(tmp_path, {"a": entry("a.jpg", [region(POLYGON, kind="x", colour="red")])})
    with pytest.raises(UsageError, match="kind, colour.*--class-attribute"):
        import_dataset("via", path)
    with pytest.raises(UsageError, match="no region attribute 'size'"):
        import_dataset("via", path, class_attribute="size")
    with pytest.raises(UsageError, match="no option colour; it has: class_attribute"):
        import_dataset("via", path, colour="red")
    with pytest.raises(UsageError, match="no option colour"):
        sources_of("via", path, colour="red")
    with pytest.raises(UsageError, match="--images"):
        import_dataset("via", path, tmp_path / "nowhere", class_attribute="kind")
    with pytest.raises(UsageError, match=r"none\.json is not there"):
        import_dataset("via", tmp_path / "none.json")
    with pytest.raises(UsageError, match="there are: via, labelme"):
        import_dataset("vai", path)
