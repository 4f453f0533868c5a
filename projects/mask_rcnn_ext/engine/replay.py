"""Do a step again that a black box holds, and find where the first value stops being finite."""

from __future__ import annotations

import contextlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from ..config import load_config
from ..errors import UsageError, UserError
from ..modeling.sampling import draws
from .black_box_batch import from_plain, tensors_of
from .black_box_causes import not_finite
from .precision import low_precision, training_dtype
from .rng import set_rng_state
from .weights.safe_read import read_weights

# Beside another device, or the same one with operations in another order.
_TO_ROUNDING = 1e-3


@dataclass
class Replayed:
    """What a step gave when it was done again.

    Attributes:
        report: the black box's report.json
        losses: as far as they were computed
        gradient_norms: of parameters, as far as there were gradients
        first: where the first value is that is not finite, in the order of computing; "" if all
            are finite
        error: what the step raised, "" if nothing
        device: that it ran on
    """

    report: dict[str, Any]
    device: str
    losses: dict[str, float] = field(default_factory=dict)
    gradient_norms: dict[str, float] = field(default_factory=dict)
    first: str = ""
    error: str = ""

    @property
    def recorded(self) -> dict[str, float]:
        """The losses of the step itself."""
        return {name: float(value) for name, value in self.report["losses"].items()}

    @property
    def agreement(self) -> str:
        """same bits, same to rounding, different, or nothing to compare."""
        recorded = self.recorded
        if not recorded or (self.error and not self.losses):
            return "nothing to compare"
        if recorded.keys() != self.losses.keys():
            return "different"
        pairs = [(value, self.losses[name]) for name, value in recorded.items()]
        if all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in pairs):
            return "same bits"
        close = all(
            math.isclose(a, b, rel_tol=_TO_ROUNDING, abs_tol=1e-6)
            if math.isfinite(a) and math.isfinite(b)
            else math.isfinite(a) == math.isfinite(b)
            for a, b in pairs
        )
        return "same to rounding" if close else "different"


def replay(folder: str | Path, *, device: str | None = None, anomaly: bool = False) -> Replayed:
    """Rebuild model, batch and random state, run forward and backward.

    Args:
        folder: one of `BlackBox`'s; nothing in it is executed
        device: "cpu", "cuda", ...; None is the step's own, or the CPU where that is not there
        anomaly: let autograd name the operation whose gradient is NaN first; slow
    Raises:
        UsageError: no such folder, or no such device
        UserError: something in the folder is missing or damaged
    """
    folder = Path(folder)
    report = _read_report(folder)
    cfg = _config(folder, _device(report["device"], device))
    batch = from_plain(_read(folder, "batch.pth"))
    rng = _read(folder, "rng.pth")
    model = _model(cfg, folder, channels_last=bool(report["channels_last"]))
    done = Replayed(report, cfg.MODEL.DEVICE)
    with _settings(report):
        set_rng_state(rng)
        bad_input = next(_not_finite(tensors_of(_read(folder, "batch.pth")), "input batch"), "")
        done.first = bad_input or next(_not_finite(model.named_parameters(), "parameter "), "")
        try:
            with _watch(model, done), EventStorage(report["iteration"]):
                _step(cfg, model, batch, report, done, anomaly)
        except (RuntimeError, ValueError, AssertionError, ArithmeticError, MemoryError) as error:
            # What the step raised when it failed, most likely: a finding, not an end.
            done.error = f"{type(error).__name__}: {str(error).strip()}"
    return done


def _step(
    cfg: CfgNode,
    model: nn.Module,
    batch: list[dict[str, Any]],
    report: Mapping[str, Any],
    done: Replayed,
    anomaly: bool,
) -> None:
    device = torch.device(cfg.MODEL.DEVICE)
    precision = training_dtype(cfg, device)
    parts = cfg.SOLVER.ACCUMULATION_STEPS
    parts = parts if len(batch) % parts == 0 else 1
    size = len(batch) // parts
    means: dict[str, torch.Tensor] = {}
    with contextlib.ExitStack() as stack:
        if anomaly:
            stack.enter_context(torch.autograd.set_detect_anomaly(True))
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")  # that it is slow
        for begin in range(0, len(batch), size):
            here = slice(begin, begin + size)
            seed = report["seed"]
            fixed: Any = contextlib.nullcontext()
            if seed is not None:
                fixed = draws(seed, report["iteration"], report["positions"][here])
            with low_precision(device, precision), fixed:
                losses = model(batch[here])
            losses = {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses
            for name, loss in losses.items():
                mean = loss.detach() / parts if parts > 1 else loss.detach()
                # Summed as the training step does it, in the losses' own precision.
                means[name] = means[name] + mean if name in means else mean
                done.losses[name] = float(means[name])
                if not done.first and not math.isfinite(done.losses[name]):
                    done.first = name
            total: Any = sum(losses.values())
            (total / parts if parts > 1 else total).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            done.gradient_norms[name] = float(parameter.grad.norm())
    if not done.first:
        grads = ((n, p.grad) for n, p in model.named_parameters() if p.grad is not None)
        bad = list(_not_finite(reversed(list(grads)), "gradient of "))
        # Gradients come from the losses back: of those at hand the last layer's is the first.
        done.first = bad[0] if bad else ""


@contextlib.contextmanager
def _watch(model: nn.Module, done: Replayed) -> Iterator[None]:
    """Note the first module whose output is not finite; inner modules come before outer ones."""

    def look(name: str, module: nn.Module, output: Any) -> None:
        if done.first:
            return
        for path, tensor in _tensors(output):
            if not_finite(tensor):
                what = path if path.startswith("loss") else "output"
                done.first = f"{what} of {name} ({type(module).__name__})"
                return

    handles = [
        module.register_forward_hook(lambda m, args, output, name=name: look(name, m, output))
        for name, module in model.named_modules()
        if name  # the model's own outputs are the losses, which have names
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _tensors(value: Any, key: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in a module's output, each with the key of the dict that it is in, if any."""
    if isinstance(value, torch.Tensor):
        yield key, value.detach()
    elif isinstance(value, ImageList | Boxes):
        yield key, value.tensor.detach()
    elif isinstance(value, Instances):
        yield from _tensors(value.get_fields())
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _tensors(item, str(name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item, key)


def _not_finite(named: Any, what: str) -> Iterator[str]:
    for name, tensor in named:
        count = not_finite(tensor)
        if count:
            yield f"{what}{name} ({count} of {tensor.numel()} values)"


@contextlib.contextmanager
def _settings(report: Mapping[str, Any]) -> Iterator[None]:
    """The threads and the choice of operations of the step, so that sums have its order."""
    threads, strict = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(int(report["threads"]))
    torch.use_deterministic_algorithms(bool(report["deterministic"]), warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(strict)


def _model(cfg: CfgNode, folder: Path, *, channels_last: bool) -> nn.Module:
    model: nn.Module = build_model(cfg)
    state = _read(folder, "weights.pth")
    try:
        model.load_state_dict(state["model"])
    except (RuntimeError, KeyError, TypeError) as error:
        raise UserError(
            f"{folder}/weights.pth does not fit the model of its config.yaml: {error}"
        ) from error
    if channels_last:
        any_model: Any = model
        model = any_model.to(memory_format=torch.channels_last)
    return model.train()


def _config(folder: Path, device: str) -> CfgNode:
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} has no config.yaml; its report says what could not be written")
    return load_config(
        path, ["MODEL.DEVICE", device, "MODEL.WEIGHTS", "", "MODEL.COMPILE", "False"]
    )


def _device(recorded: str, asked: str | None) -> str:
    if asked is not None:
        if torch.device(asked).type == "cuda" and not torch.cuda.is_available():
            raise UsageError(f"--device is {asked}, but PyTorch sees no GPU here")
        return asked
    return recorded if recorded == "cpu" or torch.cuda.is_available() else "cpu"


def _read_report(folder: Path) -> dict[str, Any]:
    path = folder / "report.json"
    if not path.is_file():
        raise UsageError(
            f"{folder} is no black box: it has no report.json. Give a folder like "
            "OUTPUT_DIR/black_box/iteration_0001234"
        )
    needed = {"iteration", "losses", "device", "threads", "deterministic", "channels_last", "seed",
              "positions"}  # fmt: skip
    try:
        report = json.loads(path.read_text())
        lacking = needed - report.keys()
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if lacking:
        raise UserError(f"{path} lacks {', '.join(sorted(lacking))}")
    return report


def _read(folder: Path, name: str) -> Any:
    if not (folder / name).is_file():
        raise UserError(f"{folder} has no {name}; its report says why")
    return read_weights(folder / name)
