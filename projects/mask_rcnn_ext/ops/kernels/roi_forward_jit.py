# mypy: disallow-untyped-defs=False
"""Device code of the averaged RoI layers, forward: all pyramid levels in one launch.

Shapes and rules: `roi_axis_jit`.
"""

import triton
import triton.language as tl

from .roi_axis_jit import (
    SIZES,
    cell_pairs,
    extent,
    locate,
    pair_weights,
    passed_over,
    pick,
    position,
    sample_cells,
    samples,
)


@triton.jit
def _add_cells(acc, row, left, right, w_left, w_right, c, C: tl.constexpr):
    """acc (bins, channels) + one row's two cells of each bin."""
    channel = (c < C)[None, :]
    low = tl.load(
        row + (left[:, None] * C + c[None, :]), mask=(w_left != 0.0)[:, None] & channel, other=0.0
    )
    high = tl.load(
        row + (right[:, None] * C + c[None, :]), mask=(w_right != 0.0)[:, None] & channel, other=0.0
    )
    acc = tl.fma(w_left[:, None], low.to(tl.float32), acc)
    return tl.fma(w_right[:, None], high.to(tl.float32), acc)


@triton.jit(do_not_specialize=[*SIZES, "images"])
def average_forward(
    p0, p1, p2, p3, p4, p5, h0, h1, h2, h3, h4, h5, w0, w1, w2, w3, w4, w5, s0, s1, s2, s3, s4, s5,
    rois, levels, out, images,
    LEVELS: tl.constexpr, C: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    LAYER: tl.constexpr, RATIO: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """RoI features: one program for BLOCK_P bins of a bin row of a RoI, and BLOCK_C channels.

    All bins of a RoI have the same number of samples, so they run through one loop in step. Along
    x the loop is over samples. Along y an adaptive bin of n samples reads n + 1 neighbouring
    cells, which the outer loop takes in pairs: fewer loads than two cells for each of n samples.

    p0..s5: features, height, width and scale of each level; rois (R, 5); levels (R,);
    out (R, PH, PW, C). Grid (R * PH * blocks of PW, blocks of C).
    """
    blocks = (PW + BLOCK_P - 1) // BLOCK_P
    pid = tl.program_id(0)
    px = (pid % blocks) * BLOCK_P + tl.arange(0, BLOCK_P)
    py = (pid // blocks) % PH
    r = (pid // (blocks * PH)).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)

    level, image, exists = locate(rois, levels, r, images, LEVELS)
    height = pick(level, h0, h1, h2, h3, h4, h5)
    width = pick(level, w0, w1, w2, w3, w4, w5)
    scale = pick(level, s0, s1, s2, s3, s4, s5)
    exists &= (height > 0) & (width > 0)
    feature = pick(level, p0, p1, p2, p3, p4, p5) + image.to(tl.int64) * height * width * C

    start, size = extent(tl.load(rois + r * 5 + 2), tl.load(rois + r * 5 + 4), scale, LAYER)
    length_y = tl.div_rn(size, PH * 1.0)
    begin_y = start + py * length_y
    n_y = tl.where(exists, samples(length_y, RATIO), 0.0)
    start, size = extent(tl.load(rois + r * 5 + 1), tl.load(rois + r * 5 + 3), scale, LAYER)
    length_x = tl.div_rn(size, PW * 1.0)
    begin_x = start + px * length_x  # (BLOCK_P,)
    n_x = tl.where(exists, samples(length_x, RATIO), 0.0)

    if RATIO > 0:
        columns = tl.where(exists, RATIO, 0)
        rows = columns
        top = rows
    else:
        columns = tl.minimum(n_x, 2.0 * width + 6.0).to(tl.int32)
        top, rows = cell_pairs(begin_y, length_y, n_y, height)
        begin_x += passed_over(begin_x, length_x, n_x, columns)

    acc = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for j in range(rows):
        if RATIO > 0:
            y = position(begin_y, length_y, n_y, j)
            upper, lower, w_upper, w_lower = sample_cells(y, exists, height)
        else:
            upper = top + 2 * j
            lower = tl.minimum(upper + 1, height - 1)
            w_upper, w_lower = pair_weights(begin_y, length_y, n_y, upper, height)
        upper_row = feature + upper.to(tl.int64) * width * C
        lower_row = feature + lower.to(tl.int64) * width * C
        for t in range(columns):
            x = position(begin_x, length_x, n_x, t)
            left, right, w_left, w_right = sample_cells(x, px < PW, width)
            acc = _add_cells(acc, upper_row, left, right, w_upper * w_left, w_upper * w_right, c, C)
            acc = _add_cells(acc, lower_row, left, right, w_lower * w_left, w_lower * w_right, c, C)

    acc *= tl.div_rn(1.0, tl.maximum(n_y * n_x, 1.0))
    place = out + (r * PH + py) * PW * C
    tl.store(
        place + (px[:, None] * C + c[None, :]), acc, mask=(px < PW)[:, None] & (c < C)[None, :]
    )
