"""The pictures that annotations speak of: found below one folder, their size read from the header.

Sizes are (height, width) in pixels as the picture is shown, that is after the rotation which its
EXIF tag asks for: annotation tools draw it like that, and training reads it like that.
"""

from __future__ import annotations

import os
import posixpath
import re
import warnings
from pathlib import Path

from PIL import Image

from ...errors import DataError, UsageError

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".jp2", ".mpo", ".pgm", ".png", ".ppm")
    + (".tif", ".tiff", ".webp")
)
_ORIENTATION = 0x0112  # EXIF tag; values from 5 on swap the sides


def picture_size(path: str | Path, who: str) -> tuple[int, int]:
    """(height, width) as shown, from the header alone.

    Args:
        path: the picture
        who: what wants it, for the message
    Raises:
        DataError: it is not there, or is no picture
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                width, height = image.size
                turned = image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except FileNotFoundError as error:
        raise DataError(f"{who}: picture {path} is not there") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow's readers raise SyntaxError and ValueError for broken headers too.
        raise DataError(f"{who}: picture {path} cannot be read: {error}") from error
    return (width, height) if turned else (height, width)


class Pictures:
    """Looks names up below `root`, however the annotation tool spelled the folder in front."""

    def __init__(self, root: Path):
        if not root.is_dir():
            raise UsageError(
                f"{root} is no folder; --images names the folder that holds the pictures"
            )
        self.root = root
        self._by_name: dict[str, list[str]] | None = None

    def find(self, name: str, who: str, beside: Path | None = None) -> str:
        """The picture's path relative to `root`, with "/".

        Tried in turn: `name` below `root`; `name` beside the annotation file, if that lies below
        `root`; the one picture anywhere below `root` that has the same base name.

        Args:
            name: as the annotation file has it; backslashes and URLs are fine
            who: the annotation file and element, for the message
            beside: folder of the annotation file
        Raises:
            DataError: no such picture, or several of that base name
        """
        name = re.sub(r"^[A-Za-z]:(?=/)", "", name.replace("\\", "/"))
        for folder in (self.root, beside):
            if folder is None or name.startswith("/") or "://" in name:
                continue
            inside = self._below(folder / name)
            if inside is not None and os.path.isfile(self.root / inside):
                return inside
        base = posixpath.basename(name)
        hits = self._names().get(base, [])
        if len(hits) == 1:
            return hits[0]
        if hits:
            raise DataError(
                f"{who}: picture {name!r} could be {' or '.join(hits[:3])} below {self.root}"
            )
        raise DataError(f"{who}: picture {name!r} is not below {self.root}; is --images right?")

    def all(self) -> list[str]:
        """Every picture below `root`, relative to it, sorted."""
        return sorted(
            path
            for paths in self._names().values()
            for path in paths
            if posixpath.splitext(path)[1].lower() in SUFFIXES
        )

    def size(self, file_name: str, who: str) -> tuple[int, int]:
        """(height, width) of a picture that `find` or `all` gave."""
        return picture_size(self.root / file_name, who)

    def _below(self, path: Path) -> str | None:
        relative = os.path.relpath(os.path.normpath(path), os.path.normpath(self.root))
        relative = relative.replace(os.sep, "/")
        return None if relative == ".." or relative.startswith("../") else relative

    def _names(self) -> dict[str, list[str]]:
        if self._by_name is None:
            self._by_name = {}
            for folder, folders, files in os.walk(self.root, followlinks=True):
                folders.sort()
                for file in sorted(files):
                    relative = self._below(Path(folder) / file)
                    if relative is not None:
                        self._by_name.setdefault(file, []).append(relative)
        return self._by_name
