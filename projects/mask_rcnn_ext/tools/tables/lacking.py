"""What must be there before stages can run, and what of it is not. No file is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...data.registration.catalog import entry_of
from ...data.registration.paths import path_of
from ...data.spec import DatasetSpec, Part
from ...paper import Data, Paper, Stage


@dataclass(frozen=True)
class Needs:
    """
    Attributes:
        data: name -> files and folders of it that are not there
        weights: name -> whether a user's file is not there; published weights are fetched
    """

    data: dict[str, tuple[str, ...]]
    weights: dict[str, bool]

    @property
    def lacking(self) -> str:
        """ "data", "weights", "both" or ""."""
        data, weights = any(self.data.values()), any(self.weights.values())
        return "both" if data and weights else "data" if data else "weights" if weights else ""


class Looking:
    """Looks for each thing once; folders may be on slow disks."""

    def __init__(self, paper: Paper):
        self._paper = paper
        self._data: dict[str, tuple[str, ...]] = {}

    def needs_of(self, stages: Iterable[Stage]) -> Needs:
        """What the stages read that no other stage makes."""
        stages = tuple(stages)
        for stage in stages:
            for name in stage.data:
                if name not in self._data:
                    self._data[name] = missing_of(self._paper.data[name])
        weights = {s.weights: self._paper.weights[s.weights] for s in stages if s.weights}
        return Needs(
            {name: self._data[name] for name in dict.fromkeys(n for s in stages for n in s.data)},
            {
                name: not one.is_published and not Path(one.address).expanduser().is_file()
                for name, one in weights.items()
            },
        )


def missing_of(data: Data) -> tuple[str, ...]:
    """Files and folders of these sets that are not there; a set that nobody registered by name.

    Data that are generated never miss: whoever runs a stage makes them.
    """
    if data.make:
        return ()
    return tuple(dict.fromkeys(path for name in data.sets for path in missing_of_set(name)))


def missing_of_set(name: str) -> list[str]:
    """As `missing_of`, of one set."""
    entry = entry_of(name)
    if entry is None:
        return [f"{name} (not registered)"]
    spec = entry.spec
    if spec.split:  # Cityscapes goes by its tree
        tree = [path_of(spec, f"{folder}/{spec.split}") for folder in ("leftImg8bit", "gtFine")]
        return [path for path in tree if not os.path.isdir(path)]
    # As the registration chooses: the files of the first way, or else the second one's.
    first_is_there = os.path.exists(path_of(spec, spec.parts[0].annotations))
    parts = spec.parts if first_is_there or not spec.if_missing else spec.if_missing
    return _missing_parts(spec, parts)


def _missing_parts(spec: DatasetSpec, parts: Sequence[Part]) -> list[str]:
    missing = []
    for part in parts:
        one_of_each = [[part.annotations], [part.images], part.only_images_of]
        for choices in (*one_of_each, part.without_images_of):
            paths = [path_of(spec, text) for text in choices if text]
            if paths and not any(os.path.exists(path) for path in paths):
                missing.append(paths[-1])
    return missing
