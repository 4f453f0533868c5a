"""docs/pixels.md's numbers and bounds about the RoI layers, and the picture."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from mask_rcnn_ext.ops import roi_align, roi_pool, roi_warp
from mask_rcnn_ext.visualization import roi_layers
from mask_rcnn_ext.visualization.roi_layers import (
    LAYERS,
    LEVEL,
    ROI,
    STRIDE,
    axis_view,
    draw_roi_layers,
    edge_shift,
    exact_crop,
    layer_output,
    mask_iou,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "pixels.md"
FAST = {
    "RoIPool": lambda f, r, p, s, a: roi_pool(f, r, p, s),
    "RoIWarp": lambda f, r, p, s, a: roi_warp(f, r, p, s, 0, aggregation=a),
    "RoIAlign": lambda f, r, p, s, a: roi_align(f, r, p, s, 0, aggregation=a, aligned=False),
    "RoIAlignV2": lambda f, r, p, s, a: roi_align(f, r, p, s, 0, aggregation=a, aligned=True),
}
NUMBER = r"[-−]?\d+(?:\.\d+)?"


def _numbers(text: str) -> list[float]:
    return [float(n.replace("−", "-")) for n in re.findall(NUMBER, text)]


def _rows_by_hand() -> list[list[str]]:
    """(layer and aggregation, start and size, n, values, pixels, off by) of the page's table."""
    table = PAGE.read_text().partition("**By hand.**")[2]
    rows = [line.strip("| ").split("|") for line in table.splitlines() if line.startswith("| RoI")]
    return [[cell.strip() for cell in row] for row in rows]


def test_the_page_has_its_example():
    assert len(_rows_by_hand()) == 6
    assert f"x0 = {ROI[0]:g}, x1 = {ROI[2]:g}, S = {STRIDE}, P = 3" in PAGE.read_text()


@pytest.mark.parametrize("row", _rows_by_hand(), ids=lambda row: row[0])
def test_the_example_by_hand_is_what_the_layers_return(row):
    layer, aggregation = row[0].split()
    ramp = torch.arange(float(LEVEL[1])).expand(1, 1, *LEVEL).contiguous()
    out = FAST[layer](ramp, torch.tensor([[0.0, *ROI]]), (3, 3), 1 / STRIDE, aggregation)
    values = out[0, 0, 1].double().numpy()
    assert values == pytest.approx(_numbers(row[3]), abs=6e-4)
    pixels = (values + 0.5) * STRIDE
    assert pixels == pytest.approx(_numbers(row[4]), abs=6e-3)
    assert pixels - [54, 86, 118] == pytest.approx(_numbers(row[5]), abs=6e-3)


@pytest.mark.parametrize("row", _rows_by_hand(), ids=lambda row: row[0])
def test_the_examples_starts_sizes_and_samples_are_those_of_the_view(row):
    layer = row[0].split()[0]
    view = axis_view(layer, ROI[0], ROI[2], STRIDE, 3, LEVEL[1])
    if layer == "RoIPool":
        cells = [(a / STRIDE, b / STRIDE - 1) for a, b in view.bins]
        assert cells == [tuple(map(float, c.split("-"))) for c in row[1][6:].split(", ")]
        return
    start, size = _numbers(row[1])
    low, high = (edge / STRIDE for edge in view.covered)
    assert (low - 0.5, high - low) == pytest.approx((start, size))
    assert [len(s) for s in view.samples] == [int(row[2])] * 3


sides = st.floats(-50, 900).flatmap(
    lambda low: st.tuples(st.just(low), st.floats(0.5, 600).map(lambda size: low + size))
)


@settings(deadline=None, max_examples=200)
@given(side=sides, stride=st.sampled_from([4, 16, 32]))
def test_edges_are_as_far_off_as_the_page_says(side, stride):
    low, high = side
    shifts = {name: axis_view(name, low, high, stride, 7, 999).shift(low, high) for name in LAYERS}
    half, near = stride / 2, pytest.approx
    for layer in ("RoIPool", "RoIWarp"):
        left, right = shifts[layer]
        assert -half - 1e-6 <= left <= half + 1e-6
        assert half - 1e-6 <= right <= 3 * half + 1e-6
        assert -1e-6 <= (left + right) / 2 <= stride + 1e-6
    left, right = shifts["RoIAlign"]
    assert left == near(half)
    assert right == near(half + max(stride - (high - low), 0), abs=1e-6)
    assert shifts["RoIAlignV2"] == near((0, 0), abs=1e-6)


@pytest.mark.parametrize("stride", [16, 32])
def test_the_bounds_are_reached(stride):
    """4.499 cells go down to 4; 9.5 go up to 10, and the RoI ends behind that cell."""
    roi = (4.499 * stride, 0, 9.5 * stride, stride)
    assert axis_view("RoIPool", roi[0], roi[2], stride, 7, 99).shift(roi[0], roi[2]) == (
        pytest.approx((-stride / 2, 3 * stride / 2), abs=0.1)
    )
    assert edge_shift("RoIPool", roi, stride) == pytest.approx(1.5 * stride, abs=0.1)
    bound = f"up to {1.5 * stride:g} px"
    assert bound in PAGE.read_text()


@settings(deadline=None, max_examples=200)
@given(side=sides, stride=st.sampled_from([16, 32]), bins=st.sampled_from([2, 3, 7, 14]))
def test_roipools_bins_hold_roiwarps_and_less_than_a_cell_more(side, stride, bins):
    low, high = side
    assume(low >= stride)  # below it RoIPool clips its bins to the level
    pool = axis_view("RoIPool", low, high, stride, bins, 999)
    warp = axis_view("RoIWarp", low, high, stride, bins, 999)
    for (a, b), (c, d) in zip(pool.bins, warp.bins, strict=True):
        assert c - stride < a <= c + 1e-6
        assert d - 1e-6 <= b < d + stride


@settings(deadline=None, max_examples=50)
@given(
    box=st.tuples(*[st.floats(20, 400)] * 2, *[st.floats(33, 300)] * 2),
    layer=st.sampled_from(["RoIWarp", "RoIAlign", "RoIAlignV2"]),
)
def test_the_view_is_where_the_layer_reads(box, layer):
    """On a ramp the average of a bin is the mean position of its samples."""
    x0, y0, width, height = box
    ramp = torch.arange(50.0).expand(1, 1, 50, 50).contiguous()
    rois = torch.tensor([[0, x0, y0, x0 + width, y0 + height]])
    values = FAST[layer](ramp, rois, (2, 5), 1 / 16, "ave")[0, 0, 0]
    # The layer's own float32 coordinates: a half rounds to the same side in both.
    low, high = rois[0, 1].item(), rois[0, 3].item()
    view = axis_view(layer, low, high, 16, 5, 50)
    expected = [np.mean(s) for s in view.samples]
    assert (values * 16 + 8).tolist() == pytest.approx(expected, abs=0.01)


def test_samples_follow_the_ratio_and_unknown_layers_are_named():
    assert [len(s) for s in axis_view("RoIAlign", 0, 160, 16, 2, 20, ratio=2).samples] == [2, 2]
    assert axis_view("RoIAlignV2", 8, 8, 16, 2, 20).samples == ((), ())
    with pytest.raises(ValueError, match="'RoICrop', expected one of RoIPool"):
        axis_view("RoICrop", 0, 16, 16, 2, 20)


def test_the_drawn_object_fills_its_roi_and_the_exact_layer_wins():
    crop = exact_crop(96)
    for edge in (crop[0], crop[-1], crop[:, 0], crop[:, -1]):
        assert edge.max() > 0
    ious = {layer: mask_iou(layer_output(layer), exact_crop()) for layer in LAYERS}
    assert max(ious, key=ious.get) == "RoIAlignV2"
    assert ious["RoIAlignV2"] > 0.85
    assert max(v for k, v in ious.items() if k != "RoIAlignV2") < 0.7


def test_the_picture_of_the_page_is_what_the_code_draws(tmp_path):
    drawn = draw_roi_layers(tmp_path / "a.png")
    kept = PAGE.parent / "roi_layers.png"
    assert kept.stat().st_size < 200_000
    with Image.open(drawn) as new, Image.open(kept) as old:
        assert new.size == old.size
        difference = np.abs(np.asarray(new, float) - np.asarray(old, float))
    # Letters may be set a little otherwise by another version of Pillow.
    assert difference.mean() < 2
    assert roi_layers.MASK_BINS == 14
