"""Classes and keypoints of registered sets, and whether those of several sets agree."""

from __future__ import annotations

from collections.abc import Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import DataError, UsageError
from ..cityscapes.labels import THINGS
from ..keypoint_schema import KeypointSchema
from ..records import set_classes, table_of
from .catalog import entry_of, locate_dataset
from .files import Location, require_files
from .sources import describe_unknown

_SHOWN = 5  # names in a message


def class_names_of(name: str) -> list[str] | None:
    """Class names in the order of the model's outputs.

    Args:
        name: a registered set; its files are read where its classes are not known yet
    Returns:
        None for a set that is not in COCO's format and names no classes
    Raises:
        UsageError: a name that nobody registered
        UserError: the set's files are missing or cannot be read
    """
    if name not in DatasetCatalog:
        raise UsageError(describe_unknown(name))
    metadata, entry = MetadataCatalog.get(name), entry_of(name)
    if entry is not None:
        entry.notice_changes()
    if metadata.__dict__.get("thing_classes"):
        return list(metadata.thing_classes)
    if entry is not None and entry.spec.format == "cityscapes" and not entry.spec.classes:
        return [label.name for label in THINGS]  # whatever the files hold
    location = locate_dataset(name)
    if location is None:
        return None
    if entry is not None:
        require_files(entry.spec, Location(*location))
        return list(metadata.thing_classes)
    table = table_of(location[0])
    if not table.categories:
        raise DataError(f"{location[0]} (data set {name!r}) has no categories")
    set_classes(name, table)
    return list(metadata.thing_classes)


def num_classes_of(name: str) -> int | None:
    """How many foreground classes a set has; None where that is not known."""
    names = class_names_of(name)
    return None if names is None else len(names)


def check_same_classes(names: Sequence[str]) -> list[str] | None:
    """The classes that all these sets have, in the same order.

    Args:
        names: registered sets, training and test
    Returns:
        None when no set says its classes
    Raises:
        UsageError: two sets differ; says in what
    """
    first: tuple[str, list[str]] | None = None
    for name in names:
        classes = class_names_of(name)
        if classes is None:
            continue
        if first is None:
            first = (name, classes)
        elif classes != first[1]:
            raise UsageError(_difference(first, (name, classes)))
    return None if first is None else first[1]


def keypoint_schema_of(name: str) -> KeypointSchema | None:
    """Keypoints of a set: those it was registered with, else those that its file names.

    Returns:
        None for a set without keypoints; `sigmas` is empty where COCO's for its person hold
    """
    metadata = MetadataCatalog.get(name)
    names = metadata.get("keypoint_names")
    if not names:
        return None
    entry = entry_of(name)
    given = entry.spec.keypoints if entry is not None else None
    return KeypointSchema(
        tuple(names),
        tuple(metadata.get("keypoint_flip_map", ())),
        tuple(metadata.get("keypoint_connection_rules", ())),
        given.sigmas if given is not None else (),
    )


def _difference(one: tuple[str, list[str]], other: tuple[str, list[str]]) -> str:
    message = f"data sets {one[0]!r} and {other[0]!r} have different classes: "
    details = []
    for (name, classes), (_, others) in ((one, other), (other, one)):
        only = [c for c in classes if c not in others]
        if only:
            more = f" and {len(only) - _SHOWN} more" if len(only) > _SHOWN else ""
            details.append(f"only {name!r} has {', '.join(only[:_SHOWN])}{more}")
    if not details:
        if len(one[1]) == len(other[1]):
            place = next(i for i, name in enumerate(one[1]) if name != other[1][i])
            details.append(f"class {place} is {one[1][place]!r} and {other[1][place]!r}")
        else:
            details.append(f"one has {len(one[1])}, the other {len(other[1])}, names repeated")
    return (
        message
        + "; ".join(details)
        + ". classes: {rename, merge, drop, order} in their YAMLs can make them agree"
    )
