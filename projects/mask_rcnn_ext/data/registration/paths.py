"""Paths of data sets: what their YAMLs write, and what to say where nothing is found."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from ..spec import ROOT_VARIABLE, DatasetSpec

DATASETS_ENV = ROOT_VARIABLE
_SHOWN = 12  # entries of a folder named in a message


def datasets_root() -> str:
    """The folder below which built-in data sets are looked for, read anew at each call."""
    return os.environ.get(DATASETS_ENV, "datasets")


def root_of(spec: DatasetSpec) -> str:
    """The folder that a data set's paths are relative to."""
    folder = datasets_root() if spec.folder is None else spec.folder
    return os.path.join(folder, _expand(spec.root)) if spec.root else folder


def path_of(spec: DatasetSpec, text: str) -> str:
    """A path as written in a data set's YAML; absolute ones stay as they are."""
    return os.path.join(root_of(spec), _expand(text))


def _expand(text: str) -> str:
    return os.path.expanduser(text.replace(f"${{{ROOT_VARIABLE}}}", datasets_root()))


def found_instead(path: str) -> str:
    """A sentence about what is where `path` should be: the folder's content, the nearest name."""
    missing = Path(os.path.abspath(path))
    folder = missing
    while not folder.is_dir():
        missing, folder = folder, folder.parent
    try:
        entries = sorted(
            entry.name + "/" * entry.is_dir()
            for entry in folder.iterdir()
            if not entry.name.startswith(".")
        )
    except OSError as error:
        return f"{folder} cannot be listed: {error.strerror}"
    near = difflib.get_close_matches(missing.name, [entry.rstrip("/") for entry in entries], n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return f"{folder} holds {', '.join(entries[:_SHOWN]) or 'nothing'}{more}{hint}"


def root_hint(spec: DatasetSpec) -> str:
    """How the datasets root was chosen, for sets that lie below it; "" for others."""
    if spec.folder is not None and ROOT_VARIABLE not in spec.root:
        return ""
    setting = os.environ.get(DATASETS_ENV)
    how = f"is {setting}" if setting else "is not set, so that it is ./datasets"
    return f" {DATASETS_ENV} {how}."
