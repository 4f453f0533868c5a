"""Which images to look at: spread over the file, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import UsageError
from .coco_table import CocoTable
from .statistics import class_name, instance_areas


def select_images(
    table: CocoTable,
    count: int,
    seed: int,
    *,
    classes: Sequence[str] = (),
    min_size: float = 0.0,
    ids: Sequence[str] = (),
) -> np.ndarray:
    """Rows of images, in the file's order.

    Args:
        table: the annotation file
        count: how many at most; they are drawn one from each of `count` stretches of the file. If
            there are images without annotations, one of them is among two or more
        seed: picks another image of each stretch
        classes: only images with an annotation of one of these classes
        min_size: only images with an annotation of this size, square root of its area, pixels
        ids: only these images, all of them, in this order; as text
    Raises:
        UsageError: an unknown class or id, or nothing matches
    """
    if ids:
        return _by_id(table, ids)
    wanted = np.ones(table.num_images, bool)
    filtered = bool(classes) or min_size > 0
    if filtered:
        rows = np.flatnonzero(table.image_of >= 0)
        rows = rows[np.isin(table.category_of[rows], _class_rows(table, classes))]
        if min_size > 0:
            areas, _ = instance_areas(table, rows)
            rows = rows[np.sqrt(areas) >= min_size]
        wanted = np.zeros(table.num_images, bool)
        wanted[table.image_of[rows]] = True
    candidates = np.flatnonzero(wanted)
    if not len(candidates):
        what = "has no image" if not filtered else "has no image that matches the filters"
        raise UsageError(f"{table.path} {what}")
    chosen = _spread(candidates, count, seed)
    if not filtered and len(chosen) > 1:
        chosen = _with_an_empty_one(table, chosen, seed)
    return chosen


def _spread(candidates: np.ndarray, count: int, seed: int) -> np.ndarray:
    count = min(count, len(candidates))
    edges = np.linspace(0, len(candidates), count + 1).astype(np.int64)
    # Whole stretches of at least one candidate each, as count is at most their number.
    return candidates[np.random.default_rng(seed).integers(edges[:-1], edges[1:])]


def _with_an_empty_one(table: CocoTable, chosen: np.ndarray, seed: int) -> np.ndarray:
    filled = np.zeros(table.num_images, bool)
    filled[table.image_of[table.image_of >= 0]] = True
    empty = np.flatnonzero(~filled)
    if not len(empty) or not filled[chosen].all():
        return chosen
    one = np.random.default_rng(seed).choice(empty)
    nearest = int(np.abs(chosen - one).argmin())
    return np.sort(np.concatenate([np.delete(chosen, nearest), [one]]))


def _class_rows(table: CocoTable, classes: Sequence[str]) -> np.ndarray:
    if not classes:
        return np.arange(-1, len(table.categories))
    names = [class_name(table, row) for row in range(len(table.categories))]
    unknown = sorted(set(classes) - set(names))
    if unknown:
        raise UsageError(
            f"{table.path} has no class {', '.join(map(repr, unknown))}; "
            f"it has: {', '.join(names[:100])}"
        )
    return np.array([row for row, name in enumerate(names) if name in classes])


def _by_id(table: CocoTable, ids: Sequence[str]) -> np.ndarray:
    rows: dict[str, int] = {}
    for row, identity in enumerate(table.image_ids.tolist()):
        rows.setdefault(str(identity), row)
    unknown = [identity for identity in ids if identity not in rows]
    if unknown:
        some = ", ".join(list(rows)[:5])
        raise UsageError(
            f"{table.path} has no image with the id {', '.join(unknown)}; its ids are {some}, ..."
        )
    return np.array([rows[identity] for identity in dict.fromkeys(ids)], np.int64)
