"""Our entries of Detectron2's catalogs: where their files are, their records, their metadata."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.catalog import Metadata

from ...errors import DataError, UsageError, UserError
from ..keypoint_schema import KeypointSchema, keypoints_of_categories
from ..records import CocoRecords, load_coco_records, set_classes, table_of
from ..spec import DatasetSpec
from .files import Location, locate, require_files
from .paths import path_of

# Metadata's evaluator_type; the names are Detectron2's.
EVALUATOR_TYPES = {"coco": "coco", "cityscapes": "cityscapes_instance"}
_LOCATION = ("json_file", "image_root", "image_dir", "gt_dir")
_CLASSES = ("thing_classes", "thing_dataset_id_to_contiguous_id")
_KEYPOINTS = ("keypoint_names", "keypoint_flip_map", "keypoint_connection_rules")

logger = logging.getLogger(__name__)


def load_records(json_file: str, image_root: str, name: str) -> CocoRecords:
    """Detectron2's standard dicts of a file; sets the classes of `name` in the MetadataCatalog."""
    return load_coco_records(json_file, image_root, name)


class RegisteredSet:
    """What the DatasetCatalog calls to get the records of a set that was registered here."""

    def __init__(self, spec: DatasetSpec):
        self.spec = spec
        self._state: Any = None  # of the file that the metadata were derived from
        self._derived: set[str] = set()

    def __call__(self) -> list[dict[str, Any]]:
        """A list, as Detectron2 promises: its own code changes the dicts in place."""
        return list(self.records())

    def records(self) -> CocoRecords:
        """The same as columns, for code of ours."""
        location = self.publish()
        require_files(self.spec, location)
        self.check_fixed_classes(location)
        self._forget()
        metadata = MetadataCatalog.get(self.spec.name)
        unknown = {key for key in _CLASSES if key not in metadata.__dict__}
        with _plain(self.spec.name):
            records = load_records(location.json_file, location.image_root, self.spec.name)
        self._derived |= unknown  # what was there, from Detectron2 or by hand, stays
        return records

    def publish(self) -> Location:
        """Find the files, make them where needed, and bring the metadata up to date."""
        location = locate(self.spec)
        state = (location, _file_state(location.json_file))
        if state != self._state:
            self._forget()
            self._state = state
        # Metadata refuses to change a value that is set: these are derived, not facts.
        metadata = MetadataCatalog.get(self.spec.name)
        metadata.__dict__.update(location.metadata())
        return location

    def derive(self, key: str) -> None:
        """Set what the data say of themselves: classes, and keypoints where nobody gave them."""
        location = self.publish()
        if key in _LOCATION:
            return
        require_files(self.spec, location)
        table = table_of(location.json_file)
        if key in _CLASSES:
            known = MetadataCatalog.get(self.spec.name).__dict__
            unknown = {key for key in _CLASSES if key not in known}
            set_classes(self.spec.name, table)
            self._derived |= unknown
        elif (schema := keypoints_of_categories(table.categories)) is not None:
            MetadataCatalog.get(self.spec.name).set(**keypoint_metadata(schema))
            self._derived |= set(_KEYPOINTS)

    def notice_changes(self) -> None:
        """Forget what was derived from a file that has changed since."""
        if self._derived:
            self.publish()

    def check_fixed_classes(self, location: Location) -> None:
        """Classes that were given by hand, or by Detectron2 for its own sets, must be the file's.

        Raises:
            UsageError: shows both
        """
        metadata = MetadataCatalog.get(self.spec.name)
        if "thing_classes" not in metadata.__dict__ or "thing_classes" in self._derived:
            return
        categories = table_of(location.json_file).categories
        with contextlib.suppress(TypeError, KeyError):  # ids or names that the check will name
            in_file = [c["name"] for c in sorted(categories, key=lambda c: c["id"])]
            if in_file != list(metadata.thing_classes):
                raise UsageError(
                    f"data set {self.spec.name!r}: thing_classes are registered as "
                    f"{_short(metadata.thing_classes)}, but {location.json_file} has "
                    f"{_short(in_file)}"
                )

    def _forget(self) -> None:
        metadata = MetadataCatalog.get(self.spec.name)
        for key in self._derived:
            metadata.__dict__.pop(key, None)
        self._derived.clear()


class UnknownFact(DataError, AttributeError):
    """Metadata that cannot be had, because the files cannot be read.

    To hasattr() and .get() there is nothing, as before a set is loaded; whoever needs the value
    gets the message for the user.
    """


class LazyMetadata(Metadata):
    """Metadata that look into the data when classes, files or keypoints are first asked for."""

    def __getattr__(self, key: str) -> Any:
        entry = entry_of(self.name)
        if entry is None or self.name in _busy or key not in (*_LOCATION, *_CLASSES, *_KEYPOINTS):
            return super().__getattr__(key)
        try:
            with _plain(self.name):
                entry.derive(key)
        except UserError as error:
            raise UnknownFact(str(error)) from error
        known = MetadataCatalog.get(self.name).__dict__  # of which this may be a copy
        return known[key] if key in known else super().__getattr__(key)


_busy: set[str] = set()  # names whose metadata are being filled: no looking into the data meanwhile


@contextlib.contextmanager
def _plain(name: str) -> Iterator[None]:
    outermost = name not in _busy
    _busy.add(name)
    try:
        yield
    finally:
        if outermost:
            _busy.discard(name)


def records_of(name: str) -> Sequence[dict[str, Any]]:
    """The records of a registered set: columns if it is registered here, else Detectron2's list."""
    entry = entry_of(name)
    if entry is not None:
        return entry.records()
    records: list[dict[str, Any]] = DatasetCatalog.get(name)
    return records


def entry_of(name: str) -> RegisteredSet | None:
    """Our entry of this name; None for a set that other code registered."""
    # .get would call it.
    entry = dict.get(DatasetCatalog.data, name)
    return entry if isinstance(entry, RegisteredSet) else None


def locate_dataset(name: str) -> tuple[str, str] | None:
    """(annotation file in COCO's format, image folder) of a set; None where there is no such file.

    For a set of another format the file is made in the cache if it is not there yet. The metadata
    that evaluators read are brought up to date on the way.

    Raises:
        UserError: the set's own files are missing or cannot be read, or the cache not written; a
            missing COCO file is not looked for here
    """
    entry = entry_of(name)
    if entry is not None:
        location = entry.publish()
        return location.json_file, location.image_root
    metadata = MetadataCatalog.get(name)
    json_file, image_root = metadata.get("json_file"), metadata.get("image_root")
    return (json_file, image_root) if json_file and image_root else None


def require_files_of(name: str) -> None:
    """Refuse a set whose annotation file or image folder is not there.

    Raises:
        DataError: says what was found instead
    """
    entry = entry_of(name)
    if entry is not None:
        require_files(entry.spec, entry.publish())
        return
    missing = [path for path in locate_dataset(name) or () if not os.path.exists(path)]
    if missing:
        raise DataError(
            f"data set {name!r}: {' and '.join(missing)} not found, where the code that registered "
            f"it looks (working directory {os.getcwd()})"
        )


def check_registration(spec: DatasetSpec) -> bool:
    """Whether the name is free; False when it stands for the same already.

    Raises:
        UsageError: it stands for something else; both values of each difference are shown
    """
    if spec.name not in DatasetCatalog:
        return True
    entry = entry_of(spec.name)
    if entry is not None:
        differences = _differences(entry.spec, spec)
        if differences:
            raise UsageError(
                f"data set {spec.name!r} is registered already with other values: "
                + "; ".join(differences)
            )
        _add_metadata(spec)
        return False
    known = MetadataCatalog.get(spec.name)
    before = (known.get("json_file"), known.get("image_root"))
    if spec.is_plain:
        location = locate(spec)
        if before == (location.json_file, location.image_root):
            _add_metadata(spec)
            return False
    raise UsageError(
        f"data set {spec.name!r} is registered already by other code, with annotations "
        f"{before[0]} and images in {before[1]}; choose another name"
    )


def add(spec: DatasetSpec) -> None:
    """Put a set into both catalogs; what is known of the name stays."""
    if spec.name in DatasetCatalog:
        DatasetCatalog.remove(spec.name)
    DatasetCatalog.register(spec.name, RegisteredSet(spec))
    metadata = MetadataCatalog.get(spec.name)
    # In place: other code may hold the object, which is the one of this name for good.
    object.__setattr__(metadata, "__class__", LazyMetadata)
    for key in (*_LOCATION, "evaluator_type"):
        metadata.__dict__.pop(key, None)
    with _plain(spec.name):
        metadata.set(evaluator_type=EVALUATOR_TYPES[spec.evaluator], **spec.metadata)
        if spec.keypoints is not None:
            metadata.set(**keypoint_metadata(spec.keypoints))


def replaces_detectron2s_own(spec: DatasetSpec) -> bool:
    """Whether Detectron2 itself registered this name, for the same place below the root."""
    entry = DatasetCatalog[spec.name]
    if not getattr(entry, "__module__", "").startswith("detectron2.data.datasets."):
        return False
    metadata = MetadataCatalog.get(spec.name)
    if spec.split:
        theirs, tail = metadata.get("image_dir"), f"{spec.root}/leftImg8bit/{spec.split}"
    else:
        theirs, tail = metadata.get("json_file"), os.path.join(spec.root, spec.parts[0].annotations)
    return theirs is not None and theirs.rstrip("/").endswith(tail)


def keypoint_metadata(schema: KeypointSchema) -> dict[str, Any]:
    """As Detectron2 names it; with the types that it uses for COCO's person."""
    return {
        "keypoint_names": schema.names,
        "keypoint_flip_map": schema.flip,
        "keypoint_connection_rules": list(schema.skeleton),
    }


def _add_metadata(spec: DatasetSpec) -> None:
    metadata = MetadataCatalog.get(spec.name)
    derived = (*_LOCATION, *_CLASSES, *_KEYPOINTS)
    for key, value in spec.metadata.items():
        if key not in metadata.__dict__ and key not in derived:
            setattr(metadata, key, value)


def _differences(before: DatasetSpec, now: DatasetSpec) -> list[str]:
    texts = [dict(_flat(spec)) for spec in (before, now)]
    # Metadata may come in several calls, as in Detectron2; only what both give must agree.
    both = before.metadata.keys() & now.metadata.keys()
    texts[0] |= {key: before.metadata[key] for key in sorted(both)}
    texts[1] |= {key: now.metadata[key] for key in sorted(both)}
    return [
        f"{key} was {texts[0].get(key, 'not given')} and is now {texts[1].get(key, 'not given')}"
        for key in dict.fromkeys([*texts[0], *texts[1]])
        if texts[0].get(key) != texts[1].get(key)
    ]


def _flat(spec: DatasetSpec) -> Iterator[tuple[str, Any]]:
    """What decides about a set, paths with their folders."""
    for kind in ("parts", "if_missing"):
        parts = getattr(spec, kind)
        for number, part in enumerate(parts):
            prefix = "" if kind == "parts" else "if_missing."
            prefix += f"parts[{number}]." if len(parts) > 1 else ""
            yield f"{prefix}annotations", path_of(spec, part.annotations)
            if part.images:
                yield f"{prefix}images", path_of(spec, part.images)
            for choice in ("only_images_of", "without_images_of"):
                if getattr(part, choice):
                    yield f"{prefix}{choice}", [path_of(spec, p) for p in getattr(part, choice)]
    if spec.split:
        yield "root", path_of(spec, "")
    yield from (("format", spec.format), ("split", spec.split), ("evaluator", spec.evaluator))
    for change in fields(spec.classes):
        if getattr(spec.classes, change.name):
            yield f"classes.{change.name}", getattr(spec.classes, change.name)
    if spec.keypoints is not None:
        for item in fields(spec.keypoints):
            yield f"keypoints.{item.name}", getattr(spec.keypoints, item.name)
    yield from ((f"options.{key}", value) for key, value in spec.options.items())


def _file_state(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _short(names: Any) -> str:
    listed = list(names)
    return (
        f"{len(listed)} classes ({', '.join(map(str, listed[:10]))}{', ...' * (len(listed) > 10)})"
    )
