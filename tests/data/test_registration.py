"""Data sets by name: YAMLs, dicts, folders, the environment; the same again, something else."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import register_coco_instances

from mask_rcnn_ext.data import register_coco_dataset, register_dataset
from mask_rcnn_ext.data.registration import (
    check_same_classes,
    class_names_of,
    describe_unknown,
    keypoint_schema_of,
    locate_dataset,
    num_classes_of,
    register_from,
)
from mask_rcnn_ext.data.registration.sources import register_shipped
from mask_rcnn_ext.errors import DataError, UsageError

BOX = {"iscrowd": 0, "area": 16.0, "segmentation": [[1, 1, 5, 1, 5, 5, 1, 5]]}


@pytest.fixture(autouse=True)
def _registered_names_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setenv("MASK_RCNN_EXT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MASK_RCNN_EXT_DATASETS", raising=False)
    before = set(DatasetCatalog)
    yield
    for name in set(DatasetCatalog) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def _coco(
    classes: tuple[str, ...] = ("cat", "dog"), images: int = 2, first_id: int = 1
) -> dict[str, Any]:
    """An object of each class in each image."""
    return {
        "images": [
            {"id": first_id + n, "file_name": f"{n}.png", "height": 20, "width": 30}
            for n in range(images)
        ],
        "categories": [{"id": 3 + 4 * n, "name": name} for n, name in enumerate(classes)],
        "annotations": [
            {"id": 100 * n + c, "image_id": first_id + n, "category_id": 3 + 4 * c}
            | {"bbox": [1, 1, 4, 4], **BOX}
            for n in range(images)
            for c in range(len(classes))
        ],
    }


@pytest.fixture
def toy(tmp_path) -> Path:
    """A folder with train.json, val.json and images/, as a user has one."""
    folder = tmp_path / "toy"
    (folder / "images").mkdir(parents=True)
    for number in range(2):
        cv2.imwrite(str(folder / f"images/{number}.png"), np.zeros((20, 30, 3), np.uint8))
    (folder / "train.json").write_text(json.dumps(_coco()))
    (folder / "val.json").write_text(json.dumps(_coco()))
    return folder


def _yaml(folder: Path, name: str = "toy", **changes: Any) -> Path:
    content = {
        "name": name,
        "splits": {
            split: {"annotations": f"{split}.json", "images": "images"}
            for split in ("train", "val")
        },
        **changes,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_yaml_registers_its_splits_and_files_are_used_as_they_are(toy):
    assert register_dataset(_yaml(toy)) == ["toy_train", "toy_val"]
    metadata = MetadataCatalog.get("toy_train")
    assert metadata.json_file == str(toy / "train.json")
    assert metadata.image_root == str(toy / "images")
    assert metadata.evaluator_type == "coco"
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {3: 0, 7: 1}
    records = DatasetCatalog.get("toy_train")
    assert [r["file_name"] for r in records] == [str(toy / f"images/{n}.png") for n in range(2)]
    assert [a["category_id"] for a in records[0]["annotations"]] == [0, 1]
    assert locate_dataset("toy_val") == (str(toy / "val.json"), str(toy / "images"))


def test_nothing_is_looked_at_before_the_set_is_used(tmp_path):
    names = register_dataset(name="not_there", annotations="no/where.json", images="no/images")
    assert names == ["not_there"]
    assert MetadataCatalog.get("not_there").get("thing_classes") is None
    with pytest.raises(DataError, match="no/where.json not found"):
        DatasetCatalog.get("not_there")


def test_a_missing_path_says_what_is_there(toy):
    splits = {"train": {"annotations": "trian.json", "images": "images"}}
    register_dataset(_yaml(toy, splits=splits))
    with pytest.raises(DataError) as caught:
        DatasetCatalog.get("toy_train")
    message = str(caught.value)
    assert "toy.yaml: splits.train): " in message
    assert (
        f"{toy} holds images/, toy.yaml, train.json, val.json; did you mean train.json?" in message
    )
    assert "DETECTRON2_DATASETS" not in message


def test_a_device_is_no_annotation_file():
    register_dataset(name="endless", annotations="/dev/zero", classes={"keep": ["a"]})
    with pytest.raises(DataError, match="/dev/zero is not what was expected there"):
        locate_dataset("endless")


def test_dict_and_keywords_are_below_the_working_directory(toy, monkeypatch):
    monkeypatch.chdir(toy)
    register_dataset({"name": "by_dict", "annotations": "train.json", "images": Path("images")})
    register_dataset(name="by_words", annotations="val.json", images="images")
    monkeypatch.chdir("/")
    assert len(DatasetCatalog.get("by_dict")) == len(DatasetCatalog.get("by_words")) == 2
    with pytest.raises(UsageError, match="takes a file, a mapping, or keywords"):
        register_dataset()
    with pytest.raises(UsageError, match="'by_words': unknown key 'image'; did you mean images"):
        register_dataset(name="by_words", annotations="val.json", image="images")


def test_images_are_beside_the_annotations_where_nothing_is_said(toy):
    register_dataset(name="beside", annotations=toy / "train.json")
    assert locate_dataset("beside") == (str(toy / "train.json"), str(toy))


def test_root_with_home_and_the_datasets_folder(toy, monkeypatch):
    monkeypatch.setenv("HOME", str(toy.parent))
    monkeypatch.setenv("DETECTRON2_DATASETS", str(toy.parent))
    register_dataset(name="home", root="~/toy", annotations="train.json")
    register_dataset(name="below", root="${DETECTRON2_DATASETS}/toy", annotations="train.json")
    assert locate_dataset("home") == locate_dataset("below") == (str(toy / "train.json"), str(toy))
    monkeypatch.setenv("DETECTRON2_DATASETS", "/elsewhere")
    assert locate_dataset("below") == ("/elsewhere/toy/train.json", "/elsewhere/toy")
    assert MetadataCatalog.get("below").json_file == "/elsewhere/toy/train.json"
    with pytest.raises(DataError, match="DETECTRON2_DATASETS is /elsewhere"):
        DatasetCatalog.get("below")


def test_the_same_again_is_fine_something_else_shows_both(toy):
    register_dataset(_yaml(toy))
    assert register_dataset(_yaml(toy)) == ["toy_train", "toy_val"]
    other = {"val": {"annotations": "val.json", "images": "pictures"}}
    with pytest.raises(UsageError) as caught:
        register_dataset(_yaml(toy, splits=other, classes={"keep": ["cat"]}))
    message = str(caught.value)
    assert "'toy_val' is registered already with other values" in message
    assert f"images was {toy}/images and is now {toy}/pictures" in message
    assert "classes.keep was not given and is now ('cat',)" in message
    assert "annotations was" not in message
    assert locate_dataset("toy_val")[1] == str(toy / "images")


def test_one_wrong_name_and_none_is_registered(toy):
    register_dataset(_yaml(toy))
    path = toy / "more.yaml"
    new, old = ({"name": n, "annotations": "a.json"} for n in ("new", "toy_val"))
    path.write_text(yaml.safe_dump_all([new, old]))
    with pytest.raises(UsageError, match="'toy_val' is registered already"):
        register_dataset(path)
    assert "new" not in DatasetCatalog
    path.write_text(yaml.safe_dump_all([new, {**new, "annotations": "b.json"}]))
    with pytest.raises(UsageError, match=r"more.yaml \(document 2\): .*'new' is described twice"):
        register_dataset(path)


def test_sets_that_detectron2_registered_keep_working(toy):
    register_coco_instances("theirs", {}, str(toy / "train.json"), str(toy / "images"))
    assert locate_dataset("theirs") == (str(toy / "train.json"), str(toy / "images"))
    assert class_names_of("theirs") == ["cat", "dog"]
    assert len(DatasetCatalog.get("theirs")) == 2
    register_coco_dataset("theirs", toy / "train.json", toy / "images")  # the same: nothing to do
    with pytest.raises(UsageError, match="by other code, with annotations .*train.json"):
        register_dataset(name="theirs", annotations=toy / "val.json", images=toy / "images")
    with pytest.raises(UsageError, match="by other code"):
        register_dataset(name="theirs", format="via", annotations="no/where.json")


def test_metadata_from_python_and_classes_that_disagree(toy):
    files = (toy / "train.json", toy / "images")
    register_coco_dataset("named", *files, thing_classes=["cat", "dog"], thing_colors=[[1, 2, 3]])
    assert len(DatasetCatalog.get("named")) == 2
    assert MetadataCatalog.get("named").thing_colors == [[1, 2, 3]]
    register_coco_dataset("named", *files, stuff_classes=["sky"])  # more of it, nothing else
    assert MetadataCatalog.get("named").stuff_classes == ["sky"]
    with pytest.raises(UsageError, match=r"thing_colors was \[\[1, 2, 3\]\] and is now \[\[4"):
        register_coco_dataset("named", *files, thing_colors=[[4, 5, 6]])
    register_coco_dataset("misnamed", *files, thing_classes=["cat", "dgo"])
    with pytest.raises(UsageError, match=r"2 classes \(cat, dgo\), but .*json has 2 .*cat, dog"):
        DatasetCatalog.get("misnamed")


def test_metadata_follow_a_changed_file(toy):
    register_dataset(_yaml(toy))
    assert class_names_of("toy_train") == ["cat", "dog"]
    DatasetCatalog.get("toy_train")
    (toy / "train.json").write_text(json.dumps(_coco(("cow", "dog", "emu"))))
    assert num_classes_of("toy_train") == 3
    (toy / "train.json").write_text(json.dumps(_coco(("cow", "dog", "emu", "ibex"))))
    assert len(DatasetCatalog.get("toy_train")[0]["annotations"]) == 4
    assert MetadataCatalog.get("toy_train").thing_classes == ["cow", "dog", "emu", "ibex"]


def test_metadata_can_be_copied_and_sent_to_a_process(toy):
    register_dataset(_yaml(toy))
    metadata = MetadataCatalog.get("toy_train")
    assert copy.deepcopy(metadata).thing_classes == ["cat", "dog"]
    assert pickle.loads(pickle.dumps(metadata)).thing_classes == ["cat", "dog"]
    assert pickle.loads(pickle.dumps(DatasetCatalog["toy_train"])).spec.name == "toy_train"


def test_folders_and_files_from_config_and_environment(toy, tmp_path, monkeypatch):
    folder = tmp_path / "registry"
    folder.mkdir()
    for name in ("b", "a"):
        _yaml(folder, name)
    (folder / "notes.txt").write_text("no YAML")
    monkeypatch.chdir(tmp_path)
    assert register_from(["registry"]) == ["a_train", "a_val", "b_train", "b_val"]
    setting = os.pathsep.join([str(_yaml(toy)), str(folder)])
    monkeypatch.setenv("MASK_RCNN_EXT_DATASETS", setting)
    names = ["toy_train", "toy_val", "a_train", "a_val", "b_train", "b_val"]
    assert register_from() == names
    with pytest.raises(UsageError, match="nowhere.yaml does not exist"):
        register_from(["nowhere.yaml"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="the folder empty holds no YAML"):
        register_from(["empty"])
    with pytest.raises(UsageError, match="a list of YAMLs and folders is expected"):
        register_from("registry")


def test_a_broken_file_of_the_environment_does_not_break_the_import(tmp_path, monkeypatch, caplog):
    (tmp_path / "bad.yaml").write_text("name: [")
    monkeypatch.setenv("MASK_RCNN_EXT_DATASETS", str(tmp_path / "bad.yaml"))
    register_shipped()  # what the import does
    assert "bad.yaml is not a YAML" in caplog.text
    with pytest.raises(UsageError, match="bad.yaml is not a YAML"):
        register_from()


def test_an_unknown_name_says_the_nearest_and_where_it_was_looked(toy, monkeypatch):
    register_from([_yaml(toy)])
    message = describe_unknown("toy_trian")
    assert "'toy_trian' is not registered; nearest: toy_train" in message
    assert str(toy / "toy.yaml") in message
    assert "MASK_RCNN_EXT_DATASETS is not set" in message
    assert "DATASETS.REGISTRY" in message
    with pytest.raises(UsageError, match="nearest: toy_train"):
        num_classes_of("toy_trian")


def test_classes_are_changed_for_records_and_evaluators_alike(toy):
    classes = {"rename": {"cat": "lion"}, "order": ["dog", "lion"]}
    register_dataset(_yaml(toy, classes=classes))
    assert class_names_of("toy_train") == ["dog", "lion"]
    records = DatasetCatalog.get("toy_train")
    assert [a["category_id"] for a in records[0]["annotations"]] == [1, 0]
    assert records[0]["file_name"] == str(toy / "images/0.png")
    written = json.loads(Path(MetadataCatalog.get("toy_train").json_file).read_text())
    assert written["categories"] == [{"id": 1, "name": "dog"}, {"id": 2, "name": "lion"}]
    assert [a["category_id"] for a in written["annotations"][:2]] == [2, 1]
    assert written["annotations"][0]["segmentation"] == BOX["segmentation"]
    assert json.loads((toy / "train.json").read_text()) == _coco()


def test_sets_with_other_classes_are_refused_with_the_difference(toy):
    register_dataset(_yaml(toy))
    assert check_same_classes(["toy_train", "toy_val"]) == ["cat", "dog"]
    for name, changes, expected in (
        ("less", {"keep": ["cat"]}, "only 'toy_train' has dog"),
        ("turned", {"order": ["dog", "cat"]}, "class 0 is 'cat' and 'dog'"),
        ("other", {"rename": {"cat": "cow"}}, "only 'toy_train' has cat; only 'other_val' has cow"),
    ):
        register_dataset(_yaml(toy, name, classes=changes))
        with pytest.raises(UsageError, match=expected):
            check_same_classes(["toy_train", "toy_val", f"{name}_val"])


def test_parts_are_joined_and_images_chosen_by_id(toy):
    other = toy / "more"
    other.mkdir()
    (other / "a.json").write_text(json.dumps(_coco(("dog", "emu"), 3, first_id=50)))
    (other / "ids.json").write_text("[51]")
    parts = [
        {"annotations": "train.json", "images": "images"},
        {"annotations": "more/a.json", "images": "more", "without_images_of": "more/ids.json"},
    ]
    register_dataset(_yaml(toy, splits={"all": {"parts": parts}}))
    records = DatasetCatalog.get("toy_all")
    names = [os.path.relpath(r["file_name"], toy) for r in records]
    assert names == ["images/0.png", "images/1.png", "more/0.png", "more/2.png"]
    assert class_names_of("toy_all") == ["cat", "dog", "emu"]
    assert [[a["category_id"] for a in r["annotations"]] for r in records] == [
        [0, 1],
        [0, 1],
        [1, 2],
        [1, 2],
    ]
    (other / "ids.json").write_text("[50, 51, 52]")
    with pytest.raises(DataError, match=r"no image of .*more/a.json is left by .*ids.json"):
        locate_dataset("toy_all")
    (other / "ids.json").write_text('{"images": [{"file_name": "x"}]}')
    with pytest.raises(DataError, match=r"ids.json gives no image ids"):
        locate_dataset("toy_all")
    (other / "ids.json").unlink()
    with pytest.raises(DataError, match=r"without_images_of needs .*ids.json, not found"):
        locate_dataset("toy_all")


def test_keypoints_from_the_description_and_from_the_file(toy):
    schema = {"names": ["tip", "left_end", "right_end"], "sigmas": [0.1, 0.1, 0.1]}
    register_dataset(_yaml(toy, keypoints={**schema, "flip": [["left_end", "right_end"]]}))
    assert keypoint_schema_of("toy_train").sigmas == (0.1, 0.1, 0.1)
    metadata = MetadataCatalog.get("toy_train")
    assert metadata.keypoint_names == ("tip", "left_end", "right_end")
    assert metadata.keypoint_flip_map == (("left_end", "right_end"),)
    coco = _coco()
    for category in coco["categories"]:
        category.update(keypoints=["left_ear", "right_ear"], skeleton=[[1, 2]])
    (toy / "val.json").write_text(json.dumps(coco))
    register_dataset(name="own", annotations=toy / "val.json", images=toy / "images")
    schema_of_file = keypoint_schema_of("own")
    assert schema_of_file.names == ("left_ear", "right_ear")
    assert schema_of_file.flip == (("left_ear", "right_ear"),)
    assert schema_of_file.skeleton[0][:2] == ("left_ear", "right_ear")
    register_dataset(name="none", annotations=toy / "train.json")
    assert keypoint_schema_of("none") is None


def _via(folder: Path, count: int = 10) -> dict[str, list[tuple[str, list[int]]]]:
    """Pictures and a VIA export: a polygon and a rectangle in each, classes by turns."""
    entries, truth = {}, {}
    for number in range(count):
        name = f"p{number}.png"
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 10 * number, np.uint8))
        polygon = {"name": "polygon", "all_points_x": [5, 15, 15, 5]}
        polygon["all_points_y"] = [6 + number, 6 + number, 16 + number, 16 + number]
        box = {"name": "rect", "x": 30, "y": 4, "width": 20, "height": 10 + number}
        kinds = ("bolt", "nut") if number % 2 else ("nut", "bolt")
        entries[f"{name}{number}"] = {
            "filename": name,
            "size": (folder / name).stat().st_size,
            "regions": [
                {"shape_attributes": shape, "region_attributes": {"label": kind}}
                for shape, kind in zip((polygon, box), kinds, strict=True)
            ],
            "file_attributes": {},
        }
        truth[name] = [
            (kinds[0], [5, 6 + number, 10, 10]),
            (kinds[1], [30, 4, 20, 10 + number]),
        ]
    (folder / "via.json").write_text(json.dumps(entries))
    return truth


def test_ten_pictures_of_via_by_a_yaml_alone(tmp_path):
    folder = tmp_path / "via"
    folder.mkdir()
    truth = _via(folder)
    (folder / "bolts.yaml").write_text(
        "name: bolts\nformat: via\noptions: {class_attribute: label}\n"
        "splits:\n  all: {annotations: via.json, images: .}\n"
        "classes: {order: [nut, bolt]}\n"
    )
    assert register_from([folder]) == ["bolts_all"]
    assert num_classes_of("bolts_all") == 2
    records = DatasetCatalog.get("bolts_all")
    assert len(records) == 10
    for record in records:
        assert Path(record["file_name"]).is_file()
        assert (record["height"], record["width"]) == (40, 60)
        expected = truth[Path(record["file_name"]).name]
        for annotation, (kind, box) in zip(record["annotations"], expected, strict=True):
            assert ["nut", "bolt"][annotation["category_id"]] == kind
            np.testing.assert_allclose(annotation["bbox"], box, atol=1)
            assert annotation["segmentation"]


def test_options_of_the_importer_are_checked_at_once(tmp_path):
    with pytest.raises(UsageError, match="'v'.* has no option class_atribute; it has: class_attri"):
        register_dataset(
            name="v", format="via", annotations="v.json", options={"class_atribute": "x"}
        )
    with pytest.raises(UsageError, match="'c'.* has no option x; it has: none"):
        register_dataset(name="c", annotations="c.json", options={"x": 1})


def test_options_of_a_split_and_files_that_options_name(tmp_path):
    folder = tmp_path / "maps"
    (folder / "a").mkdir(parents=True)
    (folder / "images").mkdir()
    instances = np.zeros((20, 30), np.uint8)
    instances[2:8, 3:9], instances[10:15, 10:20] = 1, 2
    cv2.imwrite(str(folder / "a/x.png"), instances)
    cv2.imwrite(str(folder / "images/x.png"), np.zeros((20, 30, 3), np.uint8))
    (folder / "one.json").write_text('{"1": "cat", "2": "dog"}')
    (folder / "two.json").write_text('{"1": "dog", "2": "cat"}')
    splits = {
        split: {"annotations": "a", "images": "images", "options": {"classes": f"{split}.json"}}
        for split in ("one", "two")
    }
    register_dataset(_yaml(folder, "maps", format="png", splits=splits))
    boxes = {}
    for split in splits:
        (record,) = DatasetCatalog.get(f"maps_{split}")
        names = class_names_of(f"maps_{split}")
        boxes[split] = {names[a["category_id"]]: a["bbox"] for a in record["annotations"]}
    assert boxes["one"] == {"cat": [3, 2, 6, 6], "dog": [10, 10, 10, 5]}
    assert boxes["two"] == {"dog": [3, 2, 6, 6], "cat": [10, 10, 10, 5]}
