"""What one must know to read COCO figures: why some are NaN, or not the official ones."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from .coco_backends import Problem
from .coco_truth import GroundTruth

OFFICIAL_CAPS = (1, 10, 100)  # detections an image and class; COCO's

_NAMES = 10  # classes that a note names
_RANGES = {
    "APs": "an area below 32 x 32 pixels",
    "APm": "an area from 32 x 32 to 96 x 96 pixels",
    "APl": "an area above 96 x 96 pixels",
}


def notes_on_problem(problem: Problem, truth: GroundTruth, objects: Sequence[int]) -> list[str]:
    """What is known before the figures are: caps, sigmas, ids, no detections.

    Args:
        objects: of each class, how many can be found
    """
    notes = []
    cap = problem.max_dets[-1]
    if problem.task != "keypoints" and cap != OFFICIAL_CAPS[-1]:
        numbers = Counter((one["image_id"], one["category_id"]) for one in problem.detections)
        beyond = sum(number > min(cap, OFFICIAL_CAPS[-1]) for number in numbers.values())
        if beyond:
            notes.append(
                f"{cap} detections an image and class count, COCO's official figures have 100: "
                f"not comparable with these ({beyond} times there are more than "
                f"{min(cap, OFFICIAL_CAPS[-1])})"
            )
        else:
            notes.append(
                f"{cap} detections an image and class count instead of COCO's 100; nowhere are "
                f"there more than {min(cap, OFFICIAL_CAPS[-1])}, so AP is the official figure"
            )
    if problem.sigmas is not None:
        notes.append(
            "the keypoints' sigmas were given: not comparable with COCO's official figures unless "
            "they are the person's"
        )
    if truth.has_odd_ids():
        notes.append(
            f"{truth.name} has an annotation with the id 0, or ids that are there more than once; "
            "COCO's own code miscounts these, here each annotation counts once"
        )
    if not problem.detections and any(objects):
        notes.append("there is no detection at all: AP and AR are 0")
    return notes


def notes_on_figures(
    stats: Mapping[str, float], class_ap: Mapping[str, float], name: str
) -> list[str]:
    """Why a figure is NaN (COCO's code has -1 there).

    Args:
        stats: the summary
        class_ap: AP of each class
        name: of the ground truth
    """
    missing = [one for one, ap in class_ap.items() if math.isnan(ap)]
    if len(missing) == len(class_ap):
        return [f"all figures are NaN: no ground truth (crowds do not count) in {name}"]
    notes = []
    if missing:
        names = ", ".join(missing[:_NAMES])
        more = f" and {len(missing) - _NAMES} more" if len(missing) > _NAMES else ""
        notes.append(
            f"no ground truth (crowds do not count) of {names}{more} in {name}: AP is NaN there, "
            "and the means are over the other classes"
        )
    notes += [
        f"{figure} is NaN: no ground truth of {extent} in {name}"
        for figure, extent in _RANGES.items()
        if math.isnan(stats.get(figure, 0.0))
    ]
    return notes
