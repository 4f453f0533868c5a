"""What each part of a model costs: parameters, multiply-adds and time, for one image.

MAC: multiply-adds of convolutions, fully connected layers and matrix products, as
`torch.utils.flop_counter` counts them (it counts two FLOP each). Not counted: norms, activations,
pooling, resizing, RoI layers, anchors, NMS. What is run, and timed, includes all of these.

The weights are random, so the model would detect anything or nothing. Proposals and detections are
therefore made up, as many as the config allows; see `boxes.py` for their sizes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY, GeneralizedRCNN, ProposalNetwork, build_model
from detectron2.modeling.poolers import ROIPooler
from detectron2.structures import Boxes, ImageList, Instances
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ...errors import UsageError
from ...modeling import RoIExtractor
from .boxes import DISTRIBUTION, random_boxes
from .timing import Spread, clock, environment, say, table

_SEED = 0
_LATER = ("mask", "keypoint")  # branches that run on detections


@dataclass
class Part:
    """One part of the model, and what running it on one image takes.

    modules: whose parameters belong to this part
    call: runs it on one image
    macs: multiply-adds of one image
    seconds: one value a repeat; empty if not timed
    """

    name: str
    modules: list[nn.Module]
    call: Callable[[], Any]
    macs: int = 0
    seconds: list[float] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return count_parameters(self.modules)


@dataclass
class Cost:
    """The parts of one config, measured.

    inside: parts of the backbone, already in its row
    other: parameters that no part has
    shares_res5: the mask branch runs the box branch's res5
    """

    parts: list[Part]
    inside: list[Part]
    other: int
    shares_res5: bool
    facts: dict[str, Any]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts) + self.other

    @property
    def macs(self) -> int:
        return sum(part.macs for part in self.parts)

    @property
    def seconds(self) -> list[float]:
        """Of all parts, one value a repeat."""
        return [sum(times) for times in zip(*(part.seconds for part in self.parts), strict=True)]


def count_parameters(modules: list[nn.Module]) -> int:
    """Numbers in the modules' parameters, shared ones once. FrozenBN has buffers instead."""
    return sum({id(p): p.numel() for m in modules for p in m.parameters()}.values())


def count_macs(call: Callable[[], Any], ignore: Iterable[nn.Module] = ()) -> int:
    """Multiply-adds of the convolutions and matrix products that `call` runs.

    Args:
        ignore: modules whose own are left out
    """
    counter = FlopCounterMode(display=False)
    ignored = 0

    def enter(*_: Any) -> None:
        nonlocal ignored
        ignored -= counter.get_total_flops()

    def leave(*_: Any) -> None:
        nonlocal ignored
        ignored += counter.get_total_flops()

    hooks = [
        hook
        for m in ignore
        for hook in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))
    ]
    try:
        with counter, torch.no_grad():
            call()
    finally:
        for hook in hooks:
            hook.remove()
    return (counter.get_total_flops() - ignored) // 2


def measure_cost(cfg: CfgNode, image_size: tuple[int, int], repeats: int) -> Cost:
    """Build the model with random weights and measure its parts one after the other.

    Args:
        cfg: frozen; MODEL.WEIGHTS is not read
        image_size: (height, width) of the network input, pixels, before padding
        repeats: timed rounds over all parts; 0 counts only
    Raises:
        UsageError: a meta-architecture of other parts
    """
    kind = META_ARCH_REGISTRY.get(cfg.MODEL.META_ARCHITECTURE)
    if not issubclass(kind, GeneralizedRCNN | ProposalNetwork):
        raise UsageError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}; bench cost knows the parts "
            "of GeneralizedRCNN and ProposalNetwork"
        )
    model = build_model(cfg).eval()
    torch.manual_seed(_SEED)
    images = _images(model, torch.randint(0, 256, (3, *image_size)).float())
    with torch.no_grad():
        features = model.backbone(images.tensor)
    parts, inside = _parts(model, cfg, images, features)
    # Ours happen to be matrix products on a CPU, and on a GPU or in stock they are not.
    poolers = [m for m in model.modules() if isinstance(m, RoIExtractor | ROIPooler)]
    for part in [*parts, *inside]:
        say(f"counting {part.name}")
        part.macs = count_macs(part.call, poolers)
    device = images.tensor.device
    for repeat in range(repeats):
        say(f"timing, round {repeat + 1} of {repeats}")
        # Counting was the warm-up of a CPU; a GPU needs one more round to settle on its kernels.
        for warm in (False, True) if repeat == 0 and device.type == "cuda" else (True,):
            for part in [*parts, *inside]:
                with torch.no_grad():
                    seconds, _ = clock(part.call, device)
                if warm:
                    part.seconds.append(seconds)
    facts = {
        **environment(device),
        "image_size": list(image_size),
        "padded_size": list(images.tensor.shape[-2:]),
        "proposals": cfg.MODEL.RPN.POST_NMS_TOPK_TEST,
        "detections": cfg.TEST.DETECTIONS_PER_IMAGE,
        "rois": DISTRIBUTION,
        "repeats": repeats,
    }
    other = count_parameters([model]) - sum(part.parameters for part in parts)
    heads = getattr(model, "roi_heads", None)
    shares_res5 = hasattr(heads, "res5") and any(p.name == "mask branch" for p in parts)
    return Cost(parts, inside, other, shares_res5, facts)


def _images(model: Any, picture: torch.Tensor) -> ImageList:
    """One picture (3, H, W) in 0..255 as the network's input."""
    if hasattr(model, "preprocess_image"):
        return model.preprocess_image([{"image": picture}])
    # A ProposalNetwork does the same inside its `forward`.
    picture = (picture.to(model.device) - model.pixel_mean) / model.pixel_std
    return ImageList.from_tensors([picture], model.backbone.size_divisibility)


def _parts(
    model: Any, cfg: CfgNode, images: ImageList, features: dict[str, torch.Tensor]
) -> tuple[list[Part], list[Part]]:
    """The parts that this model has, and those inside the backbone."""
    backbone = model.backbone
    parts = [Part("backbone", [backbone], lambda: backbone(images.tensor))]
    inside = []
    if hasattr(backbone, "bottom_up"):
        below = backbone.bottom_up
        inside = [Part("of it without FPN", [below], lambda: below(images.tensor))]
    rpn = getattr(model, "proposal_generator", None)
    if rpn is not None:
        parts.append(Part("RPN", [rpn], lambda: rpn(images, features, None)))
    heads = getattr(model, "roi_heads", None)
    if heads is None:
        return parts, inside

    height, width = images.image_sizes[0]
    device = images.tensor.device
    proposals = Instances((height, width))
    boxes = random_boxes(cfg.MODEL.RPN.POST_NMS_TOPK_TEST, height, width, _SEED)
    proposals.proposal_boxes = Boxes(boxes.to(device))
    proposals.objectness_logits = torch.zeros(len(boxes), device=device)

    detected = random_boxes(cfg.TEST.DETECTIONS_PER_IMAGE, height, width, _SEED + 1).to(device)
    classes = torch.arange(len(detected), device=device) % heads.num_classes

    def detections() -> list[Instances]:
        # Anew for each call: the branches write their results into it.
        return [Instances((height, width), pred_boxes=Boxes(detected), pred_classes=classes)]

    def box_branch() -> Any:
        with _nothing_after_the_boxes(heads):
            return heads(images, features, [proposals], None)

    def later_branch(name: str) -> Callable[[], Any]:
        def call() -> Any:
            with _only(heads, name):
                return heads.forward_with_given_boxes(features, detections())

        return call

    later = {
        name: [getattr(heads, f"{name}_head")]
        for name in _LATER
        if getattr(heads, f"{name}_on", False)
    }
    theirs = {id(m) for modules in later.values() for m in modules}
    own = [m for m in heads.children() if id(m) not in theirs]
    parts.append(Part("box branch", own, box_branch))
    parts += [Part(f"{name} branch", m, later_branch(name)) for name, m in later.items()]
    return parts, inside


@contextlib.contextmanager
def _nothing_after_the_boxes(heads: Any) -> Iterator[None]:
    """Inference ends with the box branch: masks and keypoints are measured on their own."""
    heads.forward_with_given_boxes = lambda features, instances: instances
    try:
        yield
    finally:
        del heads.forward_with_given_boxes  # the class's own is visible again


@contextlib.contextmanager
def _only(heads: nn.Module, name: str) -> Iterator[None]:
    """Switch off the branches after the boxes but one."""
    switches = [s for s in ("mask_on", "keypoint_on") if hasattr(heads, s)]
    before = {switch: getattr(heads, switch) for switch in switches}
    try:
        for switch in switches:
            setattr(heads, switch, switch == f"{name}_on")
        yield
    finally:
        for switch, value in before.items():
            setattr(heads, switch, value)


def overhead(cost: Cost, name: str) -> tuple[float, Spread | None] | None:
    """What a part adds to the same model without it, percent of MAC and of time (if timed).

    None if the model has no such part.
    """
    part = next((p for p in cost.parts if p.name == name), None)
    if part is None:
        return None
    pairs = zip(part.seconds, cost.seconds, strict=True)
    times = [100 * mine / (whole - mine) for mine, whole in pairs]
    return 100 * part.macs / (cost.macs - part.macs), Spread.of(times) if times else None


def as_json(cost: Cost) -> dict[str, Any]:
    """Everything that the table shows, and each repeat's seconds."""

    def row(name: str, parameters: int, macs: int, seconds: list[float]) -> dict[str, Any]:
        return {
            "name": name,
            "parameters": parameters,
            "macs": macs,
            "macs_share": macs / max(cost.macs, 1),
            "seconds": seconds,
            "time": Spread.of(seconds).as_json() if seconds else None,
        }

    overheads = {}
    for name in _LATER:
        added = overhead(cost, f"{name} branch")
        if added:
            macs, times = added
            overheads[name] = {"macs": macs, "time": times.as_json() if times else None}
    return {
        **cost.facts,
        "parts": [row(p.name, p.parameters, p.macs, p.seconds) for p in cost.parts],
        "inside_backbone": [row(p.name, p.parameters, p.macs, p.seconds) for p in cost.inside],
        "other_parameters": cost.other,
        "total": row("all", cost.parameters, cost.macs, cost.seconds),
        "overhead_percent": overheads,
    }


def as_text(cost: Cost) -> str:
    """The table and what one must know to read it."""
    height, width = cost.facts["image_size"]
    padded = "x".join(map(str, cost.facts["padded_size"]))
    return "\n".join(
        [
            f"one image of {height}x{width} (padded to {padded}), random weights",
            table(*_rows(cost)),
            *_overheads(cost),
            *_notes(cost),
        ]
    )


def _rows(cost: Cost) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table."""
    timed = bool(cost.seconds)
    header = ["part", "parameters", "GMAC", "share", *(["time, ms", "share"] if timed else [])]
    whole = Spread.of(cost.seconds).median if timed else 1.0

    def row(name: str, parameters: int, macs: int, seconds: list[float]) -> list[str]:
        cells = [name, f"{parameters / 1e6:.2f} M", f"{macs / 1e9:.2f}"]
        cells.append(f"{100 * macs / max(cost.macs, 1):.1f} %")
        if timed:
            spread = Spread.of(seconds)
            cells += [spread.text(1e3), f"{100 * spread.median / whole:.1f} %"]
        return cells

    rows = [row(p.name, p.parameters, p.macs, p.seconds) for p in cost.parts]
    rows[1:1] = [row(f"  {p.name}", p.parameters, p.macs, p.seconds) for p in cost.inside]
    if cost.other:
        blank = ["-"] * (len(header) - 2)
        rows.append(["other, not run", f"{cost.other / 1e6:.2f} M", *blank])
    rows.append(row("all", cost.parameters, cost.macs, cost.seconds))
    return header, rows


def _overheads(cost: Cost) -> list[str]:
    lines = []
    for name in _LATER:
        added = overhead(cost, f"{name} branch")
        if added:
            macs, times = added
            text = f"{macs:.1f} % MAC" + (f" and {times.text()} % time" if times else "")
            lines.append(f"{name} branch: {text} over the same model without it")
    return lines


def _notes(cost: Cost) -> list[str]:
    facts = cost.facts
    lines = [
        "MAC: multiply-adds (1 MAC = 2 FLOP) of convolutions and matrix products; no RoI layers."
    ]
    if any(p.name == "box branch" for p in cost.parts):
        lines.append(
            f"RoIs are made up: {facts['proposals']} proposals (RPN.POST_NMS_TOPK_TEST), "
            f"{facts['detections']} detections (TEST.DETECTIONS_PER_IMAGE); {facts['rois']}."
        )
    if cost.shares_res5:
        lines.append(
            "res5's parameters are in the box branch; the mask branch runs res5 again on the "
            "detections, and that is in its MAC and time."
        )
    if cost.seconds:
        lines.append(
            f"time: median (quartiles) of {facts['repeats']} rounds on {facts['device_name']}, "
            f"{facts['device']}, {facts['threads']} threads, torch {facts['torch']}. It includes "
            "the RoI layers, anchors and the RPN's NMS, but no NMS of detections (random weights "
            "give none) and no pasting of masks into the picture."
        )
    return lines
