"""A row or a comparison with all that is asked of it, for text and JSON alike."""

from __future__ import annotations

from dataclasses import dataclass

from ...paper import Comparison, Paper, Row, RowState, Sorted, Stage, Table, state_of
from ...paper.spec import Scale
from .lacking import Looking, Needs


@dataclass(frozen=True)
class Entry:
    """
    Attributes:
        table: of a row; None for a comparison
        one: the row or comparison
        stages: all that it takes, in the order in which they can run; () for what cannot run
        needs: what they read
        footnotes: texts
        state: what records there are of it
    """

    table: Table | None
    one: Row | Comparison
    stages: tuple[Stage, ...]
    needs: Needs
    footnotes: tuple[str, ...]
    state: RowState

    @property
    def is_reference(self) -> bool:
        """Another system's row, which nobody runs."""
        return isinstance(self.one, Row) and self.one.reference

    @property
    def hours(self) -> float:
        """Of all its stages."""
        return sum(stage.hours for stage in self.stages)


def entries(paper: Paper, scale: Scale, looking: Looking, records: Sorted) -> list[Entry]:
    """All rows and comparisons, in the paper's order.

    Args:
        records: of that scale
    """
    of_all: list[tuple[Table | None, Row | Comparison]]
    of_all = [(table, row) for table in paper.tables.values() for row in table.rows]
    of_all += [(None, one) for one in paper.comparisons.values()]
    return [_entry(paper, scale, looking, records, table, one) for table, one in of_all]


def _entry(
    paper: Paper,
    scale: Scale,
    looking: Looking,
    records: Sorted,
    table: Table | None,
    one: Row | Comparison,
) -> Entry:
    there = [stage for name in one.stages if (stage := paper.at(scale, name)) is not None]
    whole = len(there) == len(one.stages)
    stages = paper.chain(*(stage.id for stage in there)) if whole else ()
    own = (*one.footnotes, *(table.footnotes if table and one.stages else ()))
    return Entry(
        table=table,
        one=one,
        stages=stages,
        needs=looking.needs_of(stages),
        footnotes=tuple(paper.footnotes[note] for note in paper.footnotes_of(own, stages)),
        state=state_of(paper, one, scale, records),
    )
