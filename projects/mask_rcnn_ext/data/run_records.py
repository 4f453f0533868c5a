"""Which images of the registered data sets a run trains on or is tested on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from detectron2.data import get_detection_dataset_dicts

from ..errors import DataError
from .dubious import left_out
from .records import CocoRecords, JoinedRecords, Record
from .registration import records_of


def select_records(
    names: Sequence[str],
    *,
    filter_empty: bool = False,
    min_keypoints: int = 0,
    proposal_files: Sequence[str] | None = None,
) -> Sequence[Record]:
    """The records of several data sets, one after the other.

    What Detectron2's `get_detection_dataset_dicts` returns as a list; sets in COCO's format stay
    columns. A set registered elsewhere, and precomputed proposals, go through that function.

    Args:
        names: registered data sets
        filter_empty: leave out images whose annotations are all crowds, or that have none
        min_keypoints: leave out images with fewer visible keypoints
        proposal_files: one a data set, as DATASETS.PROPOSAL_FILES_TRAIN
    Raises:
        DataError: nothing is left
    """
    found = [] if proposal_files is not None else [records_of(name) for name in names]
    parts = [part for part in found if isinstance(part, CocoRecords)]
    if len(parts) != len(names):
        dicts: list[Record] = get_detection_dataset_dicts(
            list(names),
            filter_empty=filter_empty,
            min_keypoints=min_keypoints,
            proposal_files=proposal_files,
        )
        return dicts
    kept = []
    for name, part in zip(names, parts, strict=True):
        keep = np.ones(len(part), bool)
        if filter_empty:
            empty = ~part.has_instances
            left_out(name, "have no annotation that is not a crowd", part.ids_of(empty), len(part))
            keep &= ~empty
        if min_keypoints > 0:
            few = keep & (part.visible_keypoints() < min_keypoints)
            reason = f"have fewer than {min_keypoints} visible keypoints"
            left_out(name, reason, part.ids_of(few), len(part))
            keep &= ~few
        kept.append(part.take(keep))
    if not sum(map(len, kept)):
        raise DataError(
            f"no image of {', '.join(names)} can be used: each has only crowds, no annotations"
            f"{', or too few visible keypoints' if min_keypoints else ''}"
        )
    return kept[0] if len(kept) == 1 else JoinedRecords(kept)
