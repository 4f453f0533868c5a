# mypy: disallow-untyped-defs=False
"""Device code of the averaged RoI layers, backward: all pyramid levels in one launch.

Shapes and rules: `roi_axis_jit`. First `axis_tables` writes down the weights of each RoI on both
axes. Then either every RoI adds to the cells that it reads (atomic), or every cell gathers from
the RoIs that read it (ordered). Both go through `_add_gradient_of_roi`.
"""

import triton
import triton.language as tl

from .roi_axis_jit import (
    SIZES,
    clamp,
    extent,
    inside,
    locate,
    passed_over,
    pick,
    position,
    samples,
    tent,
)

SCAN = tl.constexpr(32)  # RoIs that the ordered pass tests at once; bits of an int64


@triton.jit(do_not_specialize=[*SIZES, "images", "longest_y", "longest_x"])
def axis_tables(
    h0, h1, h2, h3, h4, h5, w0, w1, w2, w3, w4, w5, s0, s1, s2, s3, s4, s5,
    rois, levels, windows, frames, table_y, table_x, longest_y, longest_x, images,
    LEVELS: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    LAYER: tl.constexpr, RATIO: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """What the backward passes read about a RoI: its window, its bins, the weights of its cells.

    Grid (R, 2): one program for y (0) or x (1) of a RoI. Writes
    windows (R, 4) int32: first row, end row, first column, end column; end = first if it sees none
    frames (R, 4) float32: start and bin length in cells, of y, of x
    table_y (R, PH, longest_y), table_x (R, PW, longest_x) float32: mean weight of a cell in a bin,
    by the cell's index in its level; only the window is written.
    """
    r = tl.program_id(0).to(tl.int64)
    axis = tl.program_id(1)
    level, image, exists = locate(rois, levels, r, images, LEVELS)
    height = pick(level, h0, h1, h2, h3, h4, h5)
    width = pick(level, w0, w1, w2, w3, w4, w5)
    scale = pick(level, s0, s1, s2, s3, s4, s5)
    exists &= (height > 0) & (width > 0)
    cells = tl.where(axis == 0, height, width)
    bins = tl.where(axis == 0, PH, PW)
    longest = tl.where(axis == 0, longest_y, longest_x)
    table = tl.where(axis == 0, table_y, table_x) + r * bins * longest

    corner = rois + r * 5 + 2 - axis
    start, size = extent(tl.load(corner), tl.load(corner + 2), scale, LAYER)
    length = tl.div_rn(size, bins.to(tl.float32))
    n = tl.where(exists, samples(length, RATIO), 0.0)
    some = tl.maximum(n, 1.0)
    p = tl.arange(0, BLOCK_P)
    begin = start + p * length  # (BLOCK_P,)
    if RATIO > 0:
        looked_at = tl.where(exists, RATIO, 0)
    else:
        looked_at = tl.minimum(n, 2.0 * cells + 6.0).to(tl.int32)
        begin += passed_over(begin, length, n, looked_at)

    # A RoI with a negative side has its last sample first.
    one_end = position(start, length, some, 0.0)
    other_end = position(start + (bins - 1) * length, length, some, some - 1.0)
    low = tl.minimum(one_end, other_end)
    high = tl.maximum(one_end, other_end)
    seen = (n > 0) & (high >= -1.0) & (low <= cells)
    first = tl.floor(clamp(low, cells)).to(tl.int32)
    end = tl.minimum(tl.floor(clamp(high, cells)).to(tl.int32) + 2, cells)
    end = tl.where(seen, end, first)
    tl.store(windows + r * 4 + axis * 2, first)
    tl.store(windows + r * 4 + axis * 2 + 1, end)
    tl.store(frames + r * 4 + axis * 2, start)
    tl.store(frames + r * 4 + axis * 2 + 1, length)

    for near in range(first, end, BLOCK_K):
        k = near + tl.arange(0, BLOCK_K)
        total = tl.zeros((BLOCK_P, BLOCK_K), tl.float32)
        for t in range(looked_at):
            u = position(begin, length, some, t)
            exists_here = inside(u, cells)
            total += tent(clamp(u, cells)[:, None], exists_here[:, None], k[None, :])
        tl.store(
            table + (p[:, None] * longest + k[None, :]),
            tl.div_rn(total, tl.zeros_like(total) + some),
            mask=(p < bins)[:, None] & (k < end)[None, :],
        )


@triton.jit
def _bins_of_cells(first, last, start, length, BINS: tl.constexpr):
    """[begin, end) of the bins that may have a sample within a cell of the cells first..last."""
    one = (first - 1.0 - start) / length
    other = (last + 1.0 - start) / length
    # A sample is strictly inside its bin; what rounding moves is less than that margin.
    begin = tl.minimum(tl.maximum(tl.floor(tl.minimum(one, other)), 0.0), BINS)
    end = tl.minimum(tl.maximum(tl.floor(tl.maximum(one, other)) + 1.0, 0.0), BINS)
    # Bins without length (RoIAlignV2, fixed number of samples) are all at one place.
    begin = tl.where(length == 0, 0.0, begin)
    end = tl.where(length == 0, BINS, end)
    return begin.to(tl.int32), end.to(tl.int32)


@triton.jit
def _add_gradient_of_roi(
    acc, r, y, x, x0, first_x, end_x, grad_out, frames, table_y, table_x, longest_y, longest_x, c,
    C: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, BLOCK_X: tl.constexpr,
):  # fmt: skip
    """acc (BLOCK_X, BLOCK_C) + what RoI r sends to the cells x = x0.. of row y of its window.

    Both loops are over bins; a bin's gradient is read once for all the cells.
    """
    py, end_py = _bins_of_cells(y, y, tl.load(frames + r * 4), tl.load(frames + r * 4 + 1), PH)
    first_px, end_px = _bins_of_cells(
        x0, x0 + BLOCK_X - 1, tl.load(frames + r * 4 + 2), tl.load(frames + r * 4 + 3), PW
    )
    weights_y = table_y + r * PH * longest_y + y
    weights_x = table_x + r * PW * longest_x + x
    known = (x >= first_x) & (x < end_x)  # the tables hold nothing beside the window
    for row in range(py, end_py):
        w_y = tl.load(weights_y + row * longest_y)
        # A tile of one row, not a vector: its layout in the registers is then that of acc.
        gradient = grad_out + (r * PH + row) * PW * C + c[None, :]
        for column in range(first_px, end_px):
            w_x = tl.load(weights_x + column * longest_x, mask=known, other=0.0)
            g = tl.load(gradient + column * C, mask=c[None, :] < C, other=0.0)
            acc = tl.fma((w_y * w_x)[:, None], g.to(tl.float32), acc)
    return acc


@triton.jit(do_not_specialize=[*SIZES, "images", "longest_y", "longest_x"])
def average_backward_atomic(
    p0, p1, p2, p3, p4, p5, h0, h1, h2, h3, h4, h5, w0, w1, w2, w3, w4, w5,
    rois, levels, windows, frames, table_y, table_x, longest_y, longest_x, grad_out, images,
    LEVELS: tl.constexpr, C: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    PARTS: tl.constexpr, BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add the gradient of the features: one program for every PARTS-th row of a RoI's window.

    A cell gets one atomic addition a RoI, whatever the number of bins that read it.
    p0..w5: float32 gradients, height and width of each level; grad_out (R, PH, PW, C).
    Grid (R * PARTS, blocks of C).
    """
    r = (tl.program_id(0) // PARTS).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    level, image, _ = locate(rois, levels, r, images, LEVELS)
    height = pick(level, h0, h1, h2, h3, h4, h5)
    width = pick(level, w0, w1, w2, w3, w4, w5)
    into = pick(level, p0, p1, p2, p3, p4, p5) + image.to(tl.int64) * height * width * C

    first_y = tl.load(windows + r * 4)
    end_y = tl.load(windows + r * 4 + 1)
    first_x = tl.load(windows + r * 4 + 2)
    end_x = tl.load(windows + r * 4 + 3)
    for y in range(first_y + tl.program_id(0) % PARTS, end_y, PARTS):
        row = into + tl.cast(y, tl.int64) * width * C
        for x0 in range(first_x, end_x, BLOCK_X):
            x = x0 + tl.arange(0, BLOCK_X)
            acc = _add_gradient_of_roi(
                tl.zeros((BLOCK_X, BLOCK_C), tl.float32),
                r, y, x, x0, first_x, end_x,
                grad_out, frames, table_y, table_x, longest_y, longest_x, c,
                C, PH, PW, BLOCK_X,
            )  # fmt: skip
            tl.atomic_add(
                row + (x[:, None] * C + c[None, :]),
                acc,
                mask=(x < end_x)[:, None] & (c < C)[None, :],
                sem="relaxed",
            )


@triton.jit(
    do_not_specialize=[
        *SIZES, "t1", "t2", "t3", "t4", "t5", "images", "longest_y", "longest_x",
    ]
)  # fmt: skip
def average_backward_ordered(
    p0, p1, p2, p3, p4, p5, h0, h1, h2, h3, h4, h5, w0, w1, w2, w3, w4, w5, t1, t2, t3, t4, t5,
    order, starts, windows, frames, table_y, table_x, longest_y, longest_x, grad_out,
    LEVELS: tl.constexpr, C: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    BLOCK_X: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Gather the gradient of the features: one program for BLOCK_X cells of a row of a level.

    Each cell adds its RoIs in their order, in registers, and is written once, in the features'
    dtype: the same bits every time, and no buffer to fill or convert.

    A program tests the windows of all RoIs of its image and level, SCAN at a time. For T tiles and
    R RoIs of an image and level that is T * R / SCAN steps of a few dozen instructions, beside the
    work for the pairs of tile and RoI that overlap.

    p0..w5: gradients to write, height and width of each level; t1..t5: first tile of a level;
    order (R,): RoIs sorted by image * LEVELS + level; starts (images * LEVELS + 1,): where those
    begin in it; grad_out (R, PH, PW, C). Grid (tiles of all levels, blocks of C).
    """
    tile = tl.program_id(0)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    level = (
        (tile >= t1).to(tl.int32) + (tile >= t2).to(tl.int32) + (tile >= t3).to(tl.int32)
        + (tile >= t4).to(tl.int32) + (tile >= t5).to(tl.int32)
    )  # fmt: skip
    tile -= pick(level, 0, t1, t2, t3, t4, t5)
    height = pick(level, h0, h1, h2, h3, h4, h5)
    width = pick(level, w0, w1, w2, w3, w4, w5)
    tiles_in_row = (width + BLOCK_X - 1) // BLOCK_X
    x0 = (tile % tiles_in_row) * BLOCK_X
    y = (tile // tiles_in_row) % height
    image = tile // (tiles_in_row * height)
    x = x0 + tl.arange(0, BLOCK_X)

    acc = tl.zeros((BLOCK_X, BLOCK_C), tl.float32)
    segment = starts + image * LEVELS + level
    end = tl.load(segment + 1)
    for near in range(tl.load(segment), end, SCAN):
        lane = tl.arange(0, SCAN)
        listed = near + lane < end
        candidate = windows + tl.load(order + near + lane, mask=listed, other=0) * 4
        hit = (
            listed
            & (tl.load(candidate, mask=listed, other=0) <= y)
            & (tl.load(candidate + 1, mask=listed, other=0) > y)
            & (tl.load(candidate + 2, mask=listed, other=0) < x0 + BLOCK_X)
            & (tl.load(candidate + 3, mask=listed, other=0) > x0)
        )
        bits = tl.sum(tl.where(hit, tl.full((SCAN,), 1, tl.int64) << lane, 0))
        for _ in range(tl.sum(hit.to(tl.int32))):
            lowest = bits & -bits
            bits -= lowest
            # A power of two as a float is its exponent.
            exponent = lowest.to(tl.float32).to(tl.int32, bitcast=True) >> 23
            r = tl.load(order + near + (exponent - 127))
            acc = _add_gradient_of_roi(
                acc, r, y, x, x0, tl.load(windows + r * 4 + 2), tl.load(windows + r * 4 + 3),
                grad_out, frames, table_y, table_x, longest_y, longest_x, c, C, PH, PW, BLOCK_X,
            )  # fmt: skip

    level_rows = pick(level, p0, p1, p2, p3, p4, p5)
    row = level_rows + (image.to(tl.int64) * height + y) * width * C
    tl.store(row + (x[:, None] * C + c[None, :]), acc, mask=(x < width)[:, None] & (c < C)[None, :])
