"""Mask targets from polygons: ours beside Detectron2's `PolygonMasks.crop_and_resize`.

Shape shorthand: R RoIs, M mask side.

Objects are made up: one polygon each, star-shaped about its centre, with a number of vertices as
COCO's have (most between 10 and 60); each RoI is its object's box, shaken as a proposal's would be.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.structures import PolygonMasks

from ...ops.mask_targets import polygon_targets
from .boxes import random_boxes
from .timing import Spread, clock, environment, say, table

_SEED = 0
_HEIGHT, _WIDTH = 800, 1216  # of the network input


@dataclass(frozen=True)
class Result:
    """Seconds a minibatch of `rois` RoIs at `side` M; `ratio` is stock / ours, turn by turn."""

    rois: int
    side: int
    ours: Spread
    stock: Spread
    ratio: Spread
    equal: bool

    def as_json(self) -> dict[str, Any]:
        spreads = {name: getattr(self, name).as_json() for name in ("ours", "stock", "ratio")}
        return {"rois": self.rois, "side": self.side, "equal": self.equal, **spreads}


def made_up_objects(count: int) -> tuple[list[list[np.ndarray]], torch.Tensor]:
    """`count` objects of one polygon (x0, y0, x1, y1, ...), and their RoIs (count, 4), pixels."""
    rng = np.random.default_rng(_SEED)
    boxes = random_boxes(count, _HEIGHT, _WIDTH, _SEED)
    polygons = []
    for x0, y0, x1, y1 in boxes.tolist():
        vertices = int(np.clip(rng.lognormal(math.log(25), 0.6), 4, 200))
        angle = np.sort(rng.uniform(0, 2 * np.pi, vertices))
        reach = rng.uniform(0.5, 1, vertices) / 2
        x = (x0 + x1) / 2 + (x1 - x0) * reach * np.cos(angle)
        y = (y0 + y1) / 2 + (y1 - y0) * reach * np.sin(angle)
        polygons.append([np.stack([x, y], axis=1).reshape(-1)])
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    shake = torch.from_numpy(rng.uniform(-0.1, 0.1, (count, 4))).float()
    return polygons, boxes + shake * size


def run_targets(
    counts: Sequence[int], sides: Sequence[int], repeats: int
) -> tuple[list[Result], dict[str, Any]]:
    """Measure each number of RoIs at each side, on the CPU.

    Returns:
        results, and the facts of the machine and the objects
    """
    device = torch.device("cpu")
    results = []
    for count in counts:
        polygons, rois = made_up_objects(count)
        masks = PolygonMasks(polygons)
        for side in sides:
            say(f"{count} RoIs, {side} x {side}")
            ours_call = functools.partial(polygon_targets, polygons, rois, side)
            stock_call = functools.partial(masks.crop_and_resize, rois, side)
            equal = torch.equal(ours_call(), stock_call())  # and a warm-up
            ours, stock = [], []
            for _ in range(repeats):
                ours.append(clock(ours_call, device)[0])
                stock.append(clock(stock_call, device)[0])
            ratio = Spread.of([b / a for a, b in zip(ours, stock, strict=True)])
            results.append(
                Result(count, side, Spread.of(ours), Spread.of(stock), ratio, equal=equal)
            )
    vertices = [len(p[0]) // 2 for p in made_up_objects(256)[0]]
    facts = {
        **environment(device),
        "repeats": repeats,
        "vertices": f"median {int(np.median(vertices))}, {min(vertices)} to {max(vertices)}",
        "seed": _SEED,
    }
    return results, facts


def as_text(results: Sequence[Result], facts: dict[str, Any]) -> str:
    """The table that the command prints."""
    rows = [
        [
            f"{r.rois} RoIs, {r.side} x {r.side}",
            r.ours.text(1e3, 2),
            r.stock.text(1e3, 2),
            r.ratio.text(1, 2),
            "yes" if r.equal else "NO",
        ]
        for r in results
    ]
    header = ["mask targets", "ours, ms", "stock, ms", "stock / ours", "same bits"]
    return "\n".join(
        [
            f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; "
            f"{facts['repeats']} repeats, ours and stock in turns",
            f"made-up polygons, one an object; vertices: {facts['vertices']}; seed {_SEED}",
            table(header, rows),
            "Times are medians (quartiles); the ratio is taken turn by turn.",
        ]
    )
