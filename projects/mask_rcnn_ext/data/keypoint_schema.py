"""Which keypoints a data set has: their names, mirror pairs, lines and sigmas."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import UsageError
from .spec_fields import Fields

COCO_PERSON = "coco_person"  # in a YAML it stands for COCO's own 17
_KEYPOINTS = ["names", "flip", "skeleton", "sigmas"]
# How names of a pair differ: left_eye and right_eye, eye_left, l_eye, LeftEye, ...
_SIDES = (("left", "right"), ("Left", "Right"), ("LEFT", "RIGHT"))


@dataclass(frozen=True)
class KeypointSchema:
    """Keypoints of a data set, in the order of the annotations.

    names: one a keypoint
    flip: pairs that change places when the image is mirrored
    skeleton: (name, name, RGB 0 to 255), lines to draw
    sigmas: one a keypoint, COCO's measure of how exactly people mark it; () for COCO's person
    """

    names: tuple[str, ...]
    flip: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[str, str, tuple[int, int, int]], ...] = ()
    sigmas: tuple[float, ...] = ()


def parse_keypoints(top: Fields) -> KeypointSchema | None:
    """The schema that the key `keypoints` of a data set's YAML gives, None without the key."""
    if not top.has("keypoints"):
        return None
    if top.value("keypoints") == COCO_PERSON:
        return coco_person_keypoints()
    if isinstance(top.value("keypoints"), str):
        raise UsageError(
            f"{top.where}: keypoints is {top.value('keypoints')!r}, expected {COCO_PERSON} or a "
            f"mapping with {', '.join(_KEYPOINTS)}"
        )
    own = Fields(top.value("keypoints"), f"{top.where}: keypoints", _KEYPOINTS)
    names = own.texts("names", least=1)
    if not names:
        raise UsageError(f"{own.where}: names is missing; name the keypoints in their order")
    flip = tuple((pair[0], pair[1]) for pair in _pairs(own, "flip", names, colour=False))
    mirrored = [name for pair in flip for name in pair]
    twice = sorted({name for name in mirrored if mirrored.count(name) > 1})
    if twice:
        raise UsageError(f"{own.where}: flip has {twice[0]!r} more than once")
    lines = _pairs(own, "skeleton", names, colour=True)
    skeleton = tuple(
        (line[0], line[1], tuple(line[2]) if len(line) == 3 else _colour(number, len(lines)))
        for number, line in enumerate(lines)
    )
    return KeypointSchema(names, flip, skeleton, _sigmas(own, names))


def coco_person_keypoints() -> KeypointSchema:
    """COCO's 17 keypoints of a person, as Detectron2 has them."""
    from detectron2.data.datasets import builtin_meta

    return KeypointSchema(
        names=tuple(builtin_meta.COCO_PERSON_KEYPOINT_NAMES),
        flip=tuple(builtin_meta.COCO_PERSON_KEYPOINT_FLIP_MAP),
        skeleton=tuple(builtin_meta.KEYPOINT_CONNECTION_RULES),
    )


def keypoints_of_categories(categories: Sequence[Mapping[str, Any]]) -> KeypointSchema | None:
    """What a COCO file itself says: the names and lines that its categories list.

    Pairs that change places in a mirrored image are found by "left" and "right" in the names.

    Returns:
        None when no category lists keypoints, or two list different ones
    """
    listed = {
        tuple(category["keypoints"]): category.get("skeleton")
        for category in categories
        if isinstance(category.get("keypoints"), list)
        and category["keypoints"]
        and all(isinstance(name, str) for name in category["keypoints"])
    }
    if len(listed) != 1:
        return None
    ((names, lines),) = listed.items()
    flip = [
        (name, name.replace(left, right))
        for name in names
        for left, right in _SIDES
        if left in name and name.replace(left, right) in names
    ]
    # COCO counts keypoints from 1 in its skeletons.
    pairs = [
        (names[line[0] - 1], names[line[1] - 1])
        for line in (lines if isinstance(lines, list) else [])
        if isinstance(line, list)
        and len(line) == 2
        and all(type(end) is int and 1 <= end <= len(names) for end in line)
    ]
    skeleton = tuple((*pair, _colour(number, len(pairs))) for number, pair in enumerate(pairs))
    return KeypointSchema(names, tuple(flip), skeleton)


def _pairs(own: Fields, key: str, names: Sequence[str], *, colour: bool) -> list[list[Any]]:
    value = own.value(key) if own.has(key) else []
    expected = "a list of pairs of names" + (", each with an RGB colour if you like" * colour)
    if not isinstance(value, list):
        raise UsageError(f"{own.where}: {key} is {value!r}, expected {expected}")
    for number, pair in enumerate(value):
        sound = isinstance(pair, list) and len(pair) in ((2, 3) if colour else (2,))
        if not sound or (len(pair) == 3 and not _is_colour(pair[2])):
            raise UsageError(f"{own.where}: {key}[{number}] is {pair!r}, expected {expected}")
        for name in pair[:2]:
            if name not in names:
                raise UsageError(
                    f"{own.where}: {key}[{number}] has {name!r}, which is not among names: "
                    f"{', '.join(names)}"
                )
        if pair[0] == pair[1]:
            raise UsageError(f"{own.where}: {key}[{number}] pairs {pair[0]!r} with itself")
    return value


def _is_colour(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(type(part) is int and 0 <= part <= 255 for part in value)
    )


def _colour(number: int, count: int) -> tuple[int, int, int]:
    """Line `number` of `count` in colours spread around the wheel."""
    red, green, blue = colorsys.hsv_to_rgb(number / count, 0.8, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)


def _sigmas(own: Fields, names: Sequence[str]) -> tuple[float, ...]:
    value = own.value("sigmas") if own.has("sigmas") else []
    numbers = isinstance(value, list) and all(type(v) in (int, float) and 0 < v < 10 for v in value)
    if not numbers or (value and len(value) != len(names)):
        raise UsageError(
            f"{own.where}: sigmas is {value!r}, expected one number above 0 for each of the "
            f"{len(names)} keypoints"
        )
    return tuple(float(v) for v in value)
