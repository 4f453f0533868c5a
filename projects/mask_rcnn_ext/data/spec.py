"""What a data set's YAML says, checked: names, format, files, classes, evaluator, keypoints.

`parse_specs` turns one mapping into one `DatasetSpec` for each name that it defines. No file is
looked at here; docs/datasets.md describes the keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import UsageError
from .class_map import ClassChanges
from .keypoint_schema import KeypointSchema, parse_keypoints
from .spec_fields import Fields

FORMATS = ("coco", "cityscapes", "via", "labelme", "cvat", "yolo-seg", "voc-masks", "png")
EVALUATORS = ("coco", "cityscapes")
ROOT_VARIABLE = "DETECTRON2_DATASETS"

_TOP = ["name", "format", "root", "splits", "classes", "evaluator", "keypoints", "options"]
_PART = ["annotations", "images", "only_images_of", "without_images_of"]
_SPLIT = [*_PART, "parts", "if_missing", "options"]
_CLASSES = ["rename", "merge", "keep", "drop", "order"]
# A name becomes part of file names (cache, output folders).
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,119}")
_VARIABLE = re.compile(r"\$\{?(\w*)\}?")


@dataclass(frozen=True)
class Part:
    """Annotations and the images that they are of; a data set is one part or several joined.

    annotations: a file or folder, by format, relative to the root
    images: folder of the images, relative to the root; "" is the format's own place
    only_images_of: annotation files or lists of ids, the first that exists counts; other images
        are left out
    without_images_of: the same, for the images to leave out
    """

    annotations: str
    images: str = ""
    only_images_of: tuple[str, ...] = ()
    without_images_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class DatasetSpec:
    """One registered name.

    name: as in DATASETS.TRAIN
    format: of FORMATS
    folder: what a relative `root` is relative to; None for the datasets root
    root: as written; "" is `folder`
    parts: none for Cityscapes, which goes by `split`
    if_missing: the parts to use when the annotations of the first of `parts` do not exist
    split: folder of Cityscapes' tree; "" otherwise
    classes: changes to what the data say
    evaluator: of EVALUATORS
    keypoints: None where the data say, or have none
    options: of the importer
    metadata: more for Detectron2's MetadataCatalog; from Python only
    where: file and split, for messages; has no part in comparisons
    """

    name: str
    format: str = "coco"
    folder: str | None = None
    root: str = ""
    parts: tuple[Part, ...] = ()
    if_missing: tuple[Part, ...] = ()
    split: str = ""
    classes: ClassChanges = ClassChanges()
    evaluator: str = "coco"
    keypoints: KeypointSchema | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    where: str = field(default="", compare=False)

    @property
    def is_plain(self) -> bool:
        """Whether the user's own annotation file is used as it is."""
        return self.format == "coco" and not self.classes and _is_one_file(self.parts)


def _is_one_file(parts: Sequence[Part]) -> bool:
    return len(parts) == 1 and not (parts[0].only_images_of or parts[0].without_images_of)


def parse_specs(content: Any, where: str, folder: str | None) -> list[DatasetSpec]:
    """
    Args:
        content: what the YAML holds, or a dict of the same form
        where: the file, for messages
        folder: what relative paths are relative to; None for the datasets root
    Returns:
        one a split, named `<name>_<split>`; one named `<name>` without splits
    Raises:
        UsageError: names the key at fault, and what it may be
    """
    splitless = isinstance(content, Mapping) and "splits" not in content
    top = Fields(content, where, [*_TOP, *_SPLIT] if splitless else _TOP)
    name = top.text("name")
    format_ = top.choice("format", FORMATS, default="coco")
    splits = top.mapping("splits") if not splitless else {"": content}
    if not splits:
        raise UsageError(f"{where}: splits is empty; without splits leave the key out")
    classes = _classes(top, where)
    evaluator = top.choice("evaluator", EVALUATORS, default="coco")
    _check_evaluator(evaluator, format_, classes, where)
    shared: dict[str, Any] = {
        "format": format_,
        "folder": folder,
        "root": _path(top.text("root", default=""), f"{where}: root"),
        "classes": classes,
        "evaluator": evaluator,
        "keypoints": parse_keypoints(top),
        "options": top.mapping("options", default={}),
    }
    specs = []
    for split, value in splits.items():
        place = f"{where}: splits.{split}" if split else where
        full = f"{name}_{split}" if split else name
        if not _NAME.fullmatch(full) or full.endswith("."):
            raise UsageError(
                f"{place}: {full!r} cannot be the name of a data set; a name has letters, digits, "
                "and _ . - inside, at most 120 in all"
            )
        if format_ == "cityscapes":
            specs.append(_cityscapes(full, split, value, place, where, shared))
        else:
            keys = [*_TOP, *_SPLIT] if splitless else _SPLIT
            own = Fields(value, place, keys)
            parts = _parts(own, place)
            fallback: tuple[Part, ...] = ()
            if own.has("if_missing"):
                inner = f"{place}: if_missing"
                fallback = _parts(Fields(own.value("if_missing"), inner, [*_PART, "parts"]), inner)
            _check_filters(format_, (*parts, *fallback), place)
            options = {**shared["options"], **own.mapping("options", default={})}
            specs.append(
                DatasetSpec(
                    name=full,
                    parts=parts,
                    if_missing=fallback,
                    where=place,
                    **{**shared, "options": options},
                )
            )
    return specs


def _cityscapes(
    full: str, split: str, value: Any, place: str, where: str, shared: dict[str, Any]
) -> DatasetSpec:
    if not split:
        raise UsageError(
            f"{where}: format cityscapes needs splits, e.g. splits: {{train: {{}}, val: {{}}}}"
        )
    own = Fields(value if value is not None else {}, place, ["split"])
    part_of = own.text("split", default=split)
    if not _NAME.fullmatch(part_of):
        raise UsageError(f"{place}: split is {part_of!r}, expected train, val or test")
    return DatasetSpec(name=full, split=part_of, where=place, **shared)


def _parts(own: Fields, where: str) -> tuple[Part, ...]:
    if not own.has("parts"):
        return (_part(own),)
    if own.has("annotations") or own.has("images"):
        raise UsageError(f"{where}: give either parts or annotations and images, not both")
    parts = own.value("parts")
    if not isinstance(parts, list) or not parts:
        raise UsageError(f"{where}: parts is {parts!r}, expected a list of mappings")
    return tuple(
        _part(Fields(part, f"{where}: parts[{number}]", _PART)) for number, part in enumerate(parts)
    )


def _part(own: Fields) -> Part:
    return Part(
        annotations=_path(own.text("annotations"), f"{own.where}: annotations"),
        images=_path(own.text("images", default=""), f"{own.where}: images"),
        only_images_of=_paths(own, "only_images_of"),
        without_images_of=_paths(own, "without_images_of"),
    )


def _paths(own: Fields, key: str) -> tuple[str, ...]:
    value = own.value(key) if own.has(key) else []
    files = (value,) if isinstance(value, str) else own.texts(key)
    return tuple(_path(file, f"{own.where}: {key}") for file in files)


def _path(text: str, where: str) -> str:
    if "\0" in text:
        raise UsageError(f"{where}: a path cannot hold a zero byte")
    for match in _VARIABLE.finditer(text):
        if match[0] != f"${{{ROOT_VARIABLE}}}":
            raise UsageError(
                f"{where}: {match[0]!r} in {text!r}; the one variable that paths may use is "
                f"${{{ROOT_VARIABLE}}}"
            )
    return text


def _check_filters(format_: str, parts: Sequence[Part], where: str) -> None:
    if format_ != "coco" and any(p.only_images_of or p.without_images_of for p in parts):
        raise UsageError(
            f"{where}: only_images_of and without_images_of go by COCO's image ids; "
            f"the format is {format_}"
        )


def _check_evaluator(evaluator: str, format_: str, classes: ClassChanges, where: str) -> None:
    if evaluator == "cityscapes" and (format_ != "cityscapes" or classes):
        raise UsageError(
            f"{where}: evaluator cityscapes judges the files of a Cityscapes tree by its eight "
            "classes; with another format or with changed classes use evaluator: coco"
        )


def _classes(top: Fields, where: str) -> ClassChanges:
    if not top.has("classes"):
        return ClassChanges()
    if isinstance(top.value("classes"), list):
        raise UsageError(
            f"{where}: classes is a list; it is a mapping with any of {', '.join(_CLASSES)}. "
            "To give the order write classes: {order: [...]}"
        )
    own = Fields(top.value("classes"), f"{where}: classes", _CLASSES)
    rename = own.mapping("rename", default={})
    for old, new in rename.items():
        if not isinstance(new, str) or not new:
            raise UsageError(f"{own.where}: rename.{old} is {new!r}, expected the new name as text")
    merge = Fields(own.mapping("merge", default={}), f"{own.where}: merge", None)
    if own.has("keep") and own.has("drop"):
        raise UsageError(f"{own.where}: keep and drop exclude each other; give one of them")
    return ClassChanges(
        rename=tuple(rename.items()),
        merge=tuple((target, merge.texts(target, least=1)) for target in merge),
        keep=own.texts("keep", least=1),
        drop=own.texts("drop"),
        order=own.texts("order", least=1),
    )
