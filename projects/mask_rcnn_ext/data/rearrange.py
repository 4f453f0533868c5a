"""Some images or classes of a COCO dict, and its division into parts.

The dicts given are not changed; entries keep every key, known here or not, and their order.
"""

from __future__ import annotations

import difflib
import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..errors import DataError, UsageError

Coco = dict[str, Any]
_SHOWN = 3  # examples named in a message
_EMPTY = ("no object",)  # equal to no category's id


def subset(
    coco: Coco,
    *,
    classes: Sequence[str] | None = None,
    ids: Collection[Any] | None = None,
    count: int | None = None,
    seed: int | None = None,
    drop_empty: bool = False,
) -> Coco:
    """Classes are chosen first, then images by id, then their number.

    Args:
        coco: COCO dict
        classes: names to keep; annotations and categories of others go, images stay
        ids: of the images to keep, compared as text: "7" is 7
        count: number of images
        seed: choose `count` images at random; None takes the first
        drop_empty: leave out images without an object, crowds not counted
    Raises:
        UsageError: an unknown class or id, more images than there are, no image left
        DataError: entries without an id, annotations that belong to no image
    """
    check_links(coco)
    categories, annotations = coco["categories"], coco.get("annotations", [])
    if classes is not None:
        names = {str(category.get("name")) for category in categories}
        _check_known("class", classes, names)
        categories = [c for c in categories if str(c.get("name")) in set(classes)]
        kept_classes = {category["id"] for category in categories}
        annotations = [a for a in annotations if a["category_id"] in kept_classes]
    images = coco["images"]
    if ids is not None:
        wanted = {str(i) for i in ids}
        _check_known("image id", wanted, {str(image["id"]) for image in images})
        images = [image for image in images if str(image["id"]) in wanted]
    if drop_empty:
        filled = {a["image_id"] for a in annotations if not a.get("iscrowd")}
        images = [image for image in images if image["id"] in filled]
    if count is not None:
        images = _choose(images, count, seed)
    if not images:
        raise UsageError("no image is left by this choice")
    return restricted({**coco, "categories": categories, "annotations": annotations}, images)


def restricted(coco: Coco, images: list[dict[str, Any]]) -> Coco:
    """The dict with these images only, and the annotations that are theirs."""
    kept = {image["id"] for image in images}
    made = {**coco, "images": images}
    if "annotations" in coco:
        made["annotations"] = [a for a in coco["annotations"] if a["image_id"] in kept]
    return made


def split(
    coco: Coco, parts: Mapping[str, float], *, seed: int = 0, group: str | None = None
) -> dict[str, Coco]:
    """Divide the images, each into one part.

    The classes are shared out from the rarest on: as long as it has enough images, each part gets
    one, and then each part its fraction of the class. Sizes are exact to one image, unless groups,
    which stay together, do not fit.

    Args:
        coco: COCO dict
        parts: name -> fraction, above 0, 1 together
        seed: same seed and same images, same parts
        group: regular expression searched for in the file names; images for which it finds the same
            text (the groups in brackets, or all of it) stay together
    Returns:
        name -> COCO dict with all categories
    Raises:
        UsageError: fractions, the expression, or an image that it does not match
        DataError: fewer groups than parts, entries that `check_links` refuses
    """
    check_links(coco)
    if any(not fraction > 0 for fraction in parts.values()) or abs(sum(parts.values()) - 1) > 1e-6:
        raise UsageError(
            f"the fractions {', '.join(f'{k}={v:g}' for k, v in parts.items())} must be above 0 "
            f"and sum up to 1, they sum up to {sum(parts.values()):g}"
        )
    units = _units(coco["images"], group)
    if len(units) < len(parts):
        what = "images" if group is None else f"groups ({group!r})"
        raise DataError(f"{len(units)} {what} cannot be divided into {len(parts)} parts")
    order = list(range(len(units)))
    random.Random(seed).shuffle(order)
    shuffled = [units[k] for k in order]
    chosen = _share_out(shuffled, _classes_of_units(coco, shuffled), parts)
    of_image = {
        id(image): part for unit, part in zip(shuffled, chosen, strict=True) for image in unit
    }
    return {
        part: restricted(coco, [image for image in coco["images"] if of_image[id(image)] == part])
        for part in parts
    }


def instances_per_class(coco: Coco) -> dict[str, int]:
    """Class name -> annotations without crowds, every class in the file's order."""
    counts = Counter(a["category_id"] for a in coco.get("annotations", []) if not a.get("iscrowd"))
    return {str(c.get("name")): counts[c["id"]] for c in coco["categories"]}


def check_links(coco: Coco) -> None:
    """Refuse dicts in which it is unclear what belongs together (DataError with the ids)."""
    known: dict[str, set[Any]] = {}
    for section in ("images", "categories"):
        ids = [entry.get("id") for entry in coco[section]]
        lacking = [k for k, i in enumerate(ids) if not isinstance(i, int | str)]
        if lacking:
            raise DataError(f"{section}: entry number {lacking[0]} has no id; {_CHECK}")
        twice = [i for i, times in Counter(ids).items() if times > 1]
        if twice:
            raise DataError(f"{section}: ids that are there twice: {_some(twice)}; {_CHECK}")
        known[section] = set(ids)
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        astray = [
            a.get("id")
            for a in coco.get("annotations", [])
            if not isinstance(a.get(key), int | str) or a[key] not in known[section]
        ]
        if astray:
            raise DataError(
                f"{len(astray)} annotations have an unknown {key}, ids {_some(astray)}; {_CHECK}"
            )


_CHECK = "`mask-rcnn-ext data check FILE --fix OUT` shows and mends such entries"


def _check_known(what: str, wanted: Iterable[str], known: set[str]) -> None:
    unknown = sorted(set(wanted) - known)
    if unknown:
        near = difflib.get_close_matches(unknown[0], sorted(known), n=3)
        hint = f"; nearest: {', '.join(near)}" if near else ""
        raise UsageError(f"unknown {what} {_some(unknown)}{hint}")


def _choose(images: list[dict[str, Any]], count: int, seed: int | None) -> list[dict[str, Any]]:
    if not 1 <= count <= len(images):
        raise UsageError(f"{count} images were asked for, there are {len(images)} to choose from")
    if seed is None:
        return images[:count]
    chosen = sorted(random.Random(seed).sample(range(len(images)), count))
    return [images[k] for k in chosen]


def _units(images: list[dict[str, Any]], group: str | None) -> list[list[dict[str, Any]]]:
    """Images that stay together; by default each alone."""
    if group is None:
        return [[image] for image in images]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UsageError(f"{group!r} is no regular expression: {error}") from error
    units: dict[Any, list[dict[str, Any]]] = {}
    for image in images:
        found = pattern.search(str(image.get("file_name")))
        if found is None:
            raise UsageError(
                f"{group!r} matches nothing in {image.get('file_name')!r} (image id "
                f"{image['id']}); each image needs a group"
            )
        units.setdefault(found.groups() or found[0], []).append(image)
    return list(units.values())


def _classes_of_units(coco: Coco, units: list[list[dict[str, Any]]]) -> list[Counter[Any]]:
    """Of each unit: category id -> instances, crowds not counted; _EMPTY -> images where none is.

    As a class of their own, images without objects are shared out like the others.
    """
    unit_of = {image["id"]: k for k, unit in enumerate(units) for image in unit}
    counts: list[Counter[Any]] = [Counter() for _ in units]
    for annotation in coco.get("annotations", []):
        if not annotation.get("iscrowd"):
            counts[unit_of[annotation["image_id"]]][annotation["category_id"]] += 1
    for unit, found in zip(units, counts, strict=True):
        if not found:
            found[_EMPTY] = len(unit)
    return counts


def _share_out(
    units: list[list[dict[str, Any]]], classes: list[Counter[Any]], parts: Mapping[str, float]
) -> list[str]:
    """The part of each unit. Iterative stratification: the rarest class first, as it has least
    choice; a unit goes where most of that class is lacking."""
    sizes = [len(unit) for unit in units]
    room = _whole_sizes(sum(sizes), parts)
    total: Counter[Any] = Counter()
    holders: dict[Any, list[int]] = {}
    for k, counts in enumerate(classes):
        total.update(counts)
        for category in counts:
            holders.setdefault(category, []).append(k)
    lacking = {part: {c: share * n for c, n in total.items()} for part, share in parts.items()}
    chosen: list[str | None] = [None] * len(units)
    units_of_part = Counter(dict.fromkeys(parts, 0))

    def place(k: int, part: str) -> None:
        chosen[k] = part
        room[part] -= sizes[k]
        units_of_part[part] += 1
        for category, count in classes[k].items():
            lacking[part][category] -= count

    by_rarity = sorted(holders, key=lambda c: (len(holders[c]), str(c)))
    for category in by_rarity:
        has = {chosen[k] for k in holders[category]}
        waiting = [k for k in holders[category] if chosen[k] is None]
        for part in sorted(parts, key=lambda p: -parts[p]):
            if part not in has and waiting and room[part] > 0:
                place(waiting.pop(0), part)
        for k in waiting:
            place(k, max(parts, key=lambda p: (_fits(room[p], sizes[k]), lacking[p][category])))
    _fill_empty_parts(chosen, units_of_part)
    return [part for part in chosen if part is not None]


def _fits(room: int, size: int) -> int:
    """2: wholly, 1: some of it, 0: the part is full."""
    return 2 if room >= size else int(room > 0)


def _fill_empty_parts(chosen: list[str | None], units_of_part: Counter[str]) -> None:
    """A part too small for one image gets one all the same, from the largest."""
    for part, count in list(units_of_part.items()):
        if count == 0:
            largest = units_of_part.most_common(1)[0][0]
            chosen[chosen.index(largest)] = part
            units_of_part[largest] -= 1
            units_of_part[part] += 1


def _whole_sizes(count: int, parts: Mapping[str, float]) -> dict[str, int]:
    """Images of each part: rounded down, what is left to the largest remainders."""
    sizes = {part: int(fraction * count + 1e-9) for part, fraction in parts.items()}
    by_remainder = sorted(parts, key=lambda p: sizes[p] - parts[p] * count)
    for part in by_remainder[: count - sum(sizes.values())]:
        sizes[part] += 1
    return sizes


def _some(values: Iterable[Any]) -> str:
    listed = [str(value) for value in values]
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return ", ".join(listed[:_SHOWN]) + more
