"""The numbers of the page of `inspect`: what the stages' tensors hold, as plain Python.

The page draws its pictures from these numbers and nothing else, and carries them as JSON. Floats
keep seven digits, which is what float32 has.
Frame of all boxes: pixels of the network's input, x0, y0, x1, y1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .roi_layers import axis_view

_PLACES = (0.5, 0.25, 0.75)  # of a feature map's side, where anchors are shown


def numbers_of(stages: Any, class_names: Sequence[str], *, top: int, masks: int) -> dict[str, Any]:
    """
    Args:
        stages: an `engine.stage_records.Stages`
        class_names: K names
        top: so many boxes of a stage, the best
        masks: so many masks
    Returns:
        one entry a stage, None for one that the model does not have
    """
    return {
        "image": {
            "original_size": list(stages.original_size),
            "network_size": list(stages.image.shape[-2:]),
            "padded_size": list(stages.padded_size),
        },
        "anchors": [_anchor_level(level) for level in stages.anchors],
        "before_nms": _candidates(stages.before_nms, stages.anchors, top),
        "proposals": _candidates(stages.proposals, stages.anchors, top),
        "rois": None if stages.rois is None else _rois(stages, class_names, top),
        "roi_layer": None if stages.pooled is None else _roi_layer(stages),
        "sampled_masks": _masks(stages.sampled_masks, class_names, masks),
        "detected_masks": _masks(stages.detected_masks, class_names, masks),
        "detections": _detections(stages.detections, class_names, top),
    }


def plain(values: Any) -> Any:
    """Nested lists with seven digits a float; whole numbers and truth values stay."""
    listed = values.tolist() if isinstance(values, torch.Tensor | np.ndarray) else values
    if isinstance(listed, list | tuple):
        return [plain(one) for one in listed]
    return float(f"{listed:.7g}") if isinstance(listed, float) else listed


def _anchor_level(level: Any) -> dict[str, Any]:
    rows, columns, per_cell = level.logits.shape
    shown = []
    for place in _PLACES:
        row, column = int(rows * place), int(columns * place)
        shown.append(
            {
                "row": row,
                "column": column,
                "boxes": plain(level.anchors[row, column]),
                "logits": plain(level.logits[row, column]),
            }
        )
    sizes = level.anchors[0, 0, :, 2:] - level.anchors[0, 0, :, :2]
    return {
        "name": level.name,
        "stride": level.stride,
        "rows": rows,
        "columns": columns,
        "anchors_per_cell": per_cell,
        "count": rows * columns * per_cell,
        "sizes": plain(sizes),
        "shown": shown,
        # The best anchor of each cell.
        "objectness": plain(level.logits.max(dim=2).values.sigmoid()),
    }


def _candidates(found: Any, levels: Sequence[Any], top: int) -> dict[str, Any]:
    counts = torch.bincount(found.levels, minlength=len(levels))
    return {
        "count": len(found.logits),
        "count_by_level": {
            level.name: count for level, count in zip(levels, counts.tolist(), strict=True)
        },
        "shown": [
            {
                "box": plain(found.boxes[i]),
                "logit": plain(found.logits[i].item()),
                "objectness": plain(found.logits[i].sigmoid().item()),
                "level": levels[int(found.levels[i])].name,
                "level_index": int(found.levels[i]),
            }
            for i in range(min(top, len(found.logits)))
        ],
    }


def _rois(stages: Any, class_names: Sequence[str], top: int) -> dict[str, Any]:
    rois, layer = stages.rois, stages.box_layer
    background = len(class_names)
    by_level: list[dict[str, Any]] = []
    for index, (name, stride) in enumerate(zip(layer.feature_names, layer.strides, strict=True)):
        mine = (rois.levels == index).nonzero()[:, 0].tolist()
        entry: dict[str, Any] = {"name": name, "stride": plain(stride), "count": len(mine)}
        if rois.classes is not None:
            foreground = [i for i in mine if 0 <= int(rois.classes[i]) < background]
            entry["foreground"] = len(foreground)
            entry["background"] = len(mine) - len(foreground)
            mine = foreground + [i for i in mine if i not in set(foreground)]
        entry["shown"] = [_roi(rois, i, class_names) for i in mine[:top]]
        by_level.append(entry)
    return {
        "count": len(rois.boxes),
        "sampled": rois.classes is not None,
        "levels": by_level,
    }


def _roi(rois: Any, index: int, class_names: Sequence[str]) -> dict[str, Any]:
    roi: dict[str, Any] = {"box": plain(rois.boxes[index])}
    if rois.classes is not None:
        number = int(rois.classes[index])
        foreground = 0 <= number < len(class_names)
        roi["foreground"] = foreground
        roi["class"] = class_names[number] if foreground else "background"
        if foreground and rois.matched is not None:
            roi["matched"] = plain(rois.matched[index])
    return roi


def _roi_layer(stages: Any) -> dict[str, Any]:
    pooled, layer = stages.pooled, stages.mask_layer or stages.box_layer
    stride = layer.strides[pooled.level]
    height, width = pooled.features.shape[1:]
    x0, y0, x1, y1 = pooled.box.tolist()
    bins_y, bins_x = layer.output_size
    ratio = layer.sampling_ratio
    along_x = axis_view(layer.layer, x0, x1, stride, bins_x, width, ratio)
    along_y = axis_view(layer.layer, y0, y1, stride, bins_y, height, ratio)
    return {
        "branch": "mask" if stages.mask_layer else "box",
        "layer": layer.layer,
        "aggregation": layer.aggregation,
        "sampling_ratio": ratio,
        "bins": [bins_y, bins_x],
        "box": plain(pooled.box),
        "level": layer.feature_names[pooled.level],
        "stride": plain(stride),
        "cells": [height, width],
        "bins_x": plain(along_x.bins),
        "bins_y": plain(along_y.bins),
        "samples_x": plain(along_x.samples),
        "samples_y": plain(along_y.samples),
        # Of all channels the mean, which is what can be seen of them.
        "features": plain(pooled.features.float().mean(dim=0)),
        "pooled": plain(pooled.pooled.float().mean(dim=0)),
    }


def _masks(pair: Any, class_names: Sequence[str], limit: int) -> list[dict[str, Any]] | None:
    if pair is None:
        return None
    entries = []
    for i in range(min(limit, len(pair.boxes))):
        probabilities = pair.probabilities[i].float()
        entry = {
            "box": plain(pair.boxes[i]),
            "class": class_names[int(pair.classes[i])],
            "probabilities": plain(probabilities),
        }
        if pair.targets is not None:
            target = pair.targets[i]
            predicted = probabilities >= 0.5
            union = int((predicted | target).sum())
            entry["target"] = target.int().tolist()
            entry["iou"] = plain(int((predicted & target).sum()) / union if union else 1.0)
        entries.append(entry)
    return entries


def _detections(found: Any, class_names: Sequence[str], top: int) -> list[dict[str, Any]] | None:
    if found is None:
        return None
    return [
        {
            "box": plain(found.pred_boxes.tensor[i]),
            "score": plain(found.scores[i].item()),
            "class": class_names[int(found.pred_classes[i])],
            "class_index": int(found.pred_classes[i]),
        }
        for i in range(min(top, len(found)))
    ]
