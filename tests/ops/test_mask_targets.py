"""polygon_targets gives Detectron2's (COCO's) bits, for whatever polygons and boxes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import PolygonMasks
from detectron2.structures.masks import rasterize_polygons_within_box
from hypothesis import given, settings
from hypothesis import strategies as st

from mask_rcnn_ext.ops import mask_targets
from mask_rcnn_ext.ops.mask_targets import polygon_targets

Object = list[np.ndarray]
BOTH_ROUTES = pytest.mark.parametrize("every_column", [False, True])


def theirs(objects: list[Object], boxes: torch.Tensor, side: int) -> torch.Tensor:
    pairs = zip(objects, boxes.numpy(), strict=True)
    return torch.stack([rasterize_polygons_within_box(one, box, side) for one, box in pairs])


def assert_same_bits(objects: list[Object], boxes: torch.Tensor, side: int) -> torch.Tensor:
    expected = theirs(objects, boxes, side)
    for every_column in (False, True):
        ours = polygon_targets(objects, boxes, side, every_column=every_column)
        assert (ours.dtype, ours.shape) == (torch.bool, (len(objects), side, side))
        wrong = (ours != expected).flatten(1).any(dim=1).nonzero().flatten().tolist()
        assert not wrong, (every_column, side, [(objects[i], boxes[i]) for i in wrong[:1]])
    return expected


def polygon(*points: tuple[float, float]) -> np.ndarray:
    return np.array(points, dtype=np.float64).ravel()


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


UNIT = torch.tensor([[0.0, 0.0, 8.0, 8.0]])


@BOTH_ROUTES
def test_numbers_by_hand(every_column):
    """The box is cut into 4 x 4 cells of 2 x 2 pixels; the triangle's long side is x = y."""
    triangle = [polygon((0, 0), (8, 8), (0, 8))]
    right_half = [rectangle(4, 0, 8, 8)]
    two_corners = [rectangle(0, 0, 2, 2), rectangle(6, 6, 8, 8)]
    targets = polygon_targets(
        [triangle, right_half, two_corners], UNIT.expand(3, 4), 4, every_column=every_column
    )
    assert targets.int().tolist() == [
        [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]],
        [[0, 0, 1, 1]] * 4,
        [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]],
    ]


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Object], torch.Tensor, int]:
    """Objects around boxes; vertices from far outside to on one another, many of them on ties."""
    side = draw(st.sampled_from([1, 2, 3, 14, 28, 56]))
    objects, boxes = [], []
    for _ in range(draw(st.integers(1, 4))):
        corner = np.array([draw(st.floats(-40, 400, width=32)) for _ in range(2)])
        size = np.array([draw(st.floats(-3, 600, width=32)) for _ in range(2)])
        if draw(st.booleans()):
            corner, size = corner.round(), np.maximum(size.round(), 1)
        boxes.append(np.concatenate([corner, corner + size]))
        # A vertex is drawn in fine points (a fifth of a cell), the unit in which COCO rounds.
        reach = draw(st.sampled_from([1, 3, 1000]))
        fine = st.integers(-5 * side * (reach - 1), 5 * side * reach)
        offset = st.sampled_from([0.0, 0.5, -0.5, 0.25])
        one = []
        for _ in range(draw(st.integers(0, 3))):
            number = draw(st.integers(3, 9))
            points = [[draw(fine) + draw(offset) for _ in range(2)] for _ in range(number)]
            if draw(st.booleans()):
                points[-1] = points[draw(st.integers(0, number - 2))]
            one.append((corner + np.array(points) * np.maximum(size, 0.1) / (5 * side)).ravel())
        objects.append(one)
    return objects, torch.tensor(np.array(boxes), dtype=torch.float32), side


@settings(deadline=None, max_examples=150)
@given(cases())
def test_the_bits_are_those_of_detectron2(case):
    assert_same_bits(*case)


@pytest.mark.parametrize("side", [1, 7, 28, 112])
def test_many_random_shapes(side):
    """Floats without a grid: rounding errors of edges, not ties. About half of all cells is set."""
    generator = np.random.default_rng(side)
    low = generator.uniform(-20, 500, (60, 2))
    boxes = np.concatenate([low, low + np.exp(generator.uniform(-2, 6, (60, 2)))], axis=1)
    objects = []
    for x0, y0, x1, y1 in boxes:
        number = int(generator.integers(3, 40))
        points = generator.uniform(-0.5, 1.5, (number, 2)) * [x1 - x0, y1 - y0] + [x0, y0]
        objects.append([points.ravel()])
    expected = assert_same_bits(objects, torch.tensor(boxes, dtype=torch.float32), side)
    assert 0.2 < expected.double().mean() < 0.8


def test_every_small_edge():
    """Ties: where an edge meets a column's line at half a fine point, the last bit decides.

    Each edge of up to 20 x 20 fine points, from each fine point of a cell, as side of a triangle.
    """
    side, far = 10, (-3, 3)
    objects = []
    for start in np.ndindex(5, 5):
        for step in np.ndindex(41, 20):
            a = np.add(start, (25, 5))
            b = a + step - (20, 0)
            objects.append([np.array([a, b, far], dtype=np.float64).ravel() / 5])
    boxes = torch.tensor([[0.0, 0.0, side, side]]).expand(len(objects), 4)
    assert_same_bits(objects, boxes, side)


EDGE_CASES = {
    "covers the box": [rectangle(-9, -9, 99, 99)],
    "left of the box": [rectangle(-9, 1, -2, 5)],
    "above": [rectangle(1, -9, 5, -2)],
    "right of it": [rectangle(9, 1, 12, 5)],
    "below": [rectangle(1, 9, 5, 12)],
    "crosses every side": [polygon((4, -3), (11, 4), (4, 11), (-3, 4))],
    "huge": [polygon((-1e5, -2e5), (3e5, 1e5), (-1.3e5, 2.1e5))],
    "huge, all its corners beyond one side": [polygon((-1e5, -1e5), (1e5, -1e5), (3e5, -2))],
    "smaller than a fine point": [rectangle(3, 3, 3.01, 3.01)],
    "one point": [polygon((3, 3), (3, 3), (3, 3))],
    "a line": [polygon((1, 1), (7, 6), (1, 1))],
    "an upright line": [polygon((3, 1), (3, 7), (3, 4))],
    "crosses itself": [polygon((0, 0), (8, 8), (8, 0), (0, 8))],
    "winds twice": [polygon((1, 1), (7, 1), (7, 7), (1, 7), (1, 1), (7, 1), (7, 7), (1, 7))],
    "overlapping polygons": [rectangle(0, 0, 5, 5), rectangle(3, 3, 8, 8)],
    "the same polygon twice": [rectangle(1, 1, 6, 6), rectangle(1, 1, 6, 6)],
    "a hole of its own": [rectangle(0, 0, 8, 8), rectangle(2, 2, 6, 6)],
    "a star": [polygon((4, 0), (6.4, 7.6), (0.2, 2.9), (7.8, 2.9), (1.6, 7.6))],
    "no polygon": [],
}


@pytest.mark.parametrize("side", [1, 5, 28])
@pytest.mark.parametrize("name", EDGE_CASES)
def test_edge_cases(name, side):
    assert_same_bits([EDGE_CASES[name]], UNIT, side)


def test_edge_cases_together_do_not_touch_each_other():
    objects = list(EDGE_CASES.values())
    expected = assert_same_bits(objects, UNIT.expand(len(objects), 4), 28)
    assert expected[list(EDGE_CASES).index("no polygon")].sum() == 0
    assert expected[list(EDGE_CASES).index("covers the box")].all()


@pytest.mark.parametrize(
    "box",
    [(2, 2, 2, 2), (2, 2, 2.05, 7), (5, 5, 2, 3), (-30, -30, -20, -25), (0, 0, 0.1, 1e4)],
    ids=str,
)
def test_strange_boxes(box):
    assert_same_bits([EDGE_CASES["a star"]], torch.tensor([box], dtype=torch.float32), 14)


def test_boxes_in_double_precision():
    boxes = torch.tensor([[0.1, 0.2, 7.7, 6.3]], dtype=torch.float64)
    assert_same_bits([EDGE_CASES["a star"]], boxes, 28)


@pytest.mark.parametrize("count", [255, 256, 512])
def test_counts_beyond_a_byte(count):
    """256 polygons of one object, and an outline that crosses one cell 256 times."""
    one = [rectangle(1, 1, 6, 6) for _ in range(count)]
    comb = [polygon(*[(8 * (i % 2), 3) for i in range(count)], (0, 8), (8, 8))]
    assert assert_same_bits([one, comb, []], UNIT.expand(3, 4), 7).any()


def test_detectron2s_own_structure_gives_the_same():
    objects = [one for one in EDGE_CASES.values() if one]
    boxes = torch.rand(len(objects), 4) * 5 + torch.tensor([0.0, 0.0, 5.0, 5.0])
    masks = PolygonMasks(objects)
    expected = masks.crop_and_resize(boxes, 28)
    assert torch.equal(polygon_targets(masks.polygons, boxes, 28), expected)


@BOTH_ROUTES
def test_small_steps_change_nothing(monkeypatch, every_column):
    objects = list(EDGE_CASES.values())
    boxes = UNIT.expand(len(objects), 4)
    monkeypatch.setattr(mask_targets, "PAIRS_AT_ONCE", 28 * 3)
    monkeypatch.setattr(mask_targets, "PAIRS_IN_CACHE", 5)
    ours = polygon_targets(objects, boxes, 28, every_column=every_column)
    assert torch.equal(ours, theirs(objects, boxes, 28))


@BOTH_ROUTES
def test_nothing_to_do(every_column):
    none = polygon_targets([], torch.zeros(0, 4), 28, every_column=every_column)
    assert (none.shape, none.dtype) == ((0, 28, 28), torch.bool)
    empty = polygon_targets([[], []], torch.rand(2, 4), 28, every_column=every_column)
    assert empty.shape == (2, 28, 28)
    assert not empty.any()


@BOTH_ROUTES
def test_arguments_stay_as_they_are(every_column):
    one, boxes = polygon((0, 0), (8, 8), (0, 8)), UNIT.clone()
    before = one.copy()
    polygon_targets([[one]], boxes, 28, every_column=every_column)
    assert (one == before).all()
    assert torch.equal(boxes, UNIT)


@BOTH_ROUTES
def test_boxes_that_are_no_numbers_give_some_mask(every_column):
    """Training finds such boxes elsewhere; an index out of bounds here would kill a GPU's run."""
    boxes = torch.tensor([[float("nan")] * 4, [0.0, 0.0, float("inf"), 8.0]])
    objects = [EDGE_CASES["a star"]] * 2
    assert polygon_targets(objects, boxes, 7, every_column=every_column).shape == (2, 7, 7)


def test_every_column_waits_for_no_value():
    """On the meta device there are no values: a wait for one would raise, as would a CPU tensor."""
    objects = [EDGE_CASES["a star"], EDGE_CASES["a hole of its own"]]
    targets = polygon_targets(objects, torch.empty(2, 4, device="meta"), 28)
    assert (targets.device.type, targets.shape) == ("meta", (2, 28, 28))


@pytest.mark.gpu
def test_a_gpu_gives_the_same_bits():
    objects = list(EDGE_CASES.values())
    boxes = UNIT.expand(len(objects), 4)
    ours = polygon_targets(objects, boxes.cuda(), 28)
    assert ours.is_cuda
    assert torch.equal(ours.cpu(), theirs(objects, boxes, 28))


@pytest.mark.parametrize(
    ("objects", "boxes", "side", "expected"),
    [
        ([[rectangle(0, 0, 1, 1)]], torch.zeros(2, 4), 28, r"1 objects and boxes of shape \(2, 4"),
        ([[rectangle(0, 0, 1, 1)]], torch.zeros(1, 5), 28, r"shape \(1, 5\)"),
        ([], torch.zeros(0), 28, r"shape \(0,\)"),
        ([[rectangle(0, 0, 1, 1)]], UNIT, 0, "side=0, expected 1"),
        ([[rectangle(0, 0, 1, 1), np.zeros(4)]], UNIT, 28, "a polygon of 4 numbers"),
        ([[np.zeros(7)]], UNIT, 28, "a polygon of 7 numbers"),
    ],
)
def test_wrong_arguments_are_named(objects, boxes, side, expected):
    with pytest.raises(ValueError, match=expected):
        polygon_targets(objects, boxes, side)
