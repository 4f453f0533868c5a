"""Proposal files: what is read, and what is refused with which words."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detectron2.structures import BoxMode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.data.proposals import check_proposal_files, load_proposals
from mask_rcnn_ext.errors import DataError, UsageError, UserError

BOXES = np.array([[1, 2, 11, 22], [0, 0, 64, 64], [3.5, 4.5, 5.5, 6.5]], dtype=np.float32)
LOGITS = np.array([2.0, -1.0, 0.5], dtype=np.float32)


def _content(ids: list[Any]) -> dict[str, Any]:
    return {
        "boxes": [BOXES + 0 for _ in ids],
        "objectness_logits": [LOGITS + 0 for _ in ids],
        "ids": list(ids),
        "bbox_mode": BoxMode.XYXY_ABS.value,
    }


def _write(path: Path, content: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> str:
    path.write_bytes(pickle.dumps(content, protocol))
    return str(path)


@settings(
    deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    counts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    dtype=st.sampled_from(["<f4", ">f4", "<f8", "<f2"]),
    seed=st.integers(0, 2**31),
)
def test_what_was_written_is_read(tmp_path, counts, dtype, seed):
    rng = np.random.default_rng(seed)
    content = {
        "ids": list(range(len(counts))),
        "boxes": [rng.normal(size=(n, 4)).astype(dtype) for n in counts],
        "objectness_logits": [rng.normal(size=n).astype(dtype) for n in counts],
    }
    read = load_proposals(_write(tmp_path / "p.pkl", content))
    for key, values in (("boxes", read.boxes), ("objectness_logits", read.logits)):
        for ours, theirs in zip(values, content[key], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_detectrons_names_and_numpy_ids(tmp_path):
    content = {
        "indexes": [np.int64(7), np.int32(9)],
        "boxes": [BOXES, BOXES[:0]],
        "scores": [LOGITS, LOGITS[:0]],
    }
    read = load_proposals(_write(tmp_path / "p.pkl", content, 2))
    assert read.ids == ["7", "9"]
    assert read.boxes[1].shape == (0, 4)


def test_width_and_height_become_corners(tmp_path):
    content = _content([1]) | {"bbox_mode": BoxMode.XYWH_ABS.value}
    read = load_proposals(_write(tmp_path / "p.pkl", content))
    np.testing.assert_array_equal(read.boxes[0][0], [1, 2, 12, 24])


class _Runs:
    """A pickle of this creates a file when it is loaded by pickle.load."""

    def __init__(self, witness: Path):
        self.witness = witness

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.witness),)


def test_code_in_a_file_does_not_run(tmp_path):
    content = _content([1]) | {"extra": _Runs(tmp_path / "witness")}
    file = _write(tmp_path / "p.pkl", content)
    with pytest.raises(DataError, match=r"p\.pkl was not read.*mkdir.*can execute code"):
        load_proposals(file)
    assert not (tmp_path / "witness").exists()
    with open(file, "rb") as stream:
        pickle.load(stream)
    assert (tmp_path / "witness").exists()  # the test can fail


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, expected a dict"),
        ({"ids": [1]}, "lacks 'boxes'.*it has: ids"),
        (_content([]), "has 0 ids"),
        (_content([1, 2]) | {"ids": [1]}, "has 1 ids, 2 entries of boxes and 2"),
        (_content([1]) | {"boxes": [BOXES[:, :3]]}, r"image id 1 has boxes of shape \(3, 3\)"),
        (_content([1]) | {"boxes": [BOXES.astype(int)]}, "image id 1 has boxes of .*int64"),
        (_content([1]) | {"boxes": [BOXES.tolist()]}, "image id 1 has boxes of type list"),
        (_content([1]) | {"objectness_logits": [LOGITS[:2]]}, "has 3 boxes and 2"),
        (_content([1]) | {"objectness_logits": [LOGITS + np.inf]}, "not all finite"),
        (_content([1]) | {"bbox_mode": 4}, r"bbox_mode 4; expected one of 0 \(XYXY_ABS\)"),
    ],
)
def test_contents_that_do_not_fit(tmp_path, content, message):
    with pytest.raises(DataError, match=f"p.pkl.*{message}"):
        load_proposals(_write(tmp_path / "p.pkl", content))


def test_a_file_that_is_cut(tmp_path):
    path = tmp_path / "p.pkl"
    path.write_bytes(pickle.dumps(_content([1]))[:-50])
    with pytest.raises(DataError, match=rf"cannot be read.*{path.stat().st_size} bytes"):
        load_proposals(path)


@pytest.fixture
def ids(scenes) -> list[int]:
    """The image ids of scenes_val, pictures of 64 x 64."""
    data = json.loads((scenes / "scenes/annotations/instances_val.json").read_text())
    return [image["id"] for image in data["images"]]


def _check(file: str, topk: int = 3, names: tuple[str, ...] = ("scenes_val",)) -> None:
    check_proposal_files(names, [file], split="TRAIN", topk=topk)


def test_a_file_that_fits_passes_in_silence(tmp_path, ids, caplog):
    _check(_write(tmp_path / "p.pkl", _content([*ids, 10_000])))  # more images are fine
    assert not caplog.records


def test_fewer_proposals_than_the_config_uses_are_said(tmp_path, ids, caplog):
    _check(_write(tmp_path / "p.pkl", _content(ids)), topk=2000)
    assert "at most 3 proposals" in caplog.text
    assert "PRECOMPUTED_PROPOSAL_TOPK_TRAIN asks for 2000" in caplog.text


def test_one_file_a_data_set(tmp_path, ids):
    file = _write(tmp_path / "p.pkl", _content(ids))
    with pytest.raises(UsageError, match=r"PROPOSAL_FILES_TRAIN has 1 files for the 2 data sets"):
        _check(file, names=("scenes_val", "scenes_train"))


def test_a_missing_file_says_what_to_run(ids):
    with pytest.raises(UsageError, match=r"nowhere\.pkl does not exist.*docs/proposals\.md"):
        _check("nowhere.pkl")


def test_an_address_that_cannot_be_fetched(ids, monkeypatch):
    def no_network(path: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr("mask_rcnn_ext.data.proposals.PathManager.get_local_path", no_network)
    with pytest.raises(UserError, match=r"cannot fetch https://host/p\.pkl \(no network\)"):
        _check("https://host/p.pkl")


def test_images_without_an_entry(tmp_path, ids):
    with pytest.raises(DataError, match=rf"for 1 of the {len(ids)} images .*image id {ids[0]}"):
        _check(_write(tmp_path / "p.pkl", _content(ids[1:])))


def test_no_proposal_at_all(tmp_path, ids):
    content = _content(ids)
    content |= {"boxes": [BOXES[:0] for _ in ids], "objectness_logits": [LOGITS[:0] for _ in ids]}
    with pytest.raises(DataError, match="not one proposal"):
        _check(_write(tmp_path / "p.pkl", content))


def test_boxes_in_pixels_of_another_size(tmp_path, ids):
    content = _content(ids)
    content["boxes"][1] = BOXES * 2  # as of a resized picture
    with pytest.raises(DataError, match=rf"image id {ids[1]} leaves its image of 64 x 64 .*by 64"):
        _check(_write(tmp_path / "p.pkl", content))


def test_corners_read_as_width_and_height_would_end_before_they_begin(tmp_path, ids):
    content = _content(ids)
    content["boxes"][0] = np.array([[40, 40, 5, 5]] * 3, dtype=np.float32)
    with pytest.raises(DataError, match="ends before it begins"):
        _check(_write(tmp_path / "p.pkl", content))


def test_detectron2_reads_what_passed(tmp_path, ids, scenes):
    """The same boxes, best first, in the records that the mapper gets."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.build import load_proposals_into_dataset

    file = _write(tmp_path / "p.pkl", _content(ids))
    _check(file)
    records = load_proposals_into_dataset(DatasetCatalog.get("scenes_val"), file)
    for record in records:
        np.testing.assert_array_equal(record["proposal_boxes"], BOXES[[0, 2, 1]])


def test_the_images_of_a_subset_are_enough(tmp_path, ids, scenes):
    from mask_rcnn_ext.data.subset import register_subset

    name = register_subset("scenes_val", 2, tmp_path / "datasets")
    _check(_write(tmp_path / "p.pkl", _content(ids[:2])), names=(name,))
