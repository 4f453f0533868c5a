"""Records made on demand are Detectron2's own."""

import copy
import json
import pickle

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.datasets import load_coco_json

from mask_rcnn_ext.data.records import CocoRecords, JoinedRecords, load_coco_records, table_of
from mask_rcnn_ext.errors import DataError, UsageError

SQUARE = [1.0, 2.0, 5.0, 2.0, 5.0, 6.5, 1.0, 6.5]
FILE = {
    "images": [
        {"id": 30, "file_name": "c.png", "height": 10, "width": 20},
        {"id": 10, "file_name": "sub/a.png", "height": 30, "width": 40},
        {"id": 20, "file_name": "b.png", "height": 30, "width": 40},
    ],
    # Ids with gaps and out of order, as in COCO and as users have them.
    "categories": [{"id": 5, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [
        {"id": 1, "image_id": 30, "category_id": 5, "bbox": [1, 2, 4.0, 4.5], "iscrowd": 0,
         "segmentation": [SQUARE], "area": 18},
        {"id": 2, "image_id": 10, "category_id": 2, "bbox": [0, 0, 3, 3], "iscrowd": 1,
         "segmentation": {"size": [30, 40], "counts": [3, 4, 1193]}, "area": 4},
        {"id": 3, "image_id": 30, "category_id": 2, "bbox": [1, 2, 4, 4], "iscrowd": 0,
         "segmentation": [SQUARE, [1, 2, 3], [0, 0, 1, 1]], "area": 18,
         "keypoints": [1, 2, 2, 0, 0, 0, 5, 6, 1], "num_keypoints": 2},
        {"id": 4, "image_id": 30, "category_id": 2, "bbox": [1, 2, 4, 4], "iscrowd": 0,
         "segmentation": [[1, 2, 3]], "area": 18},
    ],
}  # fmt: skip


@pytest.fixture
def json_file(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(FILE))
    return str(path)


def _without_ids(records):
    records = copy.deepcopy(list(records))
    for record in records:
        for annotation in record["annotations"]:
            del annotation["id"]
    return records


def test_records_and_metadata_are_detectron2s(json_file):
    stock = load_coco_json(json_file, "root", "records_test_stock")
    ours = load_coco_records(json_file, "root", "records_test_ours")
    assert _without_ids(ours) == stock
    assert [a["id"] for r in ours for a in r["annotations"]] == [2, 1, 3]
    for key in ("thing_classes", "thing_dataset_id_to_contiguous_id"):
        assert MetadataCatalog.get("records_test_ours").get(key) == MetadataCatalog.get(
            "records_test_stock"
        ).get(key)


def test_real_files(coco_images):
    for split in ("instances_train2017", "person_keypoints_val2017"):
        path = str(coco_images / "coco" / "annotations" / f"{split}.json")
        ours = load_coco_records(path, "root")
        assert _without_ids(ours) == load_coco_json(path, "root", f"real_{split}")


def test_a_sequence(json_file):
    records = load_coco_records(json_file, "root")
    assert len(records) == 3
    assert records[-1]["image_id"] == 30
    assert [r["image_id"] for r in records] == [10, 20, 30]
    assert [r["image_id"] for r in records[1:]] == [20, 30]
    assert isinstance(records[:2], CocoRecords)
    assert [r["image_id"] for r in records.take(np.array([False, True, False]))] == [20]
    with pytest.raises(IndexError):
        records[3]
    assert list(pickle.loads(pickle.dumps(records))) == list(records)


def test_what_images_hold(json_file):
    records = load_coco_records(json_file, "root")
    assert records.has_instances.tolist() == [False, False, True]
    assert records.class_histogram(2).tolist() == [2, 1]
    assert records[:2].class_histogram(2).tolist() == [0, 0]
    assert records.visible_keypoints().tolist() == [0, 0, 2]
    assert records[2:].visible_keypoints().tolist() == [2]
    assert records.aspect_is_wide().tolist() == [True, True, True]


def test_joined(json_file):
    records = load_coco_records(json_file, "root")
    both = JoinedRecords([records[:1], records[:0], records])
    assert len(both) == 4
    assert [both[k]["image_id"] for k in range(4)] == [10, 10, 20, 30]
    assert both[-1]["image_id"] == 30
    assert [r["image_id"] for r in both[1:3]] == [10, 20]
    assert len(list(both)) == 4
    with pytest.raises(IndexError):
        both[4]
    assert len(JoinedRecords([])) == 0


def test_a_category_that_is_not_there(tmp_path):
    broken = copy.deepcopy(FILE)
    broken["annotations"][0]["category_id"] = 99
    path = tmp_path / "b.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"b\.json: annotation 1 has category_id 99"):
        list(load_coco_records(str(path), "root"))


def test_an_rle_without_a_size(tmp_path):
    broken = copy.deepcopy(FILE)
    broken["annotations"][1]["segmentation"] = {"counts": [1, 2]}
    path = tmp_path / "b.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(DataError, match=r"annotation 2: its RLE cannot be used.*'size'"):
        list(load_coco_records(str(path), "root"))


def test_a_file_is_read_again_when_it_has_changed(json_file, tmp_path):
    first = table_of(json_file)
    assert table_of(json_file) is first
    changed = FILE | {"images": FILE["images"][:1]}
    (tmp_path / "a.json").write_text(json.dumps(changed))
    assert table_of(json_file).num_images == 1
    with pytest.raises(DataError, match="cannot read"):
        table_of(tmp_path / "none.json")


def test_classes_that_are_registered_otherwise(json_file):
    MetadataCatalog.get("records_test_other").thing_classes = ["cat", "cow"]
    with pytest.raises(UsageError, match=r"\['cat', 'dog'\], but \['cat', 'cow'\] is registered"):
        load_coco_records(json_file, "root", "records_test_other")
