"""Pasted masks are Detectron2's on a CPU, and their RLE pycocotools', bit for bit."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco
from torch.nn.functional import grid_sample

from mask_rcnn_ext.ops import mask_paste, paste_masks_to_rle
from mask_rcnn_ext.tools.bench.timing import peak_memory

HALF = 0.5
NEXT = float(np.nextafter(np.float32(HALF), np.float32(1)))  # the float32 after the threshold


def encode(bitmap: np.ndarray) -> dict:
    return coco.encode(np.asfortranarray(bitmap.astype(np.uint8)))


def theirs(
    masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], threshold: float = HALF
) -> list:
    """One by one: Detectron2 fails for all masks if one box's window ends before it starts."""
    answer = []
    for mask, box in zip(masks, boxes, strict=True):
        try:
            pasted = paste_masks_in_image(mask[None], box[None], size, threshold)[0].numpy()
        except RuntimeError as error:
            if "bound" not in str(error):  # of torch.arange
                raise
            pasted = np.zeros(size)
        answer.append(encode(pasted))
    return answer


def check(masks: torch.Tensor, boxes: torch.Tensor, size: tuple[int, int], threshold: float = HALF):
    ours, expected = (f(masks, boxes, size, threshold) for f in (paste_masks_to_rle, theirs))
    for index, (mine, other) in enumerate(zip(ours, expected, strict=True)):
        assert mine == other, (index, boxes[index].tolist(), size, threshold)


def random_masks(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Of all kinds: noise, blobs, zeros and ones, plateaus on the threshold and next to it."""
    shape = (side, side)
    below = float(np.nextafter(np.float32(HALF), np.float32(0)))
    row, column = np.mgrid[:side, :side] / max(side - 1, 1) - rng.random((2, 1, 1))
    kinds = [
        lambda: rng.random(shape),
        lambda: 1 / (1 + np.exp(20 * np.hypot(row, column) - 20 * rng.random())),
        lambda: rng.integers(0, 2, shape),
        lambda: rng.integers(0, 5, shape) / 4,
        lambda: rng.choice([below, HALF, NEXT], shape),
        lambda: np.full(shape, rng.choice([0, 0.25, HALF, NEXT, 1])),
        lambda: HALF + rng.normal(0, 1e-5, shape),
        lambda: rng.normal(0, 3, shape),  # nobody's probabilities
    ]
    return np.stack([kinds[rng.integers(len(kinds))]() for _ in range(count)])


def random_boxes(rng: np.random.Generator, count: int, size: tuple[int, int]) -> np.ndarray:
    """Inside, reaching out, outside, tiny, huge, inverted, on whole and half pixels."""
    canvas = np.array(size[::-1])
    boxes = []
    for _ in range(count):
        start = rng.uniform(-0.5, 1.2, 2) * canvas
        extent = rng.choice(
            [rng.uniform(0, 1, 2) * canvas, rng.exponential(4, 2), 10.0 ** rng.uniform(-6, 5, 2)]
        )
        box = np.concatenate([start, start + extent])
        kind = rng.integers(8)
        if kind == 0:
            box = np.round(box)
        elif kind == 1:
            box = np.round(box * 2) / 2
        elif kind == 2:
            box = np.array([0, 0, *canvas])
        elif kind == 3:
            box = box[rng.permutation(4)]
        elif kind == 4:
            box[2:] = box[:2] + rng.choice([0, 1e-7, 0.02, 1], 2)
        boxes.append(box)
    return np.array(boxes).reshape(-1, 4)


SIDES = st.sampled_from([1, 2, 3, 7, 14, 28, 56])
SEEDS = st.integers(0, 2**32 - 1)


@given(
    seed=SEEDS,
    count=st.integers(0, 5),
    side=SIDES,
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    threshold=st.sampled_from([HALF, HALF, 0.05, 0.25, 0.3, 0.9, 1.0, 1e-5, 1e-35, 0.0, 2.0]),
)
@settings(max_examples=2000, deadline=None)
def test_masks_and_boxes_of_all_kinds(seed, count, side, height, width, threshold):
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(random_masks(rng, count, side) if count else np.ones((0, side, side)))
    boxes = torch.from_numpy(random_boxes(rng, count, (height, width)))
    check(masks.float(), boxes.float(), (height, width), threshold)


@given(seed=SEEDS, side=SIDES, double_masks=st.booleans(), double_boxes=st.booleans())
@settings(max_examples=300, deadline=None)
def test_double_precision_keeps_its_own_bits(seed, side, double_masks, double_boxes):
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(random_masks(rng, 3, side))
    boxes = torch.from_numpy(random_boxes(rng, 3, (70, 90)))
    check(
        masks if double_masks else masks.float(),
        boxes if double_boxes else boxes.float(),
        (70, 90),
    )


@given(seed=SEEDS, scale=st.sampled_from([1, 2, 4, 0.5]))
@settings(max_examples=100, deadline=None)
def test_ties_that_hit_pixel_centres(seed, scale):
    """Cells of whole pixels, masks of 0 and 1: many centres have a value of exactly 0.5."""
    rng = np.random.default_rng(seed)
    masks = torch.from_numpy(rng.integers(0, 2, (4, 14, 14))).float()
    start = torch.from_numpy(rng.integers(-10, 30, (4, 2)) / 2).float()
    boxes = torch.cat([start, start + 14 * scale], dim=1)
    check(masks, boxes, (60, 50))


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (480, 640), (8000, 4000)])
def test_image_sizes(size):
    rng = np.random.default_rng(sum(size))
    masks = torch.from_numpy(random_masks(rng, 6, 28)).float()
    boxes = torch.from_numpy(random_boxes(rng, 6, size)).float()
    check(masks, boxes, size)


def test_many_boxes_are_worked_on_in_groups():
    rng = np.random.default_rng(5)
    masks = torch.from_numpy(random_masks(rng, 150, 28)).float()
    boxes = torch.from_numpy(random_boxes(rng, 150, (300, 400))).float()
    work = mask_paste._checked(masks, boxes, (300, 400), HALF)
    groups = list(mask_paste._groups(work, mask_paste._is_crossed(work)))
    assert len(groups) > 1
    assert [g[0] for g in groups] + [150] == [0] + [g[1] for g in groups]
    check(masks, boxes, (300, 400))


def test_numbers_by_hand():
    """A full mask of one cell over pixels 1..2 of a 4 x 4 image; its edge is half a cell out."""
    rle = paste_masks_to_rle(torch.ones(1, 1, 1), torch.tensor([[1.0, 1, 3, 3]]), (4, 4))
    # At the pixels the value is 0.75 * 0.75 = 0.5625, one pixel further 0.25 * 0.75.
    assert coco.decode(rle[0]).tolist() == [[0] * 4, [0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]
    rle = paste_masks_to_rle(torch.ones(1, 1, 1), torch.tensor([[1.0, 1, 3, 3]]), (4, 4), 0.6)
    assert rle == [encode(np.zeros((4, 4)))]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_empty_and_full_masks(value):
    rle = paste_masks_to_rle(torch.full((2, 28, 28), value), [[-50, -50, 90, 90]] * 2, (40, 30))
    assert rle == [encode(np.full((40, 30), value))] * 2


@pytest.mark.parametrize(
    "box",
    [
        [50.0, 5, 60, 15],
        [-30.0, 5, -20, 15],
        [5.0, 50, 15, 60],
        [5.0, -30, 15, -20],
        [20.0, 5, 10, 15],
        [1e20, 1e20, 3e38, 3e38],
    ],
)
def test_boxes_without_a_window_give_zeros(box):
    """Detectron2 raises torch.arange's error on most of these."""
    for threshold in (HALF, 0.0):
        rle = paste_masks_to_rle(torch.ones(1, 28, 28), torch.tensor([box]), (40, 40), threshold)
        assert rle == [encode(np.zeros((40, 40)))]


def test_no_masks():
    for shape in ((0, 28, 28), (0, 1, 28, 28)):
        assert paste_masks_to_rle(torch.ones(shape), torch.ones(0, 4), (5, 5)) == []


def test_layouts_and_types_of_the_same_values():
    rng = np.random.default_rng(3)
    masks = random_masks(rng, 8, 28).clip(0, 1).astype(np.float16)
    boxes = np.round(random_boxes(rng, 8, (90, 70))).clip(-500, 500)
    expected = theirs(torch.from_numpy(masks).float(), torch.from_numpy(boxes).float(), (90, 70))
    whole = torch.from_numpy(masks)
    frozen = masks.astype(np.float32)
    frozen.setflags(write=False)
    for given_masks, given_boxes in [
        (whole, torch.from_numpy(boxes).float()),  # float16 counts as float32
        (whole[:, None].float(), torch.from_numpy(boxes).half()),
        (whole.float().requires_grad_(), torch.from_numpy(boxes).long()),
        (whole.float().mT.contiguous().mT, torch.from_numpy(boxes).float()[:, None].squeeze(1)),
        (frozen, boxes.astype(np.float32)),
        (masks[::-1][::-1], boxes.astype(np.float32)[::-1][::-1]),
    ]:
        assert paste_masks_to_rle(given_masks, given_boxes, (90, 70)) == expected
    zeros_and_ones = whole.float() > HALF
    assert paste_masks_to_rle(zeros_and_ones, boxes, (90, 70)) == theirs(  # float64 boxes
        zeros_and_ones, torch.from_numpy(boxes), (90, 70)
    )


@pytest.mark.gpu
def test_from_a_gpu():
    rng = np.random.default_rng(4)
    masks = torch.from_numpy(random_masks(rng, 8, 28)).float()
    boxes = torch.from_numpy(random_boxes(rng, 8, (90, 70))).float()
    expected = theirs(masks, boxes, (90, 70))
    assert paste_masks_to_rle(masks.cuda(), boxes.cuda(), (90, 70)) == expected


def test_values_near_the_end_of_float32():
    """A difference of two of them is infinite."""
    rng = np.random.default_rng(6)
    masks = torch.from_numpy(rng.choice([-3e38, 3e38, 1e35, 0, HALF], (6, 14, 14))).float()
    boxes = torch.tensor([[3.3, 4.1, 50.2, 61.7]]).expand(6, 4)
    for threshold in (HALF, 1e38):
        check(masks, boxes, (70, 60), threshold)


# -- how it is done ---------------------------------------------------------------------------


def spy_on_sampling(monkeypatch) -> list[int]:
    """A list that gets the number of pixels of each call."""
    sizes = []
    original = mask_paste._sample

    def spy(work, index, grid):
        sizes.append(grid.shape[0] * grid.shape[1])
        return original(work, index, grid)

    monkeypatch.setattr(mask_paste, "_sample", spy)
    return sizes


def test_of_ordinary_masks_only_pixels_near_the_threshold_are_sampled(monkeypatch):
    sampled = spy_on_sampling(monkeypatch)
    masks = torch.rand(20, 28, 28, generator=torch.Generator().manual_seed(0))
    boxes = torch.tensor([[10.3, 20.2, 310.9, 280.4]]).expand(20, 4)
    check(masks, boxes, (300, 400))
    area = 20 * 300 * 260
    assert 0 < sum(sampled) < 0.02 * area  # a value is in doubt if it is within 1.3e-4


@pytest.mark.parametrize("side", [3, 28, 112])
def test_the_doubt_covers_what_float32_gets_wrong(side):
    """The sampled value against the same in float64, and the bound is not a hundred times it."""
    rng = np.random.default_rng(side)
    worst = 0.0
    for _ in range(20):
        masks = torch.from_numpy(rng.choice([-1.0, 1.0], (1, side, side)))
        start = torch.from_numpy(rng.uniform(-300, 3000, (1, 2))).float()
        boxes = torch.cat([start, start + torch.from_numpy(rng.uniform(9, 400, (1, 2)))], 1).float()
        coarse = mask_paste._checked(masks.float(), boxes, (4000, 4000), HALF)
        fine = mask_paste._checked(masks, boxes.double(), (4000, 4000), HALF)
        values = []
        for work in (coarse, fine):
            (left, top), (right, bottom) = work.low[0].tolist(), work.high[0].tolist()
            x = mask_paste._sampling_place(work, 0, 0, torch.arange(left, right))
            y = mask_paste._sampling_place(work, 0, 1, torch.arange(top, bottom))
            grid = torch.stack(torch.broadcast_tensors(x[:, None], y[None]), dim=2)[None]
            values.append(grid_sample(work.masks[:, None], grid, align_corners=False).double())
        if values[0].numel():
            worst = max(worst, float((values[0] - values[1]).abs().max() / coarse.doubt[0]))
    assert 0.01 < worst < 1


def test_a_mask_that_is_all_doubt_is_sampled_as_a_whole(monkeypatch):
    """Rounding alone decides each pixel. The box has several stripes, sampled one by one."""
    sizes = spy_on_sampling(monkeypatch)
    masks = torch.full((2, 28, 28), HALF)
    masks[1] = 1
    boxes = torch.tensor([[3.3, -20, 720.7, 610], [5.5, 7, 100, 90]])
    bits = coco.decode(paste_masks_to_rle(masks, boxes, (600, 700))[0])
    assert 0.05 < bits[:-1].mean() < 0.99
    check(masks, boxes, (600, 700))
    assert mask_paste._STRIPE * 2 < 600 * 700
    assert max(sizes) <= mask_paste._STRIPE


LARGE = (8000, 4000)


def large_case(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ordinary boxes, a tenth of them as large as the image."""
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 3500, (count, 2))
    boxes = np.concatenate([start, start + rng.uniform(20, 900, (count, 2))], axis=1)
    boxes[::10] = [0, 0, 4000, 8000]
    masks = rng.random((count, 28, 28))
    return torch.from_numpy(masks).float(), torch.from_numpy(boxes).float()


def test_memory_stays_far_below_one_bitmap_of_the_image():
    masks, boxes = large_case(100)
    paste_masks_to_rle(masks[:2], boxes[:2], LARGE)  # what is loaded on first use
    tracemalloc.start()
    try:
        paste_masks_to_rle(masks, boxes, LARGE)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < LARGE[0] * LARGE[1]  # one boolean bitmap; Detectron2 holds 100 of them


def test_the_process_grows_by_less_than_200_megabytes():
    """tracemalloc sees NumPy's memory only; this is PyTorch's too."""
    masks, boxes = large_case(100)
    paste_masks_to_rle(masks[:2], boxes[:2], LARGE)
    peak = peak_memory(lambda: paste_masks_to_rle(masks, boxes, LARGE), torch.device("cpu"))
    if peak is None:
        pytest.skip("this system does not tell the peak of resident memory")
    assert peak < 200e6


# -- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_broken_box_or_mask_is_named(value):
    masks, boxes = torch.ones(4, 28, 28), torch.ones(4, 4)
    boxes[2, 3] = value
    with pytest.raises(ValueError, match=r"boxes\[2\] holds NaN or infinity"):
        paste_masks_to_rle(masks, boxes, (9, 9))
    masks[3, 5, 5] = value
    with pytest.raises(ValueError, match=r"masks\[3\] holds NaN or infinity"):
        paste_masks_to_rle(masks, torch.ones(4, 4), (9, 9))


@pytest.mark.parametrize(
    ("masks", "boxes", "size", "threshold", "message"),
    [
        ((2, 3, 28, 28), (2, 4), (9, 9), 0.5, r"masks have shape \(2, 3, 28, 28\)"),
        ((2, 28, 14), (2, 4), (9, 9), 0.5, "masks have shape"),
        ((2, 0, 0), (2, 4), (9, 9), 0.5, "m at least 1"),
        ((28, 28), (2, 4), (9, 9), 0.5, "masks have shape"),
        ((2, 28, 28), (3, 4), (9, 9), 0.5, r"boxes have shape \(3, 4\), expected \(2, 4\)"),
        ((2, 28, 28), (2, 5), (9, 9), 0.5, "boxes have shape"),
        ((2, 28, 28), (2, 4), (0, 9), 0.5, r"image_size is \(0, 9\)"),
        ((2, 28, 28), (2, 4), (9, 9), -1.0, "threshold is -1.0.*soft masks"),
        ((2, 28, 28), (2, 4), (9, 9), float("nan"), "threshold is nan"),
        ((2, 28, 28), (2, 4), (9, 9), float("inf"), "threshold is inf"),
    ],
)
def test_wrong_shapes_and_thresholds(masks, boxes, size, threshold, message):
    with pytest.raises(ValueError, match=message):
        paste_masks_to_rle(torch.ones(masks), torch.ones(boxes), size, threshold)
