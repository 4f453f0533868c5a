"""A good annotation file, and one broken file for each defect, with what must be said about it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as coco_mask

HEIGHT, WIDTH = 60, 80
NAMES = ("a.png", "b.png", "c.png")


def good() -> dict[str, Any]:
    """Three images, two classes, six objects and a crowd."""
    data: dict[str, Any] = {
        "images": [
            {"id": 11 + i, "file_name": name, "height": HEIGHT, "width": WIDTH}
            for i, name in enumerate(NAMES)
        ],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [],
    }
    places = [(11, 3, 30, 20), (11, 7, 5, 35), (12, 3, 10, 8), (12, 7, 40, 30), (13, 3, 20, 25)]
    for image_id, category_id, x, y in [*places, (13, 7, 50, 5)]:
        w, h = 20, 16
        data["annotations"].append(
            {
                "id": 101 + len(data["annotations"]),
                "image_id": image_id,
                "category_id": category_id,
                "bbox": [x, y, w, h],
                "area": float(w * h),
                "iscrowd": 0,
                "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
            }
        )
    crowd = {"id": 107, "image_id": 13, "category_id": 3, "iscrowd": 1, "area": 100.0}
    crowd |= {"bbox": [60, 40, 10, 10], "segmentation": rle(60, 40, 10, 10)}
    data["annotations"].append(crowd)
    return data


def with_keypoints() -> dict[str, Any]:
    """The good file as one of keypoints, three for each object."""
    data = good()
    for category in data["categories"]:
        category |= {"keypoints": ["head", "hand", "foot"], "skeleton": [[1, 2], [2, 3]]}
    for annotation in data["annotations"]:
        x, y = annotation["bbox"][:2]
        annotation |= {"keypoints": [x + 1, y + 1, 2, x + 5, y + 5, 1, 0, 0, 0], "num_keypoints": 2}
    return data


def rle(x: int, y: int, w: int, h: int, size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict[str, Any]:
    """Compressed RLE of a rectangle."""
    mask = np.zeros(size, np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    encoded = coco_mask.encode(mask)
    return {"size": list(size), "counts": encoded["counts"].decode()}


def write(folder: Path, data: Any, name: str = "annotations.json") -> Path:
    """The file, with its three pictures beside it in `images/`; NaN may be in it."""
    write_pictures(folder)
    path = folder / name
    path.write_text(json.dumps(data))
    return path


def write_pictures(folder: Path) -> Path:
    """Three noise pictures of different content."""
    images = folder / "images"
    images.mkdir(exist_ok=True)
    for number, name in enumerate(NAMES):
        if not (images / name).exists():
            noise = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
            cv2.imwrite(str(images / name), noise)
    return images


@dataclass(frozen=True)
class Broken:
    """code and severity of the finding; `say`, a pattern that its line matches."""

    code: str
    severity: str
    change: Callable[[dict[str, Any]], None]
    say: str
    start: Callable[[], dict[str, Any]] = good
    also: tuple[str, ...] = ()  # further codes that are right, too

    def data(self) -> dict[str, Any]:
        data = copy.deepcopy(self.start())
        self.change(data)
        return data

    @property
    def name(self) -> str:
        return f"{self.code}: {self.say[:30]}"


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """`annotations.0.bbox` -> value; Ellipsis deletes."""

    def change(data: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node: Any = data
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node[part]
        key = int(last) if isinstance(node, list) else last
        if value is ...:
            del node[key]
        else:
            node[key] = value

    return change


def each(section: str, apply: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    """Change every entry of a section."""

    def change(data: dict[str, Any]) -> None:
        for entry in data[section]:
            apply(entry)

    return change


def xyxy(annotation: dict[str, Any]) -> None:
    x, y, w, h = annotation["bbox"]
    annotation["bbox"] = [x, y, x + w, y + h]


def normalise_box(annotation: dict[str, Any]) -> None:
    x, y, w, h = annotation["bbox"]
    annotation["bbox"] = [x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT]


def normalise_mask(annotation: dict[str, Any]) -> None:
    if isinstance(annotation["segmentation"], list):
        sides = (WIDTH, HEIGHT)
        annotation["segmentation"] = [
            [value / sides[i % 2] for i, value in enumerate(part)]
            for part in annotation["segmentation"]
        ]


def flatten(annotation: dict[str, Any]) -> None:
    if isinstance(annotation["segmentation"], list):
        annotation["segmentation"] = annotation["segmentation"][0]


def no_mask(annotation: dict[str, Any]) -> None:
    del annotation["segmentation"]


def text_id(*keys: str) -> Callable[[dict[str, Any]], None]:
    def apply(entry: dict[str, Any]) -> None:
        for key in keys:
            entry[key] = str(entry[key])

    return apply


def all_of(*changes: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for one in changes:
            one(data)

    return change


def repeat(section: str, row: int, **values: Any) -> Callable[[dict[str, Any]], None]:
    """Append a copy of an entry with some values changed."""

    def change(data: dict[str, Any]) -> None:
        data[section].append({**copy.deepcopy(data[section][row]), **values})

    return change


NAN = float("nan")
WHERE = r"annotations\.json: image 11 \(a\.png\), annotation 101: "  # most are put there
FIRST = "annotations.0"
BROKEN = [
    # ids
    Broken("image-id", "error", put("images.1.id", ...), "image number 1 .b.png.*lacks id",
           also=("unknown-image", "images-without-objects")),
    Broken("image-id", "error", put("images.1.id", True), r"id of image number 1 is True, expected",
           also=("unknown-image", "images-without-objects")),
    Broken("annotation-id", "error", put("annotations.0.id", ...), "image 11 .*number 0 lacks id"),
    Broken("annotation-id", "error", put("annotations.0.id", 1.5), "id of annotation .* is 1.5"),
    Broken("category-id", "error", put("categories.0.id", ...), "category number 0 lacks id",
           also=("unknown-category", "class-without-objects")),
    Broken("duplicate-image-id", "error", put("images.1.id", 11),
           r"image 11 \(b\.png\): another image before it has the id 11",
           also=("unknown-image", "images-without-objects", "repeated-box")),
    Broken("duplicate-annotation-id", "error", put("annotations.1.id", 101),
           r"image 11 \(a\.png\), annotation 101: another annotation has the id 101"),
    Broken("duplicate-category-id", "error", put("categories.1.id", 3),
           "category 'dog' has the id 3, which",
           also=("unknown-category", "class-without-objects")),
    Broken("mixed-ids", "error", put("images.0.id", "11"), "in images, 1 are text and 2 numbers",
           also=("unknown-image", "images-without-objects")),
    Broken("string-ids", "warning",
           all_of(each("images", text_id("id")), each("annotations", text_id("image_id"))),
           "the ids in images are text, such as '11'"),
    Broken("unknown-image", "error", put(FIRST + ".image_id", 99),
           "annotation 101: belongs to image_id 99, which no image has"),
    Broken("unknown-image", "error", put(FIRST + ".image_id", "11"), "1 is not '1'"),
    Broken("unknown-image", "error", put(FIRST + ".image_id", ...), "101: lacks image_id"),
    Broken("unknown-image", "error", put(FIRST + ".image_id", [11]), r"belongs to image_id \[11\]"),
    Broken("unknown-category", "error", put(FIRST + ".category_id", 99),
           WHERE + "has category_id 99, which no"),
    Broken("unknown-category", "error", put(FIRST + ".category_id", ...), "lacks category_id"),
    Broken("annotation-id-zero", "warning", put(FIRST + ".id", 0), "annotation 0: has the id 0"),
    # images
    Broken("image-size", "error", put("images.1.height", ...), r"12 \(b\.png\): lacks height"),
    Broken("image-size", "error", put("images.1.width", 0), "has height 60 and width 0, expected"),
    Broken("image-size", "error", put("images.1.width", "80"), "has height 60 and width '80'"),
    Broken("image-file-name", "error", put("images.1.file_name", ...), "image 12: lacks file_name"),
    Broken("image-file-name", "error", put("images.1.file_name", 5), "image 12: has file_name 5"),
    Broken("absolute-file-name", "warning", put("images.1.file_name", "/data/b.png"),
           r"image 12 \(/data/b\.png\): .*a path of one machine", also=("missing-image",)),
    Broken("file-name-outside", "warning", put("images.1.file_name", "../images/b.png"),
           r"image 12 .*'\.\./images/b\.png' leads out of"),
    Broken("repeated-image", "error", put("images.1.file_name", "./a.png"),
           r"image 12 \(\./a\.png\): is the same file as image 11"),
    Broken("missing-image", "error", put("images.1.file_name", "gone.png"),
           r"image 12 \(gone\.png\): gone\.png is not in .*images \(1 of 3\)"),
    Broken("missing-image", "error", put("images.1.file_name", "B.PNG"), "; there is b.png"),
    # classes
    Broken("category-name", "error", put("categories.1.name", ...), "category 7 lacks name"),
    Broken("category-name", "error", put("categories.1.name", 7), "category 7 has the name 7"),
    Broken("repeated-class-name", "warning", put("categories.1.name", "Cat "),
           "category 7 is called 'Cat ', as category 3 is"),
    Broken("class-without-objects", "warning", repeat("categories", 0, id=9, name="eel"),
           r"class 'eel' \(id 9\) has no object"),
    # boxes
    Broken("box-malformed", "error", put(FIRST + ".bbox", ...), WHERE + "lacks bbox"),
    Broken("box-malformed", "error", put(FIRST + ".bbox", [1, 2, 3]), r"bbox \[1, 2, 3\], exp"),
    Broken("box-malformed", "error", put(FIRST + ".bbox", [1, 2, 3, NAN]), "four finite numbers"),
    Broken("box-malformed", "error", put(FIRST + ".bbox", [1, 2, float("inf"), 4]), "four finite"),
    Broken("box-malformed", "error", put(FIRST + ".bbox", [1, 2, "3", 4]), "four finite numbers"),
    Broken("box-negative", "error", put(FIRST + ".bbox", [50, 36, -20, -16]),
           WHERE + r"bbox \[50, 36, -20, -16\] has a negative"),
    Broken("box-empty", "warning", put(FIRST + ".bbox", [30, 20, 20, 0]), WHERE + ".*has no area"),
    Broken("box-xyxy", "error", put(FIRST + ".bbox", [30, 20, 50, 36]),
           WHERE + r".*looks like x0, y0, x1, y1: the mask reaches from \(30, 20\) to \(50, 36\)"),
    Broken("box-normalised", "error", put(FIRST + ".bbox", [0.3, 0.3, 0.25, 0.2]),
           WHERE + ".*between 0 and 1"),
    Broken("box-outside", "error", put(FIRST + ".bbox", [200, 20, 20, 16]),
           WHERE + r".*outside of the image of 80 x 60"),
    Broken("box-beyond-edge", "warning", all_of(
        put(FIRST + ".bbox", [65, 20, 20, 16]),
        put(FIRST + ".segmentation", [[65, 20, 85, 20, 85, 36, 65, 36]])),
           WHERE + r".*by 5\.0 px", also=("mask-beyond-edge",)),
    Broken("box-not-around-mask", "error", put(FIRST + ".bbox", [2, 2, 20, 16]),
           WHERE + r"bbox \[2, 2, 20, 16\] is off by 28\.0 px: the mask reaches from \(30, 20\)"),
    Broken("box-loose", "warning", put(FIRST + ".bbox", [27, 20, 23, 16]), WHERE + r".*3\.0 px"),
    Broken("repeated-box", "warning", repeat("annotations", 0, id=120),
           r"image 11 \(a\.png\), annotation 120: has the same box and class as annotation 101"),
    # masks
    Broken("no-masks", "warning", each("annotations", no_mask), "no annotation has a segmentation"),
    Broken("mask-missing", "error", put(FIRST + ".segmentation", ...),
           WHERE + r"has no segmentation \(1 of 7"),
    Broken("mask-missing", "error", put(FIRST + ".segmentation", []), WHERE + "has no segm"),
    Broken("mask-flat", "error", put(FIRST + ".segmentation", [30, 20, 50, 20, 50, 36]),
           WHERE + "its segmentation is one flat list of numbers"),
    Broken("mask-malformed", "error", put(FIRST + ".segmentation", "somewhere"),
           WHERE + "its segmentation is 'somewhere', neither"),
    Broken("mask-malformed", "error", put(FIRST + ".segmentation", [["a", "b"] * 3]), "neither"),
    Broken("mixed-mask-forms", "warning", put(FIRST + ".segmentation", rle(30, 20, 20, 16)),
           "5 objects have polygons and 1 have RLE"),
    Broken("polygon-odd", "error", put(FIRST + ".segmentation", [[30, 20, 50, 20, 50, 36, 1]]),
           WHERE + "a polygon has an odd number of coordinates, and it has no other"),
    Broken("polygon-odd", "warning",
           put(FIRST + ".segmentation", [[30, 20, 50, 20, 50, 36, 30, 36], [1, 2, 3, 4, 5, 6, 7]]),
           WHERE + ".*its other polygons are taken"),
    Broken("polygon-short", "error", put(FIRST + ".segmentation", [[30, 20, 50, 36]]),
           WHERE + "a polygon has less than three points"),
    Broken("polygon-not-finite", "error",
           put(FIRST + ".segmentation", [[30, 20, NAN, 20, 50, 36]]),
           WHERE + "a coordinate of its polygons is no finite number"),
    Broken("rle-size", "error", put(FIRST + ".segmentation", rle(30, 20, 20, 16, (60, 90))),
           WHERE + r"its RLE has size \[60, 90\], the image has height 60 and width 80",
           also=("mixed-mask-forms",)),
    Broken("rle-size", "error", put(FIRST + ".segmentation", rle(20, 30, 16, 20, (80, 60))),
           r"height and width exchanged\?", also=("mixed-mask-forms",)),
    Broken("rle-broken", "error",
           put(FIRST + ".segmentation", {"size": [60, 80], "counts": "52203"}),
           WHERE + "the runs of its RLE do not add up", also=("mixed-mask-forms",)),
    Broken("rle-broken", "error",
           put(FIRST + ".segmentation", {"size": [60, 80], "counts": [10, 20]}),
           WHERE + "the runs of its RLE do not", also=("mixed-mask-forms",)),
    Broken("rle-malformed", "error",
           put(FIRST + ".segmentation", {"size": [60, 80], "counts": "o"}),
           WHERE + "its RLE cannot be decoded", also=("mixed-mask-forms",)),
    Broken("rle-malformed", "error", put(FIRST + ".segmentation", {"size": [0, 80], "counts": "0"}),
           WHERE + "its RLE cannot be decoded", also=("mixed-mask-forms",)),
    Broken("mask-empty", "warning",
           put(FIRST + ".segmentation", {"size": [60, 80], "counts": [4800]}),
           WHERE + "its mask covers nothing", also=("mixed-mask-forms", "area-differs")),
    Broken("mask-outside", "error",
           put(FIRST + ".segmentation", [[130, 20, 150, 20, 150, 36, 130, 36]]),
           WHERE + r"its mask lies outside of the image of 80 x 60"),
    Broken("mask-beyond-edge", "warning",
           put(FIRST + ".segmentation", [[30, 20, 50, 20, 50, 70, 30, 70]]),
           WHERE + r"its mask leaves by 10\.0 px", also=("area-differs", "box-not-around-mask")),
    Broken("mask-normalised", "error",
           put(FIRST + ".segmentation", [[0.3, 0.3, 0.6, 0.3, 0.6, 0.6]]),
           WHERE + "its polygons lie between 0 and 1"),
    Broken("area-missing", "warning", put(FIRST + ".area", ...), WHERE + "has no area"),
    Broken("area-not-positive", "warning", put(FIRST + ".area", 0), WHERE + "its area is 0"),
    Broken("area-differs", "warning", put(FIRST + ".area", 4000.0),
           WHERE + "its area is 4000, the mask has about 320 px"),
    Broken("crowd-flag", "error", put(FIRST + ".iscrowd", 2), WHERE + "has iscrowd 2, expected"),
    Broken("crowd-flag", "error", put(FIRST + ".iscrowd", None), WHERE + "has iscrowd None"),
    Broken("ignore-flag", "error", put(FIRST + ".ignore", 1), WHERE + 'has "ignore" set'),
    Broken("crowd-missing", "warning", put(FIRST + ".iscrowd", ...), "1 of 7 annotations lack isc"),
    Broken("only-crowds", "error", each("annotations", lambda a: a.update(iscrowd=1)),
           "all annotations are crowds", also=("class-without-objects", "images-without-objects")),
    # keypoints
    Broken("keypoints-length", "error", put(FIRST + ".keypoints", [31, 21, 2, 35, 25, 1]),
           WHERE + "has 6 numbers of keypoints, expected 9 for the 3 of 'cat'", with_keypoints),
    Broken("keypoints-length", "error", put(FIRST + ".keypoints", [31, 21, 2, 35]),
           WHERE + "has 4 numbers of keypoints", with_keypoints),
    Broken("keypoints-visibility", "error", put(FIRST + ".keypoints.2", 3),
           WHERE + "a visibility of its keypoints is none of 0", with_keypoints),
    Broken("keypoints-malformed", "error", put(FIRST + ".keypoints.0", "x"),
           WHERE + "its keypoints are .'x'", with_keypoints),
    Broken("keypoints-malformed", "error", put(FIRST + ".keypoints.0", NAN),
           WHERE + "its keypoints are", with_keypoints),
    Broken("keypoints-count", "warning", put(FIRST + ".num_keypoints", 3),
           WHERE + "has num_keypoints 3, but 2 keypoints", with_keypoints),
    Broken("keypoints-missing", "warning", put(FIRST + ".keypoints", ...),
           WHERE + "has no keypoints, other 'cat' have", with_keypoints),
    Broken("keypoints-outside", "warning", put(FIRST + ".keypoints.0", 95),
           WHERE + r"a labelled keypoint lies 15\.0 px outside", with_keypoints),
    Broken("keypoint-schema", "warning", put("categories.0.skeleton.0", [1, 4]),
           r"category 'cat' has \[1, 4\] in its skeleton, but keypoints 1 to 3", with_keypoints),
    Broken("keypoint-schema", "warning", put("categories.0.keypoints.1", "head"),
           "has a keypoint name twice", with_keypoints),
    Broken("keypoints-without-schema", "warning",
           each("categories", lambda c: (c.pop("keypoints"), c.pop("skeleton"))),
           "7 annotations have keypoints, but their classes list no names", with_keypoints),
    # the file and the settings
    Broken("no-images", "error", put("images", []), "has no images",
           also=("unknown-image", "class-without-objects")),
    Broken("no-categories", "error", put("categories", []), "no categories",
           also=("unknown-category",)),
    Broken("no-annotations", "warning", put("annotations", []), "has no annotations"),
    Broken("images-without-objects", "note", put("annotations", good()["annotations"][:4]),
           "1 of 3 images have no object"),
    Broken("lost-at-training-size", "warning",
           all_of(put("images.0.height", 6000), put("images.0.width", 8000),
                  put(FIRST + ".bbox", [30, 20, 5, 20]),
                  put(FIRST + ".segmentation", [[30, 20, 35, 20, 35, 40, 30, 40]])),
           WHERE + r"bbox \[30, 20, 5, 20\] is 0\.67 px on its shorter side after the resize",
           also=("area-differs",)),
    Broken("panoptic-file", "error",
           put("annotations", [{"image_id": 11, "file_name": "a.png", "segments_info": []}]),
           "a panoptic file"),
    Broken("captions-file", "error", put("annotations", [{"id": 1, "image_id": 11, "caption": ""}]),
           "a file of captions"),
]  # fmt: skip
