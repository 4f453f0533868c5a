"""Which records count, and whether a row has been measured by them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from ..errors import UserError
from .keys import NoFingerprint, UnknownStage
from .records import Kept
from .spec import Comparison, Paper, Row, Scale

REFERENCE = "reference"  # another system's row, which nobody runs
NO_RECIPE = "no recipe"  # for generated data
NOT_RUN = "not run"
FAILED = "failed"
STALE = "stale"
OTHER = "other config"

BySeed = dict[str, dict[int, Kept]]  # stage -> seed -> record


@dataclass(frozen=True)
class Sorted:
    """
    Attributes:
        current: finished, with the key that is asked for: these alone are measurements
        failed: with that key, too, but without results
        stale: of another code version
        other: of this code with another config, other data, or of a stage that is no more
        broken: what is wrong with those that cannot be read
    """

    current: BySeed = field(default_factory=dict)
    failed: BySeed = field(default_factory=dict)
    stale: BySeed = field(default_factory=dict)
    other: BySeed = field(default_factory=dict)
    broken: list[UserError] = field(default_factory=list)

    def told(self, stage: str) -> list[str]:
        """What there is of a stage, a line for each seed."""
        named = (("finished", self.current), (STALE, self.stale), (OTHER, self.other))
        lines = [f"seed {seed}: {text}" for text, group in named for seed in group.get(stage, {})]
        failures = self.failed.get(stage, {})
        return lines + [f"seed {n}: failed: {one.record.reason}" for n, one in failures.items()]


@dataclass(frozen=True)
class RowState:
    """
    Attributes:
        text: a word or two
        seeds: with which all figures of the row are there
    """

    text: str
    seeds: tuple[int, ...] = ()

    @property
    def is_measured(self) -> bool:
        return bool(self.seeds)


def sort_records(
    found: Iterable[Kept | UserError],
    keys_of: Callable[[str, int], str],
    code: str,
) -> Sorted:
    """Decide which records count. Whoever lists, runs or reports asks here.

    Args:
        found: as `find_records` gives them, of one scale
        keys_of: stage and seed -> key: `Keys.key_of`. Where it raises NoFingerprint, the code
            version alone decides; so that this is rare, let it take the fingerprints that records
            have (`fingerprints_in`) of data that are not there
        code: `code_hash`
    """
    result = Sorted()
    for one in found:
        if isinstance(one, UserError):
            result.broken.append(one)
            continue
        record = one.record
        if record.code != code:
            group = result.stale
        elif not _is_asked_for(one, keys_of):
            group = result.other
        else:
            group = result.current if record.state == "finished" else result.failed
        group.setdefault(record.stage, {})[record.seed] = one
    return result


def _is_asked_for(one: Kept, keys_of: Callable[[str, int], str]) -> bool:
    try:
        return keys_of(one.record.stage, one.record.seed) == one.record.key
    except UnknownStage:
        return False
    except NoFingerprint:
        return True


def state_of(
    paper: Paper, one: Row | Comparison, scale: Scale = "coco", records: Sorted | None = None
) -> RowState:
    """
    Args:
        records: of that scale, or of its smoke runs
    """
    if isinstance(one, Row) and one.reference:
        return RowState(REFERENCE)
    named = [paper.at(scale, stage) for stage in one.stages]
    stages = [stage.id for stage in named if stage is not None]
    if len(stages) < len(named):
        return RowState(NO_RECIPE)
    if records is None or not stages:
        return RowState(NOT_RUN)
    chain = [stage.id for stage in paper.chain(*stages)]
    seeds = sorted(set.intersection(*({*records.current.get(stage, {})} for stage in stages)))
    failures = {seed for stage in chain for seed in records.failed.get(stage, {})} - {*seeds}
    if seeds:
        also = f", {len(failures)} failed" if failures else ""
        return RowState(f"{_count(len(seeds), 'seed')}{also}", tuple(seeds))
    if failures:
        return RowState(FAILED)
    for group, text in ((records.stale, STALE), (records.other, OTHER)):
        if any(stage in group for stage in stages):
            return RowState(text)
    done = sum(stage in records.current for stage in chain)
    return RowState(f"{done} of {len(chain)} stages" if done else NOT_RUN)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
