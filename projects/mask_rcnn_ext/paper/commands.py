"""A stage as a command line for a process of its own; the words are those that a user would give.

Nothing is started and no file of a run is looked at here.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..resources import configs_dir
from .configs import config_of
from .place import Place
from .spec import Paper, Stage

TOOLS = (sys.executable, "-m", "mask_rcnn_ext.tools")
GATHER = (sys.executable, "-m", "mask_rcnn_ext.tools.tables.gather")
LABELS = "distilled_labels"  # the data set that a stage with `labels` trains on, too
# What a timing in a smoke run is given: one small image, once.
_SMALL_TIMING = ("--images", "1", "--repeats", "1", "--image-size", "96x128")


def pasted(words: Iterable[str]) -> str:
    """Words of a command line as a person would write them for a shell.

    As `shlex.join`, but that a list of names, ['scenes_val'], stands in double quotes.
    """
    return " ".join(
        f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
        for word in words
    )


@dataclass(frozen=True)
class Command:
    """
    Attributes:
        words: the command line
        environment: what it needs beside the one that there is
    """

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Machine:
    """What stages are run on.

    device: cpu or cuda
    gpus: processes of a training or evaluation, one a GPU
    parts: that the images of a training step are computed in, one after the other
    float32: whether instead of the stage's own precision
    """

    device: str
    gpus: int = 1
    parts: int = 1
    float32: bool = False

    def overrides_for(self, stage: Stage) -> dict[str, Any]:
        """Config keys and values, over the stage's own. None of them changes what is measured."""
        given: dict[str, Any] = {}
        if self.parts > 1 and stage.kind == "train":
            given["SOLVER.ACCUMULATION_STEPS"] = self.parts
        if self.float32:
            given |= {"SOLVER.AMP.ENABLED": False, "TEST.PRECISION": "float32"}
        return given


def command_of(
    paper: Paper,
    place: Place,
    stage: Stage,
    seed: int,
    machine: Machine,
    *,
    replace: bool = False,
    smoke: bool = False,
    configs: Path | None = None,
) -> Command:
    """What makes a stage.

    Args:
        replace: whether labels that are there already may be written anew
        smoke: whether a timing is to be a short one; all else is in the stage's overrides
        configs: folder that the stages' configs are in; this project's where none is given
    Raises:
        UsageError: a config that cannot be read
    """
    seed = stage.seed_for(seed)
    config = config_of(stage, configs_dir() if configs is None else configs)
    environment = environment_of(paper, place, stage)
    if stage.kind == "distill":
        words = _distilling(paper, place, stage, seed, machine, config)
        return Command(words if not replace else _before(words, "--output", "--force"), environment)
    if stage.kind == "time":
        return Command(_timing(place, stage, seed, machine, smoke), environment)
    return Command(_training(paper, place, stage, seed, machine, config), environment)


def environment_of(paper: Paper, place: Place, stage: Stage) -> dict[str, str]:
    """Where generated data are; the user's own setting counts for all others."""
    made = [name for name in stage.data if paper.data[name].make]
    return {"DETECTRON2_DATASETS": str(place.root_of(made[0]))} if made else {}


def commands_for_data(paper: Paper, place: Place, name: str) -> list[Command]:
    """What generates data; where they are there already it says so and does nothing."""
    return [
        Command(
            [*TOOLS, "scenes", "--out", str(place.root_of(name) / one.folder), *one.words]
            + ["--quiet"]
        )
        for one in paper.data[name].make
    ]


def gathering(
    paper: Paper,
    place: Place,
    stage: Stage,
    seed: int,
    machine: Machine,
    *,
    key: str,
    code: str,
    smoke: bool = False,
    hours: float | None = None,
    failed: str = "",
) -> Command:
    """What writes the record of a stage that is done, or that has failed.

    Args:
        key: of the stage with this seed
        code: `code_hash`
        hours: wall time, for a stage that does not write it down itself
        failed: why
    """
    words = [*GATHER, "--stage", stage.id, "--seed", str(seed), "--key", key, "--code", code]
    words += ["--out", str(place.folder), "--records", str(place.records), "--scale", stage.scale]
    words += ["--device", machine.device]
    for key, value in machine.overrides_for(stage).items():
        words += ["--given", key, str(value)]
    if hours is not None:
        words += ["--hours", f"{hours:.5f}"]
    if failed:
        words.append(f"--failed={failed}")  # whatever it begins with
    return Command([*words, "--smoke"] if smoke else words, environment_of(paper, place, stage))


# ---- kinds


def _training(
    paper: Paper,
    place: Place,
    stage: Stage,
    seed: int,
    machine: Machine,
    config: dict[str, Any],
) -> list[str]:
    """train_net.py by its other name; with --eval-only of a stage that evaluates or dumps."""
    words = [*TOOLS, "train", "--config-file", f"configs/{stage.config}"]
    if machine.gpus > 1:
        words += ["--num-gpus", str(machine.gpus)]
    if stage.kind in ("evaluate", "proposals"):
        words.append("--eval-only")
    given: dict[str, Any] = {}
    if stage.model is not None:
        given["MODEL.WEIGHTS"] = place.weights_of(paper.stages[stage.model], seed)
    if stage.labels is not None:
        given["DATASETS.TRAIN"] = [*config["DATASETS.TRAIN"], LABELS]
        registry = place.registry_of(paper.stages[stage.labels], seed)
        given["DATASETS.REGISTRY"] = [*config.get("DATASETS.REGISTRY", ()), str(registry)]
    if stage.proposals is not None:
        dump = paper.stages[stage.proposals]
        for key in ("TRAIN", "TEST"):
            names = names_in_run(config, key)
            files = [str(place.proposals_of(dump, seed, name)) for name in names]
            given[f"DATASETS.PROPOSAL_FILES_{key}"] = files
    given |= machine.overrides_for(stage)
    given |= {"SEED": seed, "MODEL.DEVICE": machine.device, "OUTPUT_DIR": place.run_of(stage, seed)}
    return [*words, *_pairs({**stage.overrides, **given})]


def _distilling(
    paper: Paper,
    place: Place,
    stage: Stage,
    seed: int,
    machine: Machine,
    config: dict[str, Any],
) -> list[str]:
    assert stage.model is not None, f"{stage.id} distills without a model"
    images = config["DATASETS.TEST"][0]
    words = [*TOOLS, "data", "distill", "--config-file", f"configs/{stage.config}"]
    words += ["--weights", str(place.weights_of(paper.stages[stage.model], seed))]
    words += ["--images", images]
    for name in config["DATASETS.TRAIN"]:
        words += ["--like", name]
    if stage.proposals is not None:
        dump = paper.stages[stage.proposals]
        words += ["--proposals", str(place.proposals_of(dump, seed, images))]
    if count := config.get("DATASETS.MAX_IMAGES", 0):
        words += ["--limit", str(count)]
    words += ["--output", str(place.labels_of(stage, seed))]
    words += ["--json", str(place.distilled_of(stage, seed)), "--quiet"]
    given = {**machine.overrides_for(stage), "MODEL.DEVICE": machine.device}
    return [*words, *_pairs({**stage.overrides, **given})]


def _timing(place: Place, stage: Stage, seed: int, machine: Machine, smoke: bool) -> list[str]:
    words = [*TOOLS, "bench", "infer", "--config-file", f"configs/{stage.config}"]
    words += ["--device", machine.device, *(_SMALL_TIMING if smoke else ())]
    return [*words, "--json", str(place.bench_of(stage, seed)), *stage.words]


def names_in_run(config: dict[str, Any], key: str) -> list[str]:
    """Data sets of a run as its folders call them; some images of one are a set of their own.

    Args:
        config: as `config_of` gives it
        key: TRAIN or TEST
    """
    count = config.get("DATASETS.MAX_IMAGES", 0)
    return [f"{name}_first{count}" if count else name for name in config[f"DATASETS.{key}"]]


def _pairs(given: dict[str, Any]) -> list[str]:
    return [word for key, value in given.items() for word in (key, str(value))]


def _before(words: list[str], option: str, word: str) -> list[str]:
    at = words.index(option)
    return [*words[:at], word, *words[at:]]
