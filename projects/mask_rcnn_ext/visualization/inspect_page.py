"""The page of `inspect`: the stages of a model for one image, as pictures with their numbers.

Frame of every coordinate: pixels of the network's input, x to the right, y down.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup

from .draw import class_colour
from .html import hex_colour, picture_uri, render_page

GENERATOR = "mask-rcnn-ext inspect"
_LONGEST = 1000  # pixels of the embedded picture
_MARGIN = 0.2  # around the image where anchors are shown, part of its sides
_FOREGROUND, _BACKGROUND = "#14a44d", "#9aa0a6"
_BACKGROUNDS_SHOWN = 60  # of a level


def inspect_page(
    numbers: dict[str, Any],
    image: np.ndarray,
    overlay: np.ndarray | None,
    *,
    name: str,
    model: str,
    notes: Sequence[str] = (),
) -> bytes:
    """
    Args:
        numbers: of `numbers_of`
        image: (h, w, 3) uint8 RGB, the network's input before padding
        overlay: (H, W, 3) uint8 RGB, the detections drawn on the original image; None without
        name: of the image
        model: which model it is, for people
        notes: what is missing, and why
    Returns:
        an HTML file that needs nothing else; `<script id="numbers">` holds `numbers` as JSON
    """
    height, width = image.shape[:2]
    text = json.dumps(numbers, allow_nan=False)
    return render_page(
        "inspect",
        title=f"{name}: stage by stage",
        generator=GENERATOR,
        image_name=name,
        model=model,
        notes=list(notes),
        numbers=numbers,
        numbers_json=Markup(text.replace("<", "\\u003c")),
        picture=picture_uri(image, _LONGEST),
        overlay=None if overlay is None else picture_uri(overlay, 2 * _LONGEST),
        height=height,
        width=width,
        wide_view=_view(
            (-_MARGIN * width, -_MARGIN * height, (1 + _MARGIN) * width, (1 + _MARGIN) * height)
        ),
        colours=[hex_colour(class_colour(3 * i + 1)) for i in range(16)],
        roi_colours={True: _FOREGROUND, False: _BACKGROUND},
        backgrounds_shown=_BACKGROUNDS_SHOWN,
        heat_maps=[_heat(np.array(level["objectness"]), 1.0) for level in numbers["anchors"]],
        roi=_roi_pictures(numbers["roi_layer"]),
        mask_pictures=[
            [_mask_pictures(one) for one in numbers[key] or []]
            for key in ("sampled_masks", "detected_masks")
        ],
        rect=_rect,
        view=_view,
        decimals=lambda value, places=2: f"{value:.{places}f}",
    )


def _rect(box: Sequence[float]) -> Markup:
    """A box as attributes of an SVG rectangle."""
    x0, y0, x1, y1 = box
    return Markup(f'x="{x0:.2f}" y="{y0:.2f}" width="{x1 - x0:.2f}" height="{y1 - y0:.2f}"')


def _view(box: Sequence[float]) -> str:
    """A box as an SVG's `viewBox`."""
    x0, y0, x1, y1 = box
    return f"{x0:.2f} {y0:.2f} {max(x1 - x0, 1e-3):.2f} {max(y1 - y0, 1e-3):.2f}"


def _heat(values: np.ndarray, most: float, least: float = 0.0) -> str:
    """(rows, columns) as a picture of one pixel a value, dark for `least`, yellow for `most`."""
    share = np.clip((values - least) / (most - least or 1.0), 0, 1)
    colours = cv2.applyColorMap((share * 255).round().astype(np.uint8), cv2.COLORMAP_INFERNO)
    return picture_uri(np.ascontiguousarray(colours[:, :, ::-1]), 4096, quality=95)


def _mask_pictures(mask: dict[str, Any]) -> dict[str, str]:
    pictures = {"predicted": _heat(np.array(mask["probabilities"]), 1.0)}
    if "target" in mask:
        pictures["target"] = _heat(np.array(mask["target"], float), 1.0)
    return pictures


def _roi_pictures(layer: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the template draws of the RoI layer: addresses, paths, the part that is shown."""
    if layer is None:
        return None
    features, pooled = np.array(layer["features"]), np.array(layer["pooled"])
    rows, columns = layer["cells"]
    stride = layer["stride"]
    x0, y0, x1, y1 = layer["box"]
    edge = max(1.5 * stride, 0.15 * max(x1 - x0, y1 - y0))
    view = (x0 - edge, y0 - edge, x1 + edge, y1 + edge)
    # All that is in the view, so that what can be seen uses the whole scale.
    first_row, first_column = (max(0, int(v // stride)) for v in (view[1], view[0]))
    part = features[
        first_row : int(view[3] // stride) + 1, first_column : int(view[2] // stride) + 1
    ]
    seen = part if part.size else features
    lines = "".join(f"M{c * stride:g} 0V{rows * stride:g}" for c in range(columns + 1))
    lines += "".join(f"M0 {r * stride:g}H{columns * stride:g}" for r in range(rows + 1))
    dots = [
        f"M{x:.2f} {y:.2f}h0"
        for ys in layer["samples_y"]
        for y in ys
        for xs in layer["samples_x"]
        for x in xs
    ]
    bins = [
        f"M{left:.2f} {top:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}Z"
        for top, bottom in layer["bins_y"]
        for left, right in layer["bins_x"]
    ]
    return {
        "view": view,
        "features": _heat(features, float(seen.max()), float(seen.min())),
        "feature_width": columns * stride,
        "feature_height": rows * stride,
        "grid": lines,
        "dots": "".join(dots),
        "dot_count": len(dots),
        "bins": "".join(bins),
        "unit": max(x1 - x0, y1 - y0) / 100,
        "pooled": _heat(pooled, float(pooled.max()), float(pooled.min())),
        "pooled_range": (float(pooled.min()), float(pooled.max())),
    }
