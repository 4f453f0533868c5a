"""matches_<task>.npz: what is written is read, AP follows from it, a damaged file is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import io

import numpy as np
import pytest

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.evaluation.analysis import PrecisionCurves, average_precision
from mask_rcnn_ext.paper.matches_file import (
    Matches,
    bits_of,
    flags_of,
    read_matches,
    records_of,
    write_matches,
)

EVERY = 2**10 - 1
FIRST = 1  # bit of the threshold 0.50


@pytest.fixture
def matches() -> Matches:
    """Three images; category 0 has detections and objects, 1 neither, 2 objects alone.

    Of category 0, by falling score: right everywhere, wrong, ignored, right at 0.50 alone.
    """
    return Matches(
        ground_truth="0123456789abcdef",
        num_images=3,
        starts=np.array([0, 4, 4, 4]),
        image=np.array([2, 0, 1, 0]),
        score=np.array([255, 128, 128, 127], np.uint8),
        tied=np.array([False, False, True, False]),
        right=np.array([EVERY, 0, 0, FIRST], np.uint16),
        ignored=np.array([0, 0, EVERY, 0], np.uint16),
        object_starts=np.array([0, 2, 2, 3]),
        object_image=np.array([0, 2, 1]),
        object_count=np.array([1, 1, 2]),
    )


@pytest.fixture
def path(tmp_path, matches):
    path = tmp_path / "matches_bbox.npz"
    write_matches(path, matches)
    return path


def _same(one: Matches, other: Matches) -> None:
    for field in dataclasses.fields(Matches):
        assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


def _rewrite(path, **changes) -> None:
    with np.load(path) as file:
        arrays = dict(file)
    arrays.update(changes)
    np.savez_compressed(path, **{k: v for k, v in arrays.items() if v is not None})


def test_what_is_written_is_read(path, matches):
    _same(read_matches(path), matches)


def test_the_same_matches_are_the_same_bytes(path, matches):
    before = path.read_bytes()
    write_matches(path, read_matches(path))
    assert path.read_bytes() == before


def test_more_images_than_two_bytes_count(tmp_path, matches):
    many = dataclasses.replace(matches, num_images=70_000, image=np.array([69_999, 0, 1, 0]))
    write_matches(tmp_path / "m.npz", many)
    _same(read_matches(tmp_path / "m.npz"), many)


def test_bits():
    flags = np.random.default_rng(0).random((10, 50)) < 0.5
    assert np.array_equal(flags_of(bits_of(flags)), flags)
    assert bits_of(np.eye(10, dtype=bool)).tolist() == [1 << t for t in range(10)]


def test_ap_by_hand(matches):
    """Category 0 has two objects. At 0.50 both are found, the second after one wrong detection:
    precision 1 up to recall 0.5 (51 levels), then 2/3 (50). Elsewhere 1 at 51 levels, else 0.
    Category 2 is found nowhere.
    """
    records = records_of(matches)
    precision = PrecisionCurves(records).precision()
    first, others = (51 + 50 * 2 / 3) / 101, 51 / 101
    assert precision[0, :, 0].mean() == pytest.approx(first)
    assert precision[9, :, 0].mean() == pytest.approx(others)
    assert average_precision(precision) == pytest.approx((first + 9 * others) / 10 / 2)
    # Image 2 alone, twice: two objects of category 0, both found at once.
    assert average_precision(PrecisionCurves(records).precision(np.array([2, 2]))) == 1


def test_scores_fall_and_keep_their_step(matches):
    records = records_of(matches)
    assert records.image.tolist() == [0, 0, 1, 2]
    assert records.category.tolist() == [0, 0, 0, 0]
    assert records.score[3] > records.score[0] == records.score[2] > records.score[1]
    assert (records.score >= 0.5).tolist() == [True, False, True, True]
    assert np.floor(records.score * 256).tolist() == [128, 127, 128, 255]


def test_scores_that_only_look_equal_keep_their_order(matches):
    records = records_of(dataclasses.replace(matches, tied=np.zeros(4, bool)))
    assert records.score[0] > records.score[2]


def test_nothing_found_and_nothing_there(tmp_path, matches):
    none = np.zeros(0, np.uint16)
    empty = dataclasses.replace(
        matches,
        starts=np.zeros(4, int),
        image=none,
        score=none,
        tied=none == 1,
        right=none,
        ignored=none,
    )
    write_matches(tmp_path / "m.npz", empty)
    read = read_matches(tmp_path / "m.npz")
    assert average_precision(PrecisionCurves(records_of(read)).precision()) == 0
    bare = dataclasses.replace(
        read, object_starts=np.zeros(4, int), object_image=none, object_count=none
    )
    assert np.isnan(average_precision(PrecisionCurves(records_of(bare)).precision()))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"matches_bbox\.npz: No such file"):
        read_matches(tmp_path / "matches_bbox.npz")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.99])
def test_a_file_that_was_cut_off(path, share):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(UserError, match=r"matches_bbox\.npz"):
        read_matches(path)


def test_any_byte_may_be_another(path, matches):
    """Either it is noticed, or it did not matter."""
    content = path.read_bytes()
    for place in range(0, len(content), 3):
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :])
        with contextlib.suppress(UserError):
            _same(read_matches(path), matches)


def test_code_is_not_run(path):
    _rewrite(path, image=np.array([print] * 4, dtype=object))
    with pytest.raises(UserError, match="allow_pickle"):
        read_matches(path)


def test_a_single_array(path):
    content = io.BytesIO()
    np.save(content, np.zeros(3))
    path.write_bytes(content.getvalue())
    with pytest.raises(UserError, match="not a whole file of matches"):
        read_matches(path)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"format": np.array(2)}, "format 2, this version reads 1"),
        ({"right": None}, "right"),
        ({"image": np.array([0, 1, 2])}, "starts ends at 4, image has 3"),
        ({"image": np.array([0, 1, 2, 3])}, "image is 0 to 3, expected 0 to 2"),
        ({"image": np.array([0, -1, 2, 1])}, "image is -1 to 2"),
        ({"object_image": np.array([0, 1, 3])}, "object_image is 0 to 3"),
        ({"right": np.array([0, 0, 0, 1024])}, "right is 0 to 1024, expected 0 to 1023"),
        ({"score": np.array([0.5, 0.4, 0.3, 0.2])}, "score is float64"),
        ({"tied": np.zeros(4, int)}, "tied is int64"),
        ({"score": np.array([1, 2, 2, 2])}, "score rises in a category"),
        ({"starts": np.array([0, 4, 3, 4])}, "starts does not ascend"),
        ({"starts": np.array([1, 4, 4, 4])}, "starts does not ascend from 0"),
        ({"starts": np.array([0, 4])}, "different numbers of categories"),
        ({"ignored": np.zeros((4, 1), int)}, r"ignored is int64 of shape \(4, 1\)"),
    ],
)
def test_what_does_not_fit_together(path, changes, problem):
    _rewrite(path, **changes)
    with pytest.raises(UserError, match=problem) as caught:
        read_matches(path)
    assert str(path) in str(caught.value)
