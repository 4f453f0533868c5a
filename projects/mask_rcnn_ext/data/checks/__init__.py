"""What is wrong with an annotation file and its images, and what to do about it.

`check_table` looks at the columns of a file: seconds to a minute for COCO's size. `pixels` opens
the images besides. `check_datasets` is the part that training runs before its first iteration.
"""

from .document import parse_annotations
from .findings import ERROR, NOTE, WARNING, Defect, Finding, Report
from .gate import check_datasets
from .suite import Settings, check_table

__all__ = [
    "ERROR",
    "NOTE",
    "WARNING",
    "Defect",
    "Finding",
    "Report",
    "Settings",
    "check_datasets",
    "check_table",
    "parse_annotations",
]
