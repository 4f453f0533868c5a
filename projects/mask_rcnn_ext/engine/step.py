"""One training step: a batch in parts, in 16 bits or 32, kept from spoiling the weights."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from ..data.loader import share_positions
from ..errors import UsageError
from ..modeling.sampling import draws
from .black_box import BlackBox
from .optimizer import check_optimizer_keys, load_optimizer_state
from .precision import check_precision_keys, low_precision, training_dtype
from .rng import rng_state
from .step_failures import (
    Attempt,
    Batch,
    NonFinite,
    OutOfMemory,
    describe_memory,
    describe_nonfinite,
    is_out_of_memory,
    record,
)
from .step_metrics import PartStorage, PendingMetrics, put_means

ON_NONFINITE = ("raise", "skip")
# A gradient scaler starts at 2**16 and halves its scale at each overflow. Below this the gradients
# themselves are beyond float16, or not numbers, and the run would go on without learning.
_LEAST_SCALE = 2.0**-10


def check_step_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: a key of the training step, its precision or its optimizer has a value that it
            cannot have
    """
    for key, value, least in (
        ("SOLVER.ACCUMULATION_STEPS", cfg.SOLVER.ACCUMULATION_STEPS, 1),
        ("SOLVER.NONFINITE_LIMIT", cfg.SOLVER.NONFINITE_LIMIT, 0),
        ("LOG.PERIOD", cfg.LOG.PERIOD, 1),
    ):
        if value < least:
            raise UsageError(f"{key} is {value}, expected at least {least}")
    if cfg.SOLVER.ON_NONFINITE not in ON_NONFINITE:
        raise UsageError(
            f"SOLVER.ON_NONFINITE is {cfg.SOLVER.ON_NONFINITE!r}, expected "
            f"{' or '.join(ON_NONFINITE)}"
        )
    check_precision_keys(cfg)
    check_optimizer_keys(cfg)


def build_step(cfg: CfgNode, model: nn.Module, data_loader: Any, optimizer: Optimizer) -> TrainStep:
    """
    Args:
        cfg: reads SOLVER and LOG.PERIOD
        model: on its device, bare or in DistributedDataParallel
        data_loader: of `build_train_loader`; another one works, its sampling then is Detectron2's
        optimizer: of `build_optimizer`
    Raises:
        UsageError: SOLVER.IMS_PER_BATCH cannot be split, or the device has not this precision
    """
    total, parts = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.ACCUMULATION_STEPS
    world = comm.get_world_size()
    if total % (world * parts):
        raise UsageError(
            f"SOLVER.IMS_PER_BATCH is {total}, which {world} process(es) cannot split into "
            f"SOLVER.ACCUMULATION_STEPS {parts} equal parts; expected a multiple of {world * parts}"
        )

    def fixed_draws(iteration: int, positions: Sequence[int]) -> AbstractContextManager[None]:
        # Read anew: a resumed run sets it after this.
        seed = getattr(data_loader.dataset, "seed", None)
        return contextlib.nullcontext() if seed is None else draws(seed, iteration, positions)

    return TrainStep(
        model,
        data_loader,
        optimizer,
        parts=parts,
        precision=training_dtype(cfg, next(model.parameters()).device),
        positions=share_positions(total, comm.get_rank(), world),
        draws=fixed_draws,
        log_period=cfg.LOG.PERIOD,
        on_nonfinite=cfg.SOLVER.ON_NONFINITE,
        nonfinite_limit=cfg.SOLVER.NONFINITE_LIMIT,
    )


def _as_detectron2(iteration: int, positions: Sequence[int]) -> AbstractContextManager[None]:
    return contextlib.nullcontext()


class TrainStep(SimpleTrainer):
    """Detectron2's SimpleTrainer and AMPTrainer in one; the trainer sets `iter` before each step.

    With the defaults, weights and metrics are those of SimpleTrainer, bit for bit.

    *Losses* stay on the device and reach EventStorage every `log_period` steps and at `flush()`,
    each with its own iteration. Call `flush()`, in all processes, before a checkpoint and before
    an evaluation, and at the end.

    *What is not finite.* The mark is made on the device: of the losses, and of the norm of each
    gradient after all parts and processes are in it (not with a gradient scaler, for which an
    overflow is nothing special); the processes agree on it. On a CPU, and wherever "skip" is asked
    for, it is looked at before the weights are touched. On a GPU looking makes the device wait for
    the host, so with "raise" a fused optimizer gets the mark and leaves the weights as they are by
    itself, as it does for a gradient scaler; the host reads the mark during the next step or in
    `flush()`, before any checkpoint, and raises then, with the batch that did it.

    Attributes:
        black_box: gets a record of a step before its error is raised; None gets nothing
        skipped: steps that were left out so far; in the state
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Any,
        optimizer: Optimizer,
        *,
        parts: int = 1,
        precision: torch.dtype | None = None,
        positions: Sequence[int] | None = None,
        draws: Callable[[int, Sequence[int]], AbstractContextManager[None]] = _as_detectron2,
        log_period: int = 20,
        on_nonfinite: str = "raise",
        nonfinite_limit: int = 10,
    ):
        """
        Args:
            model: maps a list of samples to a loss or a dict of losses
            data_loader: endless; gives this process's list of samples
            parts: equal, contiguous parts of that list, forward and backward one after the other
            precision: of autocast; None is float32
            positions: of this process's samples in the global batch; None is 0, 1, ...
            draws: (iteration, positions) -> context of a forward
            log_period: steps
            on_nonfinite: of ON_NONFINITE
            nonfinite_limit: with "skip", how many steps of a run may be left out
        """
        super().__init__(model, data_loader, optimizer)
        assert on_nonfinite in ON_NONFINITE, on_nonfinite
        self.black_box: BlackBox | None = None
        self.skipped = 0
        self._parts = parts
        self._precision = precision
        self._positions = positions
        self._draws = draws
        self._log_period = log_period
        self._skips = on_nonfinite == "skip"
        self._limit = nonfinite_limit
        self._metrics = PendingMetrics()
        self._unsettled: Attempt | None = None
        self._device = next(model.parameters()).device
        self._scaler: torch.amp.GradScaler | None = None
        if precision == torch.float16:
            self._scaler = torch.amp.GradScaler(self._device.type)
        bare = model.module if isinstance(model, DistributedDataParallel) else model
        self._named = [(n, p) for n, p in bare.named_parameters() if p.requires_grad]
        # A batch that is left out must not leave its mark in a batch norm's averages either.
        self._statistics = _running_statistics(bare) if self._skips else []
        self._guarded = (
            self._device.type != "cpu"
            and not self._skips
            and getattr(optimizer, "_step_supports_amp_scaling", False)
        )

    def run_step(self) -> None:
        """
        Raises:
            NonFinite: see `on_nonfinite`; the weights are as before the step
            OutOfMemory: of GPU or CPU
        """
        assert self.model.training, "the model is in eval mode"
        attempt = self._begin()
        before = [buffer.clone() for buffer in self._statistics]
        try:
            self._learn(attempt)
            self._mark(attempt)
            self._settle()  # the step before, which the device has done by now
            if self._guarded:
                self._update(attempt)
                attempt.fetch_later()
                self._unsettled = attempt
            elif not attempt.is_bad():
                self._update(attempt)
                self._accept(attempt)
            else:
                self._reject(attempt)
                self._restore_statistics(before)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            failure = attempt.failure("memory", error)
            where = record(self.black_box, failure)
            raise OutOfMemory(describe_memory(failure, self._parts) + where) from error
        except FloatingPointError as error:
            if isinstance(error, NonFinite):
                raise
            self._reject_alone(attempt, error)
            self._restore_statistics(before)
        if (self.iter + 1) % self._log_period == 0:
            self.flush()

    def flush(self) -> None:
        """Bring all losses into EventStorage; afterwards the state has nothing in the air.

        All processes must call it in the same place.

        Raises:
            NonFinite: the last step was not sound
        """
        self._settle()
        self._metrics.flush()
        if self._scaler is not None and self._scaler.get_scale() < _LEAST_SCALE:
            raise NonFinite(
                f"iteration {self.iter}: gradients overflow float16 at a loss scale of "
                f"{self._scaler.get_scale():.3g} still; take SOLVER.AMP.PRECISION bfloat16, or "
                "SOLVER.AMP.ENABLED False"
            )

    def _begin(self) -> Attempt:
        start = time.perf_counter()
        batch: Batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        positions = list(range(len(batch)) if self._positions is None else self._positions)
        if len(batch) != len(positions) or len(batch) % self._parts:
            raise UsageError(
                f"the data loader gives {len(batch)} samples, expected {len(positions)}, a "
                f"multiple of SOLVER.ACCUMULATION_STEPS {self._parts}"
            )
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return Attempt(self.iter, batch, positions, rng_state(), rates, data_time)

    def _learn(self, attempt: Attempt) -> None:
        """Forward and backward of all parts; gradients are their mean."""
        self.optimizer.zero_grad(set_to_none=True)
        size = len(attempt.batch) // self._parts
        storages: list[PartStorage] = []
        for first in range(0, len(attempt.batch), size):
            here = slice(first, first + size)
            is_last = first + size == len(attempt.batch)
            with contextlib.ExitStack() as stack:
                if isinstance(self.model, DistributedDataParallel) and not is_last:
                    stack.enter_context(self.model.no_sync())
                if self._parts > 1:
                    storage = PartStorage(get_event_storage())
                    storages.append(stack.enter_context(storage))
                losses = self._forward(attempt, here)
                total: Any = sum(losses.values())
                if self._parts > 1:
                    total = total / self._parts
                if self._scaler is not None:
                    total = self._scaler.scale(total)
                total.backward()
            for name, loss in losses.items():
                mean = loss.detach() / self._parts if self._parts > 1 else loss.detach()
                known = attempt.losses.get(name)
                attempt.losses[name] = mean if known is None else known + mean
        if storages:
            put_means(storages, get_event_storage())

    def _forward(self, attempt: Attempt, here: slice) -> dict[str, torch.Tensor]:
        batch = self._on_device(attempt.batch[here])
        with (
            low_precision(self._device, self._precision),
            self._draws(attempt.iteration, attempt.positions[here]),
        ):
            losses = self.model(batch)
        return {"total_loss": losses} if isinstance(losses, torch.Tensor) else losses

    def _on_device(self, batch: Batch) -> Batch:
        """Images go ahead of the model, which would wait for each; from pinned memory only."""
        if self._device.type == "cpu":
            return batch
        return [
            sample | {"image": sample["image"].to(self._device, non_blocking=True)}
            if "image" in sample
            else sample
            for sample in batch
        ]

    def _mark(self, attempt: Attempt) -> None:
        """Set the attempt's gradient norms and whether anything is not finite, in any process."""
        if self._scaler is not None:
            # Clipping, which is part of the optimizer's step, must see the true gradients.
            self._scaler.unscale_(self.optimizer)
        graded = [(name, p.grad) for name, p in self._named if p.grad is not None]
        attempt.parameters = [name for name, _ in graded]
        values = torch.stack([loss.float() for loss in attempt.losses.values()])
        if graded:
            norms = torch._foreach_norm([grad for _, grad in graded])
            attempt.gradient_norms = torch.stack(norms)
            if self._scaler is None:
                values = torch.cat([values, attempt.gradient_norms])
        attempt.nonfinite = (~values.isfinite().all()).float()
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(attempt.nonfinite, op=torch.distributed.ReduceOp.MAX)

    def _update(self, attempt: Attempt) -> None:
        if self._scaler is not None:
            self._scaler.step(self.optimizer)
            self._scaler.update()
        elif self._guarded:
            # The protocol between torch's gradient scaler and its fused optimizers.
            optimizer: Any = self.optimizer
            optimizer.grad_scale, optimizer.found_inf = None, attempt.nonfinite
            try:
                optimizer.step()
            finally:
                del optimizer.grad_scale, optimizer.found_inf
        else:
            self.optimizer.step()

    def _settle(self) -> None:
        """Read the mark of the step before, where the device has kept it."""
        attempt, self._unsettled = self._unsettled, None
        if attempt is None:
            return
        if attempt.is_bad():
            self._reject(attempt)
        else:
            self._accept(attempt)

    def _accept(self, attempt: Attempt) -> None:
        self._metrics.add(attempt.iteration, attempt.losses, attempt.data_time)

    def _reject(self, attempt: Attempt) -> None:
        """All processes come here together: they agree on the mark."""
        failure = attempt.failure()
        reports = comm.all_gather((failure.kind, describe_nonfinite(failure)))
        # A bad loss of one process makes the gradients of all bad: theirs are no report then.
        kind = "loss" if any(each == "loss" for each, _ in reports) else "gradient"
        texts = " | ".join(text for each, text in reports if each == kind)
        text = f"iteration {attempt.iteration}: {texts}"
        if self._is_left_out(text):
            if self._scaler is not None:
                self._scaler.update()
            return
        self._metrics.flush()  # the losses that led here
        where = record(self.black_box, failure) if failure.kind == kind else ""
        raise NonFinite(text + self._skipped_before() + "." + where)

    def _reject_alone(self, attempt: Attempt, error: FloatingPointError) -> None:
        """Detectron2 looks at proposals in the forward and raises there, in one process only."""
        failure = attempt.failure("loss", error)
        reason = str(error).strip().partition("\n")[0]
        text = f"iteration {attempt.iteration}: {reason} {describe_nonfinite(failure)}"
        alone = comm.get_world_size() == 1  # others are in the backward pass already
        if alone and self._is_left_out(text):
            return
        if alone:
            self._metrics.flush()
        where = record(self.black_box, failure)
        raise NonFinite(text + self._skipped_before() + "." + where) from error

    def _is_left_out(self, text: str) -> bool:
        """Whether this step may be skipped; if so, it is counted and said."""
        if not self._skips or self.skipped >= self._limit:
            return False
        self.skipped += 1
        get_event_storage().put_scalar("skipped_steps", self.skipped, smoothing_hint=False)
        logging.getLogger(__name__).warning(
            "Step left out (%d of at most %d): %s", self.skipped, self._limit, text
        )
        return True

    def _skipped_before(self) -> str:
        if not self._skips:
            return ""
        return f" (and {self.skipped} steps before; SOLVER.NONFINITE_LIMIT is {self._limit})"

    def _restore_statistics(self, before: list[torch.Tensor]) -> None:
        for buffer, value in zip(self._statistics, before, strict=True):
            buffer.copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """Of optimizer, gradient scaler and count of skipped steps; `flush()` comes first."""
        in_the_air = len(self._metrics) + (self._unsettled is not None)
        assert not in_the_air, "flush() comes before state_dict()"
        state = super().state_dict() | {"skipped": self.skipped}
        if self._scaler is not None:
            state["grad_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Detectron2's own too; without a gradient scaler's state that starts anew."""
        super(SimpleTrainer, self).load_state_dict(state_dict)
        load_optimizer_state(self.optimizer, state_dict["optimizer"])
        self.skipped = state_dict.get("skipped", 0)
        if self._scaler is not None and "grad_scaler" in state_dict:
            self._scaler.load_state_dict(state_dict["grad_scaler"])


def _running_statistics(model: nn.Module) -> list[torch.Tensor]:
    """Buffers that a forward in training changes."""
    norms = (m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [
        buffer
        for norm in norms
        if norm.track_running_stats
        for buffer in (norm.running_mean, norm.running_var, norm.num_batches_tracked)
        if buffer is not None
    ]
