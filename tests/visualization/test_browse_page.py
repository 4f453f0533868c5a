"""The page of `data browse`: safe, whole without scripts, and filtered in a real browser."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import Browser, elements, without_scripts
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.coco_table import read_coco_table
from mask_rcnn_ext.visualization.browse_cards import CardMaker
from mask_rcnn_ext.visualization.browse_page import Card, Picture, Shown, browse_page
from mask_rcnn_ext.visualization.draw import class_colour
from mask_rcnn_ext.visualization.html import picture_uri
from mask_rcnn_ext.visualization.outlines import path_of_mask, path_of_polygons

EVIL = (
    "</title><script>document.documentElement.id='owned'</script>\"'><img src=x onerror=alert(1)>"
)


def _annotation(
    key: int, image: Any, category: int, box: list[float], **more: Any
) -> dict[str, Any]:
    x, y, w, h = box
    polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    return {
        "id": key, "image_id": image, "category_id": category, "bbox": box, "area": w * h,
        "iscrowd": 0, "segmentation": polygon, **more,
    }  # fmt: skip


def _rle(
    height: int = 300, width: int = 400, box: tuple[int, int, int, int] = (100, 100, 60, 60)
) -> dict[str, Any]:
    bits = np.zeros((height, width), np.uint8, order="F")
    x, y, w, h = box
    bits[y : y + h, x : x + w] = 1
    found = coco_mask.encode(bits)
    return {"size": found["size"], "counts": found["counts"].decode()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Four images of 300 x 400: large and small things, a crowd, nothing, a missing file."""
    grey = np.full((300, 400, 3), 128, np.uint8)
    for name in ("a.png", "b & c.png", "empty.png"):
        cv2.imwrite(str(tmp_path / name), grey)
    names = ("a.png", "b & c.png", "empty.png", "gone.png")
    data = {
        "images": [
            {"id": k, "file_name": name, "height": 300, "width": 400}
            for k, name in enumerate(names, start=1)
        ],
        "annotations": [
            _annotation(11, 1, 1, [40, 40, 200, 200]),
            _annotation(12, 1, 2, [300, 200, 20, 20]),
            _annotation(13, 2, 2, [100, 100, 60, 60], segmentation=_rle()),
            _annotation(14, 2, 1, [0, 0, 300, 80], iscrowd=1, area=5000),
            _annotation(15, 4, 2, [10, 10, 100, 100]),
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "odd <i>&</i> class"}],
    }  # fmt: skip
    path = tmp_path / "set.json"
    path.write_text(json.dumps(data))
    return path


def _page(path: Path, target: Path | None = None) -> Path:
    table = read_coco_table(path)
    make = CardMaker(table, str(path.parent), 320)
    target = target or path.with_name("page.html")
    cards = [make(row) for row in range(table.num_images)]
    target.write_bytes(browse_page(path.stem, "all of it", cards))
    return target


def _shown(html: str) -> tuple[list[str | None], list[str]]:
    """Ids of the images that are shown, and of the annotations in their tables."""
    cards = [card for card in elements(html, "article") if not card.hidden]
    pins = [pin.text for pin in elements(html, "button", "pin") if not pin.hidden]
    return [card["data-image"] for card in cards], pins


# ---------------------------------------------------------------------------------------------
# What is in the file


def test_everything_is_on_the_page_without_a_script(file):
    html = _page(file).read_text()
    assert _shown(html) == (["1", "2", "3", "4"], ["11", "12", "14", "13", "15"])
    texts = [text.text.strip() for text in elements(html, "text", "label")]
    assert texts[0] == "person 11"
    assert any(text.startswith("person (crowd)") for text in texts)
    names = " ".join(one.text for one in elements(html, "p", "name"))
    assert "b & c.png" in names
    assert len(elements(html, "path", "mask")) == 5
    assert len(elements(html, "rect", "box")) == 5
    badges = [badge.parent for badge in elements(html, "span", "badge")]
    assert len(badges) == 1, "only the empty image is marked as empty"


def test_it_is_one_file_that_loads_nothing(file):
    html = _page(file).read_text()
    for name in ("img", "script", "link", "iframe"):
        for element in elements(html, name):
            source = element.get("src") or element.get("href") or "data:"
            assert source.startswith("data:"), element
    assert not re.search(r"url\((?!data:)", html)
    policy = next(
        meta["content"]
        for meta in elements(html, "meta")
        if meta.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in str(policy)


def test_the_same_data_gives_the_same_bytes(file, tmp_path):
    assert _page(file).read_bytes() == _page(file, tmp_path / "again.html").read_bytes()


def test_pictures_have_words_for_those_who_cannot_see_them(file):
    html = _page(file).read_text()
    alts = [image["alt"] for image in elements(html, "img")]
    assert alts == [
        "Image 1: 1 person, 1 odd <i>&</i> class",
        "Image 2: 1 person, 1 odd <i>&</i> class",
        "Image 3: no instances",
    ]
    for control in elements(html, "input") + elements(html, "select"):
        assert control.get("aria-label") or control.parent.name == "label", control


def test_a_file_that_is_missing_or_does_not_decode_has_a_card_that_says_so(file):
    (file.parent / "a.png").write_bytes(b"not a picture")
    html = _page(file).read_text()
    warnings = [one.text for one in elements(html, "p", "warning")][1:]  # the first: no scripts
    assert "a.png does not decode" in warnings[0]
    assert "there is no file" in warnings[1]
    assert "gone.png" in warnings[1]
    assert len(elements(html, "img")) == 2


def test_a_picture_of_another_size_than_the_annotations_say(file):
    cv2.imwrite(str(file.parent / "a.png"), np.zeros((200, 100, 3), np.uint8))
    html = _page(file).read_text()
    assert "the file is 100 × 200 pixels, the annotations say 400 × 300" in html


def test_broken_annotations_are_shown_as_such(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((50, 50, 3), np.uint8))
    annotations = [
        {"id": "x", "image_id": 1, "category_id": 9, "bbox": [1, 2], "segmentation": "no"},
        {"image_id": 1, "category_id": 1, "segmentation": [[1, 2, 3]], "iscrowd": 7},
        _annotation(3, 1, 1, [5, 5, 10, 10], segmentation=_rle(20, 20, (1, 1, 5, 5))),
        _annotation(4, 1, 1, [5, 5, 10, 10], segmentation=[5, 5, 15, 5, 15, 15]),
        _annotation(5, 1, 1, [9, 9, -3, -3], keypoints=[1, 2, "a"]),  # drawn as it is
        _annotation(6, 1, 1, [5, 5, 10, 10], segmentation={"size": [50, 50], "counts": "~~"}),
    ]
    data = {
        "images": [{"id": 1, "file_name": "a.png", "height": 50, "width": 50}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cat"}],
    }
    path = tmp_path / "broken.json"
    path.write_text(json.dumps(data))
    html = _page(path).read_text()
    notes = " | ".join(one.text for one in elements(html, "td", "warning"))
    assert "its class is not in the file" in notes
    assert "its box is not four numbers" in notes
    assert "iscrowd is neither 0 nor 1" in notes
    assert "its RLE has the size [20, 20], its image [50, 50]" in notes
    assert "unknown class 9" in html
    assert len(elements(html, "button", "pin")) == 6
    assert len(elements(html, "path", "mask")) == 2  # a flat list is drawn as a polygon


# ---------------------------------------------------------------------------------------------
# Nothing of the data is taken for HTML


def _evil_file(folder: Path) -> Path:
    name = "<script>boo&.png"
    cv2.imwrite(str(folder / "plain.png"), np.zeros((50, 50, 3), np.uint8))
    (folder / "plain.png").rename(folder / name)
    data = {
        "images": [
            {"id": EVIL, "file_name": name, "height": 50, "width": 50},
            {"id": 2, "file_name": EVIL.replace("/", ""), "height": 50, "width": 50},
            {"id": 3, "file_name": "a\0b\u202e.png", "height": 50, "width": 50},
        ],
        "annotations": [
            _annotation(1, EVIL, 1, [5, 5, 10, 10]),
            _annotation(2, EVIL, EVIL, [5, 5, 20, 20]),
            {**_annotation(3, EVIL, 1, [5, 5, 30, 30]), "id": EVIL, "segmentation": EVIL},
        ],
        "categories": [{"id": 1, "name": EVIL}],
    }
    path = folder / "evil.json"
    path.write_text(json.dumps(data))
    return path


def test_text_of_the_data_is_escaped(tmp_path):
    html = _page(_evil_file(tmp_path)).read_text()
    assert len(elements(html, "script")) == 1
    assert len(elements(html, "img")) == 1
    assert not [one for one in elements(html, "img") if "onerror" in one]
    assert EVIL in elements(html, "article")[0]["data-image"]
    assert elements(html, "title")[0].text == "evil"


def test_text_of_the_data_does_not_run(tmp_path):
    html = Browser(tmp_path).dom(_page(_evil_file(tmp_path)))
    root = elements(html, "html")[0]
    assert "no-script" not in root.classes, "the page's own script has run"
    assert "id" not in root
    assert "3 of 3 images, 3 of 3 instances" in elements(html, "output")[0].text


def test_a_script_that_slipped_in_is_stopped_by_the_policy(file):
    page = _page(file)
    page.write_text(
        page.read_text().replace("<main", "<script>document.title='owned'</script><main")
    )
    html = Browser(file.parent).dom(page)
    assert elements(html, "title")[0].text == "set"


# ---------------------------------------------------------------------------------------------
# In a browser


@pytest.mark.parametrize(
    ("fragment", "images", "annotations"),
    [
        ("class=person&min=100", ["1"], ["11"]),
        ("class=odd+%3Ci%3E%26%3C%2Fi%3E+class", ["1", "2", "4"], ["12", "13", "15"]),
        ("min=60&max=100", ["2"], ["14", "13"]),
        ("kind=crowd", ["2"], ["14"]),
        ("kind=none", ["3"], []),
        ("image=2", ["2"], ["14", "13"]),
        ("class=zebra&min=abc", [], []),
    ],
)
def test_filters_of_the_address(file, fragment, images, annotations):
    html = Browser(file.parent).dom(_page(file), fragment)
    assert _shown(html) == (images, annotations)
    drawn = [one for one in elements(html, "g", "instance") if not one.hidden]
    assert len(drawn) == len(annotations)
    labels = [one for one in elements(html, "text", "label") if not one.hidden]
    assert len(labels) == len(annotations)
    status = elements(html, "output")[0].text
    assert status == f"{len(images)} of 4 images, {len(annotations)} of 5 instances"
    nothing = next(p for p in elements(html, "p") if p.get("id") == "nothing")
    assert nothing.hidden == bool(images)


def _and_then(page: Path, script: str) -> Path:
    """A copy of the page with a second script that acts as a visitor."""
    text = re.sub(r"script-src 'sha256-[^']+'", "script-src 'unsafe-inline'", page.read_text())
    copy = page.with_name("visited.html")
    copy.write_text(text.replace("</body>", f"<script>{script}</script></body>"))
    return copy


def test_a_chosen_instance_is_marked_in_picture_and_table(file):
    browser = Browser(file.parent)
    click = "document.querySelectorAll('.instance')[1].dispatchEvent(new MouseEvent('click'))"
    html = browser.dom(_and_then(_page(file), click))
    assert [one["data-number"] for one in elements(html, "g", "pinned")] == ["1"]
    assert elements(html, "tr", "pinned")[0].text.split()[0] == "12"
    assert "open" in elements(html, "details")[0]
    by_button = browser.dom(_and_then(_page(file), "document.querySelector('.pin').click()"))
    assert [one["data-number"] for one in elements(by_button, "g", "pinned")] == ["0"]


def test_filters_by_hand_are_kept_in_the_address(file):
    check = "const chip = document.querySelectorAll('input[name=class]')[1];"
    act = "chip.checked = true; chip.dispatchEvent(new Event('change'));"
    note = "document.title = location.hash; document.querySelector('[data-min=\"32\"]').click();"
    html = Browser(file.parent).dom(_and_then(_page(file), check + act + note))
    assert elements(html, "title")[0].text == "#class=person"
    assert _shown(html) == (["2"], ["14"]), "a person of medium size"


def test_without_scripts_all_images_are_there_and_a_note(file):
    browser = Browser(file.parent)
    page = without_scripts(_page(file))
    html = browser.dom(page, "class=person")
    assert _shown(html)[0] == ["1", "2", "3", "4"]
    assert "no-script" in elements(html, "html")[0].classes
    notes = [one.text for one in elements(html, "p", "without-script")]
    assert notes == ["Filters need scripts, which are off here: all 4 images are shown."]

    assert _tinted(browser.screenshot(page)) > 5000, "the cards are seen, too"


def _tinted(seen: np.ndarray) -> int:
    """Pixels with the tint of a mask of class 0, alpha .38, on the grey of the pictures."""
    tint = 0.62 * 128 + 0.38 * np.array(class_colour(0))
    return int((np.abs(seen - tint).max(axis=2) <= 2).sum())


def test_what_one_sees(file):
    browser = Browser(file.parent)
    page = _page(file)
    assert _tinted(browser.screenshot(page)) > 5000
    assert _tinted(browser.screenshot(page, "class=odd+%3Ci%3E%26%3C%2Fi%3E+class")) < 50


def test_cards_stay_inside_a_narrow_window(file):
    picture = Browser(file.parent).screenshot(_page(file), size=(500, 1400))
    background = picture[-1, -1]
    assert (np.abs(picture[:, -8:].astype(int) - background) <= 2).all(), "something sticks out"


# ---------------------------------------------------------------------------------------------
# Outlines, labels, pictures


def _filled(path: str, height: int, width: int, scale: int = 8) -> np.ndarray:
    """Share of each pixel that a path covers by the even-odd rule, (height, width) float."""
    rings = [
        np.array([[float(v) for v in point.split()] for point in ring.split("L")])
        for ring in re.findall(r"M([^Z]*)Z", path)
    ]
    canvas = np.zeros((height * scale, width * scale), np.uint8)
    corners = [np.round(ring * scale - 0.5).astype(np.int32) for ring in rings]
    if corners:
        cv2.fillPoly(canvas, corners, 1)
    return canvas.reshape(height, scale, width, scale).mean(axis=(1, 3))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**63), st.integers(1, 24), st.integers(1, 24), st.floats(0.05, 0.95))
def test_the_outline_of_a_mask_covers_the_mask(seed, height, width, density):
    bits = np.random.default_rng(seed).random((height, width)) < density
    covered = _filled(path_of_mask(bits, 2, 3), height + 3, width + 2)
    expected = np.zeros((height + 3, width + 2), bool)
    expected[3:, 2:] = bits
    assert ((covered > 0.5) == expected).all()


def test_the_outline_of_a_mask_with_a_hole():
    bits = np.ones((20, 20), bool)
    bits[5:15, 5:15] = False
    path = path_of_mask(bits, 0, 0, tolerance=0.4)
    assert path.count("M") == 2
    assert _filled(path, 20, 20)[10, 10] == 0
    assert path_of_mask(np.zeros((3, 3), bool), 0, 0) == ""


def test_polygons_of_one_object_turn_the_same_way_round():
    square = np.array([[0, 0], [10, 0], [10, 10], [0, 10]], float)
    path = path_of_polygons([square, square[::-1] + 5])
    assert path == "M0 0L10 0L10 10L0 10ZM5 5L15 5L15 15L5 15Z"


def test_labels_keep_apart_and_inside():
    boxes = [(float(x), float(y), x + 90.0, y + 60.0) for x in (0, 150, 290) for y in (0, 100, 200)]
    shown = tuple(
        Shown(str(k), "a class", k, box, "", False, 5400.0) for k, box in enumerate(boxes)
    )
    picture = Picture("", 300, 400, shown)
    assert len(picture.labels) == len(shown)
    places = [(label.x, label.y) for label in picture.labels if not label.crowded]
    assert len(set(places)) == len(shown)
    assert all(0 <= x < 400 and 0 < y <= 300 for x, y in places)
    crowd = Picture(
        "",
        40,
        40,
        tuple(Shown("", "long name", 0, (0, 0, 40, 40), "", False, 9.0) for _ in range(30)),
    )
    assert sum(label.crowded for label in crowd.labels) > 20


def test_pictures_are_made_smaller_and_small_ones_stay_exact():
    small = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    uri = picture_uri(small, 640)
    assert uri.startswith("data:image/png;base64,")
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(uri.split(",")[1]), np.uint8), 1)
    assert (decoded[:, :, ::-1] == small).all()
    large = picture_uri(np.zeros((3000, 1000, 3), np.uint8), 640)
    decoded = cv2.imdecode(np.frombuffer(base64.b64decode(large.split(",")[1]), np.uint8), 1)
    assert decoded.shape == (640, 213, 3)


def test_a_page_without_cards_or_classes():
    html = browse_page("nothing", "", [Card("1", "x.png", Picture("", 10, 10, ()))]).decode()
    assert "no instance on this page" in html
    assert len(elements(html, "article")) == 1


def test_half_a_surrogate_pair_in_a_name_does_not_stop_the_page():
    page = browse_page("a", "", [Card("1", "\ud800.png", Picture("", 10, 10, ()))])
    assert "?.png" in page.decode()
