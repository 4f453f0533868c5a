"""`bench data`, mappers: both sides get the same, the table holds what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.tools.bench import data_mapper
from mask_rcnn_ext.tools.bench.data_mapper import as_text, benchmark_records, run_data_mapper


def as_polygons(name: str) -> list[dict]:
    """Scenes with a diamond for each RLE."""
    records = DatasetCatalog.get(name)
    for record in records:
        for one in record["annotations"]:
            x, y, w, h = one["bbox"]
            one["segmentation"] = [[x + w / 2, y, x + w, y + h / 2, x + w / 2, y + h, x, y + h / 2]]
    return records


@pytest.mark.parametrize("polygons", [True, False])
def test_the_formats_are_measured_and_compared(scenes, capsys, monkeypatch, polygons):
    expected = ["bitmask"]
    if polygons:
        records = as_polygons("scenes_train")
        monkeypatch.setattr(data_mapper.DatasetCatalog, "get", lambda name: records)
        expected = ["polygon", "bitmask"]
    threads, state = torch.get_num_threads(), np.random.get_state()[1].tolist()
    results, facts = run_data_mapper("scenes_train", 3, 2)
    assert torch.get_num_threads() == threads
    assert np.random.get_state()[1].tolist() == state
    assert [result.mask_format for result in results] == expected
    for result in results:
        assert result.boxes_equal
        assert result.masks_equal
        assert result.pixel_difference <= 1
        assert len(result.ours) == len(result.stock) == 2
        ratios = sorted(s / o for s, o in zip(result.stock, result.ours, strict=True))
        assert result.ratio.minimum == pytest.approx(ratios[0])
    assert results[-1].images == facts["images"] == 3
    text = as_text(results, facts)
    for word in (*expected, "stock / ours", "3 images", "scenes_train", "1 threads"):
        assert word in text
    assert "NO" not in text
    json.dumps([result.as_json() for result in results])
    assert "masks as bitmask" in capsys.readouterr().err


def test_differences_are_shown(scenes, monkeypatch):
    whole = data_mapper.CocoMapper.__call__

    def other(self, record):
        sample = whole(self, record)
        sample["image"] = 255 - sample["image"]
        sample["instances"].gt_boxes.scale(2, 2)
        sample["instances"].gt_masks.tensor.logical_not_()
        return sample

    with benchmark_records("scenes_train", 1) as (_, records):
        monkeypatch.setattr(data_mapper.CocoMapper, "__call__", other)
        result = data_mapper.compare(records, "bitmask", 1)
    assert not result.boxes_equal
    assert not result.masks_equal
    assert result.pixel_difference > 100


def test_without_data_scenes_are_made(monkeypatch):
    monkeypatch.setattr(data_mapper, "DEFAULT_NAME", "nobody has registered this")
    with benchmark_records(None, 2) as (called, records):
        assert "generated scenes" in called
        assert len(records) == 2
        path = Path(records[0]["file_name"])
        assert path.is_file()
    assert not path.exists()


def test_a_name_that_nobody_knows():
    with (
        pytest.raises(UserError, match="'nothing' is no registered data set"),
        benchmark_records("nothing", 1),
    ):
        pass
