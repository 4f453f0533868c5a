"""Classes of a data set renamed, merged, dropped, put in order: on names, then on a COCO dict.

The steps come in this order, and each sees the names that the one before it left:
rename, merge, keep or drop, order.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, UsageError

_SHOWN = 5  # examples named in a message


@dataclass(frozen=True)
class ClassChanges:
    """What to do with a data set's classes; empty parts change nothing.

    rename: (old, new) pairs, all at once, so that two classes can swap their names
    merge: (new, old ones) pairs; a class that already has the new name takes part
    keep: the classes that stay; not together with `drop`
    drop: classes that go, with their annotations
    order: all classes that are left, in the order of the model's outputs
    """

    rename: tuple[tuple[str, str], ...] = ()
    merge: tuple[tuple[str, tuple[str, ...]], ...] = ()
    keep: tuple[str, ...] = ()
    drop: tuple[str, ...] = ()
    order: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any((self.rename, self.merge, self.keep, self.drop, self.order))


def map_classes(names: Sequence[str], changes: ClassChanges, where: str) -> dict[str, str | None]:
    """Old name -> new name or None for dropped; the new names in their final order.

    Args:
        names: the classes of the data, each once, in their order
        changes: what to do
        where: whose classes these are, for messages
    Returns:
        a key for each of `names`; the order of first appearance of the values, None left out, is
        the final order. Without `changes.order` a merged class stands where its first member did.
    Raises:
        UsageError: a name that does not exist (with the nearest), or two steps that contradict
    """
    new: dict[str, str | None] = {name: name for name in names}
    _rename(new, changes.rename, where)
    _merge(new, changes.merge, where)
    left = _distinct(new.values())
    _must_exist(changes.keep, left, f"{where}: classes.keep")
    _must_exist(changes.drop, left, f"{where}: classes.drop")
    dropped = set(changes.drop) or (set(left) - set(changes.keep) if changes.keep else set())
    new = {old: None if name in dropped else name for old, name in new.items()}
    left = _distinct(new.values())
    if not left:
        raise UsageError(f"{where}: no class is left of {_list(names)}")
    if not changes.order:
        return new
    _must_exist(changes.order, left, f"{where}: classes.order")
    lacking = [name for name in left if name not in changes.order]
    if lacking:
        raise UsageError(
            f"{where}: classes.order must name all classes that are left; it lacks {_list(lacking)}"
        )
    place = {name: number for number, name in enumerate(changes.order)}
    return dict(sorted(new.items(), key=lambda item: place.get(item[1] or "", len(place))))


def apply_changes(
    coco: dict[str, Any], changes: ClassChanges, where: str
) -> tuple[dict[str, Any], list[str]]:
    """A COCO dict with other classes; category ids become 1 to C in the final order.

    Args:
        coco: has images, annotations, categories; not changed
        changes: what to do; nothing at all gives `coco` back
        where: whose data this is, for messages
    Returns:
        the new dict, and one sentence for each class whose annotations were left out
    Raises:
        UsageError: see `map_classes`
        DataError: a category without a name, an annotation of an unknown category
    """
    if not changes:
        return coco, []
    by_id: dict[Any, str] = {}
    for category in sorted(coco["categories"], key=_id_order):
        if not isinstance(category.get("name"), str) or not isinstance(
            category.get("id"), int | str
        ):
            raise DataError(f"{where}: a category lacks id or name: {category}")
        by_id[category["id"]] = category["name"]
    old_names = _distinct(by_id.values())
    new = map_classes(old_names, changes, where)
    final = _distinct(new.values())
    ids = {name: number for number, name in enumerate(final, start=1)}

    unknown = [a for a in coco.get("annotations", []) if not _known(a.get("category_id"), by_id)]
    if unknown:
        raise DataError(
            f"{where}: {len(unknown)} annotations have a category_id that no category has, first "
            f"annotation {unknown[0].get('id')} with {unknown[0].get('category_id')!r}; "
            "`mask-rcnn-ext data check` of the file names them all"
        )
    annotations = []
    dropped: Counter[str] = Counter()
    for annotation in coco.get("annotations", []):
        old = by_id[annotation["category_id"]]
        name = new[old]
        if name is None:
            dropped[old] += 1
        else:
            annotations.append({**annotation, "category_id": ids[name]})
    notes = [
        f"class {old!r} was dropped, with {dropped[old]} annotations"
        for old in old_names
        if new[old] is None
    ]
    result = {**coco, "categories": _categories(coco["categories"], new, ids)}
    if "annotations" in coco:
        result["annotations"] = annotations
    return result, notes


def _categories(
    categories: Sequence[dict[str, Any]], new: dict[str, str | None], ids: dict[str, int]
) -> list[dict[str, Any]]:
    """What a file says of a class besides its name is kept from one member."""
    chosen: dict[str, dict[str, Any]] = {}
    for category in sorted(categories, key=_id_order):
        name = new[category["name"]]
        if name is None:
            continue
        # A member that has the name already knows more about the class than the others do.
        if name not in chosen or (category["name"] == name != chosen[name]["name"]):
            chosen[name] = category
    return [{**chosen[name], "id": number, "name": name} for name, number in ids.items()]


def _rename(new: dict[str, str | None], rename: Sequence[tuple[str, str]], where: str) -> None:
    _must_exist([old for old, _ in rename], list(new), f"{where}: classes.rename")
    changes = dict(rename)
    result = {old: changes.get(old, old) for old in new}
    for name, count in Counter(result.values()).items():
        if count > 1:
            both = [old for old, now in result.items() if now == name]
            raise UsageError(
                f"{where}: classes.rename gives {_list(both)} the same name {name!r}; to make one "
                f"class of them use merge: {{{name}: [{', '.join(both)}]}}"
            )
    new.update(result)


def _merge(
    new: dict[str, str | None], merge: Sequence[tuple[str, tuple[str, ...]]], where: str
) -> None:
    present = _distinct(new.values())
    target_of: dict[str, str] = {}
    for target, members in merge:
        _must_exist(members, present, f"{where}: classes.merge.{target}")
        for member in members:
            if target_of.setdefault(member, target) != target:
                raise UsageError(
                    f"{where}: classes.merge puts {member!r} into both {target_of[member]!r} and "
                    f"{target!r}"
                )
    targets = {target for target, _ in merge}
    for target in targets:
        if target_of.get(target, target) != target:
            raise UsageError(
                f"{where}: classes.merge makes {target!r} and puts it into {target_of[target]!r}; "
                "list all members of the one class"
            )
    for old, name in new.items():
        if name is not None:
            new[old] = target_of.get(name, name)


def _must_exist(wanted: Iterable[str], present: Sequence[str], where: str) -> None:
    for name in wanted:
        if name not in present:
            near = difflib.get_close_matches(name, present, n=3, cutoff=0.5)
            hint = f"nearest: {_list(near)}; " if near else ""
            raise UsageError(
                f"{where}: there is no class {name!r}; {hint}the classes are {_list(present, 20)}"
            )


def _known(value: Any, by_id: dict[Any, str]) -> bool:
    return isinstance(value, int | str) and value in by_id


def _id_order(category: dict[str, Any]) -> tuple[bool, Any]:
    value = category.get("id")
    return (not isinstance(value, int), value if isinstance(value, int) else str(value))


def _distinct(names: Iterable[str | None]) -> list[str]:
    return list(dict.fromkeys(name for name in names if name is not None))


def _list(names: Sequence[str], limit: int = _SHOWN) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(map(str, names[:limit])) + more
