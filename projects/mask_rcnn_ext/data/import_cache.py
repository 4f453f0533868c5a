"""Data sets of any format as COCO files in a cache, made once and again when a source changes.

A file's name holds a hash of what the data set is and of its sources' names, sizes and times, so
that a file that is there is right, and processes that make the same one write the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
from iopath.common.file_io import file_lock
from portalocker import LockException

from ..errors import DataError, UserError
from ..files import atomic_write, write_json
from .formats.base import CocoImport

CACHE_ENV = "MASK_RCNN_EXT_CACHE"
# To be raised when an importer gives other results from the same files.
IMPORTER_VERSION = 1
# A run reads its file again at each evaluation; the source may have changed in the meantime.
_KEPT = 3

logger = logging.getLogger(__name__)


def cache_dir() -> Path:
    """`$MASK_RCNN_EXT_CACHE`, else `mask_rcnn_ext/datasets` below `$XDG_CACHE_HOME` or ~/.cache."""
    if os.environ.get(CACHE_ENV):
        return Path(os.environ[CACHE_ENV]).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "mask_rcnn_ext" / "datasets"


def cached_coco(
    name: str,
    identity: Mapping[str, Any],
    sources: Iterable[Path],
    build: Callable[[], CocoImport],
) -> tuple[Path, Path]:
    """The COCO file of a data set, from the cache or made now.

    Args:
        name: the data set's; begins the file's name
        identity: all that decides the result beside the content of the sources; plain values
        sources: files that are read
        build: makes the data set
    Returns:
        the annotation file, and the folder that its file names are relative to
    Raises:
        UserError: the cache cannot be written
        DataError: a source that is not there; whatever `build` finds
    """
    folder = cache_dir()
    own = _hash({"version": IMPORTER_VERSION, **identity})[:8]
    states = [_state(path) for path in sorted(set(sources))]
    stem = folder / f"{name}.{own}.{_hash([own, states])[:16]}"
    target, about = Path(f"{stem}.json"), Path(f"{stem}.about")
    if not (target.is_file() and about.is_file()):
        with _writing(name, folder):
            folder.mkdir(parents=True, exist_ok=True)
        with _locked(name, folder / f"{name}.{own}"):
            if not (target.is_file() and about.is_file()):  # nobody was quicker
                _make(name, target, about, build)
                _remove_older(folder, f"{name}.{own}", target)
    return target, Path(json.loads(about.read_text())["image_root"])


def _make(name: str, target: Path, about: Path, build: Callable[[], CocoImport]) -> None:
    start = time.perf_counter()
    logger.info("Data set %s: its annotation file is being made in %s", name, target.parent)
    try:
        made = build()
    except OSError as error:
        raise DataError(
            f"data set {name!r}: cannot read {error.filename or 'a file'}: {error.strerror}"
        ) from error
    root = os.path.abspath(made.image_root)
    try:
        content = msgspec.json.encode(made.coco)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"data set {name!r} cannot be written as JSON: {error}") from error
    with _writing(name, target.parent):
        write_json(about, {"image_root": root, "notes": made.notes})
        with atomic_write(target) as file:  # last: a file that is there is whole
            file.write(content)
    logger.info(
        "Data set %s: %d images with %d annotations, written to %s in %.1f s",
        name,
        len(made.coco["images"]),
        len(made.coco.get("annotations", [])),
        target,
        time.perf_counter() - start,
    )
    for note in made.notes:
        logger.warning("Data set %s: %s", name, note)


def notes_of(json_file: str | Path) -> list[str]:
    """What the importer said of a file of the cache; [] for any other file."""
    about = Path(json_file).with_suffix(".about")
    if not about.is_file():
        return []
    return list(json.loads(about.read_text())["notes"])


def _remove_older(folder: Path, prefix: str, target: Path) -> None:
    older = [path for path in folder.glob(f"{prefix}.*.json") if path != target]
    with suppress(OSError):  # another process removes them too
        older.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in older[_KEPT - 1 :]:
        for stale in (path, path.with_suffix(".about")):
            with suppress(OSError):
                stale.unlink()


@contextmanager
def _locked(name: str, path: Path) -> Iterator[None]:
    """One process makes it, the others wait; where files cannot be locked, each makes its own."""
    lock = file_lock(str(path))
    try:
        with _writing(name, path.parent):
            lock.acquire()
    except LockException as error:
        logger.warning("%s cannot be locked (%s); going on without", path, error)
        yield
        return
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _writing(name: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"data set {name!r} cannot be written to the cache {folder}: "
            f"{error.strerror or error}. Name a folder with room in the environment variable "
            f"{CACHE_ENV}"
        ) from error


def _state(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return [os.path.abspath(path), status.st_size, status.st_mtime_ns]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
