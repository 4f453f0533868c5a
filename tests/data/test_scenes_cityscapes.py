"""Scenes in Cityscapes' layout: label images from polygons, what occurs in them, the same bytes."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import zlib
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mask_rcnn_ext.data.cityscapes.labels import BY_ID, BY_NAME
from mask_rcnn_ext.data.cityscapes.polygons import (
    DrawnObject,
    draw_instance_ids,
    draw_label_ids,
    read_polygon_file,
)
from mask_rcnn_ext.data.cityscapes.reader import read_cityscapes
from mask_rcnn_ext.data.scenes import cityscapes_dataset, generate_scenes, generate_splits
from mask_rcnn_ext.data.scenes.cityscapes_dataset import CITIES, SHARES, image_place
from mask_rcnn_ext.data.scenes.cityscapes_outline import holes, outline, parts
from mask_rcnn_ext.data.scenes.cityscapes_scene import (
    CAST,
    label_of,
    plan_things,
    render_cityscapes_scene,
)
from mask_rcnn_ext.data.scenes.cityscapes_street import covered
from mask_rcnn_ext.data.scenes.deflate import zlib_runs
from mask_rcnn_ext.data.scenes.layout import owners
from mask_rcnn_ext.data.scenes.png import encode_png
from mask_rcnn_ext.data.scenes.shapes import CLASSES
from mask_rcnn_ext.errors import UsageError, UserError

IMAGES, SIZE, SEED = 60, (96, 192), 4
KINDS = ("polygons.json", "instanceIds.png", "labelIds.png", "color.png")

# First digits of the sha256 of pictures and polygons; only the generators' versions change it.
# Label images are not here: they are what the Pillow installed draws.
GOLDEN = {
    "leftImg8bit/train/atlantis/atlantis_000000_000019_leftImg8bit.png": "fb817ff320f5bb8788414c50",
    "gtFine/train/atlantis/atlantis_000000_000019_gtFine_polygons.json": "d65950dc36f01c81f9fd7bbd",
    "leftImg8bit/train/ys/ys_000011_000019_leftImg8bit.png": "fbb2f61bedfd7442535d6a5e",
    "gtFine/train/ys/ys_000011_000019_gtFine_polygons.json": "8dab67328ff6e285ef16a402",
}


def make(out: Path, images: int = IMAGES, size: object = SIZE, seed: int = SEED, **options):
    given_ = {"workers": 1, "layout": "cityscapes", "progress": False, **options}
    return generate_scenes(out, images, size, seed, **given_)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "cityscapes"
    make(out)
    return out


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def files_of(folder: Path, kind: str) -> list[Path]:
    return sorted(folder.glob(f"gtFine/*/*/*_gtFine_{kind}"))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


# ---- content -----------------------------------------------------------------------------------


def test_layout(folder):
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    expected = {"scenes.json"}
    for index in range(IMAGES):
        city, name = image_place("train", index)
        expected.add(f"leftImg8bit/train/{city}/{name}_leftImg8bit.png")
        expected |= {f"gtFine/train/{city}/{name}_gtFine_{kind}" for kind in KINDS}
    assert names == expected
    assert {path.name for path in (folder / "gtFine/train").iterdir()} == set(CITIES["train"])
    assert not set(CITIES["train"]) & set(CITIES["val"])


def test_golden_bytes(folder):
    found = hashes(folder)
    assert {name: found[name][:24] for name in GOLDEN} == GOLDEN


def test_kinds_of_images(folder):
    for path in files_of(folder, "polygons.json")[:5]:
        stem = str(path).removesuffix("_polygons.json")
        ids, labels, colours = (pixels(Path(f"{stem}_{kind}")) for kind in KINDS[1:])
        assert (ids.dtype, labels.dtype, colours.dtype) == (np.uint16, np.uint8, np.uint8)
        assert ids.shape == labels.shape == SIZE
        assert colours.shape == (*SIZE, 4)
        assert (colours[..., 3] == 255).all()
        single = np.where(ids >= 1000, ids // 1000, ids)
        np.testing.assert_array_equal(single, labels)
        table = np.array([BY_ID[value].colour for value in range(34)], dtype=np.uint8)
        np.testing.assert_array_equal(colours[..., :3], table[labels])


def test_label_images_are_those_of_the_benchmarks_tools(folder):
    reason = "needs the extra `cityscapes`"
    instance = pytest.importorskip("cityscapesscripts.preparation.json2instanceImg", reason=reason)
    label = pytest.importorskip("cityscapesscripts.preparation.json2labelImg", reason=reason)
    paths = files_of(folder, "polygons.json")
    assert len(paths) == IMAGES
    for path in paths:
        stem = str(path).removesuffix("_polygons.json")
        annotation = instance.Annotation()
        annotation.fromJsonFile(str(path))
        ids = np.asarray(instance.createInstanceImage(annotation, "ids"))
        np.testing.assert_array_equal(ids, pixels(Path(f"{stem}_instanceIds.png")))
        for encoding, kind in (("ids", "labelIds"), ("color", "color")):
            theirs = np.asarray(label.createLabelImage(annotation, encoding))
            np.testing.assert_array_equal(theirs, pixels(Path(f"{stem}_{kind}.png")))


def test_polygon_files_draw_the_instance_images(folder):
    for path in files_of(folder, "polygons.json"):
        content = read_polygon_file(path)
        ids = draw_instance_ids(content.objects, content.height, content.width)
        written = Path(str(path).replace("polygons.json", "instanceIds.png"))
        np.testing.assert_array_equal(ids, pixels(written))
        assert (content.deleted, content.degenerate) == (0, 0)


def test_what_occurs(folder):
    """Everything that the benchmark's files make a reader cope with."""
    coco = read_cityscapes(folder, "train", workers=1).coco
    labels: Counter[str] = Counter()
    outside = 0
    for path in files_of(folder, "polygons.json"):
        for entry in json.loads(path.read_text())["objects"]:
            labels[entry["label"]] += 1
            xs, ys = zip(*entry["polygon"], strict=True)
            outside += min(xs) < 0 or min(ys) < 0 or max(xs) >= SIZE[1] or max(ys) >= SIZE[0]
    assert set(CAST.values()) <= set(labels)
    assert {"sky", "road", "building", "vegetation", "terrain", "pole"} <= set(labels)
    ignored = {"ego vehicle", "rectification border", "out of roi", "license plate"}
    assert ignored <= set(labels)
    assert any(name.endswith("group") for name in labels)
    assert outside > 10
    assert any((pixels(p) == 0).any() for p in files_of(folder, "labelIds.png"))  # unlabeled
    split = holed = 0
    for annotation in coco["annotations"]:
        if not annotation["iscrowd"]:
            mask = mask_of(annotation)
            split += len(parts(mask, 5)) > 1
            holed += bool(holes(mask, 5))
    assert split >= 5
    assert holed >= 5
    assert {a["iscrowd"] for a in coco["annotations"]} == {0, 1}
    assert {a["image_id"] for a in coco["annotations"]} < {i["id"] for i in coco["images"]}


def mask_of(annotation: dict) -> np.ndarray:
    from pycocotools import mask as mask_util

    return mask_util.decode(annotation["segmentation"]).astype(bool)


def test_pictures_and_labels_agree_on_the_things():
    """Exact but for single pixels at sharp corners; a group's gaps belong to it by design."""
    wrong = total = 0
    for index in range(40):
        things = [t for t in plan_things(SEED, index, SIZE, "train") if not t.crowd]
        for thing in things:
            mask = thing.patch.mask
            drawn = draw([outline(mask)], mask.shape)
            for hole in holes(mask, 1):
                drawn &= ~draw([outline(hole)], mask.shape)
            wrong += np.count_nonzero(drawn != mask)
            total += np.count_nonzero(mask)
    assert total > 10000
    assert wrong / total < 0.001


def test_the_labels_are_where_the_picture_shows_the_things():
    front = ("pole", "traffic sign", "traffic light", "ego vehicle", "rectification border")
    front_ids = [BY_NAME[name].id for name in (*front, "out of roi")]
    wrong = total = 0
    for index in range(30):
        things = plan_things(SEED, index, SIZE, "train")
        if any(thing.crowd for thing in things):
            continue
        scene = render_cityscapes_scene(SEED, index, SIZE, "train")
        labels = draw_label_ids(scene.objects, *SIZE)
        expected = np.append([label_of(thing).id for thing in things], -1)[owners(things, *SIZE)]
        seen = (expected >= 0) & ~np.isin(labels, front_ids)
        wrong += np.count_nonzero(labels[seen] != expected[seen])
        total += np.count_nonzero(seen)
    assert total > 10000
    assert wrong / total < 0.01  # what shows through another thing's hole belongs to that thing


def test_counts_in_the_manifest(folder):
    manifest = json.loads((folder / "scenes.json").read_text())
    assert manifest["shares"] == SHARES
    entry = manifest["splits"]["train"]
    assert entry["parameters"] == {
        "images": IMAGES,
        "height": SIZE[0],
        "width": SIZE[1],
        "seed": SEED,
        "version": 1,
        "layout": "cityscapes",
        "layout_version": 1,
    }
    coco = read_cityscapes(folder, "train", "instanceIds", workers=1).coco
    single = Counter(a["category_id"] for a in coco["annotations"] if not a["iscrowd"])
    with_things = {a["image_id"] for a in coco["annotations"]}
    counts = {key: value for key, value in entry["counts"].items() if key not in BY_NAME}
    assert counts == {
        "images": IMAGES,
        "empty_images": IMAGES - len(with_things),
        "instances": single.total(),
        "crowds": len(coco["annotations"]) - single.total(),
    }
    assert {BY_NAME[n].id: entry["counts"][n] for n in entry["counts"] if n in BY_NAME} == {
        category["id"]: single[category["id"]] for category in coco["categories"]
    }
    assert entry["counts"]["empty_images"] >= 1


def test_every_shape_has_a_part():
    assert set(CAST) == {name for name, _ in CLASSES.values()}
    assert len(set(CAST.values())) == len(CAST)


@pytest.mark.parametrize("size", [(32, 32), (40, 33), (64, 32), (33, 128)])
def test_any_size(tmp_path, size):
    make(tmp_path / "a", images=12, size=size)
    one, other = (
        read_cityscapes(tmp_path / "a", "train", source, workers=1)
        for source in ("polygons", "instanceIds")
    )
    assert one.coco["annotations"] == other.coco["annotations"]
    assert {(i["height"], i["width"]) for i in one.coco["images"]} == {size}


# ---- outlines ----------------------------------------------------------------------------------


def draw(lines: list, shape: tuple[int, int]) -> np.ndarray:
    return draw_label_ids([DrawnObject(BY_NAME["road"], line) for line in lines], *shape) > 0


def test_outline_by_hand():
    mask = np.zeros((5, 6), dtype=bool)
    mask[1:4, 1:5] = True
    mask[2, 2] = False  # the hole is not in the outline
    assert outline(mask, 10, 20) == ((11, 21), (11, 23), (14, 23), (14, 21))
    single = np.zeros((3, 3), dtype=bool)
    single[1, 2] = True
    assert outline(single) == ((2, 1), (2, 1))
    np.testing.assert_array_equal(draw([outline(single)], (3, 3)), single)
    (hole,) = holes(mask, 1)
    assert outline(hole) == ((2, 2), (2, 2))
    assert holes(mask, 2) == []


def test_outline_is_that_of_the_largest_part():
    mask = np.zeros((4, 8), dtype=bool)
    mask[0, 0] = mask[1:3, 3:6] = True
    assert [int(part.sum()) for part in parts(mask, 1)] == [1, 6]
    assert [int(part.sum()) for part in parts(mask, 2)] == [6]
    assert outline(mask) == ((3, 1), (3, 2), (5, 2), (5, 1))


def test_outline_does_not_depend_on_where_a_tracer_begins(monkeypatch):
    mask = np.random.default_rng(0).random((12, 12)) < 0.7
    expected = outline(mask)
    original = cv2.findContours

    def turned(*arguments):
        contours, tree = original(*arguments)
        return [np.roll(contours[0][::-1], 7, axis=0), *contours[1:]], tree

    monkeypatch.setattr(cv2, "findContours", turned)
    assert outline(mask) == expected


def test_covered_by_hand():
    square = ((1, 1), (3, 1), (3, 2), (1, 2))
    expected = np.zeros((4, 5), dtype=bool)
    expected[1:3, 1:4] = True
    np.testing.assert_array_equal(covered(square, 4, 5), expected)
    np.testing.assert_array_equal(covered(square[::-1], 4, 5), expected)
    triangle = np.tri(5, dtype=bool)  # the diagonal is in it, the ends of sharp corners are not
    triangle[0, 0] = triangle[4, 4] = False
    np.testing.assert_array_equal(covered(((0, 0), (4, 4), (0, 4)), 5, 5), triangle)
    assert covered(((-9, -9), (90, -9), (90, 90), (-9, 90)), 4, 5).all()
    assert not covered(((10, 10), (12, 10), (12, 12)), 4, 5).any()


# ---- PNG ---------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(st.integers(0, 255), st.integers(1, 600)), max_size=12))
def test_runs_unpack_to_what_was_packed(runs):
    data = b"".join(bytes([value]) * length for value, length in runs)
    assert zlib.decompress(zlib_runs(data)) == data


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 257, 258, 259, 260, 261, 262, 517, 520])
def test_lengths_around_the_longest_match(length):
    assert zlib.decompress(zlib_runs(b"\xc8" * length)) == b"\xc8" * length


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((5, 7), np.uint8), ((5, 7), np.uint16), ((5, 7, 3), np.uint8), ((5, 7, 4), np.uint8)],
)
def test_png_kinds(shape, dtype, runs):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    with Image.open(io.BytesIO(encode_png(image, runs))) as found:
        array = np.asarray(found)
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, image)


def test_label_images_are_small(folder):
    total = sum(path.stat().st_size for path in files_of(folder, "color.png"))
    assert total < IMAGES * SIZE[0] * SIZE[1] * 4 / 4


# ---- second runs and broken runs ---------------------------------------------------------------


def test_workers_and_number_do_not_matter(tmp_path, folder):
    make(tmp_path, images=35, workers=3)
    fewer, more = hashes(tmp_path), hashes(folder)
    del fewer["scenes.json"]
    assert len(fewer) == 35 * 5
    assert fewer.items() < more.items()


def test_second_run_does_nothing(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    summary = make(folder)
    assert not summary.written
    assert summary.folder == folder / "leftImg8bit" / "train"
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_parameters_are_refused(tmp_path):
    make(tmp_path, images=7, size=32)
    before = hashes(tmp_path)
    expected = r"--layout cityscapes --images 7 .*--seed 4 .*--images 7 .*--seed 5 .*force"
    with pytest.raises(UsageError, match=expected):
        make(tmp_path, images=7, size=32, seed=5)
    assert hashes(tmp_path) == before
    make(tmp_path, images=6, size=32, seed=5, overwrite=True)
    make(tmp_path / "clean", images=6, size=32, seed=5)
    clean = hashes(tmp_path / "clean")
    assert {k: v for k, v in hashes(tmp_path).items() if not k.startswith("clean/")} == clean


def test_splits_share_a_folder_but_no_image(tmp_path):
    splits = {"train": 6, "val": 6}
    train, val = generate_splits(tmp_path, splits, 32, 0, 1, False, layout="cityscapes")
    assert train.sha256 != val.sha256
    pictures = [v for k, v in hashes(tmp_path).items() if k.startswith("leftImg8bit")]
    assert len(set(pictures)) == len(pictures) == 12


@pytest.mark.parametrize("overwrite", [False, True])
def test_layouts_do_not_mix(tmp_path, overwrite):
    make(tmp_path / "a", images=2, size=32)
    generate_scenes(tmp_path / "b", 2, 32, 0, workers=1, progress=False)
    with pytest.raises(UsageError, match="leftImg8bit: .* another layout"):
        generate_scenes(tmp_path / "a", 2, 32, 0, overwrite=overwrite)
    with pytest.raises(UsageError, match="annotations: .* another layout"):
        make(tmp_path / "b", images=2, size=32, overwrite=overwrite)


def test_lost_files_are_made_again(tmp_path):
    make(tmp_path, images=4, size=32)
    before = hashes(tmp_path)
    for path in (files_of(tmp_path, "color.png")[0], next(tmp_path.glob("left*/*/*/*.png"))):
        path.unlink()
        assert make(tmp_path, images=4, size=32).written
        assert hashes(tmp_path) == before


def test_edited_annotations_are_not_lost(tmp_path):
    make(tmp_path, images=2, size=32)
    path = files_of(tmp_path, "polygons.json")[1]
    path.write_text(path.read_text() + " ")
    with pytest.raises(UsageError, match=f"{path.name} was changed"):
        make(tmp_path, images=2, size=32)
    assert make(tmp_path, images=2, size=32, overwrite=True).written


@pytest.mark.parametrize("top", ["leftImg8bit", "gtFine"])
def test_foreign_files_are_never_touched(tmp_path, top):
    (tmp_path / top / "train" / "aachen").mkdir(parents=True)
    mine = tmp_path / top / "train" / "aachen" / "aachen_000000_000019_leftImg8bit.png"
    mine.write_bytes(b"mine")
    for overwrite in (False, True):
        with pytest.raises(UsageError, match="not one of our scenes"):
            make(tmp_path, images=2, size=32, overwrite=overwrite)
    assert mine.read_bytes() == b"mine"


def test_interrupted_run_looks_unfinished(tmp_path, monkeypatch):
    calls = []

    def encode(image, runs=False, original=cityscapes_dataset.encode_png):
        calls.append(1)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return original(image, runs)

    with monkeypatch.context() as patch:
        patch.setattr(cityscapes_dataset, "encode_png", encode)
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, images=8, size=32)
    assert not (tmp_path / "scenes.json").exists()
    summary = make(tmp_path, images=8, size=32)  # what is there is known to be ours
    assert summary.sha256 == make(tmp_path / "clean", images=8, size=32).sha256
    assert not list(tmp_path.glob(".*"))


def test_full_disk_is_said(tmp_path, monkeypatch):
    def refuse(image, runs=False):
        raise OSError(28, "No space left on device", "some.png")

    monkeypatch.setattr(cityscapes_dataset, "encode_png", refuse)
    with pytest.raises(UserError, match="cannot write some.png: No space left on device"):
        make(tmp_path, images=2, size=32)


def test_bad_splits_and_layouts(tmp_path):
    with pytest.raises(UsageError, match="splits train, val, got 'test'"):
        make(tmp_path / "a", images=2, split="test")
    with pytest.raises(UsageError, match="coco or cityscapes, got 'voc'"):
        make(tmp_path / "a", images=2, layout="voc")
    assert not (tmp_path / "a").exists()


def test_the_coco_layout_imports_neither_opencv_nor_pillow():
    import subprocess

    code = (
        "import sys, types\n"
        "package = types.ModuleType('mask_rcnn_ext'); package.__path__ = [sys.argv[1]]\n"
        "data = types.ModuleType('mask_rcnn_ext.data'); data.__path__ = [sys.argv[1] + '/data']\n"
        "sys.modules.update({'mask_rcnn_ext': package, 'mask_rcnn_ext.data': data})\n"
        "import mask_rcnn_ext.data.scenes\n"
        "assert not {'cv2', 'PIL'} & set(sys.modules)\n"
    )
    package = str(Path(cityscapes_dataset.__file__).parents[2])
    subprocess.run([sys.executable, "-c", code, package], check=True, timeout=60)
