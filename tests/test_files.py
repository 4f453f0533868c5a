"""Atomic files: the old content or the new, nothing else."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat

import pytest

from mask_rcnn_ext.files import atomic_write, remove_leftovers, write_json


def test_new_content_arrives_with_ordinary_permissions(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(path, "w") as file:
        file.write("grüße")
    assert path.read_text(encoding="utf-8") == "grüße"
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_leaves_the_old_content_and_no_rest(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_block_ends_readers_see_the_old_content(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def _write_fails(monkeypatch, error: OSError, *, after: int = 0) -> None:
    calls = iter(range(1000))
    write = os.write

    def failing(descriptor, data):
        if next(calls) == after:
            raise error
        return write(descriptor, data)

    monkeypatch.setattr(os, "write", failing)


FULL = OSError(errno.ENOSPC, "No space left on device")


def test_a_swallowed_write_error_comes_back(tmp_path, monkeypatch):
    """As torch.save does: the OSError of a write becomes another error on the way, or none."""
    path = tmp_path / "a.bin"
    _write_fails(monkeypatch, FULL)
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path) as file:
        try:
            file.write(bytes(100_000))
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None
    assert caught.value is FULL
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_nobody_saw_comes_back(tmp_path, monkeypatch):
    _write_fails(monkeypatch, FULL)
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "a.bin") as file:
        with contextlib.suppress(OSError):
            file.write(bytes(100_000))
        file.write(b"the disk has room again")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_stays_one(tmp_path, monkeypatch):
    _write_fails(monkeypatch, FULL)
    with pytest.raises(KeyboardInterrupt), atomic_write(tmp_path / "a.bin") as file:
        try:
            file.write(bytes(100_000))
        except OSError:
            raise KeyboardInterrupt from None
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_found_when_the_buffer_is_emptied(tmp_path, monkeypatch):
    _write_fails(monkeypatch, FULL)
    with pytest.raises(OSError, match="No space left"), atomic_write(tmp_path / "a", "w") as file:
        file.write("short")
    assert list(tmp_path.iterdir()) == []


def test_writes_that_take_a_part_are_continued(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:777]))
    content = bytes(range(256)) * 100
    with atomic_write(tmp_path / "a.bin") as file:
        file.write(content)
    assert (tmp_path / "a.bin").read_bytes() == content


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_cannot_synchronize_folders_will_do(tmp_path, monkeypatch, code):
    _folder_fails(monkeypatch, code)
    write_json(tmp_path / "a.json", 1)
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_a_folder_that_fails_to_be_synchronized_is_an_error(tmp_path, monkeypatch):
    _folder_fails(monkeypatch, errno.EIO)
    with pytest.raises(OSError, match="Input/output error"):
        write_json(tmp_path / "a.json", 1)


def _folder_fails(monkeypatch, code: int) -> None:
    sync = os.fsync

    def fsync(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)


def test_the_order_is_content_then_name(tmp_path, monkeypatch):
    """The content is on the disk before the name points to it; then the name itself is."""
    done = []
    for name in ("fsync", "replace"):
        call = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, c=call: (done.append(n), c(*a))[1])
    write_json(tmp_path / "a.json", 1)
    assert done == ["fsync", "replace", "fsync"]


def test_leftovers_are_those_of_the_named_files_alone(tmp_path):
    """A process that is killed while it writes leaves a name like these."""
    with atomic_write(tmp_path / "a.json"):
        (own,) = tmp_path.iterdir()
        for name in (".b.json.01234567.partial", ".a.json.partial", ".a.json.0123456x.partial"):
            (tmp_path / name).touch()
        (tmp_path / ".a.json.00000000.partial").mkdir()
        assert remove_leftovers(tmp_path, re.compile(r"a\.json")) == [own]
        assert not own.exists()
        own.touch()
    assert len(list(tmp_path.iterdir())) == 5
    assert remove_leftovers(tmp_path / "none", re.compile("a")) == []


def test_json_is_readable_and_strict(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None]}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"b": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None]}
