"""What can be known about a data set before the first iteration, and what to do about it.

The check reads the annotation file and the folder listing, never an image: seconds for COCO.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ..errors import DataError, UsageError
from .registration import DATASETS_ENV, datasets_root, locate_dataset

_SHOWN = 3  # examples named in a message


def check_datasets(
    names: Sequence[str], num_classes: int, *, needs_annotations: bool, wants_masks: bool
) -> dict[str, str]:
    """Refuse data that would fail later or, worse, be taken in silence.

    Args:
        names: data sets as in DATASETS.TRAIN or DATASETS.TEST
        num_classes: foreground classes of the model
        needs_annotations: training needs them; a test set may come without (COCO test-dev)
        wants_masks: some annotation must have a segmentation
    Returns:
        name -> fingerprint of the annotation file (sha256, first 16 hex digits); sets that are not
        in COCO's format are not looked into and have none
    Raises:
        UsageError: a name that nobody registered; NUM_CLASSES that disagrees
        DataError: files that are missing or cannot be used; names file and ids
    """
    fingerprints = {}
    for name in names:
        if name not in DatasetCatalog.list():
            near = difflib.get_close_matches(name, DatasetCatalog.list(), n=3, cutoff=0.5)
            raise UsageError(
                f"data set {name!r} is not registered"
                + (f"; nearest: {', '.join(near)}" if near else "")
            )
        location = locate_dataset(name)
        if location is None:
            continue
        json_file, image_root = location
        _check_files_exist(name, json_file, image_root)
        content = _read(name, json_file)
        data = parse_annotations(content, json_file)
        _check_sections(data, name, json_file, needs_annotations=needs_annotations)
        _check_images(data["images"], json_file, image_root)
        _check_annotations(data, json_file, wants_masks=wants_masks and needs_annotations)
        _check_num_classes(data, name, json_file, num_classes)
        fingerprints[name] = hashlib.sha256(content).hexdigest()[:16]
    return fingerprints


def parse_annotations(content: bytes, json_file: str) -> dict[str, Any]:
    """The annotation file as a dict; DataError when it is no JSON object."""
    try:
        data = json.loads(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{json_file} is not JSON ({error}); its size is {len(content)} bytes. "
            "A download that broke off looks like this: fetch it again."
        ) from error
    except RecursionError as error:
        raise DataError(f"{json_file} nests too deep to be an annotation file") from error
    if not isinstance(data, dict):
        raise DataError(
            f"{json_file} holds a JSON {type(data).__name__}, expected an object with "
            "images, annotations and categories; is it a results file?"
        )
    return data


def _check_files_exist(name: str, json_file: str, image_root: str) -> None:
    missing = [path for path in (json_file, image_root) if not os.path.exists(path)]
    if not missing:
        return
    root = Path(datasets_root())
    message = f"data set {name!r}: {' and '.join(missing)} not found."
    if all(Path(path).is_relative_to(root) for path in missing):
        setting = os.environ.get(DATASETS_ENV)
        how = f"{DATASETS_ENV}={setting}" if setting else f"{DATASETS_ENV} is not set"
        state = "exists" if root.is_dir() else "does not exist"
        message += (
            f" Looked below {root.resolve()} ({how}), which {state}. Expected there:\n"
            f"  {_relative(json_file, root)}\n  {_relative(image_root, root)}/<images>\n"
            f"Set {DATASETS_ENV} to the folder that holds them."
        )
        if name.startswith("scenes"):
            message += f" Or make them: mask-rcnn-ext scenes --out {root / 'scenes'} --images 2000"
    raise DataError(message)


def _relative(path: str, root: Path) -> str:
    return str(Path(path).relative_to(root))


def _read(name: str, json_file: str) -> bytes:
    try:
        return Path(json_file).read_bytes()
    except OSError as error:
        raise DataError(f"data set {name!r}: cannot read {json_file}: {error.strerror}") from error


def _check_sections(
    data: dict[str, Any], name: str, json_file: str, *, needs_annotations: bool
) -> None:
    sections = ["images", "categories"] + (["annotations"] if needs_annotations else [])
    for section in sections:
        if section not in data:
            raise DataError(
                f"{json_file} lacks the section {section!r}; it has: {', '.join(sorted(data))}"
            )
    for section in [*sections, *(["annotations"] if "annotations" in data else [])]:
        if not isinstance(data[section], list) or not all(
            isinstance(entry, dict) for entry in data[section]
        ):
            raise DataError(f"{json_file}: section {section!r} is not a list of objects")
    if not data["images"]:
        raise DataError(f"{json_file} (data set {name!r}) has no images")
    if needs_annotations and not data["annotations"]:
        raise DataError(f"{json_file} (data set {name!r}) has no annotations to train on")


def _check_images(images: list[dict[str, Any]], json_file: str, image_root: str) -> None:
    for position, image in enumerate(images):
        lacking = [key for key in ("id", "file_name", "height", "width") if key not in image]
        if lacking:
            raise DataError(
                f"{json_file}: image {image.get('id', f'number {position}')} "
                f"lacks {', '.join(lacking)}"
            )
    present: dict[str, set[str]] = {}
    missing = []
    for image in images:
        # One listing a folder instead of one question a file: seconds on a network disk.
        folder, _, file = str(image["file_name"]).rpartition("/")
        if folder not in present:
            present[folder] = _listing(os.path.join(image_root, folder))
        if file not in present[folder]:
            missing.append(image)
    if missing:
        examples = _some(f"{image['file_name']} (image id {image['id']})" for image in missing)
        raise DataError(
            f"{len(missing)} of {len(images)} images of {json_file} are not in {image_root}: "
            f"{examples}. Fetch them, or take them out of the annotation file."
        )


def _listing(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _check_annotations(data: dict[str, Any], json_file: str, *, wants_masks: bool) -> None:
    image_ids = {_hashable(image["id"], json_file) for image in data["images"]}
    category_ids = {_hashable(c.get("id"), json_file) for c in data["categories"]}
    nameless = [c for c in data["categories"] if "id" not in c or "name" not in c]
    if nameless:
        raise DataError(f"{json_file}: a category lacks id or name: {nameless[0]}")
    annotations = data.get("annotations", [])
    for annotation in annotations:
        who = f"{json_file}: annotation {annotation.get('id', '(no id)')}"
        lacking = [k for k in ("id", "image_id", "category_id", "bbox") if k not in annotation]
        if lacking:
            raise DataError(f"{who} lacks {', '.join(lacking)}")
        if _hashable(annotation["category_id"], json_file) not in category_ids:
            raise DataError(
                f"{who} (image id {annotation['image_id']}) has category_id "
                f"{annotation['category_id']!r}, which no category has"
            )
        if _hashable(annotation["image_id"], json_file) not in image_ids:
            raise DataError(
                f"{who} belongs to image_id {annotation['image_id']!r}, which no image has"
                " (ids are compared with their type: 1 is not '1')"
            )
        bbox = annotation["bbox"]
        if not (
            isinstance(bbox, list)
            and len(bbox) == 4
            and all(isinstance(v, int | float) and abs(v) < float("inf") for v in bbox)
        ):
            raise DataError(
                f"{who} (image id {annotation['image_id']}) has bbox {bbox!r}, "
                "expected four finite numbers [x, y, width, height] in pixels"
            )
    if wants_masks and not any(annotation.get("segmentation") for annotation in annotations):
        raise DataError(
            f"{json_file}: no annotation has a segmentation, and MODEL.MASK_ON is True. "
            "Give it masks, or train boxes only with MODEL.MASK_ON False."
        )


def _check_num_classes(data: dict[str, Any], name: str, json_file: str, num_classes: int) -> None:
    classes = [c["name"] for c in sorted(data["categories"], key=lambda c: str(c["id"]))]
    # A name registered by hand may fix the classes; Detectron2 then goes by these.
    fixed = MetadataCatalog.get(name).get("thing_classes")
    found = len(fixed) if fixed else len(classes)
    if found != num_classes:
        raise UsageError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes}, but data set {name!r} ({json_file}) "
            f"has {found} classes: {_some(fixed or classes, 10)}. "
            f"Set MODEL.ROI_HEADS.NUM_CLASSES {found}."
        )


def _hashable(value: Any, json_file: str) -> Any:
    if not isinstance(value, int | str | float):
        raise DataError(f"{json_file}: an id is {value!r}, expected a number")
    return value


def _some(examples: Iterable[str], limit: int = _SHOWN) -> str:
    listed = list(examples)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
