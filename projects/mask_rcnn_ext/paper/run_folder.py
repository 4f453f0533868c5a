"""The folder of a stage's run: which key it is being made for, whether it is whole.

The file key.json in it is written before the stage is started and again when it is done. A folder
of another key is moved aside, never emptied; one without the file but with a run in it, made by
hand perhaps, is left to train_net.py, which goes on with a run of the same config and refuses
another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import UserError
from ..files import atomic_write
from ..resources import configs_dir
from .commands import LABELS, names_in_run
from .configs import config_of
from .place import Place
from .spec import Stage

MARKER = "key.json"
_SIGNS = ("run.json", "config.yaml", "model_*.pth", "labels.json", "bench.json")


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """key.json.

    key: of the stage and seed, as `Keys` has it
    state: done where the stage's own command has ended well
    hours: wall time of all starts together
    """

    key: str
    state: Literal["started", "done"]
    hours: float = 0.0


def read_marker(folder: Path) -> Marker | None:
    """None where there is none that can be read."""
    try:
        return msgspec.json.decode((folder / MARKER).read_bytes(), type=Marker)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None


def write_marker(folder: Path, marker: Marker) -> None:
    """
    Raises:
        UserError: the folder cannot be written to
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / MARKER) as file:
            file.write(msgspec.json.encode(marker) + b"\n")
    except OSError as error:
        raise UserError(f"cannot write {folder / MARKER}: {error.strerror}") from error


def is_done(place: Place, stage: Stage, seed: int, key: str, configs: Path | None = None) -> bool:
    """Whether the stage needs no run: it was done for that key, and what others need is there."""
    marker = read_marker(place.run_of(stage, seed))
    if marker is None or marker.key != key or marker.state != "done":
        return False
    return all(path.is_file() for path in outputs_of(place, stage, seed, configs))


def outputs_of(place: Place, stage: Stage, seed: int, configs: Path | None = None) -> list[Path]:
    """The files for which a stage is run."""
    if stage.kind == "proposals":
        config = config_of(stage, configs_dir() if configs is None else configs)
        names = names_in_run(config, "TEST")
        return [place.proposals_of(stage, seed, name) for name in names]
    if stage.kind == "distill":
        return [place.labels_of(stage, seed), place.registry_of(stage, seed)]
    if stage.kind == "time":
        return [place.bench_of(stage, seed)]
    results = place.run_of(stage, seed) / "results.json"
    return [place.weights_of(stage, seed), results] if stage.kind == "train" else [results]


def holds_a_run(folder: Path) -> bool:
    """Whether there is anything in it that a run leaves."""
    return any(next(folder.glob(sign), None) is not None for sign in _SIGNS)


def move_aside(folder: Path) -> Path:
    """Make room for a new run.

    Returns:
        where the old one is now
    """
    number = 1
    while (aside := folder.with_name(f"{folder.name}.old-{number}")).exists():
        number += 1
    try:
        os.rename(folder, aside)
    except OSError as error:
        raise UserError(f"cannot move {folder} to {aside}: {error.strerror}") from error
    return aside


def write_registry(place: Place, stage: Stage, seed: int) -> None:
    """Register a distill stage's labels as a data set of their own.

    Raises:
        UserError: `data distill` has not said where its images are
    """
    path = place.distilled_of(stage, seed)
    try:
        images = os.path.abspath(msgspec.json.decode(path.read_bytes())["image_root"])
    except (OSError, msgspec.DecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not say where the images are: {error}") from error
    labels = place.labels_of(stage, seed).name
    # YAML reads JSON's strings.
    quoted = msgspec.json.encode(images).decode()
    text = f"name: {LABELS}\nformat: coco\nannotations: {labels}\nimages: {quoted}\n"
    with atomic_write(place.registry_of(stage, seed), "w") as file:
        file.write(text)
