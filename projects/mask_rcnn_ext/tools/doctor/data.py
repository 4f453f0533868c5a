"""Where data sets are looked for, which are there, and whether the cache can be written."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from ...resources import datasets_dir
from .findings import NOTE, OK, PROBLEM, WARNING, Finding

_VARIABLE = "DETECTRON2_DATASETS"


def check_data_sets() -> Finding:
    """The sets that come with us, by the files that their YAMLs name."""
    setting = os.environ.get(_VARIABLE)
    root = Path(setting or "datasets").expanduser()
    how = f"{_VARIABLE} is {setting}" if setting else f"{_VARIABLE} is not set: {root.absolute()}"
    if not root.is_dir():
        level = PROBLEM if setting else NOTE
        text = f"{how}, which is no folder; `mask-rcnn-ext scenes` makes data to begin with"
        return Finding(level, "data sets", text, f"export {_VARIABLE}=FOLDER")
    found = [name for name, paths in _known_sets() if all((root / path).exists() for path in paths)]
    if not found:
        text = f"{how}; none of the known sets is there. datasets/README.md shows the folders"
        return Finding(NOTE, "data sets", text)
    return Finding(OK, "data sets", f"{how}; {', '.join(found)}")


def check_cache() -> Finding:
    """Imported data sets go there: `data.import_cache.cache_dir`, which needs Detectron2."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(os.environ.get("MASK_RCNN_EXT_CACHE") or f"{base}/mask_rcnn_ext/datasets")
    folder = folder.expanduser()
    there = folder
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".doctor."):
            pass
    except OSError as error:
        text = f"{folder} cannot be written ({error.strerror}); data sets in other formats need it"
        return Finding(WARNING, "cache", text, "export MASK_RCNN_EXT_CACHE=FOLDER")
    return Finding(OK, "cache", str(folder))


def _known_sets() -> Iterator[tuple[str, list[str]]]:
    """(name, paths below the root that it cannot do without) of each split that comes with us.

    The registration itself is no help here: it needs Detectron2.
    """
    for path in sorted(datasets_dir().glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            for split, files in one["splits"].items():
                if one["format"] == "cityscapes":
                    paths = [f"leftImg8bit/{split}"]
                elif "annotations" in files:
                    paths = [files["annotations"], files["images"]]
                else:
                    continue  # made of the other splits
                yield f"{one['name']}_{split}", [f"{one['root']}/{path}" for path in paths]
