"""Our RLE is pycocotools', byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from mask_rcnn_ext.ops.rle import (
    changes_in_columns,
    compress_runs,
    encode_changes,
    key_stride,
    settle,
)


def ours(bitmaps: np.ndarray) -> list:
    """RLEs of (R, H, W) bitmaps, each of them one window as large as the image."""
    _, height, width = bitmaps.shape
    keys = []
    for index, bitmap in enumerate(bitmaps):
        columns, rows = changes_in_columns(bitmap.T)
        keys.append(index * key_stride(height, width) + columns * height + rows)
    flat = np.concatenate([*keys, np.empty(0, np.int64)])
    return encode_changes(settle(flat), len(bitmaps), height, width)


def theirs(bitmaps: np.ndarray) -> list:
    return [coco.encode(np.asfortranarray(bitmap.astype(np.uint8))) for bitmap in bitmaps]


def test_numbers_by_hand():
    """Columns (0 1) (1 0) (0 0): zeros 1, ones 2, zeros 3."""
    bitmap = np.array([[[0, 1, 0], [1, 0, 0]]], dtype=bool)
    assert ours(bitmap) == [{"size": [2, 3], "counts": b"123"}]


@pytest.mark.parametrize(("value", "counts"), [(0, b"6"), (1, b"06")])
def test_all_zeros_and_all_ones(value, counts):
    """Zeros come first, if only none of them; nothing follows the last ones."""
    assert ours(np.full((1, 3, 2), bool(value))) == [{"size": [3, 2], "counts": counts}]


@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.97, 1.0]),
)
@settings(max_examples=400, deadline=None)
def test_bitmaps_at_random(seed, count, height, width, share):
    bitmaps = np.random.default_rng(seed).random((count, height, width)) < share
    assert ours(bitmaps) == theirs(bitmaps)


@pytest.mark.parametrize("share", [0.5, 1e-3, 1e-6])
def test_many_runs_and_long_ones(share):
    """800,000 pixels: from hundreds of thousands of short runs to a few of five or six digits."""
    bitmaps = np.random.default_rng(0).random((2, 800, 1000)) < share
    bitmaps[1] ^= True
    assert ours(bitmaps) == theirs(bitmaps)


def test_masks_of_all_kinds_in_one_call_do_not_touch():
    """The end of one mask and the start of the next have keys side by side."""
    rng = np.random.default_rng(1)
    kinds = [np.ones((5, 7)), np.ones((5, 7)), np.zeros((5, 7)), rng.random((5, 7)) < 0.5]
    bitmaps = np.stack(kinds * 2 + kinds[::-1]).astype(bool)
    assert ours(bitmaps) == theirs(bitmaps)


# Around the sizes at which a number needs one character more, as it is and as a difference.
EDGES = sorted({2**bits + d for bits in range(29) if bits % 5 in (0, 4) for d in (-1, 0, 1)})


@given(st.lists(st.lists(st.sampled_from(EDGES), max_size=12), max_size=5))
@settings(max_examples=400, deadline=None)
def test_run_lengths_where_a_digit_more_is_needed(lists):
    lists = [runs or [7] for runs in lists]
    expected = [
        coco.frPyObjects({"size": [1, sum(runs)], "counts": runs}, 1, sum(runs))["counts"]
        for runs in lists
    ]
    flat = np.array([run for runs in lists for run in runs], dtype=np.int64)
    ends = np.cumsum([len(runs) for runs in lists], dtype=np.int64)
    assert compress_runs(flat, ends) == expected


def test_equal_changes_cancel_in_pairs():
    keys = np.array([5, 3, 5, 9, 9, 9, 2, 2, 4], dtype=np.int64)
    assert settle(keys).tolist() == [3, 4, 9]
    assert settle(np.empty(0, np.int64)).tolist() == []


def test_no_masks():
    assert encode_changes(np.empty(0, np.int64), 0, 4, 4) == []
    assert compress_runs(np.empty(0, np.int64), np.empty(0, np.int64)) == []
