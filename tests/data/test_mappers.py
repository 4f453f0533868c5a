"""The mapper is Detectron2's, with errors that name file and image id."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.mappers import CocoMapper
from mask_rcnn_ext.errors import DataError

OPTS = ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask", "INPUT.MIN_SIZE_TRAIN", "(64,)"]


@pytest.fixture
def mapper() -> CocoMapper:
    return CocoMapper(load_config("", OPTS), is_train=True)


@pytest.fixture
def record(tmp_path) -> dict:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 30, 3), np.uint8))
    return {"file_name": str(tmp_path / "a.png"), "image_id": 77, "height": 20, "width": 30}


def test_same_sample_as_detectron2(scenes):
    cfg = load_config("", OPTS)
    for entry in DatasetCatalog.get("scenes_train")[:5]:
        np.random.seed(1)
        ours = CocoMapper(cfg, is_train=True)(entry)
        np.random.seed(1)
        theirs = DatasetMapper(cfg, is_train=True)(entry)
        assert torch.equal(ours["image"], theirs["image"])
        assert torch.equal(ours["instances"].gt_boxes.tensor, theirs["instances"].gt_boxes.tensor)
        if len(ours["instances"]):
            assert torch.equal(
                ours["instances"].gt_masks.tensor, theirs["instances"].gt_masks.tensor
            )


def test_missing_image(mapper, record, tmp_path):
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png \(image id 77\) does not exist"):
        mapper(record)


@pytest.mark.parametrize("content", [b"", b"not a picture", None], ids=["empty", "text", "cut"])
def test_image_that_does_not_decode(mapper, record, tmp_path, content):
    path = tmp_path / "a.png"
    noise = np.random.randint(0, 255, (20, 30, 3)).astype(np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    path.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(DataError, match=r"a\.png \(image id 77\) does not decode"):
        mapper(record)


def test_image_of_another_size(mapper, record):
    record["width"] = 31
    with pytest.raises(DataError, match=r"\(image id 77\).*EXIF"):
        mapper(record)


def test_unusable_annotation_names_the_image(mapper, record):
    record["annotations"] = [
        {"bbox": [1, 1, 4, 4], "bbox_mode": 1, "category_id": 0, "segmentation": "nonsense"}
    ]
    with pytest.raises(DataError, match=r"\(image id 77\): its annotations cannot be used"):
        mapper(record)


def test_the_message_survives_the_way_out_of_a_worker(mapper, record, tmp_path):
    (tmp_path / "a.png").unlink()
    loader = torch.utils.data.DataLoader(_Records(mapper, record), num_workers=1)
    with pytest.raises(DataError) as caught:
        next(iter(loader))
    message = str(caught.value)
    assert message.startswith(f"image {tmp_path}/a.png (image id 77) does not exist")
    assert "Traceback" not in message


class _Records(torch.utils.data.Dataset):
    def __init__(self, mapper: CocoMapper, record: dict):
        self.mapper, self.record = mapper, record

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> dict:
        return self.mapper(self.record)
