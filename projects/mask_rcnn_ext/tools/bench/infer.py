"""Inference from a decoded image to boxes and RLE masks: ours beside Detectron2, in turns.

Stock is the model of the same weights in Detectron2's own parts, called as its evaluation calls it:
`ResizeShortestEdge`, `model.inference`, `paste_masks_in_image`, pycocotools' `encode`. Ours is what
evaluation and `predict` do here: our resize, a model of `prepare_for_inference`, masks straight to
RLE. Both get the same images one after the other in one process; what they detect in the same
network inputs is compared.

Random weights would detect nothing. They are therefore given the statistics of a trained model:
each frozen norm those of its input, the classifier and its background as many candidates as make
the detections, most cells of a mask inside it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import GeneralizedRCNN, build_model
from detectron2.structures import Instances, pairwise_iou
from torch import nn

from ...data.augmentations.build import build_augmentations
from ...data.augmentations.resize import channels_first
from ...data.mappers.images import read_image
from ...engine.checkpoint import Checkpointer
from ...engine.precision import inference_context, inference_dtype
from ...evaluation.raw_masks import Encoder, to_original_frame
from ...modeling.speed import prepare_for_inference, wants_channels_last
from .data_mapper import benchmark_records
from .stock import stock_config
from .timing import Spread, clock, environment, megabytes, peak_memory, say, table

RANDOM = "random, with the statistics of a trained model"
STAGES = ("input", "model", "masks")
_SEED = 0
_CANDIDATES = 3  # a detection, before suppression
_INSIDE = 1.5  # standard deviations of the mask logits by which they are above zero
Sample = dict[str, Any]


@dataclass
class Side:
    """One of the two: its stages, and what they took.

    seconds: stage -> one value a repeat, the sum over the images
    memory: peak bytes of one image beyond the weights
    """

    input_of: Callable[[np.ndarray], Sample]
    detect: Callable[[Sample], Instances]
    finish: Callable[[Instances, Sample], Instances]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in STAGES})
    memory: float | None = None

    @property
    def totals(self) -> list[float]:
        return [sum(parts) for parts in zip(*self.seconds.values(), strict=True)]

    def run(self, image: np.ndarray, device: torch.device) -> tuple[list[float], Instances]:
        """Seconds of each stage, and the detections with `pred_mask_rles`."""
        first, sample = clock(lambda: self.input_of(image), device)
        second, raw = clock(lambda: self.detect(sample), device)
        third, found = clock(lambda: self.finish(raw, sample), device)
        return [first, second, third], found


@dataclass
class Agreement:
    """Of the stock side's detections, how many ours has too, and how far they are off.

    found: share with one of ours of the same class and an IoU of 0.99, or 1.0 without detections
    score: largest difference of their scores
    mask_iou: mean IoU of their masks; None without masks
    """

    found: float
    score: float
    mask_iou: float | None


@dataclass
class Result:
    """All that was measured."""

    ours: Side
    stock: Side
    agreement: Agreement
    detections: float
    facts: dict[str, Any]

    @property
    def ratio(self) -> Spread:
        """Stock's time over ours, turn by turn; above 1 ours is faster."""
        return Spread.of([s / o for s, o in zip(self.stock.totals, self.ours.totals, strict=True)])

    def as_json(self) -> dict[str, Any]:
        sides = {
            name: {
                "seconds": side.seconds,
                "images_per_second": self.facts["images"] / Spread.of(side.totals).median,
                "peak_bytes": side.memory,
            }
            for name, side in (("ours", self.ours), ("stock", self.stock))
        }
        return {
            **self.facts,
            **sides,
            "detections": self.detections,
            "agreement": vars(self.agreement),
            "ratio": self.ratio.as_json(),
        }


def run_infer(
    cfg: CfgNode, image_size: tuple[int, int] | None, dataset: str | None, images: int, repeats: int
) -> Result:
    """
    Args:
        cfg: of ours, frozen; its MODEL.WEIGHTS are used if there are any
        image_size: (height, width) of the network input, pixels; None resizes as the config says
        dataset: whose images; None takes real ones if they are there, else generated scenes
        images: how many
        repeats: timed turns over all images, after one that warms up
    Raises:
        UserError: a config that Detectron2 cannot build, weights or data that are not there
    """
    stock_cfg = stock_config(cfg)
    torch.manual_seed(_SEED)
    trained = build_model(cfg).eval()
    stock_model = build_model(stock_cfg).eval()
    with benchmark_records(dataset, images) as (name, records):
        pictures = [read_image(r["file_name"], cfg.INPUT.FORMAT) for r in records]
    weights = cfg.MODEL.WEIGHTS or RANDOM
    stock_resize = _stock_resize(stock_cfg, image_size)
    if cfg.MODEL.WEIGHTS:
        Checkpointer(trained, save_dir="").load(cfg.MODEL.WEIGHTS)
    else:
        say("giving random weights the statistics of trained ones")
        _make_realistic(trained, _sample(pictures[0], stock_resize), cfg)
    stock_model.load_state_dict(trained.state_dict())
    device = next(trained.parameters()).device
    model = prepare_for_inference(
        trained,
        fold_norms=cfg.MODEL.FOLD_NORMS,
        channels_last=wants_channels_last(
            cfg.MODEL.CHANNELS_LAST, cfg.MODEL.DEVICE, half=inference_dtype(cfg, device) is not None
        ),
        compile=cfg.MODEL.COMPILE,
    )
    ours = Side(
        lambda image: _our_sample(image, cfg, image_size),
        lambda sample: _detect(model, sample),
        _our_masks,
    )
    stock = Side(
        lambda image: _sample(image, stock_resize),
        lambda sample: _detect(stock_model, sample),
        _stock_masks,
    )
    contexts = (lambda: inference_context(cfg, model), contextlib.nullcontext)
    found = _measure((ours, stock), contexts, pictures, device, repeats)
    facts = {
        **environment(device),
        "images": len(pictures),
        "of": name,
        "network_inputs": [list(_sample(p, stock_resize)["image"].shape[1:]) for p in pictures],
        "weights": weights,
        "precision": cfg.TEST.PRECISION,
        "repeats": repeats,
    }
    counts = [len(instances) for instances in found[1]]
    return Result(ours, stock, _agreement(*found), float(np.mean(counts)), facts)


def _measure(
    sides: tuple[Side, Side],
    contexts: Sequence[Callable[[], contextlib.AbstractContextManager[Any]]],
    pictures: Sequence[np.ndarray],
    device: torch.device,
    repeats: int,
) -> tuple[list[Instances], list[Instances]]:
    """Time both in turns, image by image; what both detect in the same network inputs."""
    found: tuple[list[Instances], list[Instances]] = ([], [])
    with torch.no_grad():
        say("warming up and comparing")
        for image in pictures:
            # Our resize may differ from stock's by one of 255, which is not what is compared here.
            sample = sides[1].input_of(image)
            for side, context, instances in zip(sides, contexts, found, strict=True):
                with context():
                    instances.append(side.finish(side.detect(sample), sample))
        for repeat in range(repeats):
            say(f"turn {repeat + 1} of {repeats}")
            totals = np.zeros((2, len(STAGES)))
            for image in pictures:
                for number, (side, context) in enumerate(zip(sides, contexts, strict=True)):
                    with context():
                        totals[number] += side.run(image, device)[0]
            for side, total in zip(sides, totals, strict=True):
                for stage, value in zip(STAGES, total, strict=True):
                    side.seconds[stage].append(float(value))
        for side, context in zip(sides, contexts, strict=True):
            with context():
                side.memory = peak_memory(_run_once(side, pictures[0], device), device)
    return found


def _run_once(side: Side, image: np.ndarray, device: torch.device) -> Callable[[], Any]:
    return lambda: side.run(image, device)


def _detect(model: nn.Module, sample: Sample) -> Instances:
    """Of one image, in the frame of the network input, masks unpasted."""
    found: list[Instances] = model.inference([sample], do_postprocess=False)  # type: ignore[operator]
    return found[0]


def _stock_resize(cfg: CfgNode, image_size: tuple[int, int] | None) -> T.Augmentation:
    """Detectron2's, as its DefaultPredictor and its mapper have it."""
    if image_size is not None:
        return T.Resize(image_size)
    return T.ResizeShortestEdge(
        [cfg.INPUT.MIN_SIZE_TEST] * 2, cfg.INPUT.MAX_SIZE_TEST, sample_style="choice"
    )


def _sample(image: np.ndarray, resize: T.Augmentation) -> Sample:
    height, width = image.shape[:2]
    resized = resize.get_transform(image).apply_image(image)
    pixels = torch.as_tensor(np.ascontiguousarray(resized.transpose(2, 0, 1)))
    return {"image": pixels, "height": height, "width": width}


def _our_sample(image: np.ndarray, cfg: CfgNode, image_size: tuple[int, int] | None) -> Sample:
    if image_size is not None:
        return _sample(image, T.Resize(image_size))
    height, width = image.shape[:2]
    given = T.AugInput(np.ascontiguousarray(image))
    T.AugmentationList(build_augmentations(cfg, is_train=False))(given)
    return {"image": channels_first(given.image).contiguous(), "height": height, "width": width}


def _our_masks(instances: Instances, sample: Sample) -> Instances:
    found = to_original_frame(instances, sample, tuple(instances.image_size))
    rles = Encoder().submit(found)
    if rles is not None:
        found.pred_mask_rles = rles.result()
    return found.to("cpu")


def _stock_masks(instances: Instances, sample: Sample) -> Instances:
    """What `model(inputs)` ends with, and `instances_to_coco_json` begins with."""
    processed = GeneralizedRCNN._postprocess([instances], [sample], [instances.image_size])
    found: Instances = processed[0]["instances"].to("cpu")
    if found.has("pred_masks"):
        found.pred_mask_rles = [
            mask_util.encode(np.array(mask[:, :, None].numpy(), order="F", dtype="uint8"))[0]
            for mask in found.pred_masks
        ]
        found.remove("pred_masks")
    return found


# ---- random weights that behave


def _make_realistic(model: Any, sample: Sample, cfg: CfgNode) -> None:
    """Set norms, classifier and mask bias by what one image makes of them, in place."""
    settle_frozen_norms(model, [sample])
    predictor = model.roi_heads.box_predictor
    wanted = _CANDIDATES * cfg.TEST.DETECTIONS_PER_IMAGE
    with torch.no_grad():
        logits = _outputs_of(model, predictor.cls_score, sample)  # (proposals, K + 1)
        predictor.cls_score.weight.mul_(2 / logits.std().clamp(min=1e-6))
        predictor.cls_score.bias.zero_()
        logits = _outputs_of(model, predictor.cls_score, sample)
        predictor.cls_score.bias[-1] = _background(
            logits, wanted, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST
        )
        if model.roi_heads.mask_on and hasattr(model.roi_heads.mask_head, "predictor"):
            last = model.roi_heads.mask_head.predictor
            masks = _outputs_of(model, last, sample)
            if masks.numel():
                last.weight.mul_(2 / masks.std().clamp(min=1e-6))
                last.bias.fill_(2 * _INSIDE)


def settle_frozen_norms(model: Any, samples: list[Sample]) -> None:
    """Give each frozen norm of the backbone the statistics of its input, in place.

    As after ImageNet: with random weights and norms that do nothing, numbers grow from block to
    block.
    """
    with torch.no_grad(), contextlib.ExitStack() as stack:
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d):
                hook = module.register_forward_pre_hook(_take_statistics)
                stack.callback(hook.remove)
        model.backbone(model.preprocess_image(samples).tensor)


def _take_statistics(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
    norm.running_mean.copy_(mean)  # type: ignore[operator]
    norm.running_var.copy_(variance.clamp(min=1e-6))  # type: ignore[operator]


def _outputs_of(model: Any, layer: nn.Module, sample: Sample) -> torch.Tensor:
    """What a layer gives on an image; of no rows if it does not run."""
    seen: list[torch.Tensor] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        model.inference([sample], do_postprocess=False)
    finally:
        hook.remove()
    return seen[0] if seen else torch.empty(0)


def _background(logits: torch.Tensor, wanted: int, threshold: float) -> float:
    """The background's bias with which about so many class scores are above the threshold."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        shifted = logits.clone()
        shifted[:, -1] += middle
        above = int((shifted.softmax(1)[:, :-1] > threshold).sum())
        low, high = (middle, high) if above > wanted else (low, middle)
    return low


# ---- do both say the same?


def _agreement(ours: Sequence[Instances], stock: Sequence[Instances]) -> Agreement:
    hits, total, score, mask_ious = 0, 0, 0.0, []
    for mine, theirs in zip(ours, stock, strict=True):
        total += len(theirs)
        for number, index in _pairs(mine, theirs):
            hits += 1
            score = max(score, abs(float(mine.scores[index] - theirs.scores[number])))
            if theirs.has("pred_mask_rles"):
                pair = [mine.pred_mask_rles[index]], [theirs.pred_mask_rles[number]]
                mask_ious.append(float(mask_util.iou(*pair, [0])[0, 0]))
    mask_iou = float(np.mean(mask_ious)) if mask_ious else None
    return Agreement(hits / total if total else 1.0, score, mask_iou)


def _pairs(mine: Instances, theirs: Instances) -> Iterator[tuple[int, int]]:
    """(theirs, mine) of the same class and place."""
    if not len(mine) or not len(theirs):
        return
    overlap = pairwise_iou(theirs.pred_boxes, mine.pred_boxes)
    overlap[theirs.pred_classes[:, None] != mine.pred_classes] = 0
    best, index = overlap.max(dim=1)
    for number in (best >= 0.99).nonzero()[:, 0].tolist():
        yield number, int(index[number])


def as_text(result: Result) -> str:
    """The table, and what one must know to read it."""
    facts, count = result.facts, result.facts["images"]
    header = ["whose", *(f"{stage}, ms" for stage in STAGES), "all, ms", "images/s"]
    header += ["stock / ours", "peak MB"]
    rows = []
    for whose, side in (("ours", result.ours), ("stock", result.stock)):
        each = [Spread.of([s / count for s in side.seconds[stage]]) for stage in STAGES]
        all_ms = Spread.of([s / count for s in side.totals])
        rows.append(
            [
                whose,
                *(stage.text(1e3) for stage in each),
                all_ms.text(1e3),
                f"{1 / all_ms.median:.2f}",
                result.ratio.text(1, 2) if whose == "ours" else "",
                megabytes(side.memory),
            ]
        )
    sizes = sorted({"x".join(map(str, size)) for size in facts["network_inputs"]})
    agreement = result.agreement
    mask = "" if agreement.mask_iou is None else f", mean mask IoU {agreement.mask_iou:.4f}"
    made_up = facts["weights"] == RANDOM and facts["precision"] != "float32"
    caution = "; random scores tie in 16 bits, so compare with MODEL.WEIGHTS" if made_up else ""
    return "\n".join(
        [
            f"{facts['device_name']}, {facts['threads']} threads, torch {facts['torch']}; {count} "
            f"image(s) of {facts['of']}, network input {', '.join(sizes)}; {facts['repeats']} "
            "turns, ours and stock image by image",
            f"weights: {facts['weights']}; {result.detections:.0f} detections an image; ours in "
            f"{facts['precision']}, stock in float32",
            table(header, rows),
            f"from the same inputs: {100 * agreement.found:.1f} % of the detections alike (class, "
            f"IoU 0.99), scores differ by {agreement.score:.1e} at most{mask}{caution}",
            "input: a decoded image to the model's input; model: to boxes and raw masks; masks: to "
            "RLE in the image's own size. Medians (quartiles); the ratio is taken turn by turn.",
            "Peak: memory of one image beyond the weights.",
        ]
    )
