"""A run's folder of checkpoints: their names, which one is whole, which may go.

    model_0000999.pth   periodic, named after its iteration (0-based, the last one that was done)
    model_final.pth     of the last step
    model_best.pth      weights with the best figure; no state to go on from
    model_ema.pth       the averaged weights of the last step
    last_checkpoint     the pointer: the name of the file to go on from

The pointer is written after its file. It is only a hint here: what counts is what can be read.
"""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .weights.safe_read import read_weights
from .weights.torch_file import damaged_entry

POINTER = "last_checkpoint"
FINAL = "model_final.pth"
BEST = "model_best.pth"
AVERAGED = "model_ema.pth"
_PERIODIC = re.compile(r"model_(\d{7,})\.pth")
WRITTEN = re.compile(rf"model_(\d{{7,}}|final|best|ema)\.pth|{POINTER}")


@dataclass(frozen=True)
class ResumePoint:
    """A whole checkpoint. iteration: 0-based, the last one that was done; None if it says none."""

    path: Path
    iteration: int | None

    def __str__(self) -> str:
        of = "" if self.iteration is None else f" of iteration {self.iteration}"
        return f"{self.path}{of}"


@dataclass(frozen=True)
class Search:
    """point: the newest whole checkpoint, or None. passed_over: a message each that was tried."""

    point: ResumePoint | None
    passed_over: list[str]


def periodic_name(iteration: int) -> str:
    """Without suffix, as `Checkpointer.save` takes it."""
    return f"model_{iteration:07d}"


def newest_whole(folder: str | Path, parts: Sequence[str] = ()) -> Search:
    """The checkpoint of the pointer, or the newest of the others, that can be read to its end.

    Args:
        folder: may be missing
        parts: what a checkpoint must hold beside the model
    Raises:
        UserError: the folder cannot be looked into
    """
    try:
        return _newest_whole(Path(folder), parts)
    except OSError as error:
        raise UserError(f"cannot look into {folder}: {error.strerror or error}") from error


def _newest_whole(folder: Path, parts: Sequence[str]) -> Search:
    passed_over = []
    pointed = _pointed(folder)
    if pointed is not None and not (folder / pointed).is_file():
        passed_over.append(f"{folder / POINTER} names {pointed!r}, and there is no such file")
        pointed = None
    elif pointed is None and (folder / POINTER).exists():
        passed_over.append(f"{folder / POINTER} names no file")
    for path in _in_order(folder, pointed):
        try:
            return Search(ResumePoint(path, _read_whole(path, parts)), passed_over)
        except UserError as error:
            passed_over.append(str(error))
    return Search(None, passed_over)


def superfluous(folder: str | Path, keep: int, iteration: int) -> list[Path]:
    """Periodic checkpoints that may be deleted, oldest first.

    Args:
        keep: so many stay, at least 1
        iteration: of the newest one. Later ones are of a run that was taken back, and stay too
    """
    folder = Path(folder)
    found = {_iteration_in(path.name): path for path in _periodic(folder)}
    past = sorted(number for number in found if number <= iteration)
    return [found[number] for number in past[:-keep] if found[number].name != _pointed(folder)]


def _pointed(folder: Path) -> str | None:
    """What the pointer says, if it is the name of a file."""
    try:
        text = (folder / POINTER).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None
    # Garbage may be as long as it likes; a folder's entry is not.
    plain = text.isprintable() and "/" not in text and 0 < len(text.encode()) < 256
    return text if plain else None


def _periodic(folder: Path) -> list[Path]:
    found = folder.glob("model_*.pth")
    return [path for path in found if _PERIODIC.fullmatch(path.name) and path.is_file()]


def _iteration_in(name: str) -> int:
    found = _PERIODIC.fullmatch(name)
    return -1 if found is None else int(found[1])


def _in_order(folder: Path, pointed: str | None) -> Iterator[Path]:
    """The pointer's first, then from the newest to the oldest."""
    if pointed is not None:
        yield folder / pointed
    final = [folder / FINAL] if (folder / FINAL).exists() else []
    others = [path for path in _periodic(folder) + final if path.name != pointed]
    yield from sorted(others, key=_age, reverse=True)


def _age(path: Path) -> float:
    """Its iteration; which one is final only the file itself knows."""
    if path.name != FINAL:
        return _iteration_in(path.name)
    try:
        found = _read_whole(path, ())
    except UserError:
        return math.inf  # so that it is tried, and passed over with its reason
    return -1 if found is None else found


def _read_whole(path: Path, parts: Sequence[str]) -> int | None:
    """
    Returns:
        the iteration
    Raises:
        UserError: why one cannot go on from it
    """
    content = read_weights(path)
    if zipfile.is_zipfile(path):
        _check_sums(path)
    content = content if isinstance(content, dict) else {}
    missing = [part for part in ("model", *parts) if part not in content]
    if missing:
        raise UserError(f"{path} cannot be gone on from: it lacks {', '.join(missing)}")
    iteration = content.get("iteration")
    return iteration if isinstance(iteration, int) else None


def _check_sums(path: Path) -> None:
    """torch.load does not look at the checksums that torch.save writes."""
    damaged = damaged_entry(path)
    if damaged is not None:
        raise UserError(f"{path} is damaged: {damaged} does not have its checksum")
