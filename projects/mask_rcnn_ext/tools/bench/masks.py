"""From m x m masks to RLE: ours beside Detectron2's paste and pycocotools' encode, on the CPU.

Stock is what Detectron2 does between the model and the evaluator: `paste_masks_in_image`, then each
mask of `instances_to_coco_json` in turn. Both get the same boxes and masks and run in turns.

The masks look like those of a trained head: a blurred ellipse with a wavy edge, cut off by nothing
but the box, 28 x 28.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.layers.mask_ops import paste_masks_in_image
from torch.nn import functional as F

from ...ops import paste_masks_to_rle
from .boxes import DISTRIBUTION, random_boxes
from .timing import Spread, clock, environment, megabytes, peak_memory, say, table

_SEED = 0
_SIDE = 28
_CPU = torch.device("cpu")
Method = Callable[[torch.Tensor, torch.Tensor, tuple[int, int]], list[dict[str, Any]]]


def ours(
    masks: torch.Tensor, boxes: torch.Tensor, image_size: tuple[int, int]
) -> list[dict[str, Any]]:
    """RLEs with text instead of bytes, as JSON needs them."""
    rles = paste_masks_to_rle(masks, boxes, image_size)
    return [{"size": rle["size"], "counts": rle["counts"].decode("utf-8")} for rle in rles]


def stock(
    masks: torch.Tensor, boxes: torch.Tensor, image_size: tuple[int, int]
) -> list[dict[str, Any]]:
    """The same with Detectron2's and pycocotools' functions, called as Detectron2 does."""
    pasted = paste_masks_in_image(masks, boxes, image_size)
    # `.numpy()` is ours: NumPy 2 warns of arrays made of tensors with `order`. It copies nothing.
    rles = [
        mask_util.encode(np.array(mask[:, :, None].numpy(), order="F", dtype="uint8"))[0]
        for mask in pasted
    ]
    for rle in rles:
        rle["counts"] = rle["counts"].decode("utf-8")
    return rles


@dataclass
class Side:
    """What one of the two did: seconds of each repeat, peak bytes of one call."""

    seconds: list[float] = field(default_factory=list)
    memory: float | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "seconds": self.seconds,
            **Spread.of(self.seconds).as_json(),
            "peak_bytes": self.memory,
        }


@dataclass
class Result:
    """One row pair of the table.

    box_pixels: mean area of the boxes
    equal: whether both gave the same RLEs
    """

    image_size: tuple[int, int]
    detections: int
    box_pixels: float
    equal: bool
    ours: Side = field(default_factory=Side)
    stock: Side = field(default_factory=Side)

    @property
    def ratio(self) -> Spread:
        """Stock's time over ours, turn by turn; above 1 ours is faster."""
        pairs = zip(self.stock.seconds, self.ours.seconds, strict=True)
        return Spread.of([stock / ours for stock, ours in pairs])

    def as_json(self) -> dict[str, Any]:
        return {
            "image_size": list(self.image_size),
            "detections": self.detections,
            "box_pixels": self.box_pixels,
            "equal": self.equal,
            "ours": self.ours.as_json(),
            "stock": self.stock.as_json(),
            "ratio": self.ratio.as_json(),
        }


def random_masks(count: int, seed: int) -> torch.Tensor:
    """(count, 28, 28) float32 in 0..1: ellipses that nearly fill their boxes, soft, wavy edges."""
    generator = torch.Generator().manual_seed(seed)
    radius = 0.7 + 0.3 * torch.rand(count, 2, 1, 1, generator=generator)
    at = (torch.arange(_SIDE) + 0.5) / _SIDE * 2 - 1
    distance = torch.hypot(at[:, None] / radius[:, 0], at / radius[:, 1])  # (count, 28, 28)
    waves = torch.randn(count, 1, 7, 7, generator=generator)
    waves = F.interpolate(waves, size=(_SIDE, _SIDE), mode="bicubic", align_corners=False)[:, 0]
    return torch.sigmoid(10 * (1 - distance) + 1.5 * waves)


def compare(image_size: tuple[int, int], detections: int, repeats: int) -> Result:
    """Time and measure both on one image's detections, after one call of each as warm-up."""
    boxes = random_boxes(detections, *image_size, _SEED)
    masks = random_masks(detections, _SEED)
    methods: tuple[Method, Method] = (ours, stock)
    first, second = (method(masks, boxes, image_size) for method in methods)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).mean()
    result = Result(image_size, detections, float(area), first == second)
    sides = (result.ours, result.stock)
    for _ in range(repeats):
        for method, side in zip(methods, sides, strict=True):
            call = _call(method, masks, boxes, image_size)
            side.seconds.append(clock(call, _CPU)[0])
    for method, side in zip(methods, sides, strict=True):
        side.memory = peak_memory(_call(method, masks, boxes, image_size), _CPU)
    return result


def _call(
    method: Method, masks: torch.Tensor, boxes: torch.Tensor, image_size: tuple[int, int]
) -> Callable[[], list[dict[str, Any]]]:
    return lambda: method(masks, boxes, image_size)


def run_masks(
    image_sizes: Sequence[tuple[int, int]], detections: Sequence[int], repeats: int
) -> tuple[list[Result], dict[str, Any]]:
    """All combinations, and the facts that go with them."""
    results = []
    for height, width in image_sizes:
        for count in detections:
            say(f"{count} masks on {height}x{width}")
            results.append(compare((height, width), count, repeats))
    facts = {
        **environment(_CPU),
        "repeats": repeats,
        "boxes": DISTRIBUTION,
        "mask_side": _SIDE,
        "threshold": 0.5,
        "seed": _SEED,
    }
    return results, facts


def as_text(results: Sequence[Result], facts: dict[str, Any]) -> str:
    """The table, two rows a case, and what one must know to read it."""
    header = ["image", "masks", "mean box, px", "whose", "time, ms", "stock / ours", "peak MB"]
    header.append("same RLE")
    rows = []
    for result in results:
        height, width = result.image_size
        for whose, side in (("ours", result.ours), ("stock", result.stock)):
            first = whose == "ours"
            rows.append(
                [
                    f"{height}x{width}" if first else "",
                    str(result.detections) if first else "",
                    f"{result.box_pixels:.0f}" if first else "",
                    whose,
                    Spread.of(side.seconds).text(1e3),
                    result.ratio.text() if first else "",
                    megabytes(side.memory),
                    ("yes" if result.equal else "NO") if first else "",
                ]
            )
    return "\n".join(
        [
            f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; "
            f"{facts['repeats']} repeats, ours and stock in turns",
            f"masks: {facts['mask_side']}x{facts['mask_side']}, threshold {facts['threshold']}; "
            f"boxes: {facts['boxes']}; seed {facts['seed']}",
            table(header, rows),
            "Times are medians (quartiles), for all masks of one image; the ratio is taken turn by "
            "turn.",
            "Peak: memory beyond the inputs, the pasted bitmaps of stock included.",
        ]
    )
