"""Reading Cityscapes: nesting, groups and holes pixel by pixel; wrong trees and broken files."""

from __future__ import annotations

import ast
import inspect
import json
import multiprocessing
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_util

from mask_rcnn_ext.data.cityscapes import reader as reader_module
from mask_rcnn_ext.data.cityscapes.instances import annotations_from_ids
from mask_rcnn_ext.data.cityscapes.labels import BY_ID, BY_NAME, LABELS, THINGS
from mask_rcnn_ext.data.cityscapes.polygons import (
    DrawnObject,
    draw_instance_ids,
    instance_numbers,
)
from mask_rcnn_ext.data.cityscapes.reader import cityscapes_sources, read_cityscapes
from mask_rcnn_ext.data.cityscapes.tree import find_images
from mask_rcnn_ext.data.scenes import generate_splits
from mask_rcnn_ext.errors import DataError, UsageError

HEIGHT, WIDTH = 8, 12
POLYGONS, INSTANCES = "_gtFine_polygons.json", "_gtFine_instanceIds.png"
Objects = list[dict]


def block(label: str, x0: int, y0: int, x1: int, y1: int, **more: object) -> dict:
    """A rectangle, all four sides included."""
    return {"label": label, "polygon": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], **more}


def place(root: Path, name: str, split: str = "train") -> tuple[Path, Path]:
    """The stems of the picture and of the annotation."""
    city = name.split("_")[0]
    folders = root / "leftImg8bit" / split / city, root / "gtFine" / split / city
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    return folders[0] / name, folders[1] / name


def write(root: Path, name: str, objects: Objects, split: str = "train", **head: object) -> Path:
    """A picture and its polygon file, whose path it returns."""
    picture, annotation = place(root, name, split)
    Image.new("RGB", (WIDTH, HEIGHT)).save(f"{picture}_leftImg8bit.png")
    path = Path(f"{annotation}{POLYGONS}")
    content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": objects, **head}
    path.write_text(json.dumps(content))
    return path


def write_ids(path: Path, ids: np.ndarray) -> Path:
    Image.fromarray(ids.astype(np.uint16)).save(path)
    return path


def read(root: Path, source: str = "polygons", split: str = "train", **options: object):
    return read_cityscapes(root, split, source, **{"workers": 1, **options})


def masks_of(coco: dict) -> dict[int, np.ndarray]:
    """instance_id -> mask, of a data set of one image."""
    return {
        a["instance_id"]: mask_util.decode(a["segmentation"]).astype(bool)
        for a in coco["annotations"]
    }


def picture(text: str) -> np.ndarray:
    return np.array([[char == "#" for char in line.strip()] for line in text.split()])


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scenes in Cityscapes' layout."""
    out = tmp_path_factory.mktemp("cityscapes") / "scenes"
    splits = {"train": 40, "val": 4}
    generate_splits(out, splits, (96, 192), 2, workers=1, progress=False, layout="cityscapes")
    return out


# ---- what the polygons mean --------------------------------------------------------------------


def test_later_polygons_hide_earlier_ones(tmp_path):
    objects = [
        block("road", 0, 0, 11, 7),
        block("car", 1, 1, 8, 5),
        block("sky", 3, 2, 5, 4),  # seen through the car: a hole
        block("pole", 7, 0, 7, 7),  # in front: cuts the car in two
        block("person", 0, 5, 2, 7),
    ]
    write(tmp_path, "ulm_000000_000019", objects)
    coco = read(tmp_path).coco
    masks = masks_of(coco)
    car = picture("""............
                     .######.#...
                     .##...#.#...
                     .##...#.#...
                     .##...#.#...
                     ...####.#...
                     ............
                     ............""")
    np.testing.assert_array_equal(masks[26000], car)
    np.testing.assert_array_equal(masks[24000], picture("............ " * 5 + "###......... " * 3))
    person, vehicle = coco["annotations"]
    assert vehicle["bbox"] == [1, 1, 8, 5]
    assert vehicle["area"] == car.sum() == 24
    assert (vehicle["category_id"], vehicle["iscrowd"]) == (26, 0)
    assert (person["id"], vehicle["id"], vehicle["image_id"]) == (1, 2, 1)
    (image,) = coco["images"]
    assert image == {
        "id": 1,
        "file_name": "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png",
        "height": HEIGHT,
        "width": WIDTH,
        "cityscapes_name": "ulm_000000_000019",
    }
    assert [c["name"] for c in coco["categories"]] == [label.name for label in THINGS]


def test_groups_of_a_class_are_one_crowd(tmp_path):
    objects = [
        block("cargroup", 0, 0, 3, 3),
        block("car", 2, 0, 5, 3),
        block("cargroup", 8, 0, 9, 3),
        block("polegroup", 0, 5, 3, 7),
        block("skygroup", 5, 5, 6, 7),
    ]
    write(tmp_path, "ulm_000000_000019", objects)
    crowd, car = read(tmp_path).coco["annotations"]
    assert (crowd["instance_id"], crowd["iscrowd"], crowd["category_id"]) == (26, 1, 26)
    assert (crowd["area"], crowd["bbox"]) == (8 + 8, [0, 0, 10, 4])
    assert (car["instance_id"], car["iscrowd"], car["area"]) == (26000, 0, 16)


def test_deleted_objects_are_not_drawn(tmp_path):
    objects = [
        block("car", 0, 0, 4, 4),
        block("car", 1, 1, 3, 3, deleted=1),
        block("car", 6, 0, 7, 4, deleted=0),
    ]
    write(tmp_path, "ulm_000000_000019", objects)
    result = read(tmp_path)
    assert {k: m.sum() for k, m in masks_of(result.coco).items()} == {26000: 25, 26001: 10}
    assert result.notes == ["1 objects are marked as deleted and were left out (ulm_000000_000019)"]


def test_what_has_no_annotation_is_said(tmp_path):
    objects = [
        block("car", 0, 0, 2, 2),
        block("caravan", 0, 0, 4, 4),  # hides the car; nobody judges it
        block("license plate", 0, 0, 3, 3),  # has no id: never drawn
        {"label": "bus", "polygon": []},
        {"label": "bus", "polygon": [[1, 1]]},
        block("bus", 6, 0, 7, 1),
    ]
    write(tmp_path, "ulm_000000_000019", objects)
    write(tmp_path, "ulm_000001_000019", [])
    result = read(tmp_path)
    assert list(masks_of(result.coco)) == [28000]
    text = "\n".join(result.notes)
    assert "1 objects of classes that the benchmark does not judge (caravan, trailer)" in text
    assert "1 objects are wholly hidden" in text
    assert "2 polygons have fewer than two points and were left out (ulm_000000_000019)" in text


def test_points_outside_and_lines(tmp_path):
    objects = [
        {"label": "car", "polygon": [[-50, -50], [5, -50], [5, 3], [-50, 3]]},
        {"label": "bus", "polygon": [[8, 1], [8, 5]]},  # two points: as Pillow draws it
        {"label": "truck", "polygon": [[2.9, 6.2], [6.9, 6.2], [6.9, 7.9]]},
    ]
    write(tmp_path, "ulm_000000_000019", objects)
    masks = masks_of(read(tmp_path).coco)
    assert masks[26000].sum() == 6 * 4
    assert 28000 in masks
    assert 27000 in masks


def test_an_image_without_things(tmp_path):
    write(tmp_path, "ulm_000000_000019", [block("road", 0, 0, 11, 7)])
    write(tmp_path, "ulm_000001_000019", [])
    coco = read(tmp_path).coco
    assert len(coco["images"]) == 2
    assert coco["annotations"] == []
    whole = np.full((3, 5), 33001)
    (only,) = annotations_from_ids(whole, "x")
    assert (only["bbox"], only["area"]) == ([0, 0, 5, 3], 15)
    assert mask_util.decode(only["segmentation"]).all()


def test_order_of_images_is_that_of_cities_then_names(tmp_path):
    for name in ("ulm_000001_000019", "aachen_000002_000019", "ulm_000000_000019"):
        write(tmp_path, name, [])
    names = [image["cityscapes_name"] for image in read(tmp_path).coco["images"]]
    assert names == ["aachen_000002_000019", "ulm_000000_000019", "ulm_000001_000019"]


# ---- both sources, and the referees ------------------------------------------------------------

NAMES = [label.name for label in LABELS] + ["persongroup", "cargroup", "trailergroup"]
POINTS = st.tuples(st.integers(-4, WIDTH + 4), st.integers(-4, HEIGHT + 4))
DRAWN = st.builds(
    lambda name, points: {"label": name, "polygon": [list(p) for p in points]},
    st.sampled_from(NAMES),
    st.lists(POINTS, min_size=2, max_size=6),
)


def as_objects(entries: Objects) -> list[DrawnObject]:
    group = {name: name.endswith("group") and name != "polegroup" for name in NAMES}
    return [
        DrawnObject(
            BY_NAME[e["label"].removesuffix("group") if group[e["label"]] else e["label"]],
            [tuple(p) for p in e["polygon"]],
            group[e["label"]],
        )
        for e in entries
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(DRAWN, max_size=8))
def test_any_polygons(entries):
    ids = draw_instance_ids(as_objects(entries), HEIGHT, WIDTH)
    found = annotations_from_ids(ids, "x")
    things = {label.id for label in THINGS}
    expected = [v for v in np.unique(ids) if (v // 1000 if v >= 1000 else v) in things]
    assert [a["instance_id"] for a in found] == expected
    for annotation in found:
        rle = mask_util.encode(np.asfortranarray(ids == annotation["instance_id"], dtype=np.uint8))
        assert annotation["segmentation"]["counts"] == rle["counts"].decode()
        assert annotation["segmentation"]["size"] == list(ids.shape)
        assert annotation["bbox"] == mask_util.toBbox(rle).tolist()
        assert annotation["area"] == mask_util.area(rle)


@settings(deadline=None, max_examples=60)
@given(st.lists(DRAWN, max_size=8))
def test_instance_images_equal_the_benchmarks_tool(entries):
    tool = pytest.importorskip(
        "cityscapesscripts.preparation.json2instanceImg", reason="needs the extra `cityscapes`"
    )
    annotation = tool.Annotation()
    content = {"imgHeight": HEIGHT, "imgWidth": WIDTH, "objects": entries}
    annotation.fromJsonText(json.dumps(content))
    theirs = np.asarray(tool.createInstanceImage(annotation, "ids"))
    ours = draw_instance_ids(as_objects(entries), HEIGHT, WIDTH)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("split", ["train", "val"])
def test_both_sources_give_the_same(scenes, split):
    polygons, images = (read(scenes, source, split) for source in ("polygons", "instanceIds"))
    assert polygons.coco["annotations"] == images.coco["annotations"]
    assert polygons.coco["images"] == images.coco["images"]
    assert polygons.coco["categories"] == images.coco["categories"]
    assert {a["iscrowd"] for a in polygons.coco["annotations"]} == {0, 1} or split == "val"
    json.dumps(polygons.coco)


def test_masks_equal_the_label_images(scenes):
    coco = read(scenes).coco
    for image in coco["images"]:
        stem = image["file_name"].replace("leftImg8bit/", "gtFine/", 1)
        stem = stem.removesuffix("_leftImg8bit.png")
        with Image.open(scenes / f"{stem}_gtFine_labelIds.png") as file:
            labels = np.asarray(file)
        drawn = np.zeros_like(labels)
        for annotation in coco["annotations"]:
            if annotation["image_id"] == image["id"]:
                mask = mask_util.decode(annotation["segmentation"]).astype(bool)
                assert not drawn[mask].any()  # nothing overlaps
                drawn[mask] = annotation["category_id"]
        things = np.isin(labels, [label.id for label in THINGS])
        np.testing.assert_array_equal(drawn, np.where(things, labels, 0))


def v06_loader():
    """Detectron2 v0.6's reader of one image's files."""
    module = pytest.importorskip("detectron2.data.datasets.cityscapes")
    pytest.importorskip("cityscapesscripts.helpers.labels", reason="needs the extra `cityscapes`")
    if "deeplearning" in inspect.getsource(module):
        pytest.skip("main's loader needs a package that is not public")
    return module._cityscapes_files_to_dict


def v06_files(place_: object) -> tuple[str, str, str, str]:
    stem = str(place_.annotation).removesuffix(POLYGONS)
    return str(place_.image), stem + INSTANCES, stem + "_gtFine_labelIds.png", stem + POLYGONS


def test_equals_detectron2_from_instance_images(scenes):
    load = v06_loader()
    coco = read(scenes).coco
    compared = 0
    for image, found in zip(coco["images"], find_images(scenes, "train", "polygons"), strict=True):
        theirs = load(v06_files(found), from_json=False, to_polygons=False)
        assert theirs["file_name"] == str(scenes / image["file_name"])
        assert (theirs["height"], theirs["width"]) == (image["height"], image["width"])
        ours = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        # It leaves out what is one pixel wide or high.
        ours = [a for a in ours if min(a["bbox"][2:]) > 1]
        assert len(ours) == len(theirs["annotations"])
        for mine, other in zip(ours, theirs["annotations"], strict=True):
            assert mine["category_id"] == other["category_id"]
            assert mine["iscrowd"] == other["iscrowd"]
            assert mine["segmentation"]["counts"].encode() == other["segmentation"]["counts"]
            x0, y0, x1, y1 = (int(v) for v in other["bbox"])  # its last row and column are inside
            assert mine["bbox"] == [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
            compared += 1
    assert compared > 100


def test_agrees_with_detectron2_from_polygons(tmp_path):
    load = v06_loader()
    pytest.importorskip("shapely", reason="Detectron2's polygon reader needs shapely")
    objects = [
        block("road", 0, 0, 11, 7),
        block("car", 0, 0, 5, 5),
        block("bus", 3, 2, 8, 6),  # hides a corner of the car
        block("truck", 7, 0, 11, 5),
        block("road", 9, 1, 10, 3),  # a hole in the truck, which v0.6 fills
    ]
    write(tmp_path, "ulm_000000_000019", objects)
    (found,) = find_images(tmp_path, "train", "polygons")
    theirs = load(v06_files(found), from_json=True, to_polygons=True)["annotations"]
    masks = {}
    for other in theirs:
        parts = mask_util.frPyObjects([list(map(float, p)) for p in other["segmentation"]], 8, 12)
        masks[other["category_id"]] = mask_util.decode(mask_util.merge(parts)).astype(bool)
    for annotation in read(tmp_path).coco["annotations"]:
        mine = mask_util.decode(annotation["segmentation"]).astype(bool)
        other = masks[annotation["category_id"]]
        if annotation["category_id"] == BY_NAME["truck"].id:
            assert (other.sum(), mine.sum()) == (24 + 6, 24)
        else:
            np.testing.assert_array_equal(mine, other)


# ---- workers, sources --------------------------------------------------------------------------


def test_workers_do_not_matter(scenes, capsys):
    assert read(scenes, workers=3, progress=True) == read(scenes)
    assert "Cityscapes train: 40 of 40" in capsys.readouterr().err
    with pytest.raises(UsageError, match="at least 1, got 0"):
        read(scenes, workers=0)


def test_no_children_of_a_loaders_worker(scenes, monkeypatch):
    """A daemonic process may not start processes."""
    monkeypatch.setattr(multiprocessing.current_process(), "_config", {"daemon": True})
    assert len(read(scenes, workers=2).coco["images"]) == 40


def test_sources_are_listed_without_opening_them(tmp_path):
    first = write(tmp_path, "ulm_000000_000019", [])
    second = write(tmp_path, "aachen_000000_000019", [])
    ids = [write_ids(Path(str(p).replace(POLYGONS, INSTANCES)), np.zeros((8, 12))) for p in
           (first, second)]  # fmt: skip
    assert read(tmp_path).sources == cityscapes_sources(tmp_path, "train") == [second, first]
    first.write_text("broken")
    assert cityscapes_sources(tmp_path, "train") == [second, first]
    assert cityscapes_sources(tmp_path, "train", "instanceIds") == sorted(ids)
    assert read(tmp_path, "instanceIds").image_root == tmp_path


def test_no_import_of_other_loaders():
    folder = Path(reader_module.__file__).parent
    for path in [*folder.glob("*.py"), *(folder.parent / "scenes").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            banned = ("cityscapesscripts", "deeplearning", "detectron2", "shapely")
            assert not any(name.split(".")[0] in banned for name in names), path


# ---- broken files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"imgHeight": 8, "imgWid', "is not JSON"),
        ("[1]", "is no Cityscapes polygon file"),
        ('{"imgHeight": 8, "imgWidth": 12}', "is no Cityscapes polygon file"),
        ('{"imgHeight": "8", "imgWidth": 12, "objects": []}', "imgHeight is '8', expected 1 to"),
        ('{"imgHeight": 8, "imgWidth": 0, "objects": []}', "imgWidth is 0"),
        ('{"imgHeight": 8, "imgWidth": 16, "objects": []}', "for an image of 8x16 .* has 8x12"),
    ],
)
def test_broken_polygon_files(tmp_path, content, message):
    path = write(tmp_path, "ulm_000000_000019", [])
    path.write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, "object 1 has no label"),
        ({"polygon": [[0, 0], [1, 1], [1, 0]]}, "object 1 has no label"),
        (block("carr", 0, 0, 1, 1), "object 1 has the unknown label 'carr'; did you mean 'car'"),
        (block("xyzzy", 0, 0, 1, 1), "unknown label 'xyzzy'; the labels are Cityscapes' own"),
        ({"label": "car"}, "object 1 has no polygon"),
        ({"label": "car", "polygon": [[0, 0], [1]]}, r"the point \[1\]"),
        ({"label": "car", "polygon": [1, 2, 3, 4]}, "the point 1; expected"),
        ({"label": "car", "polygon": [[0, float("nan")]]}, r"the point \[0, nan\]"),
        ({"label": "car", "polygon": [[0, True]]}, r"the point \[0, True\]"),
        ({"label": "car", "polygon": [["0", 1]]}, r"the point \['0', 1\]"),
        ({"label": "car", "polygon": [[0, 10**400]]}, "the point"),
        ({"label": "car", "polygon": [[0, 1e9]]}, "the point"),
    ],
)
def test_broken_objects(tmp_path, entry, message):
    path = write(tmp_path, "ulm_000000_000019", [block("road", 0, 0, 1, 1), entry])
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)


def test_more_objects_than_ids(tmp_path):
    path = write(tmp_path, "ulm_000000_000019", [block("car", 0, 0, 1, 1)] * 1001)
    with pytest.raises(DataError, match="1001 objects of label id 26; .* room for 1000") as caught:
        read(tmp_path)
    assert str(path) in str(caught.value)
    assert instance_numbers([DrawnObject(BY_ID[26], [])] * 1000)[-1] == 26999


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:40]), "cannot read"),
        (lambda p: p.write_bytes(b"no image"), "cannot read"),
        (lambda p: Image.new("L", (WIDTH, HEIGHT)).save(p), "has mode L, expected one channel"),
        (lambda p: Image.new("RGBA", (WIDTH, HEIGHT)).save(p), "has mode RGBA"),
        (lambda p: write_ids(p, np.full((HEIGHT, WIDTH), 34)), "the value 34, which is no"),
        (lambda p: write_ids(p, np.full((HEIGHT, WIDTH), 7001)), "the value 7001"),
        (lambda p: write_ids(p, np.zeros((4, 6))), "for an image of 4x6 .* has 8x12"),
    ],
)
def test_broken_instance_images(tmp_path, spoil, message):
    path = write(tmp_path, "ulm_000000_000019", [])
    path = write_ids(Path(str(path).replace(POLYGONS, INSTANCES)), np.zeros((HEIGHT, WIDTH)))
    read(tmp_path, "instanceIds")
    spoil(path)
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, "instanceIds")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("workers", [1, 2])
def test_all_broken_files_in_one_answer(tmp_path, workers):
    paths = [write(tmp_path, f"ulm_{n:06d}_000019", []) for n in range(40)]
    for path in paths[3:8]:
        path.write_text("{")
    with pytest.raises(DataError, match="5 of 40 images are broken") as caught:
        read(tmp_path, workers=workers)
    assert all(str(path) in str(caught.value) for path in paths[3:6])
    assert "and 2 more" in str(caught.value)


def test_broken_picture(tmp_path):
    write(tmp_path, "ulm_000000_000019", [])
    image = tmp_path / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png"
    image.write_bytes(b"")
    with pytest.raises(DataError, match="cannot read .*leftImg8bit.png"):
        read(tmp_path)


# ---- wrong trees -------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path) -> Path:
    root = tmp_path / "data" / "cityscapes"
    for number in range(5):
        write(root, f"ulm_{number:06d}_000019", [])
    return root


def refusal(root: Path, split: str = "train", source: str = "polygons") -> str:
    with pytest.raises((DataError, UsageError)) as caught:
        read(root, source, split)
    return str(caught.value)


def test_wrong_calls(tree):
    assert "'masks'" in refusal(tree, source="masks")
    text = refusal(tree / "nowhere")
    assert "nowhere does not exist" in text
    assert "ROOT/gtFine/train/CITY/NAME_gtFine_polygons.json" in text
    (tree / "file").write_text("")
    assert "is a file" in refusal(tree / "file")


def test_one_level_too_high_or_too_deep(tree):
    assert f"not deep enough: give {tree}." in refusal(tree.parent)
    assert f"too deep: give {tree}." in refusal(tree / "leftImg8bit")
    assert f"too deep: give {tree}." in refusal(tree / "gtFine" / "train")


def test_archives_not_unpacked(tmp_path):
    (tmp_path / "gtFine_trainvaltest.zip").write_bytes(b"PK")
    text = refusal(tmp_path)
    assert "lacks leftImg8bit/train and gtFine/train" in text
    assert "found there: gtFine_trainvaltest.zip" in text
    assert "Unpack gtFine_trainvaltest.zip" in text
    assert "ROOT/leftImg8bit/train/CITY/NAME_leftImg8bit.png" in text


def test_archives_unpacked_apart(tree):
    for top in ("leftImg8bit", "gtFine"):
        (tree / f"{top}_trainvaltest").mkdir()
        shutil.move(tree / top, tree / f"{top}_trainvaltest" / top)
    text = refusal(tree)
    assert "unpacked into folders of their own (gtFine_trainvaltest, leftImg8bit_tr" in text


def test_coarse_instead_of_fine(tree):
    (tree / "gtFine").rename(tree / "gtCoarse")
    text = refusal(tree)
    assert "lacks gtFine/train; found there: leftImg8bit/ (train), gtCoarse/ (train)" in text
    assert "gtFine_trainvaltest.zip" in text


def test_missing_split(tree):
    text = refusal(tree, "val")
    assert "lacks leftImg8bit/val and gtFine/val" in text
    assert "There is train, but not 'val'" in text
    (tmp := tree.parent / "empty").mkdir()
    assert "found there: nothing" in refusal(tmp)


def test_images_without_annotations(tree):
    for number in (1, 2, 3, 4):
        (tree / f"gtFine/train/ulm/ulm_{number:06d}_000019{POLYGONS}").unlink()
    text = refusal(tree)
    assert "5 images, 1 annotations" in text
    assert f"4 images have no *{POLYGONS}: ulm/ulm_000001_000019, " in text
    assert "ulm/ulm_000003_000019 and 1 more" in text
    assert "Unpack the archives again" in text


def test_the_other_source_is_there(tree):
    text = refusal(tree, source="instanceIds")
    assert "5 images have no *_gtFine_instanceIds.png" in text
    assert "masks can come from 'polygons'" in text


def test_annotations_without_images(tree):
    shutil.rmtree(tree / "leftImg8bit/train/ulm")
    assert "0 city folders, all empty" in refusal(tree)
    write(tree, "ulm_000000_000019", [])
    text = refusal(tree)
    assert "1 images, 5 annotations" in text
    assert f"4 *{POLYGONS} have no image: ulm/ulm_000001_000019" in text


def test_images_elsewhere(tree):
    folder = tree / "leftImg8bit" / "train"
    for path in sorted((folder / "ulm").iterdir()):
        path.rename(folder / path.name)
    text = refusal(tree)
    assert "its 5 files are not in city folders: ulm_000000_000019_leftImg8bit.png" in text
    for path in sorted(folder.glob("*.png")):
        path.rename(folder / "ulm" / f"{path.stem}.jpg")
    text = refusal(tree)
    assert "its 5 files have other names: ulm/ulm_000000_000019_leftImg8bit.jpg" in text


def test_test_split_needs_no_annotations(tree):
    write(tree, "bonn_000000_000019", [], "test").unlink()
    for source in ("polygons", "instanceIds"):
        result = read(tree, source, "test")
        (image,) = result.coco["images"]
        assert (image["height"], image["width"]) == (HEIGHT, WIDTH)
        assert result.coco["annotations"] == []
        assert "1 images of the test split have no annotated object" in result.notes[0]
        assert result.sources == [tree / image["file_name"]]
    shutil.rmtree(tree / "gtFine")
    assert read(tree, split="test").coco["images"]
    # What is there is read: the benchmark's own files hold ignored regions only.
    write(tree, "bonn_000000_000019", [block("car", 0, 0, 2, 2)], "test")
    assert len(read(tree, split="test").coco["annotations"]) == 1


def test_unreadable_folder(tree, monkeypatch):
    def refuse(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("mask_rcnn_ext.data.cityscapes.tree.os.listdir", refuse)
    assert "Permission denied" in refusal(tree)
