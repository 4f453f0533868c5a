"""YOLO-seg: reading, writing, and both in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco_mask

from mask_rcnn_ext.data.formats import EXPORTERS, import_dataset, sources_of
from mask_rcnn_ext.data.formats.contours import joined, outlines, simplified
from mask_rcnn_ext.errors import DataError, UsageError

HEIGHT, WIDTH = 37, 53
Masks = dict[int, np.ndarray]


def drawn(segmentation: Any, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W) bool as COCO's tools draw it."""
    if isinstance(segmentation, dict):
        return coco_mask.decode(segmentation).astype(bool)
    rles = coco_mask.frPyObjects(segmentation, height, width)
    return coco_mask.decode(coco_mask.merge(rles)).astype(bool)


def encoded(mask: np.ndarray) -> dict[str, Any]:
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": rle["counts"].decode()}


def coco_of(segmentations: list[Any], **more: Any) -> dict[str, Any]:
    """One annotation each, all of one picture; a second picture is empty."""
    return {
        "images": [
            {"id": 7, "file_name": "deep/a.png", "height": HEIGHT, "width": WIDTH},
            {"id": 3, "file_name": "b.png", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {
                "id": 10 + k,
                "image_id": 7,
                "category_id": 5 if k % 2 else 2,
                "bbox": [0, 0, 1, 1],
                "area": 1,
                "iscrowd": 0,
                "segmentation": segmentation,
                **more,
            }
            for k, segmentation in enumerate(segmentations)
        ],
        "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "Ägypter"}],
    }


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    (root / "deep").mkdir(parents=True)
    for name in ("deep/a.png", "b.png"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / name)
    return root


def there_and_back(
    coco: dict[str, Any], pictures: Path, **options: Any
) -> tuple[list[dict[str, Any]], list[str]]:
    out = pictures.parent / "yolo"
    notes = EXPORTERS["yolo-seg"].write(coco, pictures, out, options, force=True)
    found = import_dataset("yolo-seg", out)
    assert [c["name"] for c in found.coco["categories"]] == ["Ägypter", "dog"]  # order of the ids
    assert [i["file_name"] for i in found.coco["images"]] == ["b.png", "deep/a.png"]
    assert all(a["image_id"] == 2 for a in found.coco["annotations"])
    return found.coco["annotations"], notes


def rings() -> list[np.ndarray]:
    """A ring; two parts, one of them with a hole; a part in the hole of another; a diagonal."""
    ring = np.zeros((HEIGHT, WIDTH), dtype=bool)
    ring[5:20, 6:25] = True
    ring[9:14, 10:12] = ring[9:14, 17:20] = False
    parts = np.zeros_like(ring)
    parts[1:8, 1:9] = parts[20:36, 30:50] = True
    parts[25:30, 35:40] = False
    island = ring.copy()
    island[8:15, 9:22] = False
    island[10:12, 12:15] = True
    diagonal = np.zeros_like(ring)
    diagonal[np.arange(30), np.arange(30)] = True
    return [ring, parts, island, diagonal]


def test_masks_with_holes_and_parts_come_back_exactly(pictures):
    masks = rings()
    found, notes = there_and_back(coco_of([encoded(mask) for mask in masks]), pictures)
    assert len(found) == len(masks)
    for mask, annotation in zip(masks, found, strict=True):
        assert len(annotation["segmentation"]) == 1
        assert (drawn(annotation["segmentation"]) == mask).all()
        assert annotation["area"] == mask.sum()
    assert notes == [
        "2 x object of several parts: joined to one polygon "
        "(annotation 11 (image id 7), annotation 12 (image id 7))"
    ]


def test_polygons_of_three_decimals_come_back_exactly(pictures):
    polygon = [3.21, 4.5, 40.07, 6.66, 22.2, 30.333]
    (found,), notes = there_and_back(coco_of([[polygon]]), pictures)
    assert found["segmentation"] == [polygon]
    assert notes == []


def test_polygons_of_several_parts_are_joined_or_written_apart(pictures):
    one, two = [1, 1, 9, 1, 9, 9, 1, 9], [20, 20, 30, 20.5, 25, 33]
    (found,), notes = there_and_back(coco_of([[one, two]]), pictures)
    assert (drawn(found["segmentation"]) == drawn([one, two])).all()
    assert len(found["segmentation"][0]) == len(one) + len(two) + 4  # over the bridge and back
    assert notes[0].startswith("1 x object of several parts: joined")
    found, notes = there_and_back(coco_of([[one, two]]), pictures, pieces="lines")
    assert [a["segmentation"] for a in found] == [[one], [two]]
    assert notes[0].startswith("1 x object of several parts: each part its own line")


def test_overlapping_polygons_stay_a_union(pictures):
    one, two = [1, 1, 20, 1, 20, 20, 1, 20], [10, 10, 30, 10, 30, 30, 10, 30]
    (found,), notes = there_and_back(coco_of([[one, two]]), pictures)
    assert (drawn(found["segmentation"]) == drawn([one, two])).all()
    assert "overlap" in notes[0]


@pytest.mark.parametrize(
    "polygon",
    [[-10, 5, 30, 5, 30, 30], [5, -9, 30, 5, 30, 30], [5, 5, 80, 5, 9, 9], [5, 5, 9, 5, 9, 80]],
)
def test_polygons_outside_of_the_picture_are_cut(pictures, polygon):
    (found,), _ = there_and_back(coco_of([[polygon]]), pictures)
    values = np.array(found["segmentation"][0])
    assert values.min() >= 0
    assert values[0::2].max() <= WIDTH
    assert values[1::2].max() <= HEIGHT
    assert (drawn(found["segmentation"]) == drawn([polygon])).all()


def test_holes_are_filled_on_demand_and_counted(pictures):
    ring = rings()[0]
    (found,), notes = there_and_back(coco_of([encoded(ring)]), pictures, holes="fill")
    assert found["area"] == 15 * 19
    assert notes[0].startswith("2 x hole: filled (annotation 10")


def test_a_tolerance_gives_fewer_corners_near_the_line(pictures):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = (rows - 18) ** 2 + (columns - 26) ** 2 < 15**2
    (exact,), _ = there_and_back(coco_of([encoded(disc)]), pictures)
    (rough,), _ = there_and_back(coco_of([encoded(disc)]), pictures, tolerance=1)
    assert len(rough["segmentation"][0]) < 0.5 * len(exact["segmentation"][0])
    mask = drawn(rough["segmentation"])
    assert (mask & disc).sum() / (mask | disc).sum() > 0.93
    assert (mask != disc).any()


def test_kept_and_noted_add_up_to_what_was_there(pictures):
    mask = encoded(rings()[0])
    coco = coco_of([mask, mask, None, [], [[1, 2, 3]], encoded(np.zeros((HEIGHT, WIDTH), bool))])
    coco["annotations"][1]["iscrowd"] = 1
    coco["annotations"][0]["keypoints"] = [1, 2, 2]
    coco["images"][0]["license"] = 3
    coco["annotations"].append(
        {**coco["annotations"][0], "segmentation": [[90, 90, 99, 90, 99, 99]]}
    )
    found, notes = there_and_back(coco, pictures)
    assert len(found) == 1
    left_out = {n.split(" x ")[1].split(" (")[0]: int(n.split(" x ")[0]) for n in notes}
    assert left_out == {
        "crowd region: left out": 1,
        "annotation without a usable segmentation: left out": 3,
        "object without a pixel inside of the picture: left out": 2,
        "annotation with 'keypoints', which YOLO-seg has no place for: dropped": 2,
        "image with 'license', which YOLO-seg has no place for: dropped": 1,
    }
    assert len(coco["annotations"]) == 1 + 1 + 3 + 2


def test_a_folder_is_replaced_only_if_it_is_ours(pictures, tmp_path):
    coco, write = coco_of([encoded(rings()[0])]), EXPORTERS["yolo-seg"].write
    out = tmp_path / "out"
    write(coco, pictures, out, {}, force=False)
    before = {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    with pytest.raises(UsageError, match="exists; --force"):
        write(coco, pictures, out, {}, force=False)
    write(coco, pictures, out, {}, force=True)
    assert {p: p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()} == before
    (out / "data.yaml").write_text("names: [mine]\n")
    with pytest.raises(UsageError, match="not of this command's making"):
        write(coco, pictures, out, {}, force=True)
    assert (out / "data.yaml").read_text() == "names: [mine]\n"


def test_nothing_is_left_of_a_failed_export(pictures, tmp_path):
    (pictures / "b.png").unlink()
    with pytest.raises(DataError, match=r"b\.png is not there; --pictures none"):
        EXPORTERS["yolo-seg"].write(coco_of([]), pictures, tmp_path / "out", {}, force=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pictures"]
    options = {"pictures": "none", "part": "val"}
    EXPORTERS["yolo-seg"].write(coco_of([]), pictures, tmp_path / "out", options, force=False)
    data = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text("utf-8"))
    assert data == {"val": "images/val", "names": {0: "Ägypter", 1: "dog"}}
    assert (tmp_path / "out/labels/val/deep/a.txt").read_text() == ""


@pytest.mark.parametrize("how", ["link", "copy"])
def test_pictures_are_linked_or_copied(pictures, tmp_path, how):
    options = {"pictures": how}
    EXPORTERS["yolo-seg"].write(coco_of([]), pictures, tmp_path / "out", options, force=False)
    made = tmp_path / "out/images/train/deep/a.png"
    assert made.read_bytes() == (pictures / "deep/a.png").read_bytes()
    assert made.is_symlink() == (how == "link")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["images"][0].update(file_name="../a.png"), ["7", "../a.png"]),
        (lambda c: c["images"][0].update(file_name="b.jpg"), ["b.jpg", "b.png", "b.txt"]),
        (lambda c: c["images"][0].update(height=0), ["7", "height 0"]),
        (lambda c: c["images"][0].update(id=3), ["3", "twice"]),
        (lambda c: c["annotations"][0].update(image_id="7"), ["10", "'7'", "data check"]),
        (lambda c: c["annotations"][0].update(category_id=9), ["10", "category_id 9"]),
        (lambda c: c["categories"][0].update(id="x"), ["category", "'x'"]),
    ],
)
def test_entries_that_cannot_be_written(pictures, tmp_path, change, words):
    coco = coco_of([encoded(rings()[0])])
    change(coco)
    with pytest.raises(DataError) as caught:
        EXPORTERS["yolo-seg"].write(coco, pictures, tmp_path / "out", {}, force=False)
    assert all(word in str(caught.value) for word in words)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [{"holes": "maybe"}, {"tolerance": "x"}, {"tolerance": -1}, {"part": "../x"}, {"speed": 1}],
)
def test_wrong_options(pictures, tmp_path, options):
    with pytest.raises(UsageError, match=next(iter(options))):
        EXPORTERS["yolo-seg"].write(coco_of([]), pictures, tmp_path / "out", options, force=False)


# Reading


def layout(folder: Path, labels: dict[str, str], declaration: str | None = None) -> Path:
    for name, text in labels.items():
        for kind, suffix in (("images", ".png"), ("labels", ".txt")):
            path = folder / kind / "train" / (name + suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            if suffix == ".txt":
                path.write_text(text)
            else:
                Image.new("RGB", (100, 50)).save(path)
    path = folder / "data.yaml"
    path.write_text(declaration or "train: images/train\nnames: {0: cat, 1: dog}\n")
    return path


def test_lines_become_pixels(tmp_path):
    path = layout(tmp_path, {"a": "1 0.1 0.2 0.5 0.2 0.5 0.8\n\n0 0.5 0.5 0.2 0.4\n"})
    Image.new("RGB", (100, 50)).save(tmp_path / "images/train/empty.png")
    found = import_dataset("yolo-seg", path)
    polygon, box = found.coco["annotations"]
    assert polygon["segmentation"] == [pytest.approx([10, 10, 50, 10, 50, 40])]
    assert polygon["category_id"] == 2
    assert box["bbox"] == pytest.approx([40, 15, 20, 20])
    assert "segmentation" not in box
    assert found.notes == [
        "1 x line with a box only: kept, without a mask (a.png line 3)",
        "1 x picture without a label file: kept as one without objects (empty.png)",
    ]
    assert found.sources == sources_of("yolo-seg", path) == [path, tmp_path / "labels/train/a.txt"]


def test_layout_with_classes_txt_and_one_folder(tmp_path):
    layout(tmp_path, {"a": "1 0.1 0.2 0.5 0.2 0.5 0.8\n"}).unlink()
    (tmp_path / "classes.txt").write_text("cat\ndog\n\n")
    found = import_dataset("yolo-seg", tmp_path)
    assert found.coco["images"][0]["file_name"] == "train/a.png"
    assert [c["name"] for c in found.coco["categories"]] == ["cat", "dog"]


@pytest.mark.parametrize(
    "declaration",
    [
        "path: .\ntrain: images/train\nval: images/val\nnc: 2\nnames: [cat, dog]\n",
        "train: ../images/train\nval: ../images/val\nnames: [cat, dog]\n",  # as Roboflow writes
        "train: [images/train]\nval: images/val\nnames: [cat, dog]\n",
    ],
)
def test_splits_of_data_yaml(tmp_path, declaration):
    path = layout(tmp_path, {"a": ""}, declaration)
    assert len(import_dataset("yolo-seg", path, split="train").coco["images"]) == 1
    with pytest.raises(UsageError, match="train, val"):
        import_dataset("yolo-seg", path)
    with pytest.raises(UsageError, match="'test'"):
        import_dataset("yolo-seg", path, split="test")
    with pytest.raises(DataError, match="no folder"):
        import_dataset("yolo-seg", path, split="val")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("2 0.1 0.1 0.2 0.2 0.3 0.1", ["class 2", "0..1"]),
        ("x 0.1 0.1 0.2 0.2 0.3 0.1", ["'x'"]),
        ("0 0.1 0.1 0.2 0.2 0.3", ["5 coordinates"]),
        ("0 10 10 20 20 30 10", ["pixels?"]),
        ("0 0.1 0.1 0.2 0.2 nan 0.1", ["nan"]),
    ],
)
def test_broken_lines_are_refused_with_file_and_line(tmp_path, line, words):
    path = layout(tmp_path, {"a": f"0 0.1 0.1 0.2 0.2 0.3 0.1\n{line}\n"})
    with pytest.raises(DataError) as caught:
        import_dataset("yolo-seg", path)
    for word in ["a.txt:2", *words]:
        assert word in str(caught.value)


def test_labels_without_a_picture_and_broken_declarations(tmp_path):
    path = layout(tmp_path, {"a": "", "b": ""})
    (tmp_path / "images/train/b.png").unlink()
    with pytest.raises(DataError, match=r"b\.txt has no picture b\.\*"):
        import_dataset("yolo-seg", path)
    for text, word in [
        ("names: [a, a]\ntrain: images/train", "repeated"),
        ("names: {1: a}\ntrain: images/train", "expected 0, 1, 2"),
        ("train: images/train", "no names"),
        ("names: [", "not YAML"),
        ("names: [a]\ntrain: list.txt", "expected one folder"),
    ]:
        path.write_text(text)
        with pytest.raises(DataError, match=word):
            import_dataset("yolo-seg", path)
    with pytest.raises(UsageError, match="neither data.yaml"):
        import_dataset("yolo-seg", tmp_path / "images")


# Outlines

any_mask = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12))


@given(any_mask)
@settings(deadline=None, max_examples=300)
def test_any_mask_comes_back_from_its_outlines(mask):
    lines = outlines(mask)
    assert bool(lines) == mask.any()
    if not lines:
        return
    polygon = joined(lines)
    assert (drawn([polygon.ravel().tolist()], *mask.shape) == mask).all()
    assert len(polygon) == sum(map(len, lines)) + 2 * (len(lines) - 1)
    for line in lines:  # right angles only, the topmost then leftmost corner first
        assert (np.diff(line, axis=0, append=line[:1]) == 0).any(axis=1).all()
        assert tuple(line[0][::-1]) == min((y, x) for x, y in line)


def test_pixels_that_touch_at_a_corner_are_one_line():
    assert [len(line) for line in outlines(np.eye(2, dtype=bool))] == [8]
    assert [len(line) for line in outlines(np.eye(2, dtype=bool)[::-1])] == [8]
    ring = ~np.pad(np.eye(2, dtype=bool), 1)
    assert [len(line) for line in outlines(ring)] == [4, 4, 4]  # the holes stay apart


def test_bridges_are_the_shortest():
    far, near = np.array([[0.0, 0], [1, 0], [1, 1]]), np.array([[0.0, 9], [1, 9], [1, 8]])
    middle = np.array([[0.0, 4], [1, 4], [1, 3]])
    polygon = joined([far, near, middle])
    steps = np.abs(np.diff(polygon, axis=0, append=polygon[:1])).sum(axis=1)
    assert steps.max() <= 4  # never from `far` to `near` at once


def test_noise_is_joined_without_a_search():
    mask = np.random.default_rng(0).random((120, 120)) < 0.6
    polygon = joined(outlines(mask))
    assert len(polygon) > 6000
    assert (drawn([polygon.ravel().tolist()], 120, 120) == mask).all()


def test_a_line_never_shrinks_away():
    line = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    assert (simplified(line, 50) == line).all()
