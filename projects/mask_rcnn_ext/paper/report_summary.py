"""The report in a few lines, for the terminal."""

from __future__ import annotations

import textwrap

from .report import Report
from .report_notes import NOTHING, SMOKE_SHORT, TITLES, measured_text, order_text, title_of
from .report_values import counted, decimals, with_interval

WIDTH = 100


def summary(report: Report) -> str:
    """Of each table how much is measured and whether in the paper's order; the claims that are."""
    lines = [f"{TITLES[report.of]}: {counted(report.records, 'record')} count"]
    if report.smoke:
        lines.append(SMOKE_SHORT)
    if not report.records:
        lines.append(NOTHING)
    for part in report.tables:
        order = "" if report.smoke else order_text(part)
        text = f"{title_of(part.result.table)}: {measured_text(part)}. {order}"
        lines.append(textwrap.fill(text.strip(), WIDTH, subsequent_indent="  "))
    for claim in report.claims:
        if claim.difference is not None:
            ours = (
                f"{with_interval(claim.difference)}, {counted(len(claim.difference.seeds), 'seed')}"
            )
            paper = decimals(claim.paper, sign=True)
            text = f"{claim.verdict}: {claim.subject}, the paper {paper}, ours {ours}"
            lines.append(textwrap.fill(text, WIDTH, subsequent_indent="  "))
    if report.set_aside:
        lines.append(f"{counted(len(report.set_aside), 'record')} do not count: stale, failed, ...")
    if report.broken:
        lines.append(f"{counted(len(report.broken), 'record')} cannot be read")
    return "\n".join(lines)
