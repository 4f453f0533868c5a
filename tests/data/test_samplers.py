"""Order and batches of images are known at every position, for any number of processes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from detectron2.data.common import AspectRatioGroupedDataset
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.loader import share_positions
from mask_rcnn_ext.data.samplers import (
    BatchSampler,
    RepeatFactorSampler,
    ShuffledSampler,
    SubsetSampler,
    build_sampler,
)
from mask_rcnn_ext.errors import UsageError

FACTORS = [1.0, 2.5, 1.2, 3.0, 1.0]
MAKE = {
    "shuffled": lambda **kw: ShuffledSampler(5, 3, **kw),
    "subset": lambda **kw: SubsetSampler(9, 3, 0.6, **kw),
    "repeats": lambda **kw: RepeatFactorSampler(FACTORS, 3, **kw),
}
kinds = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def take(sampler, count: int, start: int = 0) -> list:
    sampler.position = start
    return list(itertools.islice(sampler, count))


def test_each_epoch_has_each_image_once_in_an_order_of_its_own():
    keys = take(ShuffledSampler(20, 1), 60)
    orders = [[index for _, index in keys[i : i + 20]] for i in (0, 20, 40)]
    assert [epoch for epoch, _ in keys] == [0] * 20 + [1] * 20 + [2] * 20
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert orders[0] != orders[1] != orders[2]
    assert take(ShuffledSampler(20, 1), 60) == keys
    assert take(ShuffledSampler(20, 2), 60) != keys


@kinds
@settings(deadline=None, max_examples=40)
@given(start=st.integers(0, 40), count=st.integers(1, 30), world=st.integers(1, 13))
def test_any_position_of_any_process_is_that_of_the_whole_order(make, start, count, world):
    whole = take(make(rank=0, world_size=1), (start + count) * world)
    for rank in {0, world - 1}:
        sampler = make(rank=rank, world_size=world)
        assert take(sampler, count, start) == whole[rank::world][start:]


@kinds
def test_state(make):
    first, second = make(), make()
    first.position = 7
    second.seed = 99
    second.load_state_dict(first.state_dict())
    assert list(itertools.islice(second, 9)) == take(make(), 9, 7)


def test_a_subset_is_the_same_in_every_epoch():
    keys = take(SubsetSampler(100, 5, 0.1), 40)
    sets = [{index for _, index in keys[i : i + 10]} for i in range(0, 40, 10)]
    assert len(sets[0]) == 10
    assert all(one == sets[0] for one in sets)


def test_repeat_factors_are_kept_on_average_and_repeats_are_told_apart():
    sampler = RepeatFactorSampler(FACTORS, 0)
    epochs = [sampler.epoch_keys(epoch) for epoch in range(400)]
    counts = np.bincount(np.concatenate(epochs)[:, 1]) / 400
    assert np.abs(counts - FACTORS).max() < 0.1
    assert all(len(np.unique(keys, axis=0)) == len(keys) for keys in epochs)
    assert [len(keys) for keys in epochs[:9]] == [sampler.epoch_length(e) for e in range(9)]


def test_groups_of_one_orientation_are_detectron2s():
    wide = np.random.default_rng(0).random(37) < 0.6
    batches = list(itertools.islice(BatchSampler(ShuffledSampler(37, 4), 3, wide), 50))
    stream = ShuffledSampler(37, 4)
    samples = ({"width": 1 + wide[i], "height": 1.5, "key": (e, i)} for e, i in stream)
    theirs = itertools.islice(AspectRatioGroupedDataset(samples, 3), 50)
    assert batches == [[sample["key"] for sample in batch] for batch in theirs]


WIDE = np.arange(9) % 3 == 0


@kinds
@pytest.mark.parametrize("grouped", [True, False])
@settings(deadline=None, max_examples=20)
@given(start=st.integers(0, 40), size=st.integers(1, 12), world=st.integers(1, 5))
def test_the_shares_of_any_number_of_processes_are_the_batches_of_one(
    make, grouped, start, size, world
):
    """From the start or later, also where a batch is larger than an epoch."""
    wide = WIDE if grouped else None
    size *= world
    whole = list(itertools.islice(BatchSampler(make(rank=0, world_size=1), size, wide), start + 9))
    assert all(len(batch) == size for batch in whole)
    for rank in range(world):
        share = BatchSampler(make(rank=rank, world_size=world), size, wide)
        share.position = start
        positions = share_positions(size, rank, world)
        expected = [[batch[place] for place in positions] for batch in whole[start:]]
        assert list(itertools.islice(share, 9)) == expected
        assert list(itertools.islice(share, 2)) == expected[:2]  # a second iterator too


@kinds
def test_mixed_batches_are_the_order_in_pieces(make):
    batches = itertools.islice(BatchSampler(make(), 4), 12)
    assert [key for batch in batches for key in batch] == take(make(), 48)
    kinds = {
        type(part) for batch in itertools.islice(BatchSampler(make(), 4), 2) for part in batch[0]
    }
    assert kinds == {int}


@settings(deadline=None, max_examples=60)
@given(total=st.integers(1, 40), world=st.integers(1, 8), parts=st.integers(1, 4))
def test_positions_of_the_processes(total, world, parts):
    total *= world * parts
    shares = [share_positions(total, rank, world) for rank in range(world)]
    assert sorted(itertools.chain(*shares)) == list(range(total))
    length = total // world // parts
    for part in range(parts):
        pieces = [share[part * length : (part + 1) * length] for share in shares]
        here = range(part * length * world, (part + 1) * length * world)
        assert sorted(itertools.chain(*pieces)) == list(here)


def test_a_late_start_takes_no_step_a_key():
    """Iteration 90,000 of 16 images: twelve epochs of COCO are looked at, not 1.4 million keys."""
    seen = []

    class Counted(ShuffledSampler):
        def epoch_keys(self, epoch):
            seen.append(epoch)
            return super().epoch_keys(epoch)

    late = BatchSampler(Counted(117_266, 1), 16, np.arange(117_266) % 3 == 0)
    late.position = 90_000
    assert len(next(iter(late))) == 16
    assert seen == list(range(13))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("TrainingSampler", ShuffledSampler),
        ("RandomSubsetTrainingSampler", SubsetSampler),
        ("RepeatFactorTrainingSampler", RepeatFactorSampler),
    ],
)
def test_detectron2s_names(name, kind):
    records = [{"annotations": [{"category_id": i % 2}]} for i in range(6)]
    opts = ["DATALOADER.SAMPLER_TRAIN", name, "DATALOADER.REPEAT_THRESHOLD", "1.0"]
    cfg = load_config("", opts).clone()
    cfg.defrost()
    cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.5  # v0.6 has no such key
    sampler = build_sampler(cfg, records, 8)
    assert type(sampler) is kind
    assert sampler.seed == 8


def test_what_cannot_be_sampled():
    cfg = load_config("", ["DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"]).clone()
    cfg.defrost()
    cfg.DATALOADER.pop("RANDOM_SUBSET_RATIO", None)
    with pytest.raises(UsageError, match="no DATALOADER.RANDOM_SUBSET_RATIO"):
        build_sampler(cfg, [1], 0)
    with pytest.raises(UsageError, match="SAMPLER_TRAIN is 'Other'"):
        build_sampler(load_config("", ["DATALOADER.SAMPLER_TRAIN", "Other"]), [], 0)
    with pytest.raises(ValueError, match="0 images"):
        ShuffledSampler(0, 1)
    with pytest.raises(ValueError, match="seed=-1"):
        ShuffledSampler(3, -1)
    with pytest.raises(ValueError, match="ratio=0"):
        SubsetSampler(3, 1, 0)
    with pytest.raises(ValueError, match="batch_size=0"):
        BatchSampler(ShuffledSampler(3, 1), 0)
