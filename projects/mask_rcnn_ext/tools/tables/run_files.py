"""The files that a stage's commands leave, as far as a record takes from them, with their types."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from ...errors import UserError

_T = TypeVar("_T")
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Figures = dict[str, float | None]  # results.json


class Start(msgspec.Struct):
    """One of the starts of a run; `reached`: steps done at its last checkpoint."""

    reached: int | None = None


class Run(msgspec.Struct):
    """run.json, of `engine.record`; what is measured comes later than the rest."""

    state: str
    seed: int
    commit: str | None
    versions: dict[str, str]
    device: str
    threads: int
    precision: dict[str, str]
    datasets: dict[str, str]
    started: str
    starts: list[Start]
    wall_seconds: float = 0.0
    peak_memory_mb: float | None = None
    peak_gpu_memory_mb: float | None = None


class Side(msgspec.Struct):
    """seconds: stage -> of all images, one a turn."""

    seconds: dict[str, list[float]]
    images_per_second: float


class Bench(msgspec.Struct):
    """`bench infer --json`."""

    images: int
    ours: Side
    device_name: str
    threads: int
    precision: str


class Threshold(msgspec.Struct):
    """score: from which on predictions are labels; None if none are."""

    score: float | None


class LabelInfo(msgspec.Struct):
    """What `data distill` says of its labels; a threshold for all classes, or one for each."""

    images: int
    objects: int
    objects_per_image: float
    thresholds: list[Threshold]


class Labels(msgspec.Struct):
    """The annotation file of `data distill`; all but this is large, and passed over."""

    info: LabelInfo


class Sets(msgspec.Struct):
    """DATASETS of a config."""

    TEST: list[str]
    REGISTRY: list[str]
    MAX_IMAGES: int


class Testing(msgspec.Struct):
    """TEST of a config."""

    DETECTIONS_PER_IMAGE: int
    KEYPOINT_OKS_SIGMAS: list[float]


class Config(msgspec.Struct):
    """config.yaml."""

    DATASETS: Sets
    TEST: Testing


def read_file(path: Path, kind: type[_T]) -> _T:
    """
    Args:
        path: JSON, or YAML if its name says so
        kind: what it holds
    Raises:
        UserError: it is not there or holds something else; names it and the field
    """
    try:
        content = path.read_bytes()
        if path.suffix != ".yaml":
            return msgspec.json.decode(content, type=kind)
        return msgspec.convert(yaml.load(content, _SafeLoader), kind)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not what a run leaves: {error}") from error
