"""Soft-NMS against a slow loop class by class, and against hard NMS where they meet."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from mask_rcnn_ext.ops.soft_nms import METHODS, soft_nms


def iou(a, b):
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    overlap = np.prod(np.maximum(high - low, 0))
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - overlap
    return overlap / union if union > 0 else 0.0


def slow(boxes, scores, classes, method, threshold, sigma, score_threshold, max_boxes):
    """The paper's figure 2, one class after the other, in float64."""
    found = []
    for one in sorted(set(classes.tolist())):
        left = {int(i): float(scores[i]) for i in np.flatnonzero(classes == one)}
        left = {i: s for i, s in left.items() if s > score_threshold}
        while left:
            best = max(left, key=lambda i: (left[i], -i))
            found.append((left.pop(best), best))
            for i in list(left):
                overlap = iou(boxes[best], boxes[i])
                if method == "soft_linear":
                    left[i] *= 1 - overlap if overlap > threshold else 1
                else:
                    left[i] *= np.exp(-(overlap**2) / sigma)
                if left[i] <= score_threshold:
                    del left[i]
    found.sort(key=lambda pair: (-pair[0], pair[1]))
    return found if max_boxes < 0 else found[:max_boxes]


@settings(deadline=None, max_examples=80)
@given(
    st.integers(0, 12),
    st.sampled_from(METHODS),
    st.sampled_from([0.0, 0.3, 0.5]),
    st.sampled_from([0.1, 0.5]),
    st.sampled_from([-1, 0, 3, 100]),
    st.integers(0, 2**31),
)
def test_against_the_slow_loop(count, method, threshold, sigma, max_boxes, seed):
    random = np.random.default_rng(seed)
    low = random.integers(0, 12, (count, 2))
    boxes = np.concatenate([low, low + random.integers(0, 12, (count, 2))], 1).astype(float)
    scores = random.permutation(count) / max(count, 1) + 0.013
    classes = random.integers(0, 3, count)
    kept, new = soft_nms(
        torch.tensor(boxes).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(classes),
        method=method,
        iou_threshold=threshold,
        sigma=sigma,
        score_threshold=0.05,
        max_boxes=max_boxes,
    )
    expected = slow(boxes, scores, classes, method, threshold, sigma, 0.05, max_boxes)
    assert new.tolist() == pytest.approx([score for score, _ in expected])
    if len({round(score, 9) for score, _ in expected}) == len(expected):
        assert kept.tolist() == [index for _, index in expected]


def test_a_tiny_sigma_is_hard_nms_of_all_that_touch():
    random = np.random.default_rng(5)
    low = random.uniform(0, 50, (40, 2))
    boxes = torch.tensor(np.concatenate([low, low + random.uniform(5, 30, (40, 2))], 1))
    scores, classes = torch.tensor(random.uniform(0.1, 1, 40)), torch.tensor([0, 1] * 20)
    kept, new = soft_nms(boxes, scores, classes, method="soft_gaussian", sigma=1e-40)
    hard = batched_nms(boxes, scores, classes, 0.0)
    assert kept.tolist() == hard.tolist()
    assert torch.equal(new, scores[hard])


def test_by_hand():
    boxes = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 1], [5, 5, 6, 6]])
    kept, scores = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.5]), torch.zeros(3), iou_threshold=0.4)
    assert kept.tolist() == [0, 2, 1]
    assert scores.tolist() == pytest.approx([0.9, 0.5, 0.4])  # 0.8 * (1 - 1/2)


def test_what_is_refused():
    nothing = torch.zeros(0, 4), torch.zeros(0), torch.zeros(0)
    with pytest.raises(ValueError, match="expected one of soft_linear"):
        soft_nms(*nothing, method="hard")
    with pytest.raises(ValueError, match="sigma=0"):
        soft_nms(*nothing, sigma=0)
    kept, scores = soft_nms(*nothing)
    assert kept.shape == scores.shape == (0,)
