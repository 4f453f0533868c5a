"""Data distillation (paper, appendix B; Radosavovic et al., arXiv 1712.04440).

A trained model, the teacher, sees unlabelled images in several views (scales, mirrored). What the
views agree on becomes one prediction an object; the predictions above a score become labels. The
score is not chosen by hand: the labels have as many objects an image, on average, as the labelled
set has. A new model, the student, is then trained on both sets.

  images        which images are labelled
  labelled      what is counted in the labelled set
  teacher       the model, its views, its proposals
  predictions   the teacher's predictions, kept in files, so that a stopped run goes on
  threshold     the score that keeps as many as wanted
  labels        the annotation file
"""

from __future__ import annotations

from .images import Unlabelled, images_in_folder, images_of_file
from .labelled import LabelledSet, read_labelled
from .labels import Distilled, write_labels
from .predictions import PART, Part, Teacher, parts_of, predict_parts, teacher_key
from .teacher import ViewsTeacher
from .threshold import Threshold, choose_threshold

__all__ = [
    "PART",
    "Distilled",
    "LabelledSet",
    "Part",
    "Teacher",
    "Threshold",
    "Unlabelled",
    "ViewsTeacher",
    "choose_threshold",
    "images_in_folder",
    "images_of_file",
    "parts_of",
    "predict_parts",
    "read_labelled",
    "teacher_key",
    "write_labels",
]
