"""What `mask-rcnn-ext predict` reads: images, folders, patterns, videos, a list on stdin."""

from __future__ import annotations

import glob
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


def expand_inputs(words: Sequence[str], lines: Iterable[str] | None = None) -> list[Input]:
    """
    Args:
        words: files, folders (searched through, in alphabetical order), patterns such as
            `shots/*.jpg`, or "-" for a list of files on standard input, one a line
        lines: what "-" reads; by default standard input
    Raises:
        UsageError: nothing is there; a file of neither kind
    """
    found: list[Input] = []
    for word in words:
        if word == "-":
            listed = (line.strip() for line in (sys.stdin if lines is None else lines))
            found += [Input(Path(line), Path(line).name) for line in listed if line]
        else:
            found += _expand(word)
    if not found:
        raise UsageError(f"no image or video in {', '.join(words)}")
    return list(_uniquely_named(found))


def _expand(word: str) -> list[Input]:
    path = Path(word).expanduser()
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in (*IMAGES, *VIDEOS))
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
    files = [file for file in files if file.suffix.lower() in (*IMAGES, *VIDEOS)]
    if not files:
        raise UsageError(f"{word}: no such file, and no image or video matches it as a pattern")
    return [Input(file, file.name) for file in files]


def _uniquely_named(inputs: Iterable[Input]) -> Iterator[Input]:
    taken: set[str] = set()
    for one in inputs:
        name, count = Path(one.name), 1
        while str(name.with_suffix("")) in taken:
            count += 1
            name = Path(one.name).with_stem(f"{Path(one.name).stem}_{count}")
        taken.add(str(name.with_suffix("")))
        yield Input(one.path, name.as_posix())
