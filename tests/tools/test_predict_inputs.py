"""What `predict` takes as inputs, and what it calls their results."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mask_rcnn_ext.errors import UsageError
from mask_rcnn_ext.tools.predict_inputs import Input, _uniquely_named, expand_inputs


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(inputs: list[Input]) -> list[str]:
    return [one.name for one in inputs]


def test_a_folder_is_searched_through_in_order(tmp_path):
    touch(tmp_path, "b.jpg", "a/x.PNG", "a/clip.mp4", "notes.txt", "folder.jpg/inside.jpeg")
    found = expand_inputs([str(tmp_path)])
    assert names(found) == ["a/clip.mp4", "a/x.PNG", "b.jpg", "folder.jpg/inside.jpeg"]
    assert [one.is_video for one in found] == [True, False, False, False]
    assert all(one.path.is_file() for one in found)


def test_patterns_and_single_files(tmp_path):
    touch(tmp_path, "2.jpg", "1.jpg", "1.txt", "deep/3.jpg")
    assert names(expand_inputs([str(tmp_path / "*.jpg")])) == ["1.jpg", "2.jpg"]
    assert names(expand_inputs([str(tmp_path / "**/*.jpg")])) == ["1.jpg", "2.jpg", "3.jpg"]
    assert names(expand_inputs([str(tmp_path / "1.jpg")])) == ["1.jpg"]
    # A name that holds a pattern's letters is first of all a name.
    touch(tmp_path, "odd[1].jpg")
    assert names(expand_inputs([str(tmp_path / "odd[1].jpg")])) == ["odd[1].jpg"]


def test_results_of_different_files_have_different_names(tmp_path):
    touch(tmp_path, "x/shot.jpg", "y/shot.png", "z/Shot.mp4", "z/shot_2.jpg")
    found = expand_inputs([str(tmp_path / f) for f in ("x", "y", "z/Shot.mp4", "z/shot_2.jpg")])
    assert names(found) == ["shot.jpg", "shot_2.png", "Shot_3.mp4", "shot_2_2.jpg"]


@given(st.lists(st.sampled_from(["a.jpg", "A.png", "a_2.jpg", "d/a.jpg", "a_2_2.gif", "a.mp4"])))
def test_names_are_always_unique(given_names):
    found = list(_uniquely_named(Input(Path(name), name) for name in given_names))
    stems = [os.path.splitext(one.name)[0].lower() for one in found]
    assert len(set(stems)) == len(given_names)
    assert [str(one.path) for one in found] == given_names


def test_a_list_on_standard_input(tmp_path, monkeypatch):
    lines = b"a.jpg\r\n\n  with space .png\nb\xff.jpg\n"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    found = expand_inputs(["-"])
    assert [os.fsencode(one.path) for one in found] == [
        b"a.jpg",
        b"  with space .png",
        b"b\xff.jpg",
    ]
    assert names(expand_inputs(["-"], ["q.jpg\n"])) == ["q.jpg"]
    with pytest.raises(UsageError, match="no image or video in -"):
        expand_inputs(["-"], [])


def test_what_is_nothing_is_said(tmp_path):
    touch(tmp_path, "a.txt", "empty/readme.md")
    with pytest.raises(UsageError, match=r"a\.txt is neither an image"):
        expand_inputs([str(tmp_path / "a.txt")])
    with pytest.raises(UsageError, match="holds no image"):
        expand_inputs([str(tmp_path / "empty")])
    for word in ("gone.jpg", "*.png"):
        with pytest.raises(UsageError, match="no such file"):
            expand_inputs([str(tmp_path / word)])


def test_results_are_no_inputs(tmp_path):
    touch(tmp_path, "a.jpg", "found/overlays/a.jpg")
    results = [tmp_path / "found/overlays"]
    assert names(expand_inputs([str(tmp_path)], results=results)) == ["a.jpg"]
    with pytest.raises(UsageError, match="could be overwritten"):
        expand_inputs([str(tmp_path / "found/overlays/a.jpg")], results=results)
    with pytest.raises(UsageError, match="holds no image"):
        expand_inputs([str(tmp_path / "found")], results=results)
