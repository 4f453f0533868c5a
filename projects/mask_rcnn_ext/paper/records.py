"""What is kept of a run: a small folder that a report needs nothing else beside.

    RECORDS/<scale>/<stage>/seed_<n>/
        record.json          written last; names the other files with their sha256
        matches_<task>.npz   which detection of which image is right, for the bootstrap
        pictures.webp        best, median and worst image, of the first seed

A record that is not whole is not used, and whoever reads says so.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from ..errors import UserError
from ..files import atomic_write
from .spec import Scale

RECORD = "record.json"
FORMAT = 1


class _AnyFormat(msgspec.Struct):
    format: int


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One stage with one seed.

    format: FORMAT
    scale: of the stage
    smoke: whether data or schedule were stand-ins, to see that all stages go through
    stage, kind, seed: which
    key: content hash: config, seed, code, data, and the keys of the stages that it needs
    code: hash of the code that can change a result (`code_version`)
    state, reason: how it ended; a failed one has no results
    config, overrides: below configs/, and KEY VALUE words, without places of this machine
    results: results.json: AP in percent; None where there is no such figure
    hours: wall time of all starts together
    iterations, seconds_per_iteration: of a training
    memory_mb, gpu_memory_mb: peak, MiB
    device, machine, threads: as run.json has the device; the processor's name; threads a process
    precision: of training
    commit: git's, with +changes where the checkout had some; None outside a checkout
    versions: package -> version
    datasets: data set -> fingerprint of its annotations
    started: UTC, ISO 8601
    curve: (iteration, total loss), some dozens
    files: name -> sha256
    """

    format: int
    scale: Scale
    smoke: bool
    stage: str
    kind: str
    seed: int
    key: str
    code: str
    state: Literal["finished", "failed"]
    reason: str = ""
    config: str
    overrides: list[str]
    results: dict[str, float | None]
    hours: float
    iterations: int | None = None
    seconds_per_iteration: float | None = None
    memory_mb: float | None = None
    gpu_memory_mb: float | None = None
    device: str
    machine: str
    threads: int | None = None
    precision: str = ""
    commit: str | None
    versions: dict[str, str]
    datasets: dict[str, str]
    started: str
    curve: list[tuple[int, float]] = []
    files: dict[str, str] = {}


@dataclass(frozen=True)
class Kept:
    """A record and its folder."""

    record: Record
    folder: Path

    def file(self, name: str) -> Path | None:
        """One of its files; None if it has no such file."""
        return self.folder / name if name in self.record.files else None


def record_folder(records: Path, scale: str, stage: str, seed: int) -> Path:
    """Where a record is kept.

    Args:
        scale: "coco", "scenes" or "smoke"
    """
    return records / scale / stage / f"seed_{seed}"


def write_record(folder: Path, record: Record) -> None:
    """
    Args:
        folder: holds record.files already, which are hashed here
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: _sha256(folder / name) for name in sorted(record.files)}
    content = msgspec.json.encode(msgspec.structs.replace(record, files=files))
    with atomic_write(folder / RECORD) as file:
        file.write(msgspec.json.format(content, indent=1) + b"\n")


def read_record(folder: Path) -> Kept:
    """
    Raises:
        UserError: it is not there or not whole; says what is wrong
    """
    path = folder / RECORD
    try:
        content = path.read_bytes()
        number = msgspec.json.decode(content, type=_AnyFormat).format
        if number != FORMAT:
            raise UserError(f"{path} has format {number}, this version reads {FORMAT}")
        record = msgspec.json.decode(content, type=Record)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a whole record: {error}") from error
    for name, digest in record.files.items():
        file = folder / name
        if Path(name).name != name or not file.is_file():
            raise UserError(f"{path} names {name}, which is not there")
        if _sha256(file) != digest:
            raise UserError(f"{file} is not the file that {RECORD} was written for")
    return Kept(record, folder)


def find_records(records: Path, scale: str) -> Iterator[Kept | UserError]:
    """All of a scale, by stage and seed; an error in place of one that cannot be used.

    Args:
        scale: "coco", "scenes" or "smoke"
    """
    folders = [path for path in (records / scale).glob("*/seed_*") if path.is_dir()]
    for folder in sorted(folders, key=lambda path: (path.parent.name, len(path.name), path.name)):
        try:
            kept = read_record(folder)
            _check_place(kept, records)
        except UserError as error:
            yield error
        else:
            yield kept


def _check_place(kept: Kept, records: Path) -> None:
    """Refuse a folder that was copied under another name: its run would count twice."""
    record = kept.record
    own = "smoke" if record.smoke else record.scale
    if record_folder(records, own, record.stage, record.seed) != kept.folder:
        raise UserError(
            f"{kept.folder / RECORD} is of {own} stage {record.stage} with seed {record.seed}, "
            "which is not what its folders are called"
        )


def fingerprints_in(found: Iterable[Kept | UserError]) -> dict[str, str]:
    """Data set -> fingerprint of its annotations, as the newest record that read it has it."""
    records = [one.record for one in found if isinstance(one, Kept)]
    records.sort(key=lambda record: (record.started, record.stage, record.seed))
    return {name: value for record in records for name, value in record.datasets.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
