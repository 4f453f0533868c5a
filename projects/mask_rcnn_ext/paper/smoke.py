"""Stand-ins for smoke runs: every stage goes through in seconds, and nothing is measured.

configs/paper/smoke.yaml says what stands in for which data set, and what makes any stage small.
`stand_ins` puts it into the stages themselves, so that all that follows (keys, commands, records)
needs to know nothing of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from ..errors import UsageError
from ..resources import configs_dir
from .configs import config_of
from .spec import Data, Paper, Positive, Scenes, Stage, Text, nearest

_SETS = ("DATASETS.TRAIN", "DATASETS.TEST")
_FOLDER = "smoke"  # below --out: a smoke run is never taken for a run


class StandIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is used in place of a data set.

    sets: of the data set -> instead; "" where nothing is
    images, gigabytes, address: as of any data
    make: how it is generated, where it is
    overrides: config keys that follow from it
    """

    sets: dict[Text, str]
    images: int
    gigabytes: Positive
    address: Text
    make: tuple[Scenes, ...] = ()
    overrides: dict[str, Any] = {}


class Smoke(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    overrides: config keys and values for every stage, over its own
    hours: of any stage, about
    at_most: generated images of a split, where the stage's own data are generated
    data: name in stages.yaml -> what stands in for it
    """

    overrides: dict[str, Any]
    hours: Positive
    at_most: Annotated[int, msgspec.Meta(ge=2)]
    data: dict[str, StandIn]

    @property
    def as_json(self) -> dict[str, Any]:
        """For the content hash (`Keys`)."""
        content: dict[str, Any] = msgspec.to_builtins(self)
        return content


def load_smoke(path: Path | None = None) -> Smoke:
    """
    Args:
        path: configs/paper/smoke.yaml of this project where none is given
    Raises:
        UsageError: a file that is missing or wrong
    """
    path = configs_dir() / "paper" / "smoke.yaml" if path is None else path
    try:
        return msgspec.convert(yaml.safe_load(path.read_text(encoding="utf-8")), Smoke)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read: {reason}") from error
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from None


def folder_of(out: Path) -> Path:
    """Where smoke runs lie."""
    return out / _FOLDER


def stand_ins(paper: Paper, smoke: Smoke, configs: Path | None = None) -> Paper:
    """The same stages with stand-ins for data and schedule.

    Raises:
        UsageError: smoke.yaml names data that there are not; a config that cannot be read
    """
    for name in smoke.data:
        if name not in paper.data:
            raise UsageError(
                f"configs/paper/smoke.yaml: unknown data {name!r}{nearest(name, paper.data)}"
            )
    data = {name: _data(one, smoke, smoke.data.get(name)) for name, one in paper.data.items()}
    folder = configs_dir() if configs is None else configs
    stages = {name: _stage(one, smoke, folder) for name, one in paper.stages.items()}
    return msgspec.structs.replace(paper, data=data, stages=stages)


def _data(data: Data, smoke: Smoke, instead: StandIn | None) -> Data:
    if instead is None:
        few = tuple(
            msgspec.structs.replace(
                one,
                images=min(one.images, smoke.at_most),
                val_images=min(one.val_images, smoke.at_most),
            )
            for one in data.make
        )
        return msgspec.structs.replace(data, make=few)
    return Data(
        sets=tuple(dict.fromkeys(name for name in instead.sets.values() if name)),
        images=instead.images,
        gigabytes=instead.gigabytes,
        address=instead.address,
        make=instead.make,
    )


def _stage(stage: Stage, smoke: Smoke, configs: Path) -> Stage:
    said: dict[str, Any] = {
        "hours": smoke.hours,
        "hours_from": "a smoke run",
        "hardware": "any machine",
    }
    if stage.kind == "time":  # a model in its own size; that it is short is in its command
        return msgspec.structs.replace(stage, **said)
    config = config_of(stage, configs)
    other = {key: value for one in stage.data for key, value in _sets_of(smoke, one).items()}
    sets = {
        key: list(dict.fromkeys(new for name in config[key] if (new := other.get(name, name))))
        for key in _SETS
        if key in config
    }
    follows = {
        key: value
        for one in stage.data
        if one in smoke.data
        for key, value in smoke.data[one].overrides.items()
    }
    overrides = {**stage.overrides, **smoke.overrides, **sets, **follows}
    if stage.model is not None:
        overrides.pop("MODEL.WEIGHTS", None)
    return msgspec.structs.replace(stage, overrides=overrides, weights=None, **said)


def _sets_of(smoke: Smoke, data: str) -> dict[str, str]:
    return smoke.data[data].sets if data in smoke.data else {}
