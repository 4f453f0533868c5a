"""Scenes on disk: COCO files that load, the same bytes, and no run that only looks complete."""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_util
from pycocotools.coco import COCO

from mask_rcnn_ext.data.scenes import (
    coco_records,
    dataset,
    generate_scenes,
    generate_splits,
    render_scene,
)
from mask_rcnn_ext.data.scenes.person import KEYPOINT_NAMES
from mask_rcnn_ext.data.scenes.shapes import CLASSES, PERSON
from mask_rcnn_ext.errors import UsageError, UserError
from mask_rcnn_ext.tools import scenes as verb

PROJECTS = Path(verb.__file__).parents[2]
IMAGES, SIDE, SEED = 40, 64, 5

# First half of the sha256 of files of the 40-image data set; only GENERATOR_VERSION changes it.
GOLDEN = {
    "annotations/instances_train.json": "6629d0b413cd8707a1308a6ffad18d36",
    "annotations/person_keypoints_train.json": "4908f3f8944f2098df303d8ea8d73aa3",
    "train/000000000001.png": "732164eb73da71afb9e04cf3d34d5416",
    "train/000000000040.png": "e1e257c45464faca4f54cd0bca366f26",
}
GOLDEN_SUMMARY = "3ac59f8ea626a01181a3cbd58f41d98fa9c8f1a080661d33565901fbc65e1846"


def make(out, images=IMAGES, size=SIDE, seed=SEED, **options):
    return generate_scenes(out, images, size, seed, progress=False, **{"workers": 1, **options})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "data"
    make(out)
    return out


def load(folder, kind):
    return json.loads((folder / f"annotations/{kind}_train.json").read_text())


def hashes(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ---- content -----------------------------------------------------------------------------------


def test_layout(folder):
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    images = {f"train/{i:012d}.png" for i in range(1, IMAGES + 1)}
    files = {f"annotations/{k}_train.json" for k in ("instances", "person_keypoints")}
    assert names == images | files | {"scenes.json"}


def test_golden_files(folder):
    found = hashes(folder)
    assert {name: found[name][:32] for name in GOLDEN} == GOLDEN, "raise GENERATOR_VERSION if meant"
    assert json.loads((folder / "scenes.json").read_text())["splits"]["train"]["sha256"] == (
        GOLDEN_SUMMARY
    )


def test_workers_have_no_influence(folder, tmp_path):
    make(tmp_path / "two", workers=2)
    assert hashes(tmp_path / "two") == hashes(folder)


def test_fewer_images_are_the_first_ones(folder, tmp_path):
    make(tmp_path / "few", images=5)
    few, many = hashes(tmp_path / "few"), hashes(folder)
    assert all(few[name] == many[name] for name in few if name.startswith("train/"))


def test_pictures_and_masks_come_back(folder):
    image = pytest.importorskip("PIL.Image")
    content = load(folder, "instances")
    by_image = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    for record in content["images"]:
        scene = render_scene(SEED, record["id"] - 1, SIDE)
        with image.open(folder / "train" / record["file_name"]) as file:
            np.testing.assert_array_equal(np.asarray(file), scene.image)
        assert (record["height"], record["width"]) == (SIDE, SIDE)
        annotations = by_image.get(record["id"], [])
        assert len(annotations) == len(scene.instances)
        for annotation, instance in zip(annotations, scene.instances, strict=True):
            rle = annotation["segmentation"]
            assert isinstance(rle["counts"], list if annotation["iscrowd"] else str)
            if annotation["iscrowd"]:
                rle = mask_util.frPyObjects(rle, SIDE, SIDE)
            np.testing.assert_array_equal(mask_util.decode(rle).astype(bool), instance.mask)
            assert annotation["bbox"] == list(instance.bbox) == mask_util.toBbox(rle).tolist()
            assert annotation["area"] == instance.area == mask_util.area(rle)
            assert annotation["category_id"] == instance.category_id
            assert "keypoints" not in annotation


@pytest.mark.parametrize("corner", [False, True])
def test_run_lengths_by_hand(corner):
    #  . # .   column by column: . # | # # | . .
    #  # # .
    mask = np.array([[corner, 1, 0], [1, 1, 0]], dtype=bool)
    rle = coco_records.uncompressed_rle(mask)
    assert rle == {"size": [2, 3], "counts": [0, 4, 2] if corner else [1, 3, 2]}
    compressed = mask_util.frPyObjects(rle, 2, 3)
    assert compressed["counts"].decode() == coco_records.compressed_rle(mask)["counts"]


def test_crowds_are_there(folder):
    assert any(a["iscrowd"] for a in load(folder, "instances")["annotations"])


def test_keypoint_file(folder):
    instances, persons = load(folder, "instances"), load(folder, "person_keypoints")
    assert persons["images"] == instances["images"]
    (category,) = persons["categories"]
    assert (category["id"], category["name"]) == (PERSON, "person") == (1, "person")
    assert category["keypoints"] == list(KEYPOINT_NAMES)
    assert len(category["skeleton"]) == 19
    expected = {a["id"]: a for a in instances["annotations"] if a["category_id"] == PERSON}
    assert {a["id"] for a in persons["annotations"]} == set(expected)
    for annotation in persons["annotations"]:
        flags = annotation["keypoints"][2::3]
        assert annotation["num_keypoints"] == sum(v > 0 for v in flags)
        assert len(annotation["keypoints"]) == 51
        rest = {k: v for k, v in annotation.items() if k not in ("keypoints", "num_keypoints")}
        assert rest == expected[annotation["id"]]


def test_pycocotools_loads_both(folder, capsys):
    for kind in ("instances", "person_keypoints"):
        coco = COCO(str(folder / f"annotations/{kind}_train.json"))
        assert len(coco.imgs) == IMAGES
        assert all(coco.annToMask(a).sum() == a["area"] for a in coco.anns.values())
    categories = load(folder, "instances")["categories"]
    assert [(c["id"], c["name"]) for c in categories] == [(k, n) for k, (n, _) in CLASSES.items()]


def test_detectron2_loads_it(folder):
    module = pytest.importorskip("detectron2.data.datasets.coco")
    for kind in ("instances", "person_keypoints"):
        path = str(folder / f"annotations/{kind}_train.json")
        extra = None
        records = module.load_coco_json(path, str(folder / "train"), extra_annotation_keys=extra)
        assert len(records) == IMAGES
        assert all(Path(record["file_name"]).is_file() for record in records)
        assert sum(len(r["annotations"]) for r in records) == len(load(folder, kind)["annotations"])


def test_info_and_manifest_say_how(folder):
    manifest = json.loads((folder / "scenes.json").read_text())
    parameters = manifest["splits"]["train"]["parameters"]
    assert parameters == {"images": 40, "height": 64, "width": 64, "seed": 5, "version": 1}
    info = load(folder, "instances")["info"]
    assert info["parameters"] == {"split": "train", **parameters}
    assert info["shares"] == manifest["shares"]
    assert manifest["shares"]["images_without_objects"] == 0.03
    assert manifest["shares"]["images_with_a_crowd"] == 0.04
    counts = manifest["splits"]["train"]["counts"]
    assert counts["instances"] == sum(counts[name] for name, _ in CLASSES.values())
    assert counts["images"] == IMAGES
    assert counts["crowds"] >= 1


# ---- second runs and broken runs ---------------------------------------------------------------


def test_second_run_does_nothing(folder):
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    summary = make(folder)
    assert not summary.written
    assert summary.sha256 == GOLDEN_SUMMARY
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before


def test_other_parameters_are_refused(tmp_path):
    make(tmp_path, images=3)
    before = hashes(tmp_path)
    with pytest.raises(UsageError, match=r"--images 3 .*--seed 5 .*--images 3 .*--seed 4 .*force"):
        make(tmp_path, images=3, seed=4)
    assert hashes(tmp_path) == before
    make(tmp_path, images=2, seed=4, overwrite=True)
    make(tmp_path / "clean", images=2, seed=4)
    clean = hashes(tmp_path / "clean")
    assert {k: v for k, v in hashes(tmp_path).items() if not k.startswith("clean/")} == clean


def test_splits_share_a_folder_but_no_image(tmp_path):
    train, val = generate_splits(tmp_path, {"train": 4, "val": 4}, 32, 0, 1, progress=False)
    assert (train.split, val.split) == ("train", "val")
    assert train.sha256 != val.sha256
    images = [v for k, v in hashes(tmp_path).items() if k.endswith(".png")]
    assert len(images) == len(set(images)) == 8
    with pytest.raises(UsageError, match="'val'"):  # found before the new split is written
        generate_splits(tmp_path, {"other": 2, "val": 3}, 32, 0, 1, progress=False)
    assert not (tmp_path / "other").exists()


def test_missing_image_is_made_again(tmp_path):
    make(tmp_path, images=4)
    before = hashes(tmp_path)
    (tmp_path / "train/000000000002.png").unlink()
    assert make(tmp_path, images=4).written
    assert hashes(tmp_path) == before


def test_edited_annotations_are_not_lost(tmp_path):
    make(tmp_path, images=2)
    path = tmp_path / "annotations/instances_train.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(UsageError, match="instances_train.json was changed"):
        make(tmp_path, images=2)
    assert make(tmp_path, images=2, overwrite=True).written


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_are_never_touched(tmp_path, overwrite):
    (tmp_path / "train").mkdir()
    (tmp_path / "train/000000000001.png").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not one of our scenes"):
        make(tmp_path, images=2, overwrite=overwrite)
    (tmp_path / "scenes.json").write_text("[]")
    with pytest.raises(UsageError, match="scenes.json is not one of ours"):
        make(tmp_path, images=2, split="val", overwrite=overwrite)
    assert (tmp_path / "train/000000000001.png").read_bytes() == b"mine"


def break_after(monkeypatch, error, count=5):
    """Let the fifth image raise `error` (in each process)."""
    calls = []

    def encode(image, original=dataset.encode_png):
        calls.append(1)
        if len(calls) == count:
            raise error
        return original(image)

    monkeypatch.setattr(dataset, "encode_png", encode)


@pytest.mark.parametrize("earlier", [False, True], ids=["new", "over an older split"])
def test_interrupted_run_looks_unfinished(tmp_path, monkeypatch, earlier):
    if earlier:
        make(tmp_path, images=3, seed=9)
    with monkeypatch.context() as patch:
        break_after(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path, images=8, overwrite=earlier)
    assert len(list((tmp_path / "train").glob("*.png"))) == 4
    assert not list((tmp_path / "annotations").iterdir())
    if earlier:
        assert json.loads((tmp_path / "scenes.json").read_text())["splits"] == {}
    summary = make(tmp_path, images=8)  # needs no --force: what is there is known to be ours
    assert summary.written
    assert summary.sha256 == make(tmp_path / "clean", images=8).sha256
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("workers", [1, 2])
def test_full_disk_is_said(tmp_path, monkeypatch, workers):
    if workers > 1 and sys.platform != "linux":
        pytest.skip("the patch reaches forked workers only")
    break_after(monkeypatch, OSError(28, "No space left on device", "some.png"))
    with pytest.raises(UserError, match="cannot write some.png: No space left on device"):
        make(tmp_path, images=64, workers=workers)
    assert not list((tmp_path / "annotations").iterdir())


def test_too_small_a_disk_is_said_at_once(tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(dataset.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match="the disk has 0 MB free"):
        make(tmp_path / "a", images=10)
    assert not (tmp_path / "a").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="process groups and signals as on Linux")
def test_ctrl_c_ends_all_processes(tmp_path):
    words = [sys.executable, "-c", COMMAND, "--out", str(tmp_path / "a"), "--images", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(PROJECTS)}
    run = subprocess.Popen(
        [*words, "--size", "32", "--workers", "2"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run in the background of a shell has Ctrl-C ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not list(tmp_path.glob("a/train/*2.png")):
            time.sleep(0.02)
        os.killpg(run.pid, signal.SIGINT)
        _, errors = run.communicate(timeout=20)
    finally:
        run.kill()
    assert run.returncode == 1
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "a/annotations").iterdir())
    with pytest.raises(ProcessLookupError):
        os.killpg(run.pid, 0)  # nobody left, not even a zombie


# ---- arguments ---------------------------------------------------------------------------------

COMMAND = """
import argparse, sys
from mask_rcnn_ext.tools import scenes
parser = argparse.ArgumentParser()
scenes.add_arguments(parser)
sys.exit(scenes.run(parser.parse_args()))
"""


def command(*words):
    parser = argparse.ArgumentParser()
    verb.add_arguments(parser)
    return verb.run(parser.parse_args([str(word) for word in words]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 0}, "at least 1, got 0"),
        ({"size": 31}, "32 to 4096 pixels, got 31x31"),
        ({"size": (64, 5000)}, "got 64x5000"),
        ({"seed": -1}, "must not be negative, got -1"),
        ({"split": "a/b"}, "got 'a/b'"),
        ({"split": "annotations"}, "got 'annotations'"),
        ({"workers": 0}, "at least 1, got 0"),
    ],
)
def test_bad_arguments(tmp_path, change, message):
    with pytest.raises(UsageError, match=message):
        make(tmp_path / "a", **{"images": 2, **change})
    assert not (tmp_path / "a").exists()


def test_command_writes_both_splits(tmp_path, capsys):
    words = ["--out", tmp_path / "d", "--images", 12, "--size", "32x48", "--seed", 5]
    assert command(*words, "--workers", 1) == 0
    captured = capsys.readouterr()
    assert "12 images" in captured.out
    assert "1 images" in captured.out
    assert "scenes train: 12 of 12" in captured.err
    assert (tmp_path / "d/annotations/person_keypoints_val.json").exists()
    record = load(tmp_path / "d", "instances")["images"][0]
    assert (record["height"], record["width"]) == (32, 48)
    assert command(*words, "--quiet") == 0
    captured = capsys.readouterr()
    assert captured.out.count("already there, nothing done") == 2
    assert not captured.err


def test_command_one_split(tmp_path):
    words = ["--out", tmp_path, "--images", 3, "--size", 32, "--split", "val", "--quiet"]
    assert command(*words, "--val-images", 2) == 0
    assert len(list((tmp_path / "val").iterdir())) == 2
    assert not (tmp_path / "train").exists()


def test_command_errors(tmp_path, capsys):
    assert command("--out", tmp_path / "a", "--images", 0) == 2
    assert "must be at least 1, got 0" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert command("--out", tmp_path / "file", "--images", 2) == 2
    assert "is a file" in capsys.readouterr().err
    assert command("--out", tmp_path / "file" / "below", "--images", 2, "--quiet") == 1
    assert "cannot write" in capsys.readouterr().err
    with pytest.raises(SystemExit) as raised:
        command("--out", tmp_path / "a", "--images", 2, "--size", "big")
    assert raised.value.code == 2
    assert "neither a side" in capsys.readouterr().err
