"""The images themselves: opened, decoded, compared with what the file says about them.

Sizes are (height, width) in pixels.
"""

from __future__ import annotations

import hashlib
import io
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..scenes.pool import available_cpus, run_jobs
from .facts import Facts
from .findings import ERROR, WARNING, Defect, plain, show

_ORIENTATION = 0x0112  # the EXIF tag
_TURNED = (5, 6, 7, 8)  # orientations that exchange height and width
_DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow's modes of more than 8 bits
# What Pillow raises for files that are broken in one way or another.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, MemoryError)


@dataclass(frozen=True)
class Look:
    """What opening one image showed.

    size: as stored; None if the header cannot be read
    orientation: EXIF's, 1 is upright; readers turn the picture by it
    mode: Pillow's
    problem: why it does not decode, None if it does
    digest: of the file's bytes
    """

    size: tuple[int, int] | None
    orientation: int
    mode: str
    problem: str | None
    digest: str

    @property
    def upright_size(self) -> tuple[int, int] | None:
        """As readers that heed EXIF return it, which training does."""
        if self.size is None or self.orientation not in _TURNED:
            return self.size
        return self.size[1], self.size[0]


def look_at(path: str, *, decode: bool = True) -> Look:
    """Open one image; without `decode` only its header. OSError if the file cannot be read."""
    with open(path, "rb") as file:
        content = file.read()
    digest = hashlib.sha256(content).hexdigest()
    size, orientation, mode = None, 1, ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large pictures and odd metadata are no findings
            with Image.open(io.BytesIO(content)) as image:
                size, mode = (image.height, image.width), image.mode
                orientation = _orientation(image)
                if decode:
                    image.load()
    except Image.DecompressionBombError as error:
        return Look(size, orientation, mode, f"is refused by Pillow: {error}", digest)
    except _BROKEN as error:
        problem = f"does not decode: {error or type(error).__name__}"
        if not content:
            problem = "is an empty file"
        elif isinstance(error, Image.UnidentifiedImageError):
            problem = f"is no picture: it begins with {content[:8]!r}"
        return Look(size, orientation, mode, problem, digest)
    return Look(size, orientation, mode, None, digest)


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1
    return value if value in range(1, 9) else 1


class _LookJob:
    """Picklable: index -> `Look`, or the reason why the file cannot be read."""

    def __init__(self, paths: Sequence[str]):
        self._paths = paths

    def __call__(self, index: int) -> Look:
        try:
            return look_at(self._paths[index])
        except OSError as error:
            return Look(None, 1, "", f"cannot be read: {error.strerror}", "")


class OpenImages:
    """A check that opens every image, once for as many calls as there are.

    Args:
        workers: processes; None for one for each CPU
    """

    def __init__(self, workers: int | None = None):
        self._workers = workers
        self._looks: dict[str, Look] = {}

    def __call__(self, facts: Facts) -> Iterator[Defect]:
        rows = np.flatnonzero(facts.image_present).tolist()
        paths = {row: image_path(facts, row) for row in rows}
        new = sorted(set(paths.values()) - self._looks.keys())
        workers = min(self._workers or available_cpus(), max(1, len(new) // 50))
        for done, (index, look) in enumerate(run_jobs(_LookJob(new), len(new), workers), 1):
            self._looks[new[index]] = look
            facts.progress("images", done, len(new))
        looks = {row: self._looks[path] for row, path in paths.items()}
        yield from _undecodable(facts, looks)
        yield from _wrong_sizes(facts, looks)
        yield from _deep_images(facts, looks)
        yield from _same_content(facts, looks)


def image_path(facts: Facts, row: int) -> str:
    """Where an image of the file is."""
    return os.path.join(facts.image_root or "", facts.table.file_name(row))


def _undecodable(facts: Facts, looks: dict[int, Look]) -> Iterator[Defect]:
    truncated = [r for r, look in looks.items() if look.problem and "truncated" in look.problem]
    others = [r for r, look in looks.items() if look.problem and "truncated" not in look.problem]
    for code, rows in (("image-truncated", truncated), ("image-unreadable", others)):
        yield facts.images(
            code,
            ERROR,
            np.array(rows, np.int64),
            lambda row: f"the picture {looks[row].problem}",
            "Fetch or restore it, or take it out of the annotation file.",
        )


def _wrong_sizes(facts: Facts, looks: dict[int, Look]) -> Iterator[Defect]:
    turned: list[int] = []
    differs: list[int] = []
    for row, look in looks.items():
        stated = tuple(facts.table.image_sizes[row].tolist())
        if look.problem or look.size is None or min(stated) < 1 or stated == look.upright_size:
            continue
        is_turned = look.size != look.upright_size and stated == look.size
        (turned if is_turned else differs).append(row)

    def words(row: int) -> str:
        height, width = facts.table.image_sizes[row]
        found = looks[row].upright_size or (0, 0)
        text = f"the file says {width} x {height} (width x height), the picture is "
        text += f"{found[1]} x {found[0]}"
        if (found[1], found[0]) == (height, width):
            text += ", height and width exchanged"
        return text

    yield facts.images(
        "exif-rotated",
        ERROR,
        np.array(turned, np.int64),
        lambda row: (
            f"{words(row)} once it is turned by its EXIF orientation {looks[row].orientation}"
        ),
        "Look at a thumbnail: if boxes fit the turned picture, mend height and width (`--fix` "
        "does where no other is possible); if not, strip the EXIF tag from the picture.",
    )
    yield facts.images(
        "image-size-differs",
        ERROR,
        np.array(differs, np.int64),
        words,
        "Use the pictures that were annotated, or mend height and width; `--fix` does where all "
        "boxes fit.",
    )


def _deep_images(facts: Facts, looks: dict[int, Look]) -> Iterator[Defect]:
    yield facts.images(
        "image-depth",
        WARNING,
        np.array([row for row, look in looks.items() if look.mode in _DEEP], np.int64),
        lambda row: f"has more than 8 bits a channel (Pillow's mode {looks[row].mode})",
        "Loading it as RGB cuts every value above 255: convert it to 8 bits with a scale of yours.",
    )


def _same_content(facts: Facts, looks: dict[int, Look]) -> Iterator[Defect]:
    first: dict[str, int] = {}
    rows = []
    names = facts.table
    for row, look in looks.items():
        if not look.digest or look.problem:
            continue
        other = first.setdefault(look.digest, row)
        # The same name twice is a finding of its own.
        if other != row and names.file_name(other) != names.file_name(row):
            rows.append(row)

    def words(row: int) -> str:
        other = first[looks[row].digest]
        who = f"{show(plain(names.image_ids[other]))} ({names.file_name(other)})"
        return f"has the same content as image {who}"

    yield facts.images(
        "same-content",
        WARNING,
        np.array(rows, np.int64),
        words,
        "Keep one, with the annotations of both.",
    )
