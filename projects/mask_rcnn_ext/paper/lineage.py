"""Whether runs come from the same trainings of the stages below them.

A stage whose record is kept runs again where another needs its weights and they are gone. On
another machine, or with other numbers of threads, it ends with other weights under the same key:
config, data and code are the same. A record that began before that of a stage below it is of an
earlier run of that stage. Times are all that tells: the starts that records have.
"""

from __future__ import annotations

from .spec import Paper, Stage
from .state import Sorted


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
