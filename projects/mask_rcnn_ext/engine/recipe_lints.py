"""Known mistakes in a config: each runs to its end without an error and costs AP.

What cannot be right is refused elsewhere (`config.finalize_config`); here is what hardly ever is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.config import CfgNode

from ..config import flatten
from ..modeling.roi_extractor import POOLER_TYPES
from .weights.requirements import requirements
from .weights.sources import Source

_LINEAR_RULE = 0.02 / 16  # SGD's rate an image, in the paper and in Detectron2
_SGD_TOO_HIGH, _SGD_TOO_LOW = 2.0, 0.05  # times that
_ADAMW_TOO_HIGH = 0.005
_SIZE_RATIO = 1.34  # a test size so far outside of the training sizes
_COCO_DETECTIONS = 100
_LOWEST_SCORE = 0.05
_HEADS = ("ROI_BOX_HEAD", "ROI_MASK_HEAD", "ROI_KEYPOINT_HEAD")
# What weights must see and be cut out with as in their own training.
_OF_WEIGHTS = (
    "INPUT.FORMAT",
    "MODEL.PIXEL_MEAN",
    "MODEL.PIXEL_STD",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    *(f"MODEL.{head}.POOLER_TYPE" for head in _HEADS),
)


@dataclass(frozen=True)
class Finding:
    """
    Attributes:
        key, value: of the config
        why: what is wrong with it
        remedy: what to set instead
    """

    key: str
    value: Any
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key} is {self.value}: {self.why}. {self.remedy}"


def lint(cfg: CfgNode, *, training: bool = True) -> list[Finding]:
    """All findings, in no order that means anything; [] for each config of this project.

    Args:
        cfg: as the run has it, after `recipe.derive_recipe`
        training: else only what matters for an evaluation
    """
    checks: tuple[Callable[[CfgNode], Iterable[Finding]], ...] = (
        _test_size,
        _detections,
        _pixels_and_order,
        _published_weights,
        _weights_with_a_config,
    )
    if training:
        checks += (_frozen_and_random, _warm_up, _rate, _schedule, _direction_of_best)
    return [finding for check in checks for finding in check(cfg)]


def report(cfg: CfgNode, *, training: bool = True) -> None:
    """Warn of each finding in the log."""
    for finding in lint(cfg, training=training):
        logging.getLogger(__name__).warning("%s", finding)


# ---- sizes and figures of the evaluation


def _test_size(cfg: CfgNode) -> Iterator[Finding]:
    size, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
    # Generated street scenes, cityscapes_scenes_..., are smaller than the benchmark's pictures.
    if any(name.startswith("cityscapes_fine") for name in cfg.DATASETS.TEST):
        if size != 1024 or longest < 2048:
            yield Finding(
                "INPUT.MIN_SIZE_TEST, MAX_SIZE_TEST",
                f"{size}, {longest}",
                "pictures of Cityscapes are 2048 x 1024 and are tested at that size (paper, "
                "appendix A), in training the shorter side is 800 to 1024",
                "Set INPUT.MIN_SIZE_TEST 1024 INPUT.MAX_SIZE_TEST 2048 and, to train, "
                "INPUT.MAX_SIZE_TRAIN 2048",
            )
        return
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if not size or not sizes or ("LSJ" in cfg.INPUT and cfg.INPUT.LSJ.ENABLED):
        return
    if not min(sizes) / _SIZE_RATIO <= size <= max(sizes) * _SIZE_RATIO:
        yield Finding(
            "INPUT.MIN_SIZE_TEST",
            size,
            f"objects have another size than in training, where the shorter side is "
            f"{' to '.join(map(str, sorted({min(sizes), max(sizes)})))}",
            "Set INPUT.MIN_SIZE_TEST and INPUT.MIN_SIZE_TRAIN alike",
        )


def _detections(cfg: CfgNode) -> Iterator[Finding]:
    count = cfg.TEST.DETECTIONS_PER_IMAGE
    if count != _COCO_DETECTIONS and any(name.startswith("coco_") for name in cfg.DATASETS.TEST):
        yield Finding(
            "TEST.DETECTIONS_PER_IMAGE",
            count,
            f"COCO's figures are for {_COCO_DETECTIONS} detections an image, others do not compare",
            f"Set TEST.DETECTIONS_PER_IMAGE {_COCO_DETECTIONS}",
        )
    score = cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
    if score > _LOWEST_SCORE:
        yield Finding(
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
            score,
            "AP counts detections of low scores, too; without them it is lower",
            f"Set it to {_LOWEST_SCORE} for an evaluation; pictures have thresholds of their own",
        )


# ---- weights


def _pixels_and_order(cfg: CfgNode) -> Iterator[Finding]:
    """ImageNet's red is its brightest channel, so its mean tells the order."""
    mean, order = list(cfg.MODEL.PIXEL_MEAN), cfg.INPUT.FORMAT
    imagenet = [103.5, 116.3, 123.7]
    if order not in ("RGB", "BGR") or len(mean) != 3:
        return
    expected = imagenet if order == "BGR" else imagenet[::-1]
    if _near(mean, expected[::-1]):
        yield Finding(
            "MODEL.PIXEL_MEAN",
            mean,
            f"this is ImageNet's mean in the other order; INPUT.FORMAT is {order}",
            f"Set INPUT.FORMAT {order[::-1]}, or turn PIXEL_MEAN and PIXEL_STD round",
        )


def _near(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) < 2 for a, b in zip(one, other, strict=True))


def _published_weights(cfg: CfgNode) -> Iterator[Finding]:
    """By the names of Detectron2's zoo, without the files."""
    weights = cfg.MODEL.WEIGHTS
    source = _stand_in(weights)
    if source is not None:
        for one in requirements(source, cfg):
            if not one.met:
                yield Finding(
                    one.key,
                    one.configured,
                    f"the weights {weights} were trained with {one.expected[0]}",
                    f"Set {one.key} {one.expected[0]}",
                )
    if re.match(r"(detectron2://|.*/detectron2/)(COCO|LVIS|Cityscapes|Pascal)", weights):
        yield from _flavour(cfg, "RoIAlignV2", f"the weights {weights}")
    elif "Caffe2Detectron" in weights:
        yield from _flavour(cfg, "RoIAlign", f"the weights {weights}")


def _stand_in(weights: str) -> Source | None:
    """As much of an ImageNet file as its name tells; its pixels are what is asked for."""
    if re.search(r"ImageNetPretrained/(MSRA|FAIR)/", weights):
        kind = "caffe2"
    elif re.search(r"ImageNetPretrained/torchvision/", weights):
        kind = "torchvision"
    else:
        return None
    grouped = re.search(r"X-\d+-(\d+)x(\d+)d", weights)
    groups, width = (int(grouped[1]), int(grouped[2])) if grouped else (1, 64)
    # The first block of the depths that are published, 50 and more.
    shapes = {1: (groups * width, 64, 1, 1), 2: (groups * width, width, 3, 3), 3: (256, 1, 1, 1)}
    tensors = {
        f"res2.0.conv{place}.weight": torch.empty(shape, device="meta")
        for place, shape in shapes.items()
    }
    return Source(kind, tensors, dict.fromkeys(tensors, ""), True, "", [])


def _flavour(cfg: CfgNode, expected: str, weights: str) -> Iterator[Finding]:
    used = {"ROI_BOX_HEAD": True, "ROI_MASK_HEAD": cfg.MODEL.MASK_ON}
    used["ROI_KEYPOINT_HEAD"] = cfg.MODEL.KEYPOINT_ON
    if cfg.MODEL.ROI_HEADS.NAME.endswith("Res5ROIHeads"):  # one RoI layer for both heads
        used["ROI_MASK_HEAD"] = False
    for head, is_used in used.items():
        kind = cfg.MODEL[head].POOLER_TYPE
        if is_used and POOLER_TYPES.get(kind, kind) != expected:
            yield Finding(
                f"MODEL.{head}.POOLER_TYPE",
                kind,
                f"{weights} were trained with {expected}; RoIAlign and RoIAlignV2 differ by half a "
                "pixel of the feature map",
                f"Set MODEL.{head}.POOLER_TYPE {expected}",
            )


def _weights_with_a_config(cfg: CfgNode) -> Iterator[Finding]:
    """A run's checkpoint lies beside its config.yaml."""
    weights = cfg.MODEL.WEIGHTS
    beside = Path(weights).parent / "config.yaml"
    if not weights or "://" in weights or not beside.is_file():
        return
    try:
        loaded = yaml.safe_load(beside.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return  # nothing that would be known of the weights
    theirs = dict(flatten(loaded)) if isinstance(loaded, dict) else {}
    mine = dict(flatten(cfg))
    for key in _OF_WEIGHTS:
        here, there = (
            POOLER_TYPES.get(value, value) if isinstance(value, str) else value
            for value in (mine[key], theirs.get(key))
        )
        if there is not None and here != there and _matters(cfg, key):
            yield Finding(
                key,
                mine[key],
                f"the weights {weights} were trained with {theirs[key]} ({beside})",
                f"Set {key} {theirs[key]}",
            )


def _matters(cfg: CfgNode, key: str) -> bool:
    if "ROI_MASK_HEAD" in key:
        return bool(cfg.MODEL.MASK_ON)
    return "ROI_KEYPOINT_HEAD" not in key or bool(cfg.MODEL.KEYPOINT_ON)


def _frozen_and_random(cfg: CfgNode) -> Iterator[Finding]:
    if cfg.MODEL.WEIGHTS:
        return
    if cfg.MODEL.BACKBONE.FREEZE_AT > 0:
        yield Finding(
            "MODEL.BACKBONE.FREEZE_AT",
            cfg.MODEL.BACKBONE.FREEZE_AT,
            "without MODEL.WEIGHTS these layers are random and stay so",
            "Set MODEL.BACKBONE.FREEZE_AT 0, or give MODEL.WEIGHTS",
        )
    if "resnet" in cfg.MODEL.BACKBONE.NAME and cfg.MODEL.RESNETS.NORM == "FrozenBN":
        yield Finding(
            "MODEL.RESNETS.NORM",
            "FrozenBN",
            "without MODEL.WEIGHTS it has no statistics and normalizes nothing",
            "Set MODEL.RESNETS.NORM BN (or GN), or give MODEL.WEIGHTS",
        )


# ---- rate and schedule


def _warm_up(cfg: CfgNode) -> Iterator[Finding]:
    if cfg.SOLVER.WARMUP_ITERS == 0 or cfg.SOLVER.WARMUP_FACTOR >= 1:
        key = "WARMUP_ITERS" if cfg.SOLVER.WARMUP_ITERS == 0 else "WARMUP_FACTOR"
        yield Finding(
            f"SOLVER.{key}",
            cfg.SOLVER[key],
            f"the first step has the full rate of {cfg.SOLVER.BASE_LR:g}, while the heads are "
            "random; losses then often become infinite",
            "Set SOLVER.WARMUP_ITERS 1000 SOLVER.WARMUP_FACTOR 0.001, Detectron2's",
        )


def _rate(cfg: CfgNode) -> Iterator[Finding]:
    rate, batch = cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH
    if cfg.SOLVER.OPTIMIZER == "AdamW":
        if rate > _ADAMW_TOO_HIGH:
            yield Finding(
                "SOLVER.BASE_LR",
                rate,
                "this is a rate for SGD",
                "AdamW's are about 0.0001 to 0.001",
            )
        return
    usual = _LINEAR_RULE * batch
    if not _SGD_TOO_LOW <= rate / usual <= _SGD_TOO_HIGH:
        yield Finding(
            "SOLVER.BASE_LR",
            rate,
            f"by the linear rule (0.02 for 16 images) {batch} images a step go with {usual:.4g}; "
            + ("higher ones diverge" if rate > usual else "a run would learn very slowly"),
            f"Set SOLVER.BASE_LR {usual:.4g}, or leave it to SOLVER.REFERENCE_BATCH",
        )


def _schedule(cfg: CfgNode) -> Iterator[Finding]:
    solver = cfg.SOLVER
    total = solver.MAX_ITER
    late = [step for step in solver.STEPS if step >= total]
    if late and solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR":
        yield Finding(
            "SOLVER.STEPS",
            tuple(solver.STEPS),
            f"the rate never drops at {', '.join(map(str, late))}, for SOLVER.MAX_ITER is {total}",
            f'For the usual 2/3 and 8/9: SOLVER.STEPS "({total * 2 // 3}, {total * 8 // 9})"',
        )
    if total <= solver.WARMUP_ITERS:
        yield Finding(
            "SOLVER.WARMUP_ITERS",
            solver.WARMUP_ITERS,
            f"the run ends after {total} steps (SOLVER.MAX_ITER), before the full rate is reached",
            f"Set SOLVER.WARMUP_ITERS {total // 20} or so",
        )
    if total < cfg.TEST.EVAL_PERIOD:
        yield Finding(
            "TEST.EVAL_PERIOD",
            cfg.TEST.EVAL_PERIOD,
            f"SOLVER.MAX_ITER is {total}: there is no evaluation but the last",
            f"Set TEST.EVAL_PERIOD {max(1, total // 10)} or so",
        )
    if cfg.TEST.EVAL_PERIOD and not cfg.DATASETS.TEST:
        yield Finding(
            "TEST.EVAL_PERIOD",
            cfg.TEST.EVAL_PERIOD,
            "DATASETS.TEST is empty, so there is nothing to evaluate on",
            "Name a data set in DATASETS.TEST",
        )


def _direction_of_best(cfg: CfgNode) -> Iterator[Finding]:
    metric, mode = cfg.TEST.BEST_METRIC, cfg.TEST.BEST_MODE
    if metric and ("loss" in metric) != (mode == "min"):
        yield Finding(
            "TEST.BEST_MODE",
            mode,
            f"of {metric} the {'smallest' if 'loss' in metric else 'largest'} is best",
            f"Set TEST.BEST_MODE {'min' if 'loss' in metric else 'max'}",
        )
