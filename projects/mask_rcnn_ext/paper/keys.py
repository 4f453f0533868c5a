"""The content hash of a stage with a seed: what a result depends on, and nothing else.

    key = kind + config + seed + keys of the stages that it needs + code + data

A record with the key that is asked for needs no run; `state.sort_records` says what others are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError, UserError
from ..resources import configs_dir
from .configs import config_of
from .spec import Paper, Stage, nearest

# Config keys that whoever runs a stage sets: places of the machine, and the seed, which is in the
# key by itself.
_SET_BY_THE_RUN = ("OUTPUT_DIR", "SEED", "MODEL.DEVICE")
# A stage's reference -> config keys whose files come from that stage.
_FROM_STAGES = {
    "model": ("MODEL.WEIGHTS",),
    "proposals": ("DATASETS.PROPOSAL_FILES_TRAIN", "DATASETS.PROPOSAL_FILES_TEST"),
    "labels": (),
}
# The lists of data sets that a kind of stage reads.
_READS = {
    "train": ("DATASETS.TRAIN", "DATASETS.TEST"),
    "evaluate": ("DATASETS.TEST",),
    "proposals": ("DATASETS.TEST",),
    "distill": ("DATASETS.TRAIN", "DATASETS.TEST"),
    "time": (),
}


class UnknownStage(UsageError):
    """A stage that the paper does not have, or no longer has."""


class NoFingerprint(UserError):
    """Real data that are not there, so that nobody can say whether they are those of a record."""


class Keys:
    """Computes each key once."""

    def __init__(
        self,
        paper: Paper,
        *,
        code: str,
        fingerprint: Callable[[str], str],
        smoke: Any = None,
        configs: Path | None = None,
    ):
        """
        Args:
            code: `code_hash`
            fingerprint: name of a data set, as in DATASETS.TRAIN -> of its annotations; raises
                NoFingerprint where it cannot say. Asked for real data alone, not in smoke runs
            smoke: what stands in for data and schedule in smoke runs, for JSON
            configs: folder that the stages' configs are in; this project's where none is given
        """
        self._paper = paper
        self._code = code
        self._fingerprint = fingerprint
        self._smoke = smoke
        self._configs = configs_dir() if configs is None else configs
        self._contents: dict[str, dict[str, Any]] = {}
        self._keys: dict[tuple[str, int], str] = {}

    def key_of(self, stage: str, seed: int) -> str:
        """
        Args:
            stage: its id
        Returns:
            sha256, 64 hex digits
        Raises:
            UnknownStage: no such stage
            NoFingerprint: real data that it or a stage below it reads are not there
            UsageError: a config that cannot be read
        """
        content = self._content_of(stage)
        one = self._paper.stages[stage]
        seed = one.seed_for(seed)  # with which those below it are run, too
        if (stage, seed) not in self._keys:
            content = {**content, "seed": seed}
            content["needs"] = {
                role: self.key_of(name, seed)
                for role in _FROM_STAGES
                if (name := getattr(one, role)) is not None
            }
            text = json.dumps(content, sort_keys=True, allow_nan=False)
            self._keys[stage, seed] = hashlib.sha256(text.encode()).hexdigest()
        return self._keys[stage, seed]

    def _content_of(self, name: str) -> dict[str, Any]:
        """All but the seed and what it needs."""
        if name not in self._contents:
            if name not in self._paper.stages:
                raise UnknownStage(f"there is no stage {name!r}{nearest(name, self._paper.stages)}")
            stage = self._paper.stages[name]
            config = config_of(stage, self._configs)
            content = {
                "kind": stage.kind,
                "config": _without_places(config, stage),
                "code": self._code,
                "data": self._data_of(stage, config),
            }
            if self._smoke is not None:
                content["smoke"] = self._smoke
            self._contents[name] = content
        return self._contents[name]

    def _data_of(self, stage: Stage, config: Mapping[str, Any]) -> dict[str, Any]:
        """Of generated data what they are made with, of real ones their fingerprints."""
        read = sets_read(stage, config)
        found: dict[str, Any] = {}
        for name in stage.data:
            data = self._paper.data[name]
            if data.make:
                found[name] = [[one.folder, *one.words] for one in data.make]
            elif self._smoke is None:
                found |= {one: self._fingerprint(one) for one in data.sets if one in read}
        return found


def sets_read(stage: Stage, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the data sets that a stage reads, each once.

    Args:
        config: as `config_of` gives it
    """
    return tuple(dict.fromkeys(name for key in _READS[stage.kind] for name in config.get(key, ())))


def _without_places(config: Mapping[str, Any], stage: Stage) -> dict[str, Any]:
    left_out = set(_SET_BY_THE_RUN)
    for role, keys in _FROM_STAGES.items():
        if getattr(stage, role) is not None:
            left_out.update(keys)
    return {key: value for key, value in config.items() if key not in left_out}
