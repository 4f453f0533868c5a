"""How far the objects are: what AP100m and AP50m need beside the instance images.

The official script computes no distances. It reads each object's median distance and the share of
its pixels whose distance is known from a file, gtInstances.json, which the benchmark keeps to
itself; one that the script writes has -1 and 0 everywhere. The same file is read here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...data.cityscapes.tree import SOURCES
from ...errors import DataError
from .matching import Distances


def read_distances(path: str | Path) -> dict[str, Distances]:
    """Name of the image, e.g. munster_000000_000019 -> distances of its objects.

    Args:
        path: a gtInstances.json: path of the instance image -> label -> objects, each with instID,
            medDist in metres and distConf, 0 to 1
    Raises:
        DataError: no such file, or another kind of file
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return {_name(key): _distances(labels) for key, labels in content.items()}
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} is not the benchmark's gtInstances.json (image -> label -> list of objects "
            f"with instID, medDist, distConf): {type(error).__name__}: {error}"
        ) from error


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2].removesuffix(SOURCES["instanceIds"])


def _distances(labels: dict[str, list[dict[str, Any]]]) -> Distances:
    return {
        int(one["instID"]): (float(one["medDist"]), float(one["distConf"]))
        for objects in labels.values()
        for one in objects
    }
