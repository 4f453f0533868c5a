"""The recipe guard: learning rate and schedule for the batch that a run has.

A config's BASE_LR, MAX_ITER and so on are written for one number of images a step. With another
number they follow by the linear scaling rule (Goyal et al. 2017, arXiv 1706.02677): k times the
images, k times the learning rate, and the same images in 1/k of the steps. Adam's step does not
grow with the gradient's noise in that way; for it the rate takes the square root of k (Malladi et
al. 2022, arXiv 2205.10287).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ..config import find_config, flatten
from ..errors import UsageError

_BATCH = "SOLVER.IMS_PER_BATCH"
_REFERENCE = "SOLVER.REFERENCE_BATCH"
# A file that gives one of these beside its batch is written for that batch.
_OF_A_SCHEDULE = ("SOLVER.BASE_LR", "SOLVER.MAX_ITER", "SOLVER.STEPS")


def check_recipe_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: a negative SOLVER.REFERENCE_BATCH; two rules for one schedule
    """
    if cfg.SOLVER.REFERENCE_BATCH < 0:
        raise UsageError(
            f"{_REFERENCE} is {cfg.SOLVER.REFERENCE_BATCH}, expected the images a step that the "
            "config is written for, or 0 to derive nothing"
        )
    if cfg.SOLVER.REFERENCE_BATCH and cfg.SOLVER.REFERENCE_WORLD_SIZE:
        raise UsageError(
            f"{_REFERENCE} is {cfg.SOLVER.REFERENCE_BATCH} and SOLVER.REFERENCE_WORLD_SIZE "
            f"{cfg.SOLVER.REFERENCE_WORLD_SIZE}: both would change the schedule. For Detectron2's "
            f"rule by GPUs add {_REFERENCE} 0; for the one by images set "
            "SOLVER.REFERENCE_WORLD_SIZE 0"
        )


def check_shares(cfg: CfgNode, processes: int, named: Collection[str] = ()) -> None:
    """Whether the processes can share a batch, and the parts of accumulation each of theirs.

    Args:
        processes: of the whole run, --num-gpus times --num-machines
        named: keys that the command line names
    Raises:
        UsageError: they cannot; names batches that can be shared
    """
    batch, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS
    unit = processes * parts
    if batch % unit == 0:
        return
    below, above = batch // unit * unit, -(-batch // unit) * unit
    good = " or ".join(str(size) for size in (below, above) if size)
    sharers = f"{processes} processes" if processes > 1 else "one process"
    sharers += f" with SOLVER.ACCUMULATION_STEPS {parts}" if parts > 1 else ""
    source = "" if _BATCH in named else " in this config"
    follows = "; learning rate and schedule follow" if cfg.SOLVER.REFERENCE_BATCH else ""
    raise UsageError(
        f"{_BATCH} is {batch}{source}, which {sharers} cannot share evenly; take {good}: "
        f"{_BATCH} {below or above}{follows}"
    )


@dataclass(frozen=True)
class Row:
    """One key: its value in the config, the one for this run, and why it is that one."""

    key: str
    written: Any
    here: Any
    why: str = ""


@dataclass(frozen=True)
class Derivation:
    """
    Attributes:
        reference, batch: images a step, of the config and of this run
        rows: the keys of the schedule, changed or not; none if the batches are the same
        advice: what else could be done, or ""
    """

    reference: int
    batch: int
    rows: tuple[Row, ...] = ()
    advice: str = ""

    def apply(self, cfg: CfgNode) -> None:
        """Set the values, and REFERENCE_BATCH, so that the config as saved is not derived again.

        Args:
            cfg: not frozen
        """
        for row in self.rows:
            section, key = row.key.split(".")
            cfg[section][key] = row.here
        if self.reference:
            cfg.SOLVER.REFERENCE_BATCH = self.batch

    def __str__(self) -> str:
        """A table; "" if nothing was derived."""
        if not self.rows:
            return ""
        head = ("", f"for {self.reference} images", f"for {self.batch} images", "")
        lines = [head, *((r.key, _text(r.written), _text(r.here), r.why) for r in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(3)]
        table = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(line, widths, strict=False)), line[3]])
            for line in lines
        ]
        title = (
            f"The config is written for steps of {self.reference} images, this run has "
            f"{self.batch}:"
        )
        return "\n".join([title, *(line.rstrip() for line in table), self.advice]).rstrip()


def derive_recipe(
    cfg: CfgNode, named: Collection[str], config_file: str | Path | None = None
) -> Derivation:
    """What SOLVER and TEST are for IMS_PER_BATCH, where they are written for another batch.

    Args:
        cfg: with all of file and command line; is not changed, see `Derivation.apply`
        named: keys that the command line names; they stay as they are
        config_file: the file of `cfg`, to see which batch it is written for. A file that names
            IMS_PER_BATCH together with BASE_LR, MAX_ITER or STEPS is written for that batch,
            whatever REFERENCE_BATCH its base has.
    """
    batch = cfg.SOLVER.IMS_PER_BATCH
    reference = cfg.SOLVER.REFERENCE_BATCH
    if reference and _REFERENCE not in named and config_file:
        reference = _written_for(find_config(config_file)) or reference
    if not reference or reference == batch:
        return Derivation(reference, batch)
    rows = tuple(_rows(cfg, batch / reference, named))
    return Derivation(reference, batch, rows, _advice(cfg, reference, batch))


def _rows(cfg: CfgNode, factor: float, named: Collection[str]) -> Iterator[Row]:
    """Args: factor: images a step here, relative to the reference."""
    solver = cfg.SOLVER
    adam = solver.OPTIMIZER == "AdamW"
    rate, rule = (math.sqrt(factor), "square root, for AdamW") if adam else (factor, "linear rule")
    linear = "as many images"

    def row(key: str, derived: Any, why: str) -> Row:
        section, name = key.split(".")
        written = cfg[section][name]
        if key in named:
            return Row(key, written, written, "named on the command line")
        return Row(key, written, derived, why)

    def steps(written: int) -> int:
        return max(1, round(written / factor))

    for name in ("BASE_LR", "BASE_LR_END"):  # Detectron2's main branch has the second
        if solver.get(name):
            yield row(f"SOLVER.{name}", _six_digits(solver[name] * rate), rule)
    total = row("SOLVER.MAX_ITER", steps(solver.MAX_ITER), linear)
    yield total
    end = total.here
    if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        drops = tuple(steps(step) for step in solver.STEPS)
        if "SOLVER.MAX_ITER" not in named:
            # Rounding may bring the last ones of a short schedule together, or to its end.
            drops = tuple(sorted({step for step in drops if step < end}))
        drop_row = row("SOLVER.STEPS", drops, linear)
        yield drop_row
        end = min([end, *drop_row.here])
    if factor < 1 and solver.WARMUP_ITERS:
        yield row("SOLVER.WARMUP_ITERS", steps(solver.WARMUP_ITERS), linear)
    elif solver.WARMUP_ITERS:
        # It is the high rate of a large batch that needs the way up: as many steps, up to the first
        # drop, and not fewer.
        kept = min(solver.WARMUP_ITERS, end)
        why = "as many steps, to a higher rate" if kept == solver.WARMUP_ITERS else "first drop"
        yield row("SOLVER.WARMUP_ITERS", kept, why)
    yield row("SOLVER.CHECKPOINT_PERIOD", steps(solver.CHECKPOINT_PERIOD), linear)
    if cfg.TEST.EVAL_PERIOD:
        yield row("TEST.EVAL_PERIOD", steps(cfg.TEST.EVAL_PERIOD), linear)


def _advice(cfg: CfgNode, reference: int, batch: int) -> str:
    if batch > reference or reference % batch or cfg.SOLVER.ACCUMULATION_STEPS > 1:
        return ""
    return (
        f"To train with steps of {reference} images instead, {batch} at a time: "
        f"{_BATCH} {reference} SOLVER.ACCUMULATION_STEPS {reference // batch}"
    )


def _written_for(path: Path) -> int | None:
    """The batch of the topmost file that says for which one it is written; None if none does."""
    loaded = yaml.safe_load(path.read_text()) or {}
    keys = dict(flatten(loaded))
    if keys.get(_REFERENCE) is not None:
        return int(keys[_REFERENCE])
    if _BATCH in keys and any(key in keys for key in _OF_A_SCHEDULE):
        return int(keys[_BATCH])
    bases = loaded.get("_BASE_", [])
    for base in reversed([bases] if isinstance(bases, str) else bases):  # the last one wins
        place = path.parent / Path(base).expanduser()
        if place.is_file() and (found := _written_for(place)) is not None:
            return found
    return None


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")  # 0.0075, not 0.007500000000000001


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
