"""Instance maps as PNGs, alone and as Pascal VOC has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.formats import import_dataset, sources_of
from mask_rcnn_ext.errors import DataError, UsageError

HEIGHT, WIDTH = 30, 40


def painted(coco: dict[str, Any], values: list[int]) -> np.ndarray:
    """(H, W) int: the annotations painted with these values."""
    canvas = np.zeros((HEIGHT, WIDTH), dtype=int)
    for annotation, value in zip(coco["annotations"], values, strict=True):
        canvas[coco_mask.decode(annotation["segmentation"]).astype(bool)] = value
    return canvas


def labels_of(*values: int) -> np.ndarray:
    """A map: a ring with something in its hole, one object in two parts, ..."""
    labels = np.zeros((HEIGHT, WIDTH), dtype=int)
    ring, inside, twice = (*values, 1, 2, 3)[:3]
    labels[2:12, 3:15] = ring
    labels[5:9, 6:11] = 0
    labels[6:8, 7:9] = inside
    labels[15:18, 1:5] = labels[20:29, 30:39] = twice
    return labels


def write_map(path: Path, labels: np.ndarray, mode: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "RGB":
        colours = np.stack([labels & 255, labels >> 8 & 255, labels >> 16], axis=-1)
        Image.fromarray(colours.astype(np.uint8)).save(path)
    elif mode == "P":
        picture = Image.fromarray(labels.astype(np.uint8), "L")
        picture = picture.convert("P")
        picture.putpalette([v % 251 for v in range(768)])
        picture.putdata(labels.ravel().tolist())
        picture.save(path)
    else:
        Image.fromarray(labels.astype(np.uint16 if mode == "I;16" else np.uint8)).save(path)


def write_picture(folder: Path, name: str = "a.jpg", size: tuple[int, int] = (WIDTH, HEIGHT)):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(folder / name)


@pytest.mark.parametrize(
    ("mode", "values", "options"),
    [
        ("L", (1, 2, 3), {}),
        ("P", (7, 200, 255), {}),
        ("I;16", (1, 300, 65535), {}),
        ("RGB", (1, 70000, 16777215), {"encoding": "colour"}),
        ("I;16", (1000, 1001, 26000), {"encoding": "class-instance"}),
    ],
)
def test_maps_come_back_exactly(tmp_path, mode, values, options):
    labels = labels_of(*values)
    write_map(tmp_path / "maps/deep/a.png", labels, mode)
    write_picture(tmp_path / "pictures", "deep/a.jpg")
    found = import_dataset("png", tmp_path / "maps", tmp_path / "pictures", **options)
    assert (painted(found.coco, sorted(values)) == labels).all()
    assert [a["area"] for a in found.coco["annotations"]] == [
        (labels == value).sum() for value in sorted(values)
    ]
    assert found.notes == []
    names = [c["name"] for c in found.coco["categories"]]
    assert names == (
        ["class 1", "class 26"] if "encoding" in options and mode != "RGB" else ["object"]
    )


def test_classes_from_a_file_for_all_or_for_each(tmp_path):
    write_map(tmp_path / "maps/a.png", labels_of(1, 2, 3), "L")
    write_picture(tmp_path / "pictures")
    classes = tmp_path / "classes.json"
    for content, names, ids in [
        ({"2": "zebra", "1": "ant"}, ["zebra", "ant"], [2, 1]),
        ({"a.png": {"2": "zebra", "1": "ant"}}, ["ant", "zebra"], [1, 2]),
        ({"a": {"2": "zebra", "1": "ant"}}, ["ant", "zebra"], [1, 2]),
    ]:
        classes.write_text(json.dumps(content))
        found = import_dataset(
            "png", tmp_path / "maps", tmp_path / "pictures", classes=str(classes)
        )
        assert [c["name"] for c in found.coco["categories"]] == names
        assert [a["category_id"] for a in found.coco["annotations"]] == ids
        assert found.notes == [
            "1 x value without a class in the file of classes: left out (a.png 3)"
        ]
        assert classes in found.sources


def test_colours_are_numbered_as_coco_panoptic_does(tmp_path):
    write_picture(tmp_path / "maps", "a.png")
    Image.new("RGB", (WIDTH, HEIGHT), (5, 1, 2)).save(tmp_path / "maps/a.png")
    write_picture(tmp_path / "pictures")
    (tmp_path / "c.yaml").write_text(f"{5 + 256 + 2 * 65536}: car\n")
    options = {"encoding": "colour", "classes": str(tmp_path / "c.yaml")}
    found = import_dataset("png", tmp_path / "maps", tmp_path / "pictures", **options)
    assert [a["area"] for a in found.coco["annotations"]] == [WIDTH * HEIGHT]


def test_values_below_the_divisor_are_no_objects(tmp_path):
    write_map(tmp_path / "maps/a_instanceIds.png", labels_of(26, 26000, 26001), "I;16")
    write_picture(tmp_path / "pictures")
    (tmp_path / "c.yaml").write_text("26: car\n")
    options = {
        "encoding": "class-instance",
        "suffix": "_instanceIds",
        "classes": tmp_path / "c.yaml",
    }
    found = import_dataset("png", tmp_path / "maps", tmp_path / "pictures", **options)
    assert len(found.coco["annotations"]) == 2
    assert found.coco["categories"] == [{"id": 1, "name": "car"}]
    assert found.notes == [
        "1 x value below 1000, no object: left out (a_instanceIds.png 26)",
    ]


def test_a_map_without_objects_and_a_picture_without_a_map(tmp_path):
    write_map(tmp_path / "maps/a.png", labels_of(), "L")
    write_map(tmp_path / "maps/b.png", np.zeros((HEIGHT, WIDTH)), "L")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_picture(tmp_path / "pictures", name)
    found = import_dataset("png", tmp_path / "maps", tmp_path / "pictures", class_name="cell")
    assert [i["file_name"] for i in found.coco["images"]] == ["a.jpg", "b.jpg"]
    assert found.coco["categories"] == [{"id": 1, "name": "cell"}]
    assert found.notes == ["1 x picture without an annotation file: not taken (c.jpg)"]


def test_broken_maps_and_wrong_calls(tmp_path):
    maps, pictures = tmp_path / "maps", tmp_path / "pictures"
    write_map(maps / "a.png", labels_of(), "RGB")
    write_picture(pictures)
    with pytest.raises(DataError, match=r"a\.png is a picture of mode RGB"):
        import_dataset("png", maps, pictures)
    write_picture(pictures, size=(41, 30))
    with pytest.raises(DataError, match=r"a\.png has 40x30 pixels, its picture a\.jpg has 41x30"):
        import_dataset("png", maps, pictures, encoding="colour")
    (maps / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        import_dataset("png", maps, pictures)
    (pictures / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"a\.png: no picture of its name"):
        import_dataset("png", maps, pictures)
    with pytest.raises(UsageError, match="--images"):
        import_dataset("png", maps)
    with pytest.raises(UsageError, match="instance, class-instance, colour"):
        import_dataset("png", maps, pictures, encoding="x")
    with pytest.raises(UsageError, match="no PNG"):
        import_dataset("png", pictures, pictures)


# Pascal VOC


def write_voc(root: Path, stem: str, objects: np.ndarray, classes: np.ndarray) -> None:
    write_map(root / "SegmentationObject" / f"{stem}.png", objects, "P")
    write_map(root / "SegmentationClass" / f"{stem}.png", classes, "P")
    write_picture(root / "JPEGImages", f"{stem}.jpg")


def voc_maps() -> tuple[np.ndarray, np.ndarray]:
    """Objects 1 and 3 are cats (8), 2 a person (15), with a void border around."""
    objects = labels_of(1, 2, 3)
    classes = np.select([objects == 2, objects > 0], [15, 8], 0)
    for labels in (objects, classes):
        labels[12, 3:15] = 255
    classes[2, 3:15] = 255  # void in one of the two only
    return objects, classes


def test_voc_objects_are_exact_and_void_belongs_to_none(tmp_path):
    objects, classes = voc_maps()
    write_voc(tmp_path, "a", objects, classes)
    found = import_dataset("voc-masks", tmp_path)
    assert (painted(found.coco, [1, 2, 3]) == np.where(objects == 255, 0, objects)).all()
    names = [c["name"] for c in found.coco["categories"]]
    assert len(names) == 20
    assert [names[a["category_id"] - 1] for a in found.coco["annotations"]] == [
        "cat",
        "person",
        "cat",
    ]
    assert found.notes == ["1 x picture with void pixels (255): they belong to no object (a.png)"]
    assert found.image_root == tmp_path / "JPEGImages"
    assert found.sources == sources_of("voc-masks", tmp_path)
    assert len(found.sources) == 2


def test_voc_splits_and_label_map(tmp_path):
    for stem in ("a", "b"):
        write_voc(tmp_path, stem, *voc_maps())
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "val.txt").write_text("b\n")
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
        + "".join(f"c{k}:{k},0,0::\n" for k in range(1, 16))
    )
    assert len(import_dataset("voc-masks", tmp_path).coco["images"]) == 2
    found = import_dataset("voc-masks", tmp_path, split="val")
    assert [i["file_name"] for i in found.coco["images"]] == ["b.jpg"]
    assert [c["name"] for c in found.coco["categories"]] == [f"c{k}" for k in range(1, 16)]
    assert {p.name for p in found.sources} == {"b.png", "val.txt", "labelmap.txt"}
    with pytest.raises(UsageError, match="no split 'test'; it has: val"):
        import_dataset("voc-masks", tmp_path, split="test")


def test_voc_objects_without_one_class(tmp_path):
    objects, classes = voc_maps()
    classes[objects == 1] = 0
    classes[20:29, 30:32] = 1
    write_voc(tmp_path, "a", objects, classes)
    found = import_dataset("voc-masks", tmp_path)
    assert [a["category_id"] for a in found.coco["annotations"]] == [15, 8]
    assert (
        "1 x object without a class in SegmentationClass: left out (a.png object 1)" in found.notes
    )
    assert "1 x object of several classes: took that of most pixels (a.png object 3)" in found.notes


def test_voc_broken(tmp_path):
    objects, classes = voc_maps()
    classes[classes == 8] = 99
    write_voc(tmp_path, "a", objects, classes)
    with pytest.raises(DataError, match=r"a\.png: value 99 \(object 1\) is no class"):
        import_dataset("voc-masks", tmp_path)
    (tmp_path / "SegmentationClass/a.png").unlink()
    with pytest.raises(DataError, match=r"SegmentationClass/a\.png is not there"):
        import_dataset("voc-masks", tmp_path)
    (tmp_path / "JPEGImages/a.jpg").unlink()
    with pytest.raises(DataError, match=r"no picture a\.\*"):
        import_dataset("voc-masks", tmp_path)
    with pytest.raises(UsageError, match="no folder"):
        import_dataset("voc-masks", tmp_path / "JPEGImages")
