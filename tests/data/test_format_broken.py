"""Whatever an annotation file holds, an importer reads it or refuses it in words of ours."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from mask_rcnn_ext.data.formats import import_dataset
from mask_rcnn_ext.errors import UserError

JUNK = st.sampled_from(
    [None, True, -1, 0, 3.5, 1e300, float("nan"), "", "x", "1,1", "\x00", [], [None], {}, {"a": 1}]
)
VIA = {
    "_via_img_metadata": {
        "a": {
            "filename": "a.png",
            "size": 3,
            "regions": [
                {
                    "shape_attributes": {
                        "name": "polygon",
                        "all_points_x": [1, 9, 9],
                        "all_points_y": [1, 1, 9],
                    },
                    "region_attributes": {"kind": "dog"},
                },
                {
                    "shape_attributes": {"name": "ellipse", "cx": 9, "cy": 9, "rx": 3, "ry": 4},
                    "region_attributes": {"kind": {"dog": True}},
                },
            ],
            "file_attributes": {"by": "me"},
        }
    },
    "_via_attributes": {"region": {"kind": {"options": {"dog": ""}}}},
    "_via_image_id_list": ["a"],
}
LABELME = {
    "shapes": [
        {
            "label": "dog",
            "points": [[1, 1], [9, 1], [9, 9]],
            "shape_type": "polygon",
            "group_id": 1,
            "flags": {"old": True},
        },
        {"label": "dog", "points": [[1, 1], [3, 3]], "shape_type": "mask", "mask": "iVBORw0KGgo="},
        {"label": "dog", "points": [[1, 1], [3, 3]], "shape_type": "circle"},
    ],
    "imagePath": "a.png",
    "imageHeight": 30,
    "imageWidth": 40,
    "flags": {},
}
CVAT = (
    "<annotations><meta><task><labels><label><name>dog</name></label></labels></task></meta>\n"
    '<image id="0" name="a.png" width="40" height="30">\n'
    '<polygon label="dog" points="1,1;9,1;9,9" group_id="1"/>\n'
    '<box label="dog" xtl="1" ytl="1" xbr="9" ybr="9" rotation="30"/>\n'
    '<ellipse label="dog" cx="9" cy="9" rx="3" ry="4" rotation="30"/>\n'
    '<mask label="dog" rle="1, 3" left="1" top="1" width="2" height="2"/>\n'
    '</image><track id="0" label="dog"><box frame="0" xtl="1" ytl="1" xbr="9" ybr="9"/></track>'
    "</annotations>"
)
YOLO = "0 0.1 0.1 0.5 0.1 0.5 0.5\n0 0.5 0.5 0.2 0.2\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("broken")
    for name in ("a.png", "images/a.png", "images/frame_000000.png"):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (40, 30)).save(root / name)
    (root / "labels").mkdir()
    (root / "data.yaml").write_text("train: images\nnames: [dog]\n")
    return root


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Ways to every value inside."""
    found = [path] if path else []
    keys = value if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0)
    for key in keys:
        found += places(value[key], (*path, key))
    return found


def spoiled(value: Any, place: tuple[Any, ...], junk: Any) -> Any:
    made = copy.deepcopy(value)
    holder = made
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = junk
    return made


def read(fmt: str, path: Path, images: Path) -> None:
    """Anything but a user's error is a failure; what is read can be written."""
    with contextlib.suppress(UserError):
        json.dumps(import_dataset(fmt, path, images).coco)


def fuzz(function: Any) -> Any:
    quiet = settings(
        deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    return quiet(function)


@fuzz
@given(place=st.sampled_from(places(VIA)), junk=JUNK)
def test_via(folder, place, junk):
    path = folder / "via.json"
    path.write_text(json.dumps(spoiled(VIA, place, junk)))
    read("via", path, folder / "images")


@fuzz
@given(place=st.sampled_from(places(LABELME)), junk=JUNK)
def test_labelme(folder, place, junk):
    path = folder / "lm.json"
    path.write_text(json.dumps(spoiled(LABELME, place, junk)))
    read("labelme", path, folder / "images")


@fuzz
@given(
    start=st.integers(0, len(CVAT)),
    length=st.integers(0, 12),
    text=st.text("<>/\"';,.x19-", max_size=4),
)
def test_cvat(folder, start, length, text):
    path = folder / "cvat.xml"
    path.write_text(CVAT[:start] + text + CVAT[start + length :])
    read("cvat", path, folder / "images")


@fuzz
@given(start=st.integers(0, len(YOLO)), length=st.integers(0, 9), data=st.binary(max_size=5))
def test_yolo(folder, start, length, data):
    text = YOLO.encode()
    (folder / "labels/a.txt").write_bytes(text[:start] + data + text[start + length :])
    read("yolo-seg", folder / "data.yaml", folder / "images")


@fuzz
@given(start=st.integers(0, 30), length=st.integers(0, 9), data=st.binary(max_size=5))
def test_yolo_declaration(folder, start, length, data):
    (folder / "labels/a.txt").write_text(YOLO)
    text = b"train: images\nnames: [dog]\nnc: 1\n"
    (folder / "broken.yaml").write_bytes(text[:start] + data + text[start + length :])
    with contextlib.suppress(UserError):
        import_dataset("yolo-seg", folder / "broken.yaml")


@pytest.mark.parametrize("fmt", ["via", "labelme", "cvat", "yolo-seg"])
def test_the_unbroken_ones_are_read(folder, fmt):
    contents = {
        "via": ("via.json", json.dumps(VIA)),
        "labelme": ("lm.json", json.dumps({**LABELME, "shapes": LABELME["shapes"][::2]})),
        "cvat": ("cvat.xml", CVAT),
        "yolo-seg": ("labels/a.txt", YOLO),
    }
    name, text = contents[fmt]
    (folder / name).write_text(text)
    path = folder / ("data.yaml" if fmt == "yolo-seg" else name)
    assert len(import_dataset(fmt, path, folder / "images").coco["annotations"]) >= 2
