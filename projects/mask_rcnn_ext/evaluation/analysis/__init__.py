"""Why the figures are what they are: analyses by mask IoU, on COCO ground truth and results.

comparison = compare(read_coco_table(annotations), results)
records = match_detections(comparison)
ap = average_precision(PrecisionCurves(records).precision())
"""

from .average_precision import PrecisionCurves, average_precision
from .bootstrap import Interval, PairedTest, bootstrap_ap, paired_test
from .breakdown import Part, by_area, by_count, by_occlusion
from .comparison import Comparison, compare
from .confusion import confusion_matrix
from .curves import Curve, Curves, OperatingPoint, precision_recall_curves
from .errors import ErrorReport, error_report
from .matching import IOU_THRESHOLDS, Records, match_detections
from .negatives import NegativeImages, negative_images

__all__ = [
    "IOU_THRESHOLDS",
    "Comparison",
    "Curve",
    "Curves",
    "ErrorReport",
    "Interval",
    "NegativeImages",
    "OperatingPoint",
    "PairedTest",
    "Part",
    "PrecisionCurves",
    "Records",
    "average_precision",
    "bootstrap_ap",
    "by_area",
    "by_count",
    "by_occlusion",
    "compare",
    "confusion_matrix",
    "error_report",
    "match_detections",
    "negative_images",
    "paired_test",
    "precision_recall_curves",
]
