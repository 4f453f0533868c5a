"""What the paper claims, judged by the records: confirmed, contradicted, or open."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .compare import Current
from .resampling import Difference
from .spec import Paper, Scale

Verdict = Literal["confirmed", "contradicted", "open"]
LEAST_SEEDS = 3
NEARLY = 3.0  # points of AP


@dataclass(frozen=True)
class Claim:
    """One difference that the paper prints or speaks of: first less second.

    Attributes:
        id: e.g. "roialign_gain/mask_AP_gain", "table_8/e2e/mask_AP"
        source: id of the comparison in the text, or of the table
        where: section, or the table's number and title
        words: what the paper says
        subject: what is taken off what, e.g. "mask AP: RoIAlign less RoIPool"
        key: figure of results.json, of the first
        first, second: ids of stages at this scale; None: generated data have no recipe
        kind: "gain": the difference has the paper's sign; "nearly": the first is at most NEARLY
            points worse
        paper: points; at scale scenes for orientation only
        difference: ours, with interval; None if it cannot be told
        verdict: of a gain: confirmed or contradicted if the interval has the paper's sign or the
            other one, with at least LEAST_SEEDS seeds; else open
        points: where the interval is, however many seeds
        reason: why it is open; "" else
        reading: the verdict in a plain sentence
    """

    id: str
    source: str
    where: str
    words: str
    subject: str
    key: str
    first: str | None
    second: str | None
    kind: Literal["gain", "nearly"]
    paper: float
    difference: Difference | None
    verdict: Verdict
    points: Literal["with the paper", "against the paper", "neither way"] | None
    reason: str
    reading: str


@dataclass(frozen=True)
class Claims:
    """
    Attributes:
        text: of the paper's text
        steps: of one table's rows, one over another
    """

    text: tuple[Claim, ...]
    steps: tuple[Claim, ...]


def judge(
    paper: Paper,
    scale: Scale,
    current: Current,
    progress: Callable[[int, int], None] | None = None,
) -> Claims:
    """
    Args:
        scale, current: as in `measure`
        progress: called with (runs resampled, of how many)
    """
    raise NotImplementedError
