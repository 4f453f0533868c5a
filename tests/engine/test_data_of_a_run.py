"""The check before a run and the key that turns it off; the order of images after a restart."""

import json
import shutil

import pytest
import torch
from detectron2.data import MetadataCatalog

from mask_rcnn_ext import load_config
from mask_rcnn_ext.engine.setup import check_data
from mask_rcnn_ext.engine.trainer import Trainer
from mask_rcnn_ext.errors import DataError

CONFIG = "quickstart/mask_rcnn_R_18_FPN_scenes.yaml"


def test_the_check_stops_a_run_and_a_key_turns_it_off(scenes_root, tmp_path, monkeypatch):
    shutil.copytree(scenes_root / "scenes", tmp_path / "scenes")
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    path = tmp_path / "scenes" / "annotations" / "instances_train.json"
    content = json.loads(path.read_text())
    broken = content["annotations"][0]
    broken["bbox"] = [1, 2, "x", 4]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"annotation {broken['id']}\b"):
        check_data(load_config(CONFIG), training=True)
    found = check_data(load_config(CONFIG, ["DATASETS.CHECK", "False"]), training=True)
    assert set(found) == {"scenes_train", "scenes_val"}
    assert all(len(fingerprint) == 16 for fingerprint in found.values())


def _trainer(folder, seed):
    words = ["MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0", "SOLVER.IMS_PER_BATCH", "2"]
    words += ["INPUT.MIN_SIZE_TRAIN", "(64,)", "OUTPUT_DIR", str(folder), "SEED", str(seed)]
    return Trainer(load_config(CONFIG, words))


def test_a_resumed_run_goes_on_with_the_images_that_would_have_come_next(scenes, tmp_path):
    first = _trainer(tmp_path, 5)
    batches = iter(first._trainer.data_loader)
    ids = [[sample["image_id"] for sample in next(batches)] for _ in range(5)]
    first.iter = 2  # three batches were used
    first.checkpointer.save("model_0000002", iteration=2)
    second = _trainer(tmp_path, 6)
    second.resume_or_load(resume=True)
    assert second.start_iter == 3
    resumed = iter(second._trainer.data_loader)
    assert [[one["image_id"] for one in next(resumed)] for _ in range(2)] == ids[3:]


def test_a_checkpoint_says_what_its_outputs_mean(scenes, tmp_path):
    _trainer(tmp_path, 5).checkpointer.save("model_0000002", iteration=2)
    state = torch.load(tmp_path / "model_0000002.pth", weights_only=True)
    assert state["class_names"] == MetadataCatalog.get("scenes_train").thing_classes
    assert len(state["class_names"]) == 9
