# mypy: disallow-untyped-defs=False
"""Device code that the averaged RoI layers share: levels, RoI sides, samples, bilinear weights.

Shape shorthand: N images, C channels, H x W cells of a level, R RoIs, PH x PW bins. Features,
RoI features and their gradients are NHWC in memory, so that neighbouring threads read
neighbouring channels. `ops/reference.py` says what is computed; names and frames are as there.

The averaging is separable: a bin's value is the sum over cells of wy(row) * wx(column) * feature,
each weight the mean of the bilinear weights of the bin's samples on that axis.

Positions are computed in float32 in torchvision's order of operations, with divisions rounded to
nearest. The kernels must be launched with `enable_fp_fusion=False`: a fused multiply-add would move
a sample across the level's border, or change a RoI's number of samples, where PyTorch does not.
Sums over features use `tl.fma` by name.

No load or store leaves its tensor, whatever the numbers in `rois` and `levels`: cells are clamped
into the level, and a RoI whose image or level does not exist is treated as having no samples.
"""

import triton
import triton.language as tl

# Level sizes may not become compile-time constants: one compilation serves all image sizes.
SIZES = [f"{axis}{level}" for axis in "hw" for level in range(6)]


@triton.jit
def pick(level, a0, a1, a2, a3, a4, a5):
    """The value of a level, without memory to index: a{level}."""
    value = tl.where(level == 1, a1, a0)
    value = tl.where(level == 2, a2, value)
    value = tl.where(level == 3, a3, value)
    value = tl.where(level == 4, a4, value)
    return tl.where(level == 5, a5, value)


@triton.jit
def locate(rois, levels, r, images, LEVELS: tl.constexpr):
    """(level, image, whether both exist) of RoI r; (0, 0, no) if one does not."""
    level = tl.load(levels + r)
    image = tl.load(rois + r * 5)
    exists = (level >= 0) & (level < LEVELS) & (image >= 0) & (image < images)
    return (
        tl.where(exists, level, 0).to(tl.int32),
        tl.where(exists, image, 0.0).to(tl.int32),
        exists,
    )


@triton.jit
def round_half_away(x):
    whole = tl.floor(tl.abs(x))
    # Not floor(|x| + 0.5): that sum rounds up to 1 for the largest float below 0.5.
    whole = tl.where(tl.abs(x) - whole >= 0.5, whole + 1.0, whole)
    return tl.where(x < 0, -whole, whole)


@triton.jit
def extent(low, high, scale, LAYER: tl.constexpr):
    """(start, size) of a RoI's side in cell positions and cells."""
    low = low * scale
    high = high * scale
    if LAYER == "RoIWarp":
        low = round_half_away(low)
        start = low - 0.5
        size = tl.maximum(round_half_away(high) - low + 1.0, 1.0)
    elif LAYER == "RoIAlign":
        start = low
        size = tl.maximum(high - low, 1.0)
    else:
        start = low - 0.5
        size = (high - 0.5) - start
    return start, size


@triton.jit
def samples(length, RATIO: tl.constexpr):
    """Samples of a bin on one axis, a whole float; 0 if the bin has no extent."""
    return tl.full((), RATIO, tl.float32) if RATIO > 0 else tl.maximum(tl.ceil(length), 0.0)


@triton.jit
def position(begin, length, n, i):
    """Where sample i of n lies in a bin that begins at `begin`."""
    return begin + tl.div_rn((i + 0.5) * length, n)


@triton.jit
def clamp(u, cells):
    return tl.minimum(tl.maximum(u, 0.0), cells - 1.0)


@triton.jit
def inside(u, cells):
    return (u >= -1.0) & (u <= cells)


@triton.jit
def passed_over(begin, length, n, looked_at):
    """How much later an adaptive bin may begin, in cells: its samples before the level.

    A RoI of a million pixels has thousands of samples in a bin, nearly all of them outside. They
    are at least half a cell apart, so the 2 * cells + 6 that are looked at reach over the level.
    Exactly 0 if all of the bin's samples are looked at.
    """
    per_cell = n / length
    passed = tl.floor((-1.0 - begin) * per_cell - 0.5)
    return tl.where(looked_at < n, tl.maximum(tl.minimum(passed, n - looked_at), 0.0) / per_cell, 0)


@triton.jit
def sample_cells(u, exists, cells):
    """The two cells that a sample reads on one axis and their weights; 0 for one outside."""
    exists = exists & inside(u, cells)
    u = clamp(u, cells)
    below = tl.floor(u)
    fraction = u - below
    low = below.to(tl.int32)
    high = tl.minimum(low + 1, cells - 1)
    return low, high, tl.where(exists, 1.0 - fraction, 0.0), tl.where(exists, fraction, 0.0)


@triton.jit
def tent(u, exists, cell):
    """Bilinear weight of a cell for a (clamped) sample."""
    return tl.where(exists, tl.maximum(1.0 - tl.abs(u - cell), 0.0), 0.0)


@triton.jit
def cell_pairs(begin, length, n, cells):
    """(first cell, number of pairs of cells) that an adaptive bin reads on one axis."""
    some = tl.maximum(n, 1.0)
    low = position(begin, length, some, 0.0)
    high = position(begin, length, some, some - 1.0)
    seen = (n > 0) & (high >= -1.0) & (low <= cells)
    first = tl.floor(clamp(low, cells)).to(tl.int32)
    last = tl.minimum(tl.floor(clamp(high, cells)).to(tl.int32) + 1, cells - 1)
    return first, tl.where(seen, (last - first) // 2 + 1, 0)


@triton.jit
def pair_weights(begin, length, n, cell, cells):
    """Weights of `cell` and `cell + 1`, summed over an adaptive bin's samples that touch them."""
    per_cell = n / length
    low = tl.floor((cell - 1.0 - begin) * per_cell - 0.5)
    high = tl.floor((cell + 2.0 - begin) * per_cell - 0.5) + 2.0
    low = tl.minimum(tl.maximum(low, 0.0), n)
    high = tl.maximum(tl.minimum(high, n), 0.0)
    first = tl.full((), 0.0, tl.float32)
    second = tl.full((), 0.0, tl.float32)
    for t in range((high - low).to(tl.int32)):
        u = position(begin, length, n, low + t)
        exists = inside(u, cells)
        u = clamp(u, cells)
        first += tent(u, exists, cell)
        second += tent(u, exists, cell + 1)
    return first, second
