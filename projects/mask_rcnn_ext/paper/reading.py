"""configs/paper/*.yaml -> `Paper`: read safely, types and names checked.

`stages.yaml` has the paper's protocol, `scenes.yaml`, where there is one, its stages on generated
data, `table_*.yaml` and `in_text.yaml` what the paper says.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import yaml

from ..errors import UsageError
from ..resources import configs_dir
from .spec import (
    Comparison,
    Data,
    Figure,
    Paper,
    Row,
    Scale,
    Stage,
    Table,
    Weights,
    nearest,
)

_T = TypeVar("_T")
_SHARED = ("data", "weights", "footnotes", "stages")
# A stage's reference -> the kind of stage that gives such a thing.
_GIVES = {"model": "train", "proposals": "proposals", "labels": "distill"}
# What a file says of a stage; its name and its file say the rest.
_STAGE_KEYS = [key for key in Stage.__struct_fields__ if key not in ("id", "scale")]
_NEEDS_A_MODEL = ("evaluate", "proposals", "distill")


def load_paper(folder: Path | None = None) -> Paper:
    """
    Args:
        folder: configs/paper of this project where none is given
    Raises:
        UsageError: a file that is missing or wrong; names the file and the row or stage
    """
    folder = configs_dir() / "paper" if folder is None else folder
    shared: dict[str, dict[str, Any]] = {part: {} for part in _SHARED}
    _add_stages(shared, folder / "stages.yaml", "coco")
    if (folder / "scenes.yaml").exists():
        _add_stages(shared, folder / "scenes.yaml", "scenes")
    tables = [_table(path) for path in sorted(folder.glob("table_*.yaml"))]
    if not tables:
        raise UsageError(f"{folder} has no table_*.yaml")
    path = folder / "in_text.yaml"
    comparisons = _each(_mapping(path).get("comparisons"), Comparison, path, "comparison")
    paper = Paper(
        tables={table.table: table for table in tables},
        comparisons={one.id: one for one in comparisons},
        **shared,
    )
    _check_stages(paper, folder)
    for table in tables:
        _check_table(paper, table, folder / f"table_{table.table}.yaml")
    for comparison in comparisons:
        for name, figure in comparison.figures.items():
            _check_figure(paper, figure, f"{path}: comparison {comparison.id}: {name}")
        where = f"{path}: {comparison.id}"
        _check_names(comparison.footnotes, paper.footnotes, f"{where}: footnotes")
        _check_names(comparison.nearly or (), comparison.figures, f"{where}: nearly")
    return paper


# ---- reading


_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Refuses a key that is given twice, which YAML readers let pass."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        # Before `<<` brings keys that the mapping may well have itself, and once: an anchor's node
        # is flattened again wherever it is merged.
        if not getattr(node, "is_checked", False):
            seen: set[str] = set()
            for key, _ in node.value:
                if str(key.value) in seen:
                    raise UsageError(f"line {key.start_mark.line + 1}: {key.value!r} comes twice")
                seen.add(str(key.value))
            node.is_checked = True  # type: ignore[attr-defined]
        super().flatten_mapping(node)


def _mapping(path: Path) -> dict[str, Any]:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, UsageError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read: {reason}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} holds {type(content).__name__}, expected keys and values")
    return content


def _convert(content: Any, kind: type[_T], where: str) -> _T:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{where}: {str(error).replace('`$.', '`')}") from None


def _add_stages(shared: dict[str, dict[str, Any]], path: Path, scale: Scale) -> None:
    content = _mapping(path)
    _check_names(content, ("hardware", "common", *_SHARED), f"{path}: keys")
    for part, kind in (("data", Data), ("weights", Weights), ("footnotes", str), ("stages", Stage)):
        for name, one in _convert(
            content.get(part) or {}, dict[str, Any], f"{path}: {part}"
        ).items():
            where = f"{path}: {part}: {name}"
            if name in shared[part]:
                raise UsageError(f"{where}: another file has this name, too")
            if part == "stages":
                given = _convert(one, dict[str, Any], where)
                _check_names(given, _STAGE_KEYS, where)
                one = {"hardware": content.get("hardware"), **given, "id": name, "scale": scale}
            shared[part][name] = _convert(one, kind, where)
    for name, data in shared["data"].items():
        folders = [one.folder for one in data.make]
        if len(set(folders)) < len(folders):
            raise UsageError(f"{path}: data: {name}: make: a folder comes twice")


def _table(path: Path) -> Table:
    content = _mapping(path)
    rows = _each(content.get("rows"), Row, path, "row")
    columns = content.get("columns")
    if isinstance(columns, dict):  # a key alone is short for a mapping
        columns = {k: {"key": v} if isinstance(v, str) else v for k, v in columns.items()}
    table = _convert({**content, "columns": columns, "rows": ()}, Table, str(path))
    if path.stem != f"table_{table.table}":
        raise UsageError(f"{path}: table is {table.table!r}, which the file's name is not")
    return msgspec.structs.replace(table, rows=rows)


def _each(content: Any, kind: type[_T], path: Path, what: str) -> tuple[_T, ...]:
    """The entries of a list; messages name an entry by its id."""
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path}: expected a list of {what}s")
    found: dict[str, _T] = {}
    for number, entry in enumerate(content):
        name = str(entry.get("id", number) if isinstance(entry, dict) else number)
        found_one = _convert(entry, kind, f"{path}: {what} {name}")
        if name in found:
            raise UsageError(f"{path}: {what} {name} comes twice")
        found[name] = found_one
    return tuple(found.values())


# ---- checking


def _check_names(names: Iterable[str], known: Iterable[str], where: str) -> None:
    known = list(known)
    for name in names:
        if name not in known:
            raise UsageError(f"{where}: unknown {name!r}{nearest(name, known)}")


def _check_stages(paper: Paper, folder: Path) -> None:
    small: dict[str, str] = {}
    for stage in paper.stages.values():
        file = "stages.yaml" if stage.scale == "coco" else "scenes.yaml"
        where = f"{folder / file}: stage {stage.id}"
        _check_names(stage.data, paper.data, f"{where}: data")
        _check_names(stage.footnotes, paper.footnotes, f"{where}: footnotes")
        if len(stage.data) > 1 and any(paper.data[name].make for name in stage.data):
            raise UsageError(
                f"{where}: data {', '.join(stage.data)}, but generated data have a root of their "
                "own: a stage that reads such data reads no others"
            )
        _check_names([stage.weights] if stage.weights else [], paper.weights, f"{where}: weights")
        same = {name: one for name, one in paper.stages.items() if one.scale == stage.scale}
        for key, kind in _GIVES.items():
            name = getattr(stage, key)
            if name is None:
                continue
            _check_names([name], same, f"{where}: {key}")
            if same[name].kind != kind:
                raise UsageError(
                    f"{where}: {key} is {name}, of kind {same[name].kind}, expected {kind}"
                )
            if (stage.seeds, same[name].seeds) == ("one", "each"):
                raise UsageError(
                    f"{where}: seeds is one, but it needs {name}, which is run with each seed"
                )
        if stage.kind in _NEEDS_A_MODEL and stage.model is None:
            raise UsageError(f"{where}: kind {stage.kind} needs a model")
        if stage.model is not None and stage.weights is not None:
            raise UsageError(
                f"{where}: starts from the model {stage.model} or from weights, not both"
            )
        if stage.stands_for and stage.scale == "coco":
            raise UsageError(f"{where}: stands_for is for stages on generated data")
        _check_names(
            stage.stands_for,
            (n for n, s in paper.stages.items() if s.scale == "coco"),
            f"{where}: stands_for",
        )
        for name in stage.stands_for:
            if name in small:
                raise UsageError(f"{where}: {small[name]} stands for {name} already")
            small[name] = stage.id
        _check_no_circle(paper.stages, stage, where)


def _check_no_circle(stages: Mapping[str, Stage], stage: Stage, where: str) -> None:
    seen: set[str] = set()
    waiting = list(stage.needs)
    while waiting:
        name = waiting.pop()
        if name == stage.id:
            raise UsageError(f"{where}: needs itself, by way of {', '.join(sorted(seen | {name}))}")
        if name not in seen and name in stages:
            seen.add(name)
            waiting += stages[name].needs


def _check_table(paper: Paper, table: Table, path: Path) -> None:
    _check_names(table.footnotes, paper.footnotes, f"{path}: footnotes")
    for row in table.rows:
        where = f"{path}: row {row.id}"
        if list(row.paper) != list(table.columns):
            raise UsageError(
                f"{where}: figures {', '.join(row.paper)}, expected {', '.join(table.columns)}"
            )
        if row.reference == (row.stage is not None):
            raise UsageError(f"{where}: expected a stage, or reference: true, and not both")
        _check_names(row.footnotes, paper.footnotes, f"{where}: footnotes")
        if row.stage is not None:
            _check_measured(paper, row.stage, ("train", "evaluate"), f"{where}: stage")
    if table.printed_delta is not None:
        delta = table.printed_delta
        where = f"{path}: printed_delta"
        _check_names((delta.row, delta.minus), (row.id for row in table.rows), where)
        _check_names(delta.paper, table.columns, where)
    for step in table.steps:
        own = (row.id for row in table.rows if not row.reference)
        _check_names((step.row, step.minus), own, f"{path}: steps")


def _check_figure(paper: Paper, figure: Figure, where: str) -> None:
    if (figure.of is None) != (figure.key is None):
        raise UsageError(f"{where}: of and key go together")
    if figure.of is None and figure.stages:
        raise UsageError(f"{where}: of is missing")
    if figure.minus is not None and figure.percent_over is not None:
        raise UsageError(f"{where}: minus or percent_over, not both")
    if figure.minus_key is not None and figure.minus is None:
        raise UsageError(f"{where}: minus_key without minus")
    if figure.key is not None:
        kinds = ("time",) if figure.key.startswith("time/") else ("train", "evaluate")
        for name in figure.stages:
            _check_measured(paper, name, kinds, where)


def _check_measured(paper: Paper, name: str, kinds: tuple[str, ...], where: str) -> None:
    known = [one.id for one in paper.stages.values() if one.scale == "coco" and one.kind in kinds]
    _check_names([name], known, where)
