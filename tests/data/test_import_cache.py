"""The cache of imported sets: made once, again when a source changes, by several at once."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from mask_rcnn_ext.data.formats.base import CocoImport
from mask_rcnn_ext.data.import_cache import CACHE_ENV, cache_dir, cached_coco, notes_of
from mask_rcnn_ext.errors import DataError, UserError


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(CACHE_ENV, str(tmp_path / "cache"))
    return tmp_path / "cache"


class _Source:
    """A file of one word, imported as the only category; counts its imports beside it."""

    def __init__(self, folder: Path, word: str = "cat"):
        self.folder, self.path = folder, folder / "source.txt"
        self.path.write_text(word)

    def build(self) -> CocoImport:
        with open(self.folder / "builds", "a") as file:
            file.write("x")
        coco = {
            "images": [],
            "annotations": [],
            "categories": [{"id": 1, "name": self.path.read_text()}],
        }
        return CocoImport(coco, ["a note"], [self.path], self.folder / "images")

    @property
    def builds(self) -> int:
        path = self.folder / "builds"
        return len(path.read_text()) if path.exists() else 0

    def cached(self, name: str = "toy", **identity: Any) -> tuple[Path, Path]:
        return cached_coco(name, identity, [self.path], self.build)


def _class_of(path: Path) -> str:
    return json.loads(path.read_text())["categories"][0]["name"]


def test_made_once_and_said_once(cache, tmp_path, caplog):
    source = _Source(tmp_path)
    with caplog.at_level(logging.INFO, logger="mask_rcnn_ext"):
        first = source.cached()
        assert source.cached() == first
    assert source.builds == 1
    assert first[0].parent == cache
    assert first[1] == tmp_path / "images"
    assert _class_of(first[0]) == "cat"
    assert notes_of(first[0]) == ["a note"]
    assert notes_of(tmp_path / "own.json") == []
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 3
    assert said[0] == f"Data set toy: its annotation file is being made in {cache}"
    assert "toy: 0 images with 0 annotations, written to" in said[1]
    assert said[2] == "Data set toy: a note"


def test_a_changed_source_is_read_again_even_of_the_same_size(cache, tmp_path):
    source = _Source(tmp_path)
    old, _ = source.cached()
    source.path.write_text("dog")
    os.utime(source.path, ns=(1, 1))
    new, _ = source.cached()
    assert (_class_of(new), source.builds) == ("dog", 2)
    assert new != old
    source.path.write_text("mouse")
    assert _class_of(source.cached()[0]) == "mouse"


def test_what_the_set_is_counts_as_well(cache, tmp_path):
    source = _Source(tmp_path)
    files = {source.cached(), source.cached(classes=["a"]), source.cached(classes=["b"])}
    files.add(source.cached("other"))
    assert len(files) == source.builds == 4
    assert source.cached(classes=["a"]) in files


def test_old_results_are_removed_but_for_those_that_a_run_may_still_read(cache, tmp_path):
    source = _Source(tmp_path)
    other = source.cached(kind="another")[0]
    made = []
    for number in range(6):
        source.path.write_text(f"state {number}")
        made.append(source.cached()[0])
        os.utime(made[-1], (number, number))
    assert [path.exists() for path in made] == [False, False, False, True, True, True]
    assert other.exists()
    assert len(list(cache.glob("*.about"))) == 4


def test_a_source_that_is_gone(cache, tmp_path):
    source = _Source(tmp_path)
    source.path.unlink()
    with pytest.raises(DataError, match=r"cannot read .*source.txt: No such file"):
        source.cached()


def test_a_broken_import_leaves_nothing(cache, tmp_path):
    source = _Source(tmp_path)

    def broken() -> CocoImport:
        return CocoImport({"images": [{1, 2}], "x": object()}, [], [], tmp_path)

    def unreadable() -> CocoImport:
        return CocoImport({"images": (tmp_path / "no.png").read_bytes()}, [], [], tmp_path)

    with pytest.raises(DataError, match="'toy' cannot be written as JSON"):
        cached_coco("toy", {}, [source.path], broken)
    with pytest.raises(DataError, match="'toy': cannot read .*no.png: No such file"):
        cached_coco("toy", {}, [source.path], unreadable)
    assert not list(cache.glob("*.json"))
    assert _class_of(source.cached()[0]) == "cat"


def test_half_a_result_is_made_anew(cache, tmp_path):
    source = _Source(tmp_path)
    target, _ = source.cached()
    target.unlink()
    assert source.cached()[0] == target
    target.with_suffix(".about").unlink()
    source.cached()
    assert source.builds == 3


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    source = _Source(tmp_path)
    monkeypatch.setenv(CACHE_ENV, str(source.path / "below_a_file"))
    with pytest.raises(UserError, match=f"below_a_file: Not a directory.*{CACHE_ENV}"):
        source.cached()
    assert source.builds == 0


def test_a_full_disk_names_the_variable_and_leaves_nothing(cache, tmp_path, monkeypatch):
    source = _Source(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=f"No space left on device.*{CACHE_ENV}"):
        source.cached()
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_ENV, "~/mine")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "mine"
    monkeypatch.delenv(CACHE_ENV)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_dir() == Path("/xdg/mask_rcnn_ext/datasets")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_dir() == tmp_path / ".cache/mask_rcnn_ext/datasets"


def _several(source: _Source, start: Any, results: Any) -> None:
    start.wait()
    results.put(source.cached()[0].read_bytes())


def test_several_processes_at_once_make_it_once(cache, tmp_path):
    source = _Source(tmp_path)
    context = multiprocessing.get_context("fork")
    start, results = context.Barrier(4), context.Queue()
    jobs = [context.Process(target=_several, args=(source, start, results)) for _ in range(4)]
    for job in jobs:
        job.start()
    contents = [results.get(timeout=60) for _ in jobs]
    for job in jobs:
        job.join()
    assert len(set(contents)) == 1
    assert source.builds == 1
