"""Atomic files: the old content or the new, nothing else."""

from __future__ import annotations

import errno
import json
import os

import pytest

from mask_rcnn_ext.files import atomic_write, write_json


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


def test_a_swallowed_write_error_comes_back(tmp_path):
    """As torch.save does: the OSError of a write is caught somewhere on the way."""
    path = tmp_path / "a.bin"
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space left") as caught, atomic_write(path) as file:
        file._file.close()
        file._file = _Full(full)
        try:
            file.write(b"x")
        except OSError:
            raise RuntimeError("unexpected pos 64 vs 0") from None
    assert caught.value is full
    assert not path.exists()


class _Full:
    def __init__(self, error: OSError):
        self.error = error

    def write(self, data: bytes) -> int:
        raise self.error

    def close(self) -> None:
        pass


def test_json_is_readable_and_strict(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None]}
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "a.json", {"b": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"b": [1, None]}
