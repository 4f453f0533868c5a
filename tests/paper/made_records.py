"""Records and matches made by hand, for the tests of what is computed from them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from mask_rcnn_ext.paper import Paper, Stage, load_paper
from mask_rcnn_ext.paper.matches_file import THRESHOLDS, Matches, write_matches
from mask_rcnn_ext.paper.records import FORMAT, Kept, Record
from mask_rcnn_ext.paper.state import Sorted

NOWHERE = Path("nowhere")


def paper_with(small: Mapping[str, Iterable[str]] | None = None) -> Paper:
    """The paper with the stages of its own protocol, and these on generated data.

    Args:
        small: stage -> stages that it stands for
    """
    paper = load_paper()
    stages = {name: stage for name, stage in paper.stages.items() if stage.scale == "coco"}
    for name, others in (small or {}).items():
        like = paper.stages[next(iter(others))]
        stages[name] = Stage(
            id=name,
            scale="scenes",
            kind=like.kind,
            config=like.config,
            overrides=like.overrides,
            model="small_model" if like.model else None,
            data=("scenes",),
            hours=0.1,
            hours_from="a test",
            hardware="2 CPU cores",
            stands_for=tuple(others),
        )
    return msgspec.structs.replace(paper, stages=stages)


def kept(stage: str, seed: int, folder: Path = NOWHERE, **fields) -> Kept:
    """A finished record; `fields` say what is different."""
    given = {
        "format": FORMAT,
        "scale": "coco",
        "smoke": False,
        "stage": stage,
        "kind": "train",
        "seed": seed,
        "key": f"{stage}-{seed}",
        "code": "code",
        "state": "finished",
        "config": "some.yaml",
        "overrides": [],
        "results": {},
        "hours": 1.0,
        "device": "cpu",
        "machine": "a processor",
        "commit": "abc",
        "versions": {},
        "datasets": {},
        "started": "2026-01-01T00:00:00Z",
    }
    return Kept(Record(**{**given, **fields}), folder)


def by_seed(*records: Kept) -> dict[str, dict[int, Kept]]:
    found: dict[str, dict[int, Kept]] = {}
    for one in records:
        found.setdefault(one.record.stage, {})[one.record.seed] = one
    return found


def current(*records: Kept) -> Sorted:
    return Sorted(current=by_seed(*records))


def made_matches(reached: Iterable[int], ground_truth: str = "a set") -> Matches:
    """A set with one object and one detection an image, of one category.

    Args:
        reached: number of thresholds at which each image's detection is right, by falling score
    """
    levels = np.array(list(reached))
    images = np.arange(len(levels))
    return Matches(
        ground_truth=ground_truth,
        num_images=len(levels),
        starts=np.array([0, len(levels)]),
        image=images,
        score=np.zeros(len(levels), np.uint8),
        tied=np.zeros(len(levels), bool),
        right=(2**levels - 1).astype(np.uint16),
        ignored=np.zeros(len(levels), np.uint16),
        object_starts=np.array([0, len(levels)]),
        object_image=images,
        object_count=np.ones(len(levels), np.int64),
    )


def kept_with_matches(
    folder: Path, stage: str, seed: int, matches: Mapping[str, Matches], **fields
) -> Kept:
    """
    Args:
        matches: task -> matches, which are written
    """
    folder = folder / stage / f"seed_{seed}"
    folder.mkdir(parents=True)
    files = {f"matches_{task}.npz": one for task, one in matches.items()}
    for name, one in files.items():
        write_matches(folder / name, one)
    return kept(stage, seed, folder, files=dict.fromkeys(files, ""), **fields)


def levels(images: int, mean: float, seed: int = 0) -> list[int]:
    """Numbers of thresholds for `made_matches`, `mean` of them on average."""
    drawn = random.Random(seed)  # numpy's may change with its version
    chance = mean / THRESHOLDS
    return [sum(drawn.random() < chance for _ in range(THRESHOLDS)) for _ in range(images)]
