"""Which category is taken for which, with a row and a column for the background.

Letters: K categories.
"""

from __future__ import annotations

import numpy as np

from .comparison import Comparison


def confusion_matrix(
    comparison: Comparison, least_score: float = 0.5, least_iou: float = 0.5
) -> np.ndarray:
    """Match over all categories and count.

    By falling score (ties in the order of the results) each detection takes, of the image's objects
    of any category that are still free and that it overlaps enough, the one with the highest IoU;
    of equal ones one of its own category, then the first of the file. So an object's row says what
    the model's best answer for it was. A detection that takes nothing but lies in a crowd region of
    its category (by at least `least_iou` of itself) is left out.

    Args:
        comparison: of a set; IoU is of masks unless it was made for bbox
        least_score: detections below are left out
        least_iou: at which a detection can take an object
    Returns:
        (K + 1, K + 1) int64: row of the true category, column of the predicted one; the last row
        holds detections that took nothing, the last column objects that nothing took
    """
    background = comparison.num_categories
    counts = np.zeros((background + 1, background + 1), np.int64)
    for image in range(comparison.num_images):
        found, things = comparison.detections_of(image), comparison.objects_of(image)
        predicted = comparison.detections.category[found]
        true = comparison.objects.category[things]
        crowd = comparison.objects.crowd[things]
        file_order = comparison.objects.row[things]
        iou = comparison.iou[image]
        score, row = comparison.detections.score[found], comparison.detections.row[found]
        free = ~crowd
        for d in np.lexsort([row, -score]):
            if score[d] < least_score:
                break
            near = np.flatnonzero(free & (iou[d] >= least_iou))
            if len(near):
                other = true[near] != predicted[d]
                best = near[np.lexsort([file_order[near], other, -iou[d, near]])[0]]
                free[best] = False
                counts[true[best], predicted[d]] += 1
            elif not (crowd & (true == predicted[d]) & (iou[d] >= least_iou)).any():
                counts[background, predicted[d]] += 1
        np.add.at(counts[:, background], true[free], 1)
    return counts
