"""`mask-rcnn-ext data`: look at a data set, check it, and bring it into shape.

  data check    every defect by file, image id and annotation id; --fix writes a corrected file
  data stats    instances per class, sizes at training scale, ..., as a table and a picture
  data browse   one HTML page of samples with masks, boxes and ids, or of augmented samples
  data convert  VIA, labelme, CVAT, YOLO-seg, VOC masks, PNG maps to COCO's format; COCO to YOLO-seg
  data distill  label unlabelled images with a trained model (data distillation)
  data split    divide a set into parts, by image or by group
  data merge    several sets as one
  data subset   some images or classes of a set

A set is named as in DATASETS.TRAIN, or given as an annotation file in COCO's format.
"""

from __future__ import annotations

import argparse

from ..actions import add_actions, run_action
from . import browse, check, convert, distill, merge, split, stats, subset

HELP = "check, count, draw, convert, split and merge data sets"

COMMANDS = {
    "check": check,
    "stats": stats,
    "browse": browse,
    "convert": convert,
    "distill": distill,
    "split": split,
    "merge": merge,
    "subset": subset,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_actions(parser, COMMANDS, "command")


run = run_action
