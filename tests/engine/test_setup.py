"""What is refused before anything is loaded."""

from __future__ import annotations

import os

import pytest
import torch

from mask_rcnn_ext.engine.setup import check_device, check_output_dir
from mask_rcnn_ext.errors import UsageError, UserError


def test_absent_gpu_says_what_to_set(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="MODEL.DEVICE cpu"):
        check_device("cuda", 1)
    check_device("cpu", 1)


def test_more_gpus_than_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_device("cuda", 2)
    with pytest.raises(UsageError, match="--num-gpus 4, but PyTorch sees 2"):
        check_device("cuda", 4)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write to OUTPUT_DIR"):
        check_output_dir(str(tmp_path / "file" / "out"))
    check_output_dir(str(tmp_path / "new" / "out"))
    assert os.listdir(tmp_path / "new" / "out") == []
