"""The part of the check that training runs: seconds, no image opened, errors end the run.

Masks are looked at in an even sample where a file has very many; what slips through is a
`DataError` of the mapper, with the image's id.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

from detectron2.data import DatasetCatalog, MetadataCatalog

from ...errors import DataError, UsageError
from ..coco_table import CocoTable
from ..records import table_of as read_table
from ..registration import describe_unknown, locate_dataset, require_files_of
from .document import missing_crowd_flags
from .facts import Settings
from .findings import ERROR, WARNING, Report
from .suite import check_table

MOST_MASKS = 100_000  # looked at before a run; `data check` looks at all
_SHOWN = 3  # examples of each kind in a message
_MOST_KINDS = 8  # kinds in a message
# Without these evaluation ends in a KeyError; training does not ask for them.
_EVALUATION_NEEDS = ("area-missing", "crowd-missing")


def check_datasets(
    names: Sequence[str],
    num_classes: int,
    *,
    needs_annotations: bool,
    wants_masks: bool,
    wants_keypoints: bool = True,
    table_of: Callable[[str], CocoTable] | None = None,
) -> dict[str, str]:
    """Refuse data that would fail later or, worse, be taken in silence.

    Warnings are counted in one line of the log.

    Args:
        names: data sets as in DATASETS.TRAIN or DATASETS.TEST
        num_classes: foreground classes of the model
        needs_annotations: training needs them; a test set may come without (COCO test-dev)
        wants_masks: the model learns masks; without it they are not looked at
        wants_keypoints: the same for keypoints
        table_of: name -> the table of the set's annotation file, where it is read already
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
            raise UsageError(describe_unknown(name))
        location = locate_dataset(name)
        if location is None:
            continue
        json_file, image_root = location
        require_files_of(name)
        table = table_of(name) if table_of else read_table(json_file)
        _check_sections(table, name, needs_annotations=needs_annotations)
        settings = Settings(
            masks=wants_masks and needs_annotations,
            keypoints=wants_keypoints,
            most_masks=MOST_MASKS,
        )
        more = () if needs_annotations else (missing_crowd_flags,)
        report = check_table(table, image_root, settings, more=more, whole_file=False)
        fatal = {"no-masks"} if needs_annotations else set(_EVALUATION_NEEDS)
        _stop_or_log(report, name, fatal)
        _check_num_classes(table, name, num_classes)
        fingerprints[name] = table.sha256[:16]
    return fingerprints


def _stop_or_log(report: Report, name: str, fatal: set[str]) -> None:
    """Raise on errors, and on findings of a code in `fatal`; log how many others there are."""
    stopping = [d for d in report.defects if d.severity == ERROR or d.code in fatal]
    if stopping:
        shown = Report(report.table, stopping[:_MOST_KINDS])
        lines = [f"  {finding.line(with_file=False)}" for finding in shown.findings(_SHOWN)]
        count = sum(len(defect) for defect in stopping)
        more = f"\n  and {count - len(lines)} more" if count > len(lines) else ""
        raise DataError(
            f"data set {name!r} cannot be used: {_times(count, 'error')} in {report.table.path}:\n"
            + "\n".join(lines)
            + f"{more}\nAll of them, with pictures and repairs: mask-rcnn-ext data check {name}"
        )
    warnings = [f"{d.code} {len(d)}" for d in report.defects if d.severity == WARNING]
    if warnings:
        logging.getLogger(__name__).warning(
            "Data set %s: %s (%s). For each: mask-rcnn-ext data check %s",
            name,
            _times(report.counts()[WARNING], "warning"),
            ", ".join(warnings),
            name,
        )


def _check_sections(table: CocoTable, name: str, *, needs_annotations: bool) -> None:
    if needs_annotations and "annotations" not in table.keys:
        raise DataError(
            f"{table.path} lacks the section 'annotations'; it has: {', '.join(sorted(table.keys))}"
        )
    if not table.num_images:
        raise DataError(f"{table.path} (data set {name!r}) has no images")
    if needs_annotations and not table.num_annotations:
        raise DataError(f"{table.path} (data set {name!r}) has no annotations to train on")


def _check_num_classes(table: CocoTable, name: str, num_classes: int) -> None:
    classes = [c["name"] for c in sorted(table.categories, key=lambda c: str(c["id"]))]
    # A name registered by hand may fix the classes; Detectron2 then goes by these.
    fixed = MetadataCatalog.get(name).get("thing_classes")
    found = len(fixed) if fixed else len(classes)
    if found != num_classes:
        raise UsageError(
            f"MODEL.ROI_HEADS.NUM_CLASSES is {num_classes}, but data set {name!r} ({table.path}) "
            f"has {found} classes: {_some(fixed or classes, 10)}. "
            f"Set MODEL.ROI_HEADS.NUM_CLASSES {found}."
        )


def _some(examples: Iterable[str], limit: int) -> str:
    listed = list(examples)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _times(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")
