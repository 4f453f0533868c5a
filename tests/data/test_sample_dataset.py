"""The same sample for the same (seed, epoch, index), whatever the number of workers or restarts."""

from __future__ import annotations

import itertools
import logging
import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, build_detection_train_loader

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.augmentations.copy_paste import CopyPaste
from mask_rcnn_ext.data.dataset import SampleDataset, seeded
from mask_rcnn_ext.data.loader import aspect_is_wide, build_train_loader, resume_at
from mask_rcnn_ext.data.mappers import CocoMapper
from mask_rcnn_ext.data.samplers import ShuffledSampler
from mask_rcnn_ext.errors import DataError, UsageError

OPTS = ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask", "INPUT.MIN_SIZE_TRAIN", "(40,60)"]
OPTS += ["SOLVER.IMS_PER_BATCH", "2", "SEED", "5"]


class Draws:
    """A mapper that returns the random numbers it finds, and refuses some records."""

    def __init__(self, refuse=()):
        self.refuse = set(refuse)

    def __call__(self, record):
        drawn = (random.random(), np.random.rand(), torch.rand(()).item())
        return None if record["image_id"] in self.refuse else record | {"drawn": drawn}


def records(count: int) -> list[dict]:
    return [
        {"image_id": i, "file_name": f"{i}.png", "width": 9 + i % 2, "height": 9}
        for i in range(count)
    ]


def config(*opts: str):
    return load_config("", [*OPTS, *opts])


def test_random_numbers_follow_from_seed_and_key_and_the_callers_stay():
    data = SampleDataset(records(4), Draws(), 7)
    drawn = data[(2, 3)]["drawn"]
    torch.rand(3), np.random.rand(3)
    assert data[(2, 3)]["drawn"] == drawn
    another_seed = SampleDataset(records(4), Draws(), 8)
    for other in (data[(2, 1)], data[(1, 3)], data[(2, 3, 1)], another_seed[(2, 3)]):
        assert not set(other["drawn"]) & set(drawn)
    assert data[3] == data[(0, 3)]
    assert data[np.int64(3)] == data[(0, 3)]


def test_the_callers_random_numbers_stay_as_they_were():
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    SampleDataset(records(4), Draws(), 7)[(2, 3)]
    with pytest.raises(ZeroDivisionError), seeded(1, 2):
        _ = random.random() / 0
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before


def test_a_refused_record_has_a_substitute_that_is_always_the_same(caplog):
    data = SampleDataset(records(6), Draws(refuse=[0, 1, 2, 3]), 7)
    with caplog.at_level(logging.WARNING):
        chosen = [data[(epoch, 1)]["image_id"] for epoch in range(20)]
    assert set(chosen) == {4, 5}
    assert chosen == [data[(epoch, 1)]["image_id"] for epoch in range(20)]
    assert "refused a record, another one takes its place: image 1.png (image id 1)" in caplog.text
    assert len(caplog.records) < sum(data.dubious.counts.values())


def test_refusing_everything_raises():
    data = SampleDataset(records(3), Draws(refuse=[0, 1, 2]), 7)
    with pytest.raises(DataError, match=r"refused 100 records in a row, .* image 2\.png"):
        data[(0, 2)]


def test_no_records_and_wrong_keys():
    with pytest.raises(DataError, match="no image"):
        SampleDataset([], Draws(), 0)
    with pytest.raises(IndexError):
        SampleDataset(records(3), Draws(), 0)[(0, 3)]
    with pytest.raises(ValueError, match="seed=-1"):
        SampleDataset(records(3), Draws(), -1)


class Pasting(Draws):
    copy_paste = CopyPaste(0.5)


def test_copy_paste_takes_a_partner_from_the_same_random_numbers(monkeypatch):
    pairs = []

    def join(self, sample, partner):
        pairs.append((sample["image_id"], partner["image_id"]))
        return sample

    monkeypatch.setattr(CopyPaste, "__call__", join)
    data = SampleDataset(records(8), Pasting(), 3)
    for _ in range(2):
        for epoch in range(30):
            _ = data[(epoch, 4)]
    assert pairs[: len(pairs) // 2] == pairs[len(pairs) // 2 :]
    assert 5 < len(pairs) / 2 < 25
    assert len({partner for _, partner in pairs}) > 3


def summary(batches) -> list:
    """What tells samples apart, bit by bit."""
    return [
        [(s["image_id"], s["image"].sum().item(), tuple(s["image"].shape)) for s in batch]
        for batch in batches
    ]


@pytest.mark.parametrize("grouping", ["True", "False"])
def test_same_batches_for_any_number_of_workers_and_after_a_restart(scenes, grouping):
    found = list(DatasetCatalog.get("scenes_train"))
    runs = {}
    for workers in (0, 1, 2):
        opts = ["DATALOADER.ASPECT_RATIO_GROUPING", grouping]
        cfg = config("DATALOADER.NUM_WORKERS", str(workers), *opts)
        loader = build_train_loader(cfg, found, CocoMapper(cfg, is_train=True))
        runs[workers] = summary(itertools.islice(loader, 14))
    assert runs[0] == runs[1] == runs[2]
    assert len({str(batch) for batch in runs[0]}) == 14  # later epochs are no copies
    resume_at(loader, 5)
    assert summary(itertools.islice(loader, 9)) == runs[0][5:]


def test_a_random_seed_can_be_handed_on():
    cfg = config("SEED", "-1", "DATALOADER.NUM_WORKERS", "0")
    first = build_train_loader(cfg, records(9), Draws())
    expected = [[s["drawn"] for s in batch] for batch in itertools.islice(first, 6)]
    again = build_train_loader(cfg, records(9), Draws())
    resume_at(again, 2, seed=first.dataset.seed)
    assert [[s["drawn"] for s in b] for b in itertools.islice(again, 4)] == expected[2:]


def test_groups_by_orientation():
    cfg = config("DATALOADER.NUM_WORKERS", "0", "DATALOADER.ASPECT_RATIO_GROUPING", "True")
    loader = build_train_loader(cfg, records(9), Draws())
    for batch in itertools.islice(loader, 20):
        assert len({sample["width"] for sample in batch}) == 1


def test_aspect_of_records_that_know_it():
    class Columns(list):
        def aspect_is_wide(self):
            return [True, False]

    assert aspect_is_wide(Columns([1, 2])).tolist() == [True, False]
    assert aspect_is_wide(records(3)).tolist() == [False, True, False]


@pytest.mark.parametrize("grouping", ["True", "False"])
def test_two_processes_go_on_with_the_batches_of_one(monkeypatch, grouping):
    opts = ["DATALOADER.NUM_WORKERS", "0", "DATALOADER.ASPECT_RATIO_GROUPING", grouping]
    cfg = config("SOLVER.IMS_PER_BATCH", "4", *opts)

    def numbers(rank: int, world: int, start: int) -> list[list[float]]:
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: world)
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda: rank)
        loader = build_train_loader(cfg, records(9), Draws())
        resume_at(loader, start)
        return [[s["drawn"] for s in batch] for batch in itertools.islice(loader, 6)]

    whole = numbers(0, 1, 3)
    assert len({number for batch in whole for number in batch}) == 24
    for rank in range(2):
        assert numbers(rank, 2, 3) == [batch[rank::2] for batch in whole]


def test_a_batch_that_cannot_be_shared(monkeypatch):
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 3)
    with pytest.raises(UsageError, match="IMS_PER_BATCH is 2, expected a multiple of the 3"):
        build_train_loader(config(), records(3), Draws())
    cfg = config("SOLVER.IMS_PER_BATCH", "3", "SOLVER.ACCUMULATION_STEPS", "2")
    with pytest.raises(UsageError, match="3, expected a multiple of the 3 .*STEPS 2"):
        build_train_loader(cfg, records(3), Draws())


@pytest.mark.parametrize("grouping", [True, False])
def test_in_detectron2s_own_loader(grouping):
    data = SampleDataset(records(8), Draws(), 7)
    loader = build_detection_train_loader(
        data,
        mapper=None,
        sampler=ShuffledSampler(8, 7),
        total_batch_size=2,
        aspect_ratio_grouping=grouping,
        num_workers=0,
    )
    keys = {sample["drawn"] for batch in itertools.islice(loader, 8) for sample in batch}
    assert len(keys) == 16
    known = {data[(epoch, index)]["drawn"] for epoch in range(4) for index in range(8)}
    assert keys <= known
