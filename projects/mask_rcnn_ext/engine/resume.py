"""What a command means in a folder that holds a run already: go on, finished, or another run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ..config import flatten, load_config
from ..errors import UsageError

# What a change of a key does to a run that goes on with it; the longest prefix counts.
TRAINING, EVALUATION, NOTHING = "the training", "the evaluation", "no figure"
_EFFECTS = {
    "": TRAINING,
    "CUDNN_BENCHMARK": NOTHING,
    "DATALOADER.NUM_WORKERS": NOTHING,
    "DATASETS.CHECK": NOTHING,
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": EVALUATION,
    "DATASETS.PROPOSAL_FILES_TEST": EVALUATION,
    "DATASETS.REGISTRY": NOTHING,
    "DATASETS.TEST": EVALUATION,
    "INPUT.MAX_SIZE_TEST": EVALUATION,
    "INPUT.MIN_SIZE_TEST": EVALUATION,
    "LOG": NOTHING,
    "MODEL.CLASS_TRANSFER": NOTHING,  # of the weights that the run began with
    "MODEL.FOLD_NORMS": NOTHING,
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": EVALUATION,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": EVALUATION,
    "MODEL.RPN.POST_NMS_TOPK_TEST": EVALUATION,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": EVALUATION,
    "MODEL.WEIGHTS": NOTHING,  # the checkpoint's are taken
    "OUTPUT_DIR": NOTHING,
    "SOLVER.CHECKPOINTS_KEPT": NOTHING,
    "SOLVER.CHECKPOINT_PERIOD": NOTHING,
    "TEST": EVALUATION,
    "TEST.EVAL_PERIOD": EVALUATION,
    "TEST.PRECISE_BN": TRAINING,
    "VIS_PERIOD": NOTHING,
}


@dataclass(frozen=True)
class Change:
    """A key whose value is not that of the run before."""

    key: str
    before: Any
    now: Any

    @property
    def effect(self) -> str:
        parts = self.key.split(".")
        prefixes = (".".join(parts[:n]) for n in range(len(parts), -1, -1))
        return next(_EFFECTS[prefix] for prefix in prefixes if prefix in _EFFECTS)

    def __str__(self) -> str:
        return f"{self.key}: {self.before!r} -> {self.now!r} (changes {self.effect})"


@dataclass(frozen=True)
class Earlier:
    """What the folder says of the run that was in it before.

    has_checkpoint: a file that looks like one; whether it can be read shows when it is
    finished: with all figures written
    seed: of its config; None if that cannot be read
    changes: of the config since then
    """

    has_checkpoint: bool
    finished: bool
    seed: int | None
    changes: tuple[Change, ...]

    @property
    def matter(self) -> list[Change]:
        return [change for change in self.changes if change.effect != NOTHING]


def look_at(folder: str | Path, cfg: CfgNode) -> Earlier | None:
    """
    Args:
        folder: OUTPUT_DIR
        cfg: of the run that is to start
    Returns:
        None where no run has been
    """
    folder = Path(folder)
    record = _read_json(folder / "run.json")
    checkpoints = list(folder.glob("model_*.pth"))
    if not record and not checkpoints:
        return None
    before = _read_config(folder / "config.yaml")
    seed = before.get("SEED")
    return Earlier(
        has_checkpoint=bool(checkpoints),
        finished=record.get("state") == "finished" and (folder / "model_final.pth").exists(),
        seed=seed if isinstance(seed, int) and seed >= 0 else None,
        changes=tuple(changes_of(before, cfg)) if before else (),
    )


def changes_of(before: Mapping[str, Any], cfg: CfgNode) -> list[Change]:
    """
    Args:
        before: content of a config.yaml; a key that it lacks had its default value
        cfg: its SEED may be -1, which asks for any
    """
    old, new = dict(flatten(before)), dict(flatten(yaml.safe_load(cfg.dump())))
    defaults = dict(flatten(yaml.safe_load(load_config(None).dump())))
    changes = [Change(key, old.get(key, defaults.get(key)), value) for key, value in new.items()]
    return [
        change
        for change in changes
        if change.before != change.now and not (change.key == "SEED" and change.now == -1)
    ]


def goes_on(earlier: Earlier | None, folder: str, *, asked: bool) -> bool:
    """Whether the run in the folder goes on; without --resume it does if it is the same run.

    Raises:
        UsageError: it is another one, and --resume was not given
    """
    if earlier is None or not earlier.has_checkpoint:
        return False
    logger = logging.getLogger(__name__)
    if asked:
        for change in earlier.changes:
            logger.warning("Other than in the run before: %s", change)
        return True
    others = [change for change in earlier.changes if change.effect == TRAINING]
    if others:
        listed = "\n  ".join(map(str, others[:10]))
        more = f"\n  and {len(others) - 10} more" if len(others) > 10 else ""
        raise UsageError(
            f"OUTPUT_DIR {folder} holds checkpoints of a run with another config:\n  {listed}{more}"
            "\nAdd --resume to go on with that run under the new config, or choose another "
            "folder: OUTPUT_DIR my/folder"
        )
    for change in earlier.changes:
        logger.info("Other than in the run before: %s", change)
    return True


def is_finished(earlier: Earlier | None) -> bool:
    """Whether there is nothing to do: it is finished, and nothing that matters has changed."""
    return earlier is not None and earlier.finished and not earlier.matter


def sentence(start_iter: int, max_iter: int, source: str) -> str:
    """One sentence for the log: what is loaded, from which iteration, what will happen.

    Args:
        start_iter: steps done
        max_iter: steps in all
        source: the checkpoint's name, or the weights of a new run, "" for none
    """
    if not start_iter:
        start = f"from the weights {source}" if source else "from random weights"
        return f"A new run {start}: {max_iter} iterations, then the evaluation."
    state = f"Going on from {source}, with its optimizer, schedule, random numbers and figures:"
    if start_iter > max_iter:
        return f"{state} {start_iter} iterations are done, more than the {max_iter} asked for."
    if start_iter == max_iter:
        return f"{state} all {max_iter} iterations are done, the evaluation is left."
    left = max_iter - start_iter
    return f"{state} {start_iter} of {max_iter} iterations are done, {left} follow."


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return value if isinstance(value, dict) else {}
