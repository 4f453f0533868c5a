"""Whether runs come from the same trainings of the stages below them.

A stage whose record is kept runs again where another needs its weights and they are gone. On an
equal machine with as many threads it ends with the same bits, and its record stays as it is. On
another one it ends with other weights under the same key: config, data and code are the same. A
record that began before that of a stage below it is of an earlier run of that stage, then. Times
are all that tells: the starts that records have.
"""

from __future__ import annotations

from .records import Record
from .spec import Paper, Stage
from .state import Sorted


def is_repeat(one: Record, other: Record) -> bool:
    """Whether two finished runs of a stage have the same figures and losses, to the last digit."""
    return one.state == "finished" and _of_a_run(one) == _of_a_run(other)


def _of_a_run(record: Record) -> tuple[object, ...]:
    """All but times and places."""
    figures = {key: value for key, value in record.results.items() if not key.startswith("run/")}
    return record.key, record.state, figures, record.curve, sorted(record.files)


def earlier(paper: Paper, records: Sorted, stage: Stage, seed: int) -> list[str]:
    """Stages below a measured one that have run again since, in the order in which they are run.

    Args:
        seed: that `stage` has a record of
    """
    own = records.current[stage.id][seed].record.started
    found = []
    for one in paper.chain(stage.id):
        below = records.current.get(one.id, {}).get(one.seed_for(seed))
        if one.id != stage.id and below is not None and below.record.started > own:
            found.append(one.id)
    return found


def unlike(paper: Paper, records: Sorted, first: Stage, second: Stage, seed: int) -> list[str]:
    """Stages that both come from, but not from the same run of them."""
    both = {one.id for one in paper.chain(first.id)} & {one.id for one in paper.chain(second.id)}
    sides = [{*earlier(paper, records, one, seed)} for one in (first, second)]
    order = [one.id for one in paper.chain(first.id)]
    return [name for name in order if name in both & (sides[0] ^ sides[1])]
