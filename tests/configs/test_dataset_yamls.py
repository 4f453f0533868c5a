"""The data sets that come with the package: each YAML is sound, registered, and finds its files."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin, builtin_meta

from mask_rcnn_ext.data.registration import (
    class_names_of,
    keypoint_schema_of,
    locate_dataset,
    num_classes_of,
    register_from,
)
from mask_rcnn_ext.data.registration.catalog import entry_of
from mask_rcnn_ext.data.scenes import generate_splits
from mask_rcnn_ext.data.spec import FORMATS, parse_specs
from mask_rcnn_ext.data.spec_file import read_documents
from mask_rcnn_ext.errors import DataError, UsageError
from mask_rcnn_ext.resources import datasets_dir

YAMLS = sorted(datasets_dir().glob("*.yaml"))
SPECS = [
    spec
    for path in YAMLS
    for where, content in read_documents(path)
    for spec in parse_specs(content, where, None)
]
COCO_CLASSES = builtin_meta._get_builtin_metadata("coco")["thing_classes"]


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    monkeypatch.setenv("MASK_RCNN_EXT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_registered_as_described(spec):
    entry = entry_of(spec.name)
    assert entry is not None
    assert entry.spec == spec
    kind = "cityscapes_instance" if spec.format == "cityscapes" else "coco"
    assert MetadataCatalog.get(spec.name).evaluator_type == kind
    with pytest.raises(DataError, match=r"DETECTRON2_DATASETS is /"):
        DatasetCatalog.get(spec.name)


def test_names_are_there_once():
    names = [spec.name for spec in SPECS]
    assert len(names) == len(set(names))


def test_every_set_of_the_paper_and_of_our_configs_is_among_them():
    names = {spec.name for spec in SPECS}
    configs = Path(datasets_dir()).parent / "configs"
    used = {
        name
        for path in configs.rglob("*.yaml")
        for name in DatasetCatalog
        if f'"{name}"' in path.read_text()
    }
    assert used
    assert used <= names
    assert {"coco_2014_trainval35k", "keypoints_coco_2014_trainval35k"} <= names
    assert {"cityscapes_fine_train", "cityscapes_scenes_train", "scenes_keypoints_val"} <= names


@pytest.mark.parametrize("group", ["coco", "coco_person"])
def test_detectron2s_names_keep_files_and_metadata(group, tmp_path):
    metadata = builtin_meta._get_builtin_metadata(group)
    for name, (images, json_file) in builtin._PREDEFINED_SPLITS_COCO[group].items():
        if entry_of(name) is None:
            continue
        known = MetadataCatalog.get(name)
        for key, value in metadata.items():
            assert getattr(known, key) == value, (name, key)
        (tmp_path / json_file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / json_file).touch()
        assert locate_dataset(name) == (str(tmp_path / json_file), str(tmp_path / images))


def _coco(ids: list[int], prefix: str) -> dict[str, Any]:
    """One object an image; COCO's classes and ids."""
    contiguous = builtin_meta._get_builtin_metadata("coco")["thing_dataset_id_to_contiguous_id"]
    return {
        "images": [
            {"id": i, "file_name": f"{prefix}{i:012}.jpg", "height": 9, "width": 9} for i in ids
        ],
        "categories": [
            {"id": key, "name": COCO_CLASSES[place]} for key, place in contiguous.items()
        ],
        "annotations": [
            {"id": 10 * i, "image_id": i, "category_id": 90, "bbox": [1, 1, 4, 4], "area": 16}
            | {"iscrowd": 0, "segmentation": [[1, 1, 5, 1, 5, 5]]}
            for i in ids
        ],
    }


@pytest.fixture
def coco_2014(tmp_path) -> Path:
    """COCO's own files of 2014, and 2017's val, whose images are minival's."""
    folder = tmp_path / "coco/annotations"
    folder.mkdir(parents=True)
    for name in ("train2014", "val2014"):
        (tmp_path / "coco" / name).mkdir()
    for name, ids, prefix in (
        ("train2014", [1, 2, 3], "COCO_train2014_"),
        ("val2014", [4, 5, 6, 7], "COCO_val2014_"),
        ("val2017", [5, 7], ""),
    ):
        (folder / f"instances_{name}.json").write_text(json.dumps(_coco(ids, prefix)))
    return folder


def _images(name: str, root: Path) -> dict[int, str]:
    return {
        record["image_id"]: str(Path(record["file_name"]).relative_to(root / "coco"))
        for record in DatasetCatalog.get(name)
    }


def test_the_papers_split_from_cocos_own_files(coco_2014, tmp_path):
    assert _images("coco_2014_minival", tmp_path) == {
        5: "val2014/COCO_val2014_000000000005.jpg",
        7: "val2014/COCO_val2014_000000000007.jpg",
    }
    assert list(_images("coco_2014_valminusminival", tmp_path)) == [4, 6]
    assert _images("coco_2014_trainval35k", tmp_path) == {
        1: "train2014/COCO_train2014_000000000001.jpg",
        2: "train2014/COCO_train2014_000000000002.jpg",
        3: "train2014/COCO_train2014_000000000003.jpg",
        4: "val2014/COCO_val2014_000000000004.jpg",
        6: "val2014/COCO_val2014_000000000006.jpg",
    }
    for name in ("minival", "valminusminival", "trainval35k"):
        assert class_names_of(f"coco_2014_{name}") == COCO_CLASSES
        for record in DatasetCatalog.get(f"coco_2014_{name}"):
            assert [a["category_id"] for a in record["annotations"]] == [79]
    written = json.loads(Path(locate_dataset("coco_2014_trainval35k")[0]).read_text())
    assert [a["id"] for a in written["annotations"]] == [10, 20, 30, 40, 60]
    assert written["annotations"][0]["category_id"] == 90


def test_the_detectron_projects_files_come_first(coco_2014, tmp_path):
    minival = coco_2014 / "instances_minival2014.json"
    minival.write_text(json.dumps(_coco([4], "COCO_val2014_")))
    assert locate_dataset("coco_2014_minival") == (str(minival), str(tmp_path / "coco/val2014"))
    assert list(_images("coco_2014_trainval35k", tmp_path)) == [1, 2, 3, 5, 6, 7]
    assert list(_images("coco_2014_valminusminival", tmp_path)) == [5, 6, 7]


def test_what_is_needed_is_said(coco_2014):
    (coco_2014 / "instances_val2017.json").unlink()
    with pytest.raises(
        DataError, match=r"only_images_of needs .*instances_val2017.json, not found"
    ):
        locate_dataset("coco_2014_minival")
    with pytest.raises(
        DataError,
        match=r"needs .*instances_minival2014.json or .*instances_val2017.json, not found",
    ):
        locate_dataset("coco_2014_trainval35k")
    (coco_2014 / "instances_val2014.json").unlink()
    with pytest.raises(DataError, match=r"instances_val2014.json not found"):
        locate_dataset("coco_2014_minival")


def test_scenes_and_their_persons(tmp_path):
    generate_splits(tmp_path / "scenes", {"train": 3, "val": 2}, 64, 3, workers=1, progress=False)
    assert num_classes_of("scenes_train") == 9
    assert len(DatasetCatalog.get("scenes_val")) == 2
    schema = keypoint_schema_of("scenes_keypoints_train")
    assert schema.names == builtin_meta.COCO_PERSON_KEYPOINT_NAMES
    assert schema.sigmas == ()


def test_cityscapes_under_our_name_and_detectron2s(tmp_path):
    root = tmp_path / "cityscapes"
    splits = {"train": 2, "val": 1}
    generate_splits(root, splits, (128, 256), 3, 1, progress=False, layout="cityscapes")
    for name in ("cityscapes_fine_train", "cityscapes_fine_instance_seg_train"):
        records = DatasetCatalog.get(name)
        assert len(records) == 2
        for record in records:
            assert Path(record["file_name"]).is_relative_to(root / "leftImg8bit/train")
            assert Path(record["file_name"]).is_file()
        metadata = MetadataCatalog.get(name)
        assert metadata.thing_classes[:3] == ["person", "rider", "car"]
        assert len(metadata.thing_classes) == 8
        assert metadata.gt_dir == str(root / "gtFine/train")
        assert metadata.image_dir == str(root / "leftImg8bit/train")
        assert sum(len(record["annotations"]) for record in records) > 0
    with pytest.raises(
        DataError, match=r"cityscapes_scenes not found. .* did you mean cityscapes\?"
    ):
        locate_dataset("cityscapes_scenes_train")


def test_a_copy_elsewhere_under_the_same_name_is_no_silent_second(tmp_path):
    copied = tmp_path / "elsewhere/scenes.yaml"
    copied.parent.mkdir()
    copied.write_text((datasets_dir() / "scenes.yaml").read_text())
    with pytest.raises(UsageError, match="'scenes_train' is registered already with other values"):
        register_from([copied])


def test_what_the_documentation_shows_is_understood():
    text = (Path(datasets_dir()).parent / "docs/datasets.md").read_text()
    blocks = [textwrap.dedent(b) for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    contents = [yaml.safe_load(block) for block in blocks]
    assert len(contents) >= 3
    for content in contents:
        assert parse_specs({"name": "shown", **content}, "docs/datasets.md", "/")
    listed = re.findall(r"^\| `([a-z-]+)` \|", text.split("## Formats")[1], re.MULTILINE)
    assert tuple(listed[1:]) == FORMATS  # after the table's head
