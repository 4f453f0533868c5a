"""Cityscapes' instance figures, computed in memory; equal to the benchmark's own script."""

from .evaluator import CityscapesEvaluator
from .matching import Distances, ImageMatches, match_image
from .metrics import CityscapesFigures, cityscapes_figures
from .submission import write_submission

__all__ = [
    "CityscapesEvaluator",
    "CityscapesFigures",
    "Distances",
    "ImageMatches",
    "cityscapes_figures",
    "match_image",
    "write_submission",
]
