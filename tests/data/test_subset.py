"""The first N annotated images as a set of its own."""

from __future__ import annotations

import json

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from mask_rcnn_ext.data.subset import register_subset
from mask_rcnn_ext.errors import UsageError


@pytest.mark.parametrize("count", [1, 3])
def test_first_annotated_images_with_all_their_annotations(scenes, tmp_path, count):
    name = register_subset("scenes_train", count, tmp_path / str(count))
    whole = json.loads((scenes / "scenes/annotations/instances_train.json").read_text())
    usable = [
        image
        for image in whole["images"]
        if any(a["image_id"] == image["id"] and not a["iscrowd"] for a in whole["annotations"])
    ]
    records = DatasetCatalog.get(name)
    assert [r["image_id"] for r in records] == [image["id"] for image in usable[:count]]
    kept = {image["id"] for image in usable[:count]}
    expected = sum(a["image_id"] in kept for a in whole["annotations"])
    assert sum(len(r["annotations"]) for r in records) == expected
    assert MetadataCatalog.get(name).thing_classes[0] == "person"
    assert len(json.loads((tmp_path / str(count) / f"{name}.json").read_text())["images"]) == count


def test_only_for_sets_in_cocos_format(tmp_path):
    DatasetCatalog.register("test_subset_plain", list)
    with pytest.raises(UsageError, match="test_subset_plain"):
        register_subset("test_subset_plain", 2, tmp_path)
