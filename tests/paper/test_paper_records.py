"""Records as files: whole ones come back as they were, others are errors that say why."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import pytest

from mask_rcnn_ext.errors import UserError
from mask_rcnn_ext.paper import Kept, Record, find_records, read_record, write_record
from mask_rcnn_ext.paper.records import FORMAT, fingerprints_in, record_folder

RECORD = Record(
    format=FORMAT,
    scale="scenes",
    smoke=False,
    stage="small_C4",
    kind="train",
    seed=1,
    key="k" * 64,
    code="c" * 64,
    state="finished",
    config="scenes/Base-Scenes-FPN.yaml",
    overrides=["SOLVER.BASE_LR", "0.02"],
    results={"bbox/AP": 31.25, "segm/APl": None},
    hours=0.1,
    iterations=300,
    seconds_per_iteration=0.5,
    memory_mb=900.0,
    device="cpu",
    machine="a processor",
    threads=2,
    precision="bfloat16",
    commit=None,
    versions={"torch": "2.14"},
    datasets={"scenes_train": "0123456789abcdef"},
    started="2026-01-02T03:04:05+00:00",
    curve=[(20, 3.5), (40, 2.25)],
)


def _write(records: Path, files: dict[str, bytes] | None = None, **changed: object) -> Path:
    record = msgspec.structs.replace(RECORD, files=dict.fromkeys(files or {}, ""), **changed)
    scale = "smoke" if record.smoke else record.scale
    folder = record_folder(records, scale, record.stage, record.seed)
    folder.mkdir(parents=True)
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    write_record(folder, record)
    return folder


def test_a_record_comes_back_with_its_files(tmp_path):
    folder = _write(tmp_path, {"matches_bbox.npz": b"bbox", "pictures.webp": b"picture"})
    assert folder == tmp_path / "scenes" / "small_C4" / "seed_1"
    kept = read_record(folder)
    digests = {
        "matches_bbox.npz": hashlib.sha256(b"bbox").hexdigest(),
        "pictures.webp": hashlib.sha256(b"picture").hexdigest(),
    }
    assert kept == Kept(msgspec.structs.replace(RECORD, files=digests), folder)
    assert kept.file("pictures.webp") == folder / "pictures.webp"
    assert kept.file("matches_segm.npz") is None
    text = (folder / "record.json").read_text()
    assert list(json.loads(text)) == list(Record.__struct_fields__)
    assert text.count("\n") > 20  # for people, and for git


def test_its_folder_need_not_be_there(tmp_path):
    write_record(tmp_path / "a" / "b", RECORD)
    assert read_record(tmp_path / "a" / "b").record == RECORD


def test_the_same_record_is_the_same_file(tmp_path):
    folders = [_write(tmp_path / name, {"b.npz": b"1", "a.npz": b"2"}) for name in ("x", "y")]
    first, second = ((folder / "record.json").read_bytes() for folder in folders)
    assert first == second


def _edit(folder: Path, **changed: object) -> None:
    path = folder / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def _without_its_end(folder: Path) -> None:
    path = folder / "record.json"
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "record.json").unlink(), r"seed_1/record.json: No such file"),
        (_without_its_end, r"record.json is not a whole record: Input data was truncated"),
        (lambda f: (f / "record.json").write_bytes(b""), r"not a whole record"),
        (lambda f: (f / "record.json").write_bytes(b"\xff\xfe"), r"not a whole record"),
        (lambda f: (f / "record.json").write_bytes(b"[]"), r"not a whole record: Expected `obj"),
        (lambda f: _edit(f, seed="one"), r"not a whole record: .*`int`.*seed"),
        (lambda f: _edit(f, more=1), r"not a whole record: .*`more`"),
        # Of a later version, which may have more fields.
        (lambda f: _edit(f, format=99, more=1), r"has format 99, this version reads 1"),
        (lambda f: (f / "a.npz").unlink(), r"record.json names a.npz, which is not there"),
        (lambda f: (f / "a.npz").write_bytes(b"x"), r"a.npz is not the file that record.json was"),
        (lambda f: _edit(f, files={"../x": ""}), r"names ../x, which is not there"),
        (lambda f: _edit(f, files={"": ""}), r"names , which is not there"),
    ],
)
def test_a_record_that_is_not_whole_is_an_error(tmp_path, damage, message):
    folder = _write(tmp_path, {"a.npz": b"1"})
    (folder.parent / "x").touch()
    damage(folder)
    with pytest.raises(UserError, match=message):
        read_record(folder)
    (error,) = find_records(tmp_path, "scenes")
    assert isinstance(error, UserError)


def _named(records: Path, scale: str) -> list[tuple[str, int] | str]:
    return [
        (one.record.stage, one.record.seed) if isinstance(one, Kept) else str(one)
        for one in find_records(records, scale)
    ]


def test_all_of_a_scale_by_stage_and_seed(tmp_path):
    for seed in (10, 2, 1):
        _write(tmp_path, seed=seed)
    _write(tmp_path, stage="another")
    _write(tmp_path, stage="mask_R_50_C4", scale="coco")
    _write(tmp_path, stage="mask_R_50_C4", scale="coco", smoke=True)
    (tmp_path / "scenes" / "small_C4" / "seed_3").touch()
    (tmp_path / "scenes" / "small_C4" / "notes").mkdir()
    own = [("another", 1), *(("small_C4", seed) for seed in (1, 2, 10))]
    assert _named(tmp_path, "scenes") == own
    assert _named(tmp_path, "coco") == [("mask_R_50_C4", 1)]
    assert _named(tmp_path, "smoke") == [("mask_R_50_C4", 1)]
    assert _named(tmp_path / "nothing", "scenes") == []


def test_one_that_is_broken_does_not_hide_the_others(tmp_path):
    for seed in (1, 2, 3):
        _write(tmp_path, seed=seed)
    _without_its_end(record_folder(tmp_path, "scenes", "small_C4", 2))
    first, second, third = _named(tmp_path, "scenes")
    assert (first, third) == (("small_C4", 1), ("small_C4", 3))
    assert "seed_2/record.json is not a whole record" in second


@pytest.mark.parametrize(
    "place",
    ["scenes/small_C4/seed_2", "scenes/other/seed_1", "coco/small_C4/seed_1", "smoke/a/seed_1"],
)
def test_a_copy_under_another_name_does_not_count_twice(tmp_path, place):
    folder = _write(tmp_path)
    shutil.copytree(folder, tmp_path / place)
    found = _named(tmp_path, place.split("/")[0])
    wrong = [one for one in found if isinstance(one, str)]
    assert len(wrong) == 1
    assert f"{place}/record.json is of scenes stage small_C4 with seed 1, which" in wrong[0]


def test_fingerprints_are_those_of_the_newest_record(tmp_path):
    _write(tmp_path, seed=1, started="2026-01-03", datasets={"a": "new", "b": "1"})
    _write(tmp_path, seed=2, started="2026-01-02", datasets={"a": "old", "c": "2"})
    (tmp_path / "scenes/small_C4/seed_3").mkdir()
    assert fingerprints_in(find_records(tmp_path, "scenes")) == {"a": "new", "b": "1", "c": "2"}
