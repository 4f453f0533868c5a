"""From an annotation file with findings to a corrected new one, and the list of changes.

Each round checks the file, mends what the findings name, and starts over with the result, since a
repaired mask may show that its box is wrong. An entry is changed once a round. What two values
contradict, or what only eyes can decide, stays as it is.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError, UserError
from ....files import atomic_write
from ...coco_table import read_coco_table
from ..document import parse_annotations
from ..facts import Facts, Progress, Settings
from ..findings import Report
from ..suite import Check, check_facts
from . import ids, shapes, sizes
from .document import Change, Document, MovedOut

_MOST_ROUNDS = 20
Repair = Callable[[Document, Facts, str, np.ndarray], None]

# Of the file as a whole.
_FILE_REPAIRS: dict[str, Callable[[Document, Facts, str], None]] = {
    "mixed-ids": ids.text_to_numbers,
    "string-ids": ids.text_to_numbers,
    "crowd-missing": shapes.crowd_default,
}
# Of single entries, in this order: what others are judged by comes first.
_REPAIRS: dict[str, Repair] = {
    "unknown-image": ids.resolve_image,
    "unknown-category": ids.resolve_category,
    "duplicate-image-id": ids.drop_equal_images,
    "annotation-id": ids.number_anew,
    "duplicate-annotation-id": ids.number_anew,
    "annotation-id-zero": ids.number_anew,
    "image-size": sizes.size_from_picture,
    "image-size-differs": sizes.size_that_fits,
    "exif-rotated": sizes.size_that_fits,
    "mask-flat": shapes.nest_polygon,
    "mask-malformed": shapes.drop_polygons,
    "polygon-odd": shapes.drop_polygons,
    "polygon-short": shapes.drop_polygons,
    "polygon-not-finite": shapes.drop_polygons,
    "mask-normalised": shapes.scale_polygons,
    "box-xyxy": shapes.corners_to_sides,
    "box-normalised": shapes.scale_box,
    "box-malformed": shapes.box_from_mask,
    "box-negative": shapes.box_from_mask,
    "box-empty": shapes.box_from_mask,
    "box-outside": shapes.box_from_mask,
    "box-not-around-mask": shapes.box_from_mask,
    "box-loose": shapes.box_from_mask,
    "box-beyond-edge": shapes.cut_box,
    "area-missing": shapes.area_from_mask,
    "area-not-positive": shapes.area_from_mask,
    "area-differs": shapes.area_from_mask,
    "crowd-flag": shapes.crowd_flag,
    "keypoints-missing": shapes.no_keypoints,
    "keypoints-count": shapes.count_keypoints,
}


@dataclass(frozen=True)
class Repaired:
    """What came of it.

    written: the new file; None if nothing was to be changed, and none was written
    report: about the new file, or about the old one if there is no new one
    """

    written: Path | None
    report: Report
    changes: list[Change] = field(default_factory=list)
    moved_out: list[MovedOut] = field(default_factory=list)


def repair_file(
    json_file: str,
    image_root: str | None,
    target: Path,
    settings: Settings | None = None,
    *,
    more: Sequence[Check] = (),
    progress: Progress | None = None,
) -> Repaired:
    """Write a corrected file and, beside it, `<name>.changes.json`.

    Args:
        json_file: the annotation file, only read
        image_root: folder of the images
        target: the new file
        settings: see `Settings`
        more: further checks, such as those that open images
        progress: told what is going on
    Raises:
        DataError: the file cannot be read at all
        UserError: the new file cannot be written
    """
    settings = settings or Settings()
    content = Path(json_file).read_bytes()
    document = Document(parse_annotations(content.removeprefix(b"\xef\xbb\xbf"), json_file))
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
            source = json_file
            for _ in range(_MOST_ROUNDS):
                facts = Facts(read_coco_table(source), image_root, settings, progress)
                report = check_facts(facts, more=tuple(more))
                _mend(document, facts, report)
                if not document.end_round():
                    break
                source = str(Path(folder) / Path(json_file).name)
                _write(Path(source), document.data)
            if not document.changes and not document.moved_out:
                return Repaired(None, report)
            _write(target, document.data)
        _write_changes(changes_path(target), json_file, content, target, document, report)
    except OSError as error:
        raise UserError(f"cannot write {target}: {error.strerror}") from error
    final = check_facts(
        Facts(read_coco_table(target), image_root, settings, progress), more=tuple(more)
    )
    return Repaired(target, final, document.changes, document.moved_out)


def changes_path(target: Path) -> Path:
    """Where the list of changes of a corrected file goes."""
    return target.with_name(f"{target.stem}.changes.json")


def _mend(document: Document, facts: Facts, report: Report) -> None:
    found: dict[str, np.ndarray] = {}
    for defect in report.defects:
        known = found.get(defect.code)
        rows = defect.rows if known is None else np.union1d(known, defect.rows)
        found[defect.code] = rows
    if "byte-order-mark" in found:
        document.note("byte-order-mark", "byte order mark", "present", "removed")
    for code, whole in _FILE_REPAIRS.items():
        if code in found:
            whole(document, facts, code)
    for code, single in _REPAIRS.items():
        if code in found:
            single(document, facts, code, found[code])


def _write(path: Path, data: dict[str, Any]) -> None:
    try:
        with atomic_write(path, "w") as file:
            json.dump(data, file)
    except UnicodeEncodeError as error:  # half of a surrogate pair cannot be written as UTF-8
        raise DataError(f"{path}: a text of the file is no Unicode ({error})") from error


def _write_changes(
    path: Path, json_file: str, content: bytes, target: Path, document: Document, report: Report
) -> None:
    facts = {
        "made_by": "mask-rcnn-ext data check",
        "input": json_file,
        "input_sha256": hashlib.sha256(content).hexdigest(),
        "output": str(target),
        "output_sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
        "changes": [asdict(change) for change in document.changes],
        "moved_out": [asdict(moved) for moved in document.moved_out],
        "not_fixed": report.counts_by_code(),
    }
    with atomic_write(path, "w") as file:
        json.dump(facts, file, indent=1)  # NaN stays as it was in the file
        file.write("\n")
