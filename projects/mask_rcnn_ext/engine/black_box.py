"""What went wrong in a training step, written down so that the step can be done again.

OUTPUT_DIR/black_box/iteration_0001234/    (.._rank2 when several processes train)
    report.md, report.json    what failed, the likely cause, losses, gradients, versions
    image_0.jpg, ...          the batch with its targets
    batch.pth, rng.pth        what the model got, and the random state before it
    weights.pth, config.yaml  the model before the step
    memory.txt                the allocator's table, on a GPU
"""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import shlex
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from detectron2.utils import comm
from torch import nn

from ..files import atomic_write, write_json
from .black_box_batch import left_out, tensors_of, to_plain
from .black_box_causes import (
    Facts,
    likely_causes,
    not_finite,
    running_statistics,
    untrained_frozen_norms,
)
from .black_box_pictures import draw_batch
from .black_box_report import as_text, number, summary
from .provenance import code_version, versions

logger = logging.getLogger(__name__)

_COMPILED = "_orig_mod."  # what torch.compile puts into names
_SHOWN = 20  # names in a list


@dataclass(frozen=True)
class Failure:
    """A training step that went wrong.

    Attributes:
        kind: "loss" or "gradient" (not finite), or "memory" (out of it)
        iteration: counted from 0
        batch: what the model got
        losses: as far as they were computed
        gradient_norms: of parameters, as far as they were computed
        learning_rates: of the optimizer's groups
        rng: `rng_state()` at the start of the step
        positions: of the images in the global batch
        error: what the step raised, if it did
    """

    kind: str
    iteration: int
    batch: list[dict[str, Any]]
    losses: dict[str, float]
    gradient_norms: dict[str, float]
    learning_rates: list[float]
    rng: dict[str, Any]
    positions: list[int]
    error: BaseException | None


class BlackBox:
    """Writes a folder for a failed step. It never fails itself: what it cannot write it names."""

    def __init__(
        self,
        output_dir: str | Path,
        model: nn.Module,
        *,
        config: str,
        seed: int | None,
        optimizer: torch.optim.Optimizer | None = None,
        class_names: Sequence[str] = (),
        limit: int = 3,
        spare_bytes: int = 2 << 30,
    ):
        """
        Args:
            output_dir: the run's folder
            model: that is trained; also wrapped for several processes
            config: the content of the run's config.yaml
            seed: of `modeling.sampling.draws` around the forward, as the resumed run has it; None
                is no `draws`
            optimizer: its state is searched for what is not finite
            class_names: for the pictures
            limit: so many folders a run, restarts included
            spare_bytes: the weights are left out if less than this would remain on the disk
        """
        self.message = ""  # of the latest failure, for people
        self._root = Path(output_dir) / "black_box"
        inner = getattr(model, "module", model)  # of a model wrapped for several processes
        self._model: nn.Module = inner
        self._config = config
        self._seed = seed
        self._optimizer = optimizer
        self._class_names = class_names
        self._limit = limit
        self._spare_bytes = spare_bytes

    def record(self, failure: Failure) -> Path:
        """Write the folder; log what failed, why it may have, and how to do the step again.

        To be called before the step's gradients are applied.

        Returns:
            the folder; the one of all folders when there are `limit` others, or when none could
            be made
        """
        rank = f"_rank{comm.get_rank()}" if comm.get_world_size() > 1 else ""
        folder = self._root / f"iteration_{failure.iteration:07d}{rank}"
        self.message = f"iteration {failure.iteration}: {failure.kind} failure"
        try:
            return self._record(failure, folder, rank)
        except Exception as error:
            # The failure itself must reach the user, whatever this here meets.
            logger.warning("%s cannot be written: %s: %s", folder, type(error).__name__, error)
            return self._root

    def _record(self, failure: Failure, folder: Path, rank: str) -> Path:
        if failure.kind == "memory" and torch.cuda.is_initialized():
            torch.cuda.empty_cache()
        state = _cpu_state(self._model)
        batch = to_plain(failure.batch)
        config = yaml.safe_load(self._config) or {}
        facts = Facts(
            kind=failure.kind,
            iteration=failure.iteration,
            batch=batch,
            learning_rates=failure.learning_rates,
            config=config,
            state=state,
            parameters=frozenset(
                name.replace(_COMPILED, "") for name, _ in self._model.named_parameters()
            ),
            running=running_statistics(self._model),
            bad_momentum=_bad_momentum(self._model, self._optimizer),
            untrained_frozen_norms=untrained_frozen_norms(self._model),
            on_gpu=_device(self._model).type == "cuda",
        )
        report = {
            **_of_failure(failure),
            "causes": [cause._asdict() for cause in likely_causes(facts)],
            "not_finite": list(_bad_tensors(batch, state)),
            "images": _images(batch),
            "left_out": list(left_out(batch)),
            "seed": self._seed,
            **_of_process(self._model),
            "replay": f"mask-rcnn-ext replay {shlex.quote(str(folder))}",
            "missing": [],
        }
        others = [place for place in self._root.glob(f"iteration_*{rank}") if place != folder]
        if len(others) >= self._limit:
            self.message = summary(report)
            logger.error("%s", self.message)
            logger.warning("%s holds %d steps already; no more are kept", self._root, len(others))
            return self._root
        self.message = summary(report, folder)
        logger.error("%s", self.message)
        parts: dict[str, Callable[[], None]] = {
            "report.json": lambda: write_json(folder / "report.json", report),
            "report.md": lambda: _write(folder / "report.md", as_text(report)),
            "config.yaml": lambda: _write(folder / "config.yaml", self._config),
            "rng.pth": lambda: _save(folder / "rng.pth", failure.rng),
            "batch.pth": lambda: _save(folder / "batch.pth", batch),
            "memory.txt": lambda: _write_memory(folder / "memory.txt", self._model),
            "pictures": lambda: draw_batch(
                failure.batch,
                folder,
                self._class_names,
                is_bgr=config.get("INPUT", {}).get("FORMAT", "BGR") == "BGR",
            ),
            "weights.pth": lambda: self._save_weights(folder / "weights.pth", state),
        }
        folder.mkdir(parents=True, exist_ok=True)
        missing: list[str] = []
        for name, write in parts.items():
            try:
                write()
            except Exception as error:
                missing.append(f"{name}: {type(error).__name__}: {error}")
        if missing:
            logger.warning("%s lacks %s", folder, "; ".join(missing))
            with contextlib.suppress(OSError):
                write_json(folder / "report.json", report | {"missing": missing})
                _write(folder / "report.md", as_text(report | {"missing": missing}))
        return folder

    def _save_weights(self, path: Path, state: dict[str, torch.Tensor]) -> None:
        needed = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
        free = shutil.disk_usage(path.parent).free
        if free - needed < self._spare_bytes:
            raise OSError(
                f"{needed / 1e9:.1f} GB of weights, {free / 1e9:.1f} GB free: not written, so that "
                "checkpoints have room"
            )
        _save(path, {"model": state})


def _cpu_state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name.replace(_COMPILED, ""): tensor.detach().cpu()
        for name, tensor in model.state_dict().items()
    }


def _bad_momentum(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[str]:
    if optimizer is None:
        return []
    return [
        name.replace(_COMPILED, "")
        for name, parameter in model.named_parameters()
        for value in optimizer.state.get(parameter, {}).values()
        if isinstance(value, torch.Tensor) and not_finite(value)
    ]


def _bad_tensors(batch: list[Any], state: dict[str, torch.Tensor]) -> Iterator[str]:
    """ "batch[0].image: 3 of 49152 values" and so on; inputs first."""
    for where, tensors in (("batch", tensors_of(batch)), ("model.", iter(state.items()))):
        for name, tensor in tensors:
            count = not_finite(tensor)
            if count:
                yield f"{where}{name}: {count} of {tensor.numel()} values"


def _of_failure(failure: Failure) -> dict[str, Any]:
    error = failure.error
    norms = sorted(failure.gradient_norms.items(), key=lambda item: _largest_first(item[1]))
    return {
        "kind": failure.kind,
        "iteration": failure.iteration,
        "error": None if error is None else f"{type(error).__name__}: {error}",
        "losses": {name: number(value) for name, value in failure.losses.items()},
        "gradient_norms": {name: number(value) for name, value in norms[:_SHOWN]},
        "learning_rates": sorted(set(failure.learning_rates)),
        "positions": list(failure.positions),
    }


def _largest_first(value: float) -> tuple[bool, float]:
    return math.isfinite(value), -value if math.isfinite(value) else 0.0


def _of_process(model: nn.Module) -> dict[str, Any]:
    return {
        "device": str(_device(model)),
        "threads": torch.get_num_threads(),
        "processes": comm.get_world_size(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "channels_last": any(_is_channels_last(one) for one in model.parameters()),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        **code_version(),
        "versions": versions(),
    }


def _is_channels_last(parameter: torch.Tensor) -> bool:
    if parameter.dim() != 4 or parameter.is_contiguous():
        return False
    return parameter.is_contiguous(memory_format=torch.channels_last)


def _device(model: nn.Module) -> torch.device:
    first = next(model.parameters(), None)
    return torch.device("cpu") if first is None else first.device


def _images(batch: list[Any]) -> list[dict[str, Any]]:
    """What the report says of each image."""
    said = []
    for image in batch:
        pixels, target = image.get("image"), image.get("instances")
        fields = target["fields"] if target else {}
        first = next((tensor for _, tensor in tensors_of(fields)), None)
        said.append(
            {
                "image_id": image.get("image_id"),
                "file_name": image.get("file_name"),
                "height_width": list(pixels.shape[1:]) if pixels is not None else None,
                "original_height_width": [image.get("height"), image.get("width")],
                "instances": 0 if first is None else len(first),
            }
        )
    return said


def _write(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)


def _save(path: Path, value: Any) -> None:
    with atomic_write(path) as file:
        torch.save(value, file)


def _write_memory(path: Path, model: nn.Module) -> None:
    device = _device(model)
    if device.type == "cuda":
        _write(path, torch.cuda.memory_summary(device))
