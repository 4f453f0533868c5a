"""A row or a comparison with all that is asked of it, for text and JSON alike."""

from __future__ import annotations

from dataclasses import dataclass

from ...paper import Comparison, Paper, Row, Stage, Table, state_of
from ...paper.spec import Scale
from .lacking import Looking, Needs

NO_RECIPE = "no recipe"  # on generated scenes, yet


@dataclass(frozen=True)
class Entry:
    """
    Attributes:
        table: of a row; None for a comparison
        one: the row or comparison
        stages: all that it takes, in the order in which they can run; () for what cannot run
        needs: what they read
        footnotes: texts
        state: a word or two
    """

    table: Table | None
    one: Row | Comparison
    stages: tuple[Stage, ...]
    needs: Needs
    footnotes: tuple[str, ...]
    state: str

    @property
    def is_reference(self) -> bool:
        """Another system's row, which nobody runs."""
        return isinstance(self.one, Row) and self.one.reference

    @property
    def hours(self) -> float:
        """Of all its stages."""
        return sum(stage.hours for stage in self.stages)


def entries(paper: Paper, scale: Scale, looking: Looking) -> list[Entry]:
    """All rows and comparisons, in the paper's order."""
    found = []
    for table in paper.tables.values():
        for row in table.rows:
            named = (row.stage,) if row.stage else ()
            own = (*row.footnotes, *(table.footnotes if row.stage else ()))
            found.append(_entry(paper, scale, looking, (table, row), named, own))
    for one in paper.comparisons.values():
        found.append(_entry(paper, scale, looking, (None, one), one.stages, one.footnotes))
    return found


def _entry(
    paper: Paper,
    scale: Scale,
    looking: Looking,
    what: tuple[Table | None, Row | Comparison],
    named: tuple[str, ...],
    own: tuple[str, ...],
) -> Entry:
    there = [stage for name in named if (stage := paper.at(scale, name)) is not None]
    whole = len(there) == len(named)
    stages = paper.chain(*(stage.id for stage in there)) if whole else ()
    return Entry(
        table=what[0],
        one=what[1],
        stages=stages,
        needs=looking.needs_of(stages),
        footnotes=tuple(paper.footnotes[note] for note in paper.footnotes_of(own, stages)),
        state=state_of(what[1]) if whole else NO_RECIPE,
    )
