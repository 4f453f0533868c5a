"""What `mask-rcnn-ext predict` reads: images, folders, patterns, videos, a list on stdin."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError

IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".gif")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")


@dataclass(frozen=True)
class Input:
    """A file, and the name that its results get: unique, relative, without folders above."""

    path: Path
    name: str

    @property
    def is_video(self) -> bool:
        return self.path.suffix.lower() in VIDEOS


def expand_inputs(
    words: Sequence[str], lines: Iterable[str] | None = None, *, results: Sequence[Path] = ()
) -> list[Input]:
    """
    Args:
        words: files, folders (searched through, in alphabetical order), patterns such as
            `shots/*.jpg`, or "-" for a list of files on standard input, one a line
        lines: what "-" reads; by default standard input
        results: folders that the results go to: what lies in them is no input
    Raises:
        UsageError: nothing is there; a file of neither kind; a file that would be overwritten
    """
    found: list[Input] = []
    for word in words:
        if word == "-":
            listed = (line.rstrip("\r\n") for line in (_stdin() if lines is None else lines))
            found += [Input(Path(line), Path(line).name) for line in listed if line.strip()]
        else:
            found += _expand(word, results)
    if not found:
        raise UsageError(f"no image or video in {', '.join(words)}")
    for one in found:
        if _lies_in(one.path, results):
            raise UsageError(
                f"{one.path} lies where the results go and could be overwritten; choose another "
                "--out"
            )
    return list(_uniquely_named(found))


def _stdin() -> Iterator[str]:
    # File names are bytes; text decoding of standard input would refuse some.
    return (os.fsdecode(line) for line in sys.stdin.buffer)


def _lies_in(path: Path, folders: Sequence[Path]) -> bool:
    resolved = path.resolve()
    return any(resolved.is_relative_to(folder.resolve()) for folder in folders)


def _expand(word: str, results: Sequence[Path]) -> list[Input]:
    path = Path(word).expanduser()
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in (*IMAGES, *VIDEOS)
            and not file.is_dir()
            and not _lies_in(file, results)
        )
        if not files:
            raise UsageError(
                f"the folder {word} holds no image ({', '.join(IMAGES)}) and no video "
                f"({', '.join(VIDEOS)})"
            )
        return [Input(file, file.relative_to(path).as_posix()) for file in files]
    if path.exists():
        if path.suffix.lower() not in (*IMAGES, *VIDEOS):
            raise UsageError(
                f"{word} is neither an image ({', '.join(IMAGES)}) nor a video "
                f"({', '.join(VIDEOS)}), by its ending"
            )
        return [Input(path, path.name)]
    files = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
    files = [
        file for file in files if file.suffix.lower() in (*IMAGES, *VIDEOS) and not file.is_dir()
    ]
    if not files:
        raise UsageError(f"{word}: no such file, and no image or video matches it as a pattern")
    return [Input(file, file.name) for file in files]


def _uniquely_named(inputs: Iterable[Input]) -> Iterator[Input]:
    taken: set[str] = set()
    for one in inputs:
        name, count = Path(one.name), 1
        while _key(name) in taken:
            count += 1
            name = Path(one.name).with_stem(f"{Path(one.name).stem}_{count}")
        taken.add(_key(name))
        yield Input(one.path, name.as_posix())


def _key(name: Path) -> str:
    # Results of a.png and A.jpg have the same name on some disks.
    return str(name.with_suffix("")).lower()
