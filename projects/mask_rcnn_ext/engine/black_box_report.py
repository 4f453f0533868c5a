"""The black box's report as text for people."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_WHAT = {
    "loss": "the loss is not finite",
    "gradient": "the gradient is not finite",
    "memory": "out of memory",
}
_NO_CAUSE = (
    "none of the known causes has its signs here; a replay names the first layer whose output is "
    "not finite"
)


def number(value: float) -> float | str:
    """A float as JSON can hold it: "nan", "inf" and "-inf" for what it cannot."""
    return float(value) if math.isfinite(value) else str(float(value))


def summary(report: Mapping[str, Any], folder: Path | None = None) -> str:
    """What failed, the likely cause, and where the step can be found; a few lines."""
    lines = [f"iteration {report['iteration']}: {_what(report)}"]
    texts = [cause["text"] for cause in report["causes"]] or [_NO_CAUSE]
    lines += [f"{'Likely cause' if not n else 'Or'}: {text}" for n, text in enumerate(texts[:3])]
    if folder is not None:
        lines.append(f"The step is in {folder}; to do it again: {report['replay']}")
    return "\n".join(lines)


def as_text(report: Mapping[str, Any]) -> str:
    """report.md."""
    lines = [f"# Iteration {report['iteration']}: {_what(report)}", "", "## Likely cause", ""]
    lines += [f"- {cause['text']}" for cause in report["causes"]] or [f"- {_NO_CAUSE}"]
    lines += ["", "Do this step again:", "", f"    {report['replay']}", ""]
    if report["missing"]:
        lines += ["Not written:", *(f"- {one}" for one in report["missing"]), ""]
    if report["not_finite"]:
        lines += ["## Not finite before the step", ""]
        lines += [f"- {one}" for one in report["not_finite"][:50]]
        lines += ["", "Running statistics of a norm are those after this step's forward.", ""]
    lines += ["## Losses", "", *_table(report["losses"])]
    lines += ["## Largest gradients (norms)", "", *_table(report["gradient_norms"])]
    rates = ", ".join(f"{rate:g}" for rate in report["learning_rates"])
    lines += [f"Learning rates: {rates or 'not known'}", "", "## Images", ""]
    lines += ["| | id | file | size | objects |", "|-|-|-|-|-|"]
    for place, image in enumerate(report["images"]):
        size = image["height_width"]
        shown = f"{size[1]} x {size[0]}" if size else ""
        lines.append(
            f"| image_{place} | {image['image_id']} | {image['file_name']} | {shown} | "
            f"{image['instances']} |"
        )
    lines += ["", "## Where", ""]
    for key in ("device", "threads", "processes", "deterministic", "channels_last", "commit",
                "peak_memory_mb"):  # fmt: skip
        lines.append(f"- {key}: {report[key]}")
    lines += [f"- {name}: {version}" for name, version in report["versions"].items()]
    return "\n".join(lines) + "\n"


def _what(report: Mapping[str, Any]) -> str:
    text = _WHAT.get(report["kind"], report["kind"])
    bad = [f"{name} {value}" for name, value in report["losses"].items() if _is_bad(value)]
    if report["kind"] == "gradient":
        bad += [f"{name}" for name, value in report["gradient_norms"].items() if _is_bad(value)][:3]
    text += f" ({', '.join(bad)})" if bad else ""
    return text + (f"; {report['error']}" if report["error"] else "")


def _is_bad(value: float | str) -> bool:
    return not math.isfinite(float(value))


def _table(values: Mapping[str, float | str]) -> list[str]:
    if not values:
        return ["Not computed.", ""]
    rows = [f"| {name} | {float(value):.6g} |" for name, value in values.items()]
    return ["| | |", "|-|-|", *rows, ""]
