"""Averaged RoI features on a CPU: two small matrix products a RoI, over the window it touches.

Shape shorthand: N images, C channels, c of them at a time, H x W cells of a level, R RoIs, A x B
rows of the axes' weights (bins, or samples for a maximum), h x w cells of a RoI's window.

A grid aligned with the axes makes bilinear averaging linear and separable:
`out = Wy (A, h) . F (h, w, c) . Wx^T (w, B)`. With channels innermost a window is a matrix
(h, w * c) with a row stride and needs no copy. The backward pass is the transposed products, added
to the feature gradient RoI after RoI: the same order, so the same bits, every time.

Two things decide the speed beside the arithmetic. Memory: a level with channels outermost is turned
one image and a few channels at a time, through a scratch buffer; fresh memory costs more than the
products, since it arrives page by page, and 32 MB is what the C library keeps and reuses. Threads:
a product this small must not be split, since waiting for the other threads takes longer than the
product, a thousand times longer where they compete for a core. So each product runs in one thread,
and the threads share the pictures.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from .geometry import AxisWeights

_SCRATCH_BYTES = (32 << 20) - 4096


class Window(NamedTuple):
    """The cells that one RoI reads of its picture, and their weights.

    y, x: (A, height) and (B, width)
    """

    roi: int
    top: int
    left: int
    height: int
    width: int
    y: torch.Tensor
    x: torch.Tensor

    def of(self, picture: torch.Tensor) -> torch.Tensor:
        """This window of a picture (H, W, c), contiguous, as a matrix (h, w * c), a view."""
        _, columns, channels = picture.shape
        return picture.as_strided(
            (self.height, self.width * channels),
            (columns * channels, 1),
            picture.storage_offset() + (self.top * columns + self.left) * channels,
        )


class Windows:
    """Windows of R RoIs in the pictures of all levels.

    of: (level, image) -> windows in that picture, in the order of the RoIs
    blind: (R', ) int64, RoIs that see no cell and have no window
    """

    def __init__(
        self, levels: torch.Tensor, images: torch.Tensor, y: AxisWeights, x: AxisWeights
    ) -> None:
        """
        Args:
            levels, images: (R,) int, where each RoI looks
            y, x: weights of rows and columns; RoIs without a cell get no window
        """
        self.of: dict[tuple[int, int], list[Window]] = defaultdict(list)
        # One conversion to Python numbers for all RoIs.
        columns = (levels.long(), images.long(), y.first, x.first, y.count, x.count)
        table = torch.stack(columns, dim=1).tolist()
        weights = zip(y.weights.unbind(), x.weights.unbind(), strict=True)
        for r, ((level, image, top, left, height, width), (wy, wx)) in enumerate(
            zip(table, weights, strict=True)
        ):
            if height and width:
                self.of[level, image].append(
                    Window(r, top, left, height, width, wy[:, :height], wx[:, :width])
                )
        self.blind = ((y.count == 0) | (x.count == 0)).nonzero()[:, 0]


def average_forward(features: Sequence[torch.Tensor], windows: Windows, out: torch.Tensor) -> None:
    """Write the RoI features; a RoI that sees no cell gets zeros.

    Args:
        features: a level (N, C, H, W) each, any strides and float dtype
        windows: of R RoIs
        out: (R, C, A, B), contiguous or channels_last, of the dtype to compute in; every value is
            overwritten
    """

    def work(level: int, image: int, part: slice, scratch: _Scratch) -> None:
        picture = _channels_innermost(features[level][image, part], scratch.picture)
        for window in windows.of[level, image]:
            rows = window.y @ window.of(picture)  # (A, w * c)
            bins = torch.matmul(window.x, rows.view(len(rows), window.width, -1))  # (A, B, c)
            into = out[window.roi, part]
            if into.is_contiguous():
                into.flatten(1).copy_(bins.flatten(0, 1).T)
            else:
                into.copy_(bins.permute(2, 0, 1))

    out[windows.blind] = 0
    _for_all_parts(features, windows, out.dtype, work)


def average_backward(
    grad_out: torch.Tensor, windows: Windows, grads: Sequence[torch.Tensor]
) -> None:
    """Add the gradient of the features.

    Args:
        grad_out: (R, C, A, B), contiguous or channels_last
        windows: of R RoIs
        grads: a level (N, C, H, W) each, of the same dtype. A picture with windows is added to if
            its channels are innermost, and overwritten otherwise
    """

    def work(level: int, image: int, part: slice, scratch: _Scratch) -> None:
        grad = grads[level][image]
        into = grad[part].permute(1, 2, 0)  # (H, W, c)
        in_place = is_channels_innermost(grad)
        picture = into if in_place else scratch.picture.like(into).zero_()
        for window in windows.of[level, image]:
            bins = _channels_innermost(grad_out[window.roi, part], scratch.bins)  # (A, B, c)
            rows = torch.matmul(window.x.T, bins)  # (A, w, c)
            window.of(picture).addmm_(window.y.T, rows.flatten(1))
        if not in_place:
            grad[part].flatten(1).copy_(picture.flatten(0, 1).T)

    _for_all_parts(grads, windows, grad_out.dtype, work)


class _Memory:
    """One piece of memory, used again and again."""

    def __init__(self, dtype: torch.dtype) -> None:
        self._memory = torch.empty(0, dtype=dtype)

    def like(self, tensor: torch.Tensor) -> torch.Tensor:
        """A contiguous tensor of this shape and of the memory's dtype, its values undefined."""
        if self._memory.numel() < tensor.numel():
            self._memory = self._memory.new_empty(tensor.numel())
        return self._memory[: tensor.numel()].view(tensor.shape)


class _Scratch:
    """What one thread turns pictures and RoI features in."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.picture = _Memory(dtype)
        self.bins = _Memory(dtype)


def _for_all_parts(
    levels: Sequence[torch.Tensor],
    windows: Windows,
    dtype: torch.dtype,
    work: Callable[[int, int, slice, _Scratch], None],
) -> None:
    """Call `work` for the channel parts of all pictures with windows, in as many threads as torch.

    No two calls write to the same place, so their order does not show in the result.
    """
    todo = [
        (level, image, part)
        for level, image in windows.of
        for part in _channel_parts(levels[level][image], dtype)
    ]
    # The longest first: nobody waits for a large one at the end.
    todo.sort(key=lambda item: len(windows.of[item[0], item[1]]), reverse=True)
    queue = iter(todo)

    def drain() -> None:
        scratch = _Scratch(dtype)
        with torch.no_grad(), one_thread():
            for item in queue:  # a list's iterator gives each item to one thread
                work(*item, scratch)

    threads = min(torch.get_num_threads(), len(todo))
    if threads < 2:
        drain()
        return
    with one_thread(), ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(drain) for _ in range(threads)]:
            done.result()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch's operations run in the thread that calls them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _channel_parts(picture: torch.Tensor, dtype: torch.dtype) -> Iterator[slice]:
    """Slices of the channels of (C, H, W), each small enough for the scratch buffer."""
    channels, height, width = picture.shape
    if is_channels_innermost(picture) and picture.dtype == dtype:
        yield slice(0, channels)  # needs no scratch
        return
    fit = max(_SCRATCH_BYTES // max(height * width * dtype.itemsize, 1), 1)
    parts = max(-(-channels // fit), 1)
    step = max(-(-channels // parts), 1)
    for begin in range(0, channels, step):
        yield slice(begin, min(begin + step, channels))


def is_channels_innermost(picture: torch.Tensor) -> bool:
    """Whether (C, H, W) lies in memory as (H, W, C), as any contiguous map of one channel does."""
    return picture.permute(1, 2, 0).is_contiguous()


def _channels_innermost(picture: torch.Tensor, memory: _Memory) -> torch.Tensor:
    """(c, H, W) of any strides -> (H, W, c) contiguous; no copy if it is that already."""
    turned = picture.permute(1, 2, 0)
    space = memory.like(turned)
    if turned.is_contiguous() and turned.dtype == space.dtype:
        return turned
    if picture.is_contiguous():
        # A matrix: turning one is several times faster than permuting.
        space.flatten(0, 1).copy_(picture.flatten(1).T)
        return space
    return space.copy_(turned)
