"""CVAT's XML to COCO's form."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.formats import import_dataset
from mask_rcnn_ext.errors import DataError

HEIGHT, WIDTH = 30, 40
LABELS = ("zebra", "ant", "never")
POLYGON = '<polygon label="ant" occluded="1" points="1.5,2;20,3.25;4,28" z_order="2">{}</polygon>'


def decode(annotation: dict[str, Any]) -> np.ndarray:
    """(H, W) bool of an annotation with RLE."""
    return coco_mask.decode(annotation["segmentation"]).astype(bool)


def document(body: str, labels: tuple[str, ...] = LABELS, holder: str = "task") -> str:
    declared = "".join(f"<label><name>{n}</name></label>" for n in labels)
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
        f"<meta><{holder}><labels>{declared}</labels></{holder}></meta>\n{body}\n</annotations>"
    )


def image(body: str, name: str = "a.png", width: int = WIDTH) -> str:
    return f'<image id="0" name="{name}" width="{width}" height="{HEIGHT}">\n{body}\n</image>'


def write(folder: Path, text: str, pictures: tuple[str, ...] = ("a.png",)) -> Path:
    for name in pictures:
        (folder / "images").mkdir(exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / name)
    path = folder / "annotations.xml"
    path.write_text(text)
    return path


def read(folder: Path, text: str, pictures: tuple[str, ...] = ("a.png",), **options: str):
    return import_dataset("cvat", write(folder, text, pictures), folder / "images", **options)


def cvat_mask(mask: np.ndarray, left: int, top: int) -> str:
    runs = [(value, len(list(run))) for value, run in groupby(mask.ravel().tolist())]
    counts = [0] * bool(runs[0][0]) + [count for _, count in runs]
    text = ", ".join(map(str, counts))
    height, width = mask.shape
    return (
        f'<mask label="zebra" occluded="0" rle="{text}" left="{left}" top="{top}" '
        f'width="{width}" height="{height}" z_order="0"></mask>'
    )


def test_polygon_box_attributes_and_declared_order(tmp_path):
    body = POLYGON.format('<attribute name="colour">red</attribute>')
    body += '<box label="zebra" occluded="0" xtl="3.5" ytl="4" xbr="13" ybr="9"></box>'
    found = read(tmp_path, document(image(body)))
    assert [c["name"] for c in found.coco["categories"]] == list(LABELS)
    polygon, box = found.coco["annotations"]
    assert polygon["segmentation"] == [[1.5, 2, 20, 3.25, 4, 28]]
    assert polygon["category_id"] == 2
    assert polygon["attributes"] == {"occluded": True, "z_order": 2, "colour": "red"}
    assert box["bbox"] == [3.5, 4, 9.5, 5]
    assert box["attributes"] == {"occluded": False}
    assert found.notes == []


@pytest.mark.parametrize("first", [False, True])
def test_mask_runs_are_exact(tmp_path, first):
    crop = np.random.default_rng(0).random((11, 7)) < 0.5
    crop[0, 0] = first
    (annotation,) = read(tmp_path, document(image(cvat_mask(crop, 5, 6)))).coco["annotations"]
    mask = decode(annotation)
    expected = np.zeros((HEIGHT, WIDTH), dtype=bool)
    expected[6:17, 5:12] = crop
    assert (mask == expected).all()
    assert annotation["area"] == crop.sum()


def test_turned_boxes_and_ellipses(tmp_path):
    body = '<box label="ant" xtl="10" ytl="10" xbr="20" ybr="14" rotation="90"></box>'
    body += '<ellipse label="ant" cx="20" cy="15" rx="10" ry="4" rotation="90"></ellipse>'
    box, ellipse = read(tmp_path, document(image(body))).coco["annotations"]
    assert box["bbox"] == pytest.approx([13, 7, 4, 10])
    # Clockwise: the upper left corner comes to the upper right.
    assert box["segmentation"][0][:2] == pytest.approx([17, 7])
    assert ellipse["bbox"] == pytest.approx([16, 5, 8, 20], abs=0.2)


def test_groups_are_joined_on_demand(tmp_path):
    boxes = "".join(
        f'<box label="{label}" xtl="{x}" ytl="1" xbr="{x + 3}" ybr="4" group_id="{group}"></box>'
        for label, x, group in [("ant", 1, 1), ("ant", 10, 1), ("zebra", 20, 1), ("ant", 30, 0)]
    )
    apart = read(tmp_path, document(image(boxes)))
    assert len(apart.coco["annotations"]) == 4
    assert any(note.startswith("3 x shape with a group_id") for note in apart.notes)
    joined = read(tmp_path, document(image(boxes)), join_groups="true").coco["annotations"]
    assert [len(a["segmentation"]) for a in joined] == [2, 1, 1]


def test_nothing_is_dropped_without_a_word(tmp_path):
    body = (
        '<polyline label="ant" points="1,1;2,2"></polyline>'
        '<points label="ant" points="1,1"></points><points label="ant" points="2,2"></points>'
        '<cuboid label="ant"></cuboid><tag label="ant"></tag><blob label="ant"></blob>'
        '<polygon label="ant" points="1,1;2,2"></polygon>'
    )
    found = read(tmp_path, document(image(POLYGON + body)))
    assert len(found.coco["annotations"]) == 1
    assert all("left out" in note for note in found.notes)
    assert sum(int(note.split(" x ")[0]) for note in found.notes) == 7
    assert any(n.startswith("2 x points, not an area: left out (a.png, line") for n in found.notes)


def test_tracks_become_frames_where_these_are_pictures(tmp_path):
    shapes = "".join(
        f'<box frame="{k}" outside="{int(k == 2)}" keyframe="1" xtl="1" ytl="1" xbr="9" ybr="9">'
        "</box>"
        for k in range(4)
    )
    track = f'<track id="0" label="ant">{shapes}</track>'
    names = ("frame_000000.png", "frame_000001.png", "frame_000007.png")
    found = read(tmp_path, document(track), names)
    assert [i["file_name"] for i in found.coco["images"]] == list(names[:2])
    assert len(found.coco["annotations"]) == 2
    text = " ".join(found.notes)
    assert "1 x shape of a track marked outside" in text
    assert "its frame is no picture here: left out (frame 3)" in text
    assert "1 x frame of a video without a shape: not taken (frame_000007.png)" in text


def test_labels_of_jobs_and_projects(tmp_path):
    for holder in ("job", "project"):
        found = read(tmp_path, document(image(POLYGON), holder=holder))
        assert [c["name"] for c in found.coco["categories"]] == list(LABELS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotations><image></annotations>", ["not well-formed"]),
        ("<other/>", ["<other>"]),
        (document(image("", "gone.png")), ["gone.png", "annotations.xml:3"]),
        (document(image("", width=41)), ["41x30", "40x30"]),
        (document(image("", width=-1).replace('"-1"', '"x"')), ["width", "'x'"]),
        (document(image('<polygon points="1,1;2,2;3,3"/>')), ["annotations.xml:4", "label"]),
        (document(image('<polygon label="ant" points="1,1;2;3,3"/>')), [":4", "'2'"]),
        (document(image('<box label="ant" xtl="1" ytl="1" xbr="nan" ybr="4"/>')), ["xbr", "nan"]),
        (document(image(cvat_mask(np.ones((3, 3)), 39, 0))), ["outside"]),
        (document(image(cvat_mask(np.ones((3, 3)), 0, 0).replace("0, 9", "0, 8"))), ["8 pixels"]),
        (document(image(cvat_mask(np.ones((3, 3)), 0, 0).replace("0, 9", "a"))), ["whole numbers"]),
        (document(""), ["no annotated picture"]),
        (document(image(""), labels=()), ["no class"]),
    ],
)
def test_broken_files_are_refused_with_file_and_element(tmp_path, text, words):
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    for word in words:
        assert word in str(caught.value)


def test_entities_are_refused(tmp_path):
    bomb = '<!DOCTYPE a [<!ENTITY x "aaaa"><!ENTITY y "&x;&x;">]><annotations>&y;</annotations>'
    with pytest.raises(DataError, match="document type definition"):
        read(tmp_path, bomb)
