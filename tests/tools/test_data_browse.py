"""`mask-rcnn-ext data browse`: which images, what is on the page, what a model gets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, elements

from mask_rcnn_ext.data.coco_table import CocoTable, read_coco_table
from mask_rcnn_ext.data.selection import select_images
from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.tools.cli import main

BITMASK = ["INPUT.MASK_FORMAT", "bitmask"]


def _browse(*words: str | Path) -> int:
    return main(["data", "browse", *map(str, words)])


def _images(page: Path) -> list[str]:
    return [str(card["data-image"]) for card in elements(page.read_text(), "article")]


@pytest.fixture
def table(tmp_path: Path) -> CocoTable:
    """100 images; every tenth is empty, every seventh has a large dog."""
    annotations: list[dict[str, Any]] = []
    for k in range(100):
        if k % 10:
            annotations.append({"id": 2 * k, "image_id": k, "category_id": 1, "area": 25.0})
        if k % 7 == 0 and k % 10:
            annotations.append({"id": 2 * k + 1, "image_id": k, "category_id": 2, "area": 1e4})
    data = {
        "images": [{"id": k, "file_name": f"{k}.png", "height": 9, "width": 9} for k in range(100)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    path = tmp_path / "hundred.json"
    path.write_text(json.dumps(data))
    return read_coco_table(path)


# ---------------------------------------------------------------------------------------------
# Selection


@pytest.mark.parametrize("seed", range(5))
def test_images_are_spread_over_the_file(table, seed):
    rows = select_images(table, 20, seed)
    assert len(rows) == len(set(rows.tolist())) == 20
    assert (np.diff(rows) > 0).all()
    # One of each stretch of five, but for the empty one that may replace its neighbour.
    assert (np.abs(np.arange(20) - rows // 5) <= 1).all()
    assert (rows % 10 == 0).any()
    assert (rows == select_images(table, 20, seed)).all()


def test_another_seed_shows_other_images(table):
    chosen = {tuple(select_images(table, 10, seed).tolist()) for seed in range(6)}
    assert len(chosen) == 6


def test_all_images_when_there_are_fewer_than_asked_for(table):
    assert select_images(table, 500, 3).tolist() == list(range(100))


def test_images_by_class_size_and_id(table):
    dogs = [k for k in range(100) if k % 7 == 0 and k % 10]
    assert select_images(table, 100, 0, classes=["dog"]).tolist() == dogs
    assert select_images(table, 100, 0, min_size=50).tolist() == dogs
    assert set(select_images(table, 5, 1, classes=["dog"]).tolist()) < set(dogs)
    assert select_images(table, 1, 0, ids=["40", "7", "40"]).tolist() == [40, 7]


def test_one_image_alone_need_not_be_an_empty_one(table):
    found = {select_images(table, 1, seed).item() % 10 == 0 for seed in range(12)}
    assert found == {False, True} or found == {False}


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({"classes": ["zebra"]}, "no class 'zebra'; it has: cat, dog"),
        ({"ids": ["1", "1000"]}, "no image with the id 1000"),
        ({"min_size": 500.0}, "no image that matches"),
        ({"classes": ["cat"], "min_size": 6.0}, "no image that matches"),
    ],
)
def test_a_filter_that_nothing_matches(table, what, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        select_images(table, 10, 0, **what)


# ---------------------------------------------------------------------------------------------
# The verb


def test_a_page_of_a_registered_set(scenes, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert _browse("scenes_train", "--out", page) == 0
    data = json.loads((scenes / "scenes/annotations/instances_train.json").read_text())
    html = page.read_text()
    assert _images(page) == [str(image["id"]) for image in data["images"]]
    assert {pin.text for pin in elements(html, "button", "pin")} == {
        str(annotation["id"]) for annotation in data["annotations"]
    }
    assert len(elements(html, "path", "mask")) == len(data["annotations"])
    assert len(elements(html, "img")) == len(data["images"])
    said = capsys.readouterr().out
    assert f"{len(data['images'])} images, {len(data['annotations'])} instances" in said
    before = page.read_bytes()
    assert _browse("scenes_train", "--out", page) == 0, "its own page is replaced"
    assert page.read_bytes() == before


def test_a_file_and_a_folder(scenes, tmp_path):
    file = scenes / "scenes/annotations/person_keypoints_train.json"
    words = ("--images", scenes / "scenes/train", "--out", tmp_path / "pages", "--count", 5)
    assert _browse(file, *words) == 0
    html = (tmp_path / "pages/index.html").read_text()
    assert len(elements(html, "article")) == 5
    assert elements(html, "circle")
    assert elements(html, "input", "")[0]


def test_in_a_browser_the_filter_keeps_what_matches(scenes, tmp_path):
    page = tmp_path / "page.html"
    assert _browse("scenes_train", "--out", page, "--count", "8") == 0
    html = Browser(tmp_path).dom(page, "class=person&min=8")
    drawn = elements(html, "g", "instance")
    kept = [one for one in drawn if not one.hidden]
    expected = [
        one for one in drawn if one["data-class"] == "person" and float(one["data-size"]) >= 8
    ]
    assert kept == expected
    assert 0 < len(kept) < len(drawn)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("scenes_train", "--out", "{folder}/no/where.html"), "there is no folder"),
        (("scenes_train", "--out", "{diary}"), "was not written by this command"),
        (("{file}", "--out", "{file}"), "is the file that is read"),
        (("scenes_train", "--out", "{folder}/p.html", "--ids", "x"), "no image with the id x"),
        (("scenes_train", "--out", "{folder}/p.html", "--opts", "A", "1"), "go with --augmented"),
    ],
)
def test_a_wrong_call_is_refused(scenes, tmp_path, capsys, words, message):
    diary = tmp_path / "diary.html"
    diary.write_text("dear diary")
    file = scenes / "scenes/annotations/instances_val.json"
    assert _browse(*(word.format(folder=tmp_path, diary=diary, file=file) for word in words)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert diary.read_text() == "dear diary"
    assert not (tmp_path / "p.html").exists()


def test_images_that_are_not_there_are_counted(scenes, tmp_path, capsys):
    file = scenes / "scenes/annotations/instances_val.json"
    assert _browse(file, "--out", tmp_path / "p.html", "--images", tmp_path) == 0
    assert (
        "4 images could not be shown as they should; the first: there is no file"
        in capsys.readouterr().out
    )
    assert len(elements((tmp_path / "p.html").read_text(), "article")) == 4


# ---------------------------------------------------------------------------------------------
# What the model gets


def _titles(page: Path) -> list[str]:
    return [title.text.strip() for title in elements(page.read_text(), "h3")]


def _augmented(page: Path, *opts: str, count: int = 2) -> int:
    words = ("--augmented", "--count", str(count), "--draws", "3", "--out", page)
    small = ("INPUT.MIN_SIZE_TRAIN", "(48,80)", "INPUT.MAX_SIZE_TRAIN", "100")
    return _browse("scenes_train", *words, "--opts", *small, *opts)


def test_draws_of_each_augmentation_beside_the_image(scenes, tmp_path):
    page = tmp_path / "p.html"
    assert _augmented(page, "INPUT.CROP.ENABLED", "True", *BITMASK) == 0
    titles = _titles(page)
    assert len(titles) == 2 * 5
    assert titles[0] == "the image of the file"
    assert titles[1] == "all augmentations together, as in training"
    alone = " ".join(titles[2:5])
    for name in ("RandomCrop", "ResizeShortestEdge", "RandomFlip"):
        assert name in alone
    before = page.read_bytes()
    assert _augmented(page, "INPUT.CROP.ENABLED", "True", *BITMASK) == 0
    assert page.read_bytes() == before, "the same seed, the same draws"


def test_an_augmentation_that_changes_nothing_between_draws_has_one_picture(scenes, tmp_path):
    page = tmp_path / "p.html"
    assert _augmented(page, "INPUT.MIN_SIZE_TRAIN", "(64,)", "INPUT.RANDOM_FLIP", "none") == 0
    captions = [one.text for one in elements(page.read_text(), "figcaption")]
    assert len(captions) == 2
    assert all(caption.startswith("draw 1: 64 × 64") for caption in captions)
    sources = [image["src"] for image in elements(page.read_text(), "img")]
    assert sources[0::2] == sources[1::2], "and that is the image, colours and all"


def test_copy_paste_has_a_row_with_more_instances(scenes, tmp_path):
    page = tmp_path / "p.html"
    keys = (*BITMASK, "INPUT.COPY_PASTE.PROBABILITY", "0.5")
    assert _augmented(page, *keys, count=6) == 0
    html = page.read_text()
    assert any(title.startswith("copy-paste alone") for title in _titles(page))
    before: dict[str, int] = {}
    pasted = []
    for card in elements(html, "article"):
        before[str(card["data-image"])] = 0
    for one in elements(html, "figcaption"):
        pasted.append(int(re.search(r"(\d+) instances", one.text)[1]))
    originals = [
        len([pin for pin in elements(html, "button", "pin") if _card(pin) == image])
        for image in before
    ]
    assert max(pasted) > max(originals)


def _card(element: Any) -> str:
    while element.name != "article":
        element = element.parent
    return str(element["data-image"])


def test_masks_of_a_draw_lie_on_their_objects(scenes, tmp_path):
    """A resize alone, to twice the size, doubles every box."""
    page = tmp_path / "p.html"
    keys = ("INPUT.MIN_SIZE_TRAIN", "(128,)", "INPUT.MAX_SIZE_TRAIN", "999")
    assert _augmented(page, *keys, "INPUT.RANDOM_FLIP", "none", *BITMASK) == 0
    html = page.read_text()
    frames: dict[tuple[str, str], list[list[float]]] = {}
    for box in elements(html, "rect", "box"):
        svg = box.parent.parent
        numbers = [float(box[name]) for name in ("x", "y", "width", "height")]
        frames.setdefault((_card(box), svg["viewbox"]), []).append(numbers)
    for (image, view), boxes in frames.items():
        if view == "0 0 128 128":
            twice = np.array(frames[image, "0 0 64 64"]) * 2
            crowds = len(twice) - len(boxes)
            assert crowds >= 0
            near = [np.abs(twice - box).max(axis=1).min() for box in np.array(boxes)]
            assert max(near) <= 2, image


def test_an_image_that_the_mapper_refuses_says_why(scenes, tmp_path):
    file = tmp_path / "some.json"
    data = json.loads((scenes / "scenes/annotations/instances_train.json").read_text())
    broken = data["annotations"][0]
    broken["segmentation"] = {"size": [5, 5], "counts": "5d0"}
    broken["iscrowd"] = 0
    file.write_text(json.dumps(data))
    page = tmp_path / "p.html"
    words = ("--images", scenes / "scenes/train", "--augmented", "--out", page)
    assert _browse(file, *words, "--ids", broken["image_id"]) == 0
    warnings = " ".join(one.text for one in elements(page.read_text(), "p", "warning"))
    assert f"annotation id {broken['id']}" in warnings
