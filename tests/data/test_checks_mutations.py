"""Whatever a file holds: findings or a refusal in words, and nothing gets past to the mapper."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import shutil
from typing import Any

import pytest
from broken_files import BROKEN, Broken, good, with_keypoints, write, write_pictures
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mask_rcnn_ext import load_config
from mask_rcnn_ext.data.checks import Settings, check_datasets, check_table
from mask_rcnn_ext.data.checks.fixing import repair_file
from mask_rcnn_ext.data.coco_table import read_coco_table
from mask_rcnn_ext.data.records import CocoRecords
from mask_rcnn_ext.errors import UserError

ODD_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 11, 3.5, -0.0, 1e300, -1e300, 10**30, 2**63, math.nan, math.inf,
    "", "11", "nan", "x" * 100, "../a.png", "\0", "\n", [], [[]], [[[]]], [1, 2], [1, 2, 3, 4],
    [None] * 4, [0, 0, 0, 0], [[1, 2, 3, 4, 5, 6]], [[1e9] * 6], [[math.nan] * 6], ["a"] * 6,
    {}, {"size": [60, 80], "counts": ""}, {"size": [60, 80], "counts": []},
    {"size": [60, 80], "counts": "zzzzzzzzzzzzzzzzzzzzzzzz"}, {"size": [60, 80], "counts": [-5]},
    {"size": [2**40, 2**40], "counts": [1]}, {"size": "x", "counts": "0"}, {"counts": "0"},
    {"size": [60, 80], "counts": [2**62, 2**62]}, {"size": [60, 80], "counts": "\ud83d\ude00"},
]  # fmt: skip


def _paths(node: Any, here: tuple = ()) -> list[tuple]:
    """The way to every value inside, containers too."""
    found = [here] if here else []
    parts = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    for key, value in parts:
        found += _paths(value, (*here, key))
    return found


GOOD = with_keypoints()
PATHS = _paths(GOOD)


def _mutate(data: Any, path: tuple, kind: str, value: Any) -> None:
    """One change at a path; a path that an earlier change removed is left alone."""
    for key in path[:-1]:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            return
    try:
        if kind == "delete":
            del data[path[-1]]
        elif kind == "replace":
            data[path[-1]] = copy.deepcopy(value)
        elif kind == "duplicate" and isinstance(data, list):
            data.insert(path[-1], copy.deepcopy(data[path[-1]]))
        elif kind == "wrap":
            data[path[-1]] = [data[path[-1]]]
        elif kind == "text":
            data[path[-1]] = str(data[path[-1]])
        elif kind == "negate":
            data[path[-1]] = -data[path[-1]]
        elif kind == "swap":
            data[path[-1]] = copy.deepcopy(value)
    except (KeyError, IndexError, TypeError):
        return


MUTATIONS = st.lists(
    st.tuples(
        st.sampled_from(PATHS),
        st.sampled_from(["delete", "replace", "duplicate", "wrap", "text", "negate"]),
        st.sampled_from(ODD_VALUES),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutants")
    write_pictures(folder)
    return folder


_number = iter(range(10**9))


def _register(path, folder) -> str:
    from mask_rcnn_ext.data.registration import register_coco_dataset

    name = f"mutant_{next(_number)}"
    register_coco_dataset(name, path, folder / "images")
    return name


@pytest.fixture(scope="module")
def mapper():
    from mask_rcnn_ext.data.mappers import CocoMapper

    opts = ["MODEL.MASK_ON", "True", "INPUT.MASK_FORMAT", "bitmask", "INPUT.MIN_SIZE_TRAIN"]
    return CocoMapper(load_config("", [*opts, "(40,)"]), True)


def _look_at_everything(path, folder) -> None:
    """What `data check FILE --fix` does with it."""
    try:
        table = read_coco_table(path)
        report = check_table(table, str(folder / "images"))
        for finding in report.findings():
            assert "\n" not in finding.line()
            json.dumps(finding.as_dict())
    except UserError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert not refusal or str(path) in refusal
    if refusal:
        return
    try:
        repair_file(str(path), str(folder / "images"), folder / "fixed.json")
    except UserError:
        return


def _train_on(path, folder, mapper) -> None:
    """What training does: the gate first, then each image through the mapper."""
    name = _register(path, folder)
    try:
        check_datasets([name], 2, needs_annotations=True, wants_masks=True)
    except UserError:
        return
    for record in CocoRecords(read_coco_table(path), str(folder / "images")):
        with contextlib.suppress(UserError):
            mapper(record)


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mutations=MUTATIONS)
def test_any_mutant_gets_findings_or_a_refusal(folder, mutations):
    data = copy.deepcopy(GOOD)
    for path, kind, value in mutations:
        _mutate(data, path, kind, value)
    path = folder / "mutant.json"
    path.write_text(json.dumps(data))
    _look_at_everything(path, folder)


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mutations=MUTATIONS)
def test_what_passes_the_gate_passes_the_mapper(folder, mapper, mutations):
    data = copy.deepcopy(good())
    for path, kind, value in mutations:
        _mutate(data, path, kind, value)
    path = folder / "mutant.json"
    path.write_text(json.dumps(data))
    _train_on(path, folder, mapper)


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_the_corpus_never_ends_training_in_a_traceback(folder, mapper, broken: Broken):
    path = folder / "corpus.json"
    path.write_text(json.dumps(broken.data()))
    _train_on(path, folder, mapper)


@settings(deadline=None, max_examples=60)
@given(cut=st.integers(0, 4000), junk=st.binary(max_size=4))
def test_bytes_cut_and_changed(tmp_path_factory, cut, junk):
    folder = tmp_path_factory.getbasetemp() / "bytes"
    folder.mkdir(exist_ok=True)
    path = write(folder, good())
    content = path.read_bytes()
    place = cut % len(content)
    for changed in (content[:place], content[:place] + junk + content[place + len(junk) :]):
        path.write_bytes(changed)
        _look_at_everything(path, folder)


@pytest.mark.parametrize(
    ("content", "say"),
    [
        (b"", "is not JSON"),
        (b"\x00\x01\x02", "is not JSON"),
        (b"\xff\xd8\xff\xe0picture", "is not JSON"),
        (b'{"images": [', "A download that broke off"),
        (b"[]", "is it a results file"),
        (b'[{"image_id": 1, "score": 0.5}]', "is it a results file"),
        (b"null", "expected an object"),
        (b'{"images": [{"file_name": "\xff"}], "categories": []}', "is not JSON|not UTF-8"),
        (b'{"images": [], "annotations": []}', "lacks the section 'categories'"),
        (b"[" * 200_000, "nests too deep|is not JSON"),
        (b'{"images": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too deep|not a list|lacks"),
        (b'{"images": 5, "categories": []}', "section 'images' is not a list"),
        (b'{"images": [], "categories": [], "annotations": {}}', "'annotations' is not a list"),
    ],
)
def test_what_is_no_annotation_file_is_refused(tmp_path, content, say):
    path = tmp_path / "file.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=say) as caught:
        check_table(read_coco_table(path), None, Settings())
    assert "file.json" in str(caught.value)


def test_the_folder_can_vanish_meanwhile(tmp_path):
    path = write(tmp_path, good())
    table = read_coco_table(path)
    shutil.rmtree(tmp_path / "images")
    report = check_table(table, str(tmp_path / "images"))
    assert report.counts_by_code() == {"missing-image": 3}


@settings(deadline=None, max_examples=60)
@given(mutations=MUTATIONS)
def test_mending_a_mutant_twice_is_mending_it_once(tmp_path_factory, mutations):
    data = copy.deepcopy(GOOD)
    for path, kind, value in mutations:
        _mutate(data, path, kind, value)
    folder = tmp_path_factory.getbasetemp() / "twice"
    folder.mkdir(exist_ok=True)
    path = write(folder, data)
    images = str(folder / "images")
    try:
        repaired = repair_file(str(path), images, folder / "once.json")
    except UserError:
        return
    if repaired.written is None:
        return
    mended = {one.code for one in [*repaired.changes, *repaired.moved_out]}
    again = repair_file(str(repaired.written), images, folder / "again.json")
    assert again.written is None, (again.changes, again.moved_out, mended)
