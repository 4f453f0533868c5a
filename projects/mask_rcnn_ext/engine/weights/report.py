"""What a conversion did, for people (a table and lists) and for programs (JSON)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from .matching import Matching
from .requirements import Requirement
from .sources import Source

_COLUMNS = ("matched", "filled", "other shape", "missing")


def part_of(name: str) -> str:
    """Where in the model: "backbone.bottom_up.res4.5.conv1.weight" -> "backbone.res4"."""
    words = name.removeprefix("backbone.bottom_up.").removeprefix("backbone.").split(".")
    if name.startswith("backbone."):
        if "non_local" in words:
            return f"backbone.{words[0]}.non_local"
        return "backbone." + ("fpn" if words[0].startswith("fpn_") else words[0])
    if name.startswith("roi_heads."):
        return ".".join(name.split(".")[:2])
    return name.split(".")[0]


def counts_by_part(matching: Matching) -> dict[str, dict[str, int]]:
    """part -> column -> number of tensors of the model, in the model's order as far as it goes."""
    groups: tuple[Iterable[str], ...] = (
        matching.matched,
        matching.filled,
        matching.mismatched,
        matching.missing,
    )
    table: dict[str, dict[str, int]] = {}
    for column, names in zip(_COLUMNS, groups, strict=True):
        for name in names:
            row = table.setdefault(part_of(name), dict.fromkeys(_COLUMNS, 0))
            row[column] += 1
    return dict(sorted(table.items(), key=lambda item: _place(item[0])))


def warnings(source: Source, matching: Matching, needs: Sequence[Requirement]) -> list[str]:
    """What would train or evaluate without an error, and wrongly."""
    found = [
        f"{need.key} is {need.configured}, these weights need "
        + " or ".join(str(value) for value in need.expected)
        for need in needs
        if not need.met
    ]
    blocks = sorted({k[1] for n in matching.left_over if (k := re.search(r"(res[2-5]\.\d+)\.", n))})
    if blocks:
        found.append(
            f"the file has residual blocks that the model does not have or name ({blocks[0]} and "
            f"{len(blocks) - 1} more): is MODEL.RESNETS.DEPTH right, and does the model use res5?"
        )
    means = [n for n in matching.missing if n.endswith(".running_mean")]
    if source.kind in ("caffe2", "detectron1") and means:
        found.append(
            f"{len(means)} norms of the model need running statistics; Caffe2 weights have them "
            "in weight and bias. Set MODEL.RESNETS.NORM FrozenBN"
        )
    return found


def as_text(source: Source, matching: Matching, needs: Sequence[Requirement]) -> str:
    """The report for a terminal, a few lines a part and one for each name that is not matched."""
    kind = source.kind + (f", by {source.author!r}" if source.author else "")
    lines = [f"weights: {kind}, {len(source.tensors)} tensors", ""]
    lines += _table(counts_by_part(matching))
    lines += _section(
        "other shape, not loaded",
        [
            f"{name}: {there} in the file ({source.original[near]}), {here} in the model"
            for name, (near, there, here) in matching.mismatched.items()
        ],
    )
    lines += _section("missing, the model's start stays", matching.missing)
    lines += _section("left over in the file", [source.original[n] for n in matching.left_over])
    if needs:
        lines += ["", "the weights need:"]
        width = max(len(need.key) for need in needs)
        for need in needs:
            state = "as configured" if need.met else f"CONFIGURED: {need.configured}"
            values = " or ".join(str(value) for value in need.expected)
            lines.append(f"  {need.key:<{width}}  {values}  ({state})")
    if not any(need.key == "INPUT.FORMAT" for need in needs):
        lines += [
            "",
            "INPUT.FORMAT, MODEL.PIXEL_MEAN and MODEL.PIXEL_STD are not recorded in this file; "
            "take those of the config that it was trained with.",
        ]
    return "\n".join(lines)


def as_json(source: Source, matching: Matching, needs: Sequence[Requirement]) -> dict[str, Any]:
    """The same for programs; tensors by name, shapes as lists."""
    return {
        "kind": source.kind,
        "author": source.author,
        "tensors": len(source.tensors),
        "parts": counts_by_part(matching),
        "matched": [
            {
                "model": name,
                "file": source.original[near],
                "shape": list(source.tensors[near].shape),
            }
            for name, near in matching.matched.items()
        ],
        "filled": list(matching.filled),
        "other_shape": [
            {"model": name, "file": source.original[near], "has": list(there), "needs": list(here)}
            for name, (near, there, here) in matching.mismatched.items()
        ],
        "missing": matching.missing,
        "left_over": [source.original[name] for name in matching.left_over],
        "skipped": source.skipped,
        "requirements": [
            {
                "key": need.key,
                "expected": list(need.expected),
                "configured": need.configured,
                "met": need.met,
            }
            for need in needs
        ],
        "warnings": warnings(source, matching, needs),
    }


def _place(part: str) -> tuple[int, str]:
    order = ("backbone.stem", "backbone.res", "backbone", "proposal_generator", "roi_heads")
    return next((i for i, start in enumerate(order) if part.startswith(start)), len(order)), part


def _table(parts: dict[str, dict[str, int]]) -> list[str]:
    total = {c: sum(row[c] for row in parts.values()) for c in _COLUMNS}
    rows = [*parts.items(), ("all", total)]
    width = max(len(part) for part, _ in rows)
    lines = [f"{'part of the model':<{max(width, 17)}}" + "".join(f"{c:>13}" for c in _COLUMNS)]
    for part, row in rows:
        lines.append(f"{part:<{max(width, 17)}}" + "".join(f"{row[c]:>13}" for c in _COLUMNS))
    return lines


def _section(title: str, entries: Sequence[str]) -> list[str]:
    return ["", f"{title} ({len(entries)}):", *(f"  {e}" for e in entries)] if entries else []
