"""What a check says: findings, one line each, kept as rows until somebody reads them.

A file of 860,000 boxes may have as many findings of one kind. A `Defect` holds the rows and a
function that words one of them; `Finding`s are made while they are printed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ..coco_table import CocoTable

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)

_LONGEST_VALUE = 60  # characters of a value from the file that a message shows


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a file.

    severity: "error" (training would fail, or learn something wrong without a word), "warning"
        (works, but hardly as meant), "note" (good to know)
    code: short name of the kind of finding, the same in every version
    file: the annotation file
    what, advice: what is wrong, and what to do about it
    image_id, file_name, annotation_id: None where the finding is not about one
    image_row, annotation_row: places in the file's lists, -1 where the finding is not about one
    """

    severity: str
    code: str
    file: str
    what: str
    advice: str
    image_id: Any = None
    file_name: str | None = None
    annotation_id: Any = None
    image_row: int = -1
    annotation_row: int = -1

    def line(self, *, with_file: bool = True) -> str:
        """All of it in one line."""
        places = []
        if self.image_row >= 0 or self.image_id is not None:
            who = f"number {self.image_row}" if self.image_id is None else show(self.image_id)
            places.append(f"image {who}" + (f" ({self.file_name})" if self.file_name else ""))
        if self.annotation_row >= 0:
            missing = self.annotation_id is None
            who = f"number {self.annotation_row}" if missing else show(self.annotation_id)
            places.append(f"annotation {who}")
        where = "".join(f"{place}: " for place in [", ".join(places)] if place)
        file = f"{self.file}: " if with_file else ""
        text = f"{self.severity}: {file}{where}{self.what}. {self.advice} [{self.code}]"
        # Half of a surrogate pair, which JSON can hold, cannot be printed.
        return " ".join(text.split()).encode("utf-8", "backslashreplace").decode()

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Defect:
    """All findings of one kind.

    section: which list of the file `rows` counts in: "images", "annotations", "categories"; or
        "file", whose rows are mere numbers
    rows: (n,) int64, ascending
    what: row -> what is wrong there
    """

    code: str
    severity: str
    section: str
    rows: np.ndarray
    what: Callable[[int], str]
    advice: str

    def __len__(self) -> int:
        return len(self.rows)


class Report:
    """The findings about one file, errors first; within a kind in the file's order.

    Args:
        table: the file
        defects: of any order, empty ones are left out
        unchecked: what was not looked at, in words
    """

    def __init__(
        self, table: CocoTable, defects: Sequence[Defect], unchecked: Sequence[str] = ()
    ) -> None:
        self.table = table
        present = [defect for defect in defects if len(defect)]
        self.defects = sorted(present, key=lambda defect: SEVERITIES.index(defect.severity))
        self.unchecked = list(unchecked)

    def counts(self) -> Counter[str]:
        """severity -> number of findings."""
        counts = Counter(dict.fromkeys(SEVERITIES, 0))
        for defect in self.defects:
            counts[defect.severity] += len(defect)
        return counts

    def summary(self) -> str:
        """ "1 error, 2 warnings, 0 notes"."""
        return ", ".join(
            f"{count} {name}" + ("" if count == 1 else "s") for name, count in self.counts().items()
        )

    def counts_by_code(self) -> dict[str, int]:
        """code -> number of findings, in the report's order."""
        counts: Counter[str] = Counter()
        for defect in self.defects:
            counts[defect.code] += len(defect)
        return dict(counts)

    def findings(self, limit: int | None = None) -> Iterator[Finding]:
        """All of them, or the first `limit` of each kind."""
        for defect in self.defects:
            for row in defect.rows[:limit].tolist():
                yield self._finding(defect, row)

    def _finding(self, defect: Defect, row: int) -> Finding:
        table, image, annotation = self.table, -1, -1
        if defect.section == "images":
            image = row
        elif defect.section == "annotations":
            annotation, image = row, int(table.image_of[row])
        image_id: Any = None
        if image >= 0:
            image_id = plain(table.image_ids[image])
        elif annotation >= 0:
            image_id = plain(table.annotation_image_ids[annotation])
        return Finding(
            severity=defect.severity,
            code=defect.code,
            file=table.path,
            what=defect.what(row),
            advice=defect.advice,
            image_id=image_id,
            file_name=table.file_name(image) or None if image >= 0 else None,
            annotation_id=plain(table.annotation_ids[annotation]) if annotation >= 0 else None,
            image_row=image,
            annotation_row=annotation,
        )


def show(value: Any) -> str:
    """A value of the file for a message: as Python writes it, cut where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def numbers(values: Sequence[float] | np.ndarray) -> str:
    """Numbers for a message: at most two digits after the point."""
    return "[" + ", ".join(f"{round(float(value), 2):.10g}" for value in values) + "]"


def plain(value: Any) -> Any:
    """A numpy scalar as Python's own; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value
