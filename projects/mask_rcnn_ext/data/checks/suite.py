"""All checks of a file, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..coco_table import CocoTable
from . import boxes, classes, document, ids, images, keypoints, limits, masks
from .facts import Facts, Progress, Settings
from .findings import Defect, Report

Check = Callable[[Facts], Iterator[Defect]]


def checks_of(settings: Settings, *, whole_file: bool) -> tuple[Check, ...]:
    """The checks that look at the columns only.

    Args:
        settings: masks and keypoints can be left out
        whole_file: also those that read the whole file once more
    """
    return (
        *document.CHECKS,
        *(document.WHOLE_FILE if whole_file else ()),
        *ids.CHECKS,
        *images.CHECKS,
        *classes.CHECKS,
        *boxes.CHECKS,
        *(masks.CHECKS if settings.masks else ()),
        *masks.OTHERS,
        *(keypoints.CHECKS if settings.keypoints else ()),
        *limits.CHECKS,
    )


def check_table(
    table: CocoTable,
    image_root: str | None,
    settings: Settings | None = None,
    *,
    more: tuple[Check, ...] = (),
    whole_file: bool = True,
    progress: Progress | None = None,
) -> Report:
    """
    Args:
        table: of `read_coco_table`
        image_root: folder of the images; None leaves their files out
        settings: see `Settings`
        more: further checks, such as those that open images
        whole_file: also checks that read the file's bytes once more
        progress: told what is going on
    Returns:
        the report, errors first
    """
    facts = Facts(table, image_root, settings, progress)
    return check_facts(facts, more=more, whole_file=whole_file)


def check_facts(facts: Facts, *, more: tuple[Check, ...] = (), whole_file: bool = True) -> Report:
    """`check_table` for facts that are wanted afterwards, too."""
    other_kind = [defect for check in document.FIRST for defect in check(facts)]
    if other_kind:
        return Report(facts.table, other_kind, ["everything else: it is no file of instances"])
    checks = (*checks_of(facts.settings, whole_file=whole_file), *more)
    defects: list[Defect] = []
    for check in checks:
        defects += check(facts)
    return Report(facts.table, defects, unchecked(facts))


def unchecked(facts: Facts) -> list[str]:
    """What was left out, in words."""
    left_out = []
    if facts.image_root is None:
        left_out.append("the images' files: no folder is known")
    if not facts.settings.masks:
        left_out.append("masks: the model has none")
    elif not facts.masks.looked_at.all():
        looked, count = int(facts.masks.looked_at.sum()), facts.table.num_annotations
        left_out.append(f"the masks of {count - looked} of {count} annotations")
    return left_out
