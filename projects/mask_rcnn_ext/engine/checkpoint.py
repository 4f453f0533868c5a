"""Detectron2's checkpointer over files that a kill or a full disk cannot break."""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, cast

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.utils import comm

from ..errors import UsageError, UserError
from ..files import atomic_write, remove_leftovers
from .checkpoint_failure import TOO_LITTLE_ROOM, cannot_write
from .checkpoint_store import (
    AVERAGED,
    BEST,
    POINTER,
    WRITTEN,
    ResumePoint,
    Search,
    newest_whole,
    periodic_name,
    superfluous,
)
from .weights import read_checkpoint, reconcile_classes


class Checkpointer(DetectionCheckpointer):
    """Saves atomically, the pointer `last_checkpoint` last; goes on from what can be read.

    In a run of several processes all call its methods; the main process writes and decides.
    """

    def __init__(
        self,
        model: Any,
        save_dir: str = "",
        *,
        class_names: Sequence[str] | None = None,
        class_transfer: str | None = None,
        keep_last: int = 0,
        **kwargs: Any,
    ):
        """
        Args:
            class_names: what the model's outputs mean; saved beside the weights, so that they can
                be used where the data set is not
            class_transfer: what to do with weights of other classes, MODEL.CLASS_TRANSFER; None
                does not look at their classes
            keep_last: so many of `save_iteration`'s files stay; 0 keeps all
        """
        super().__init__(model, save_dir, **kwargs)
        self._class_names = list(class_names or ())
        self._class_transfer = class_transfer
        self._resuming = False
        self._keep_last = keep_last
        self._resume_point: ResumePoint | None = None
        self._log = logging.getLogger(__name__)

    # ---- saving

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{name}.pth` with the state of model and checkpointables, then the pointer to it.

        Args:
            kwargs: plain values and tensors to save beside them
        Raises:
            UserError: the file could not be written; the checkpoint before it is untouched
        """
        if not self.save_dir or not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        self._write(f"{name}.pth", parts | kwargs)
        self.tag_last_checkpoint(f"{name}.pth")

    def save_iteration(self, iteration: int, **kwargs: Any) -> None:
        """Save as Detectron2's periodic checkpoint, then delete those that `keep_last` is past.

        The final and the best one, and those of later iterations (of a run that was taken back to
        an earlier checkpoint by hand), stay.

        Args:
            iteration: 0-based, the last one that was done
        Raises:
            UserError: as `save`
        """
        self.save(periodic_name(iteration), iteration=iteration, **kwargs)
        if not self.save_dir or not self.save_to_disk or not self._keep_last:
            return
        with self._only_warned():
            for path in superfluous(self.save_dir, self._keep_last, iteration):
                with self._only_warned():  # the others can go all the same
                    path.unlink(missing_ok=True)

    def save_best(self, metric: str, value: float, iteration: int) -> None:
        """Write the weights as `model_best.pth`, and under "best" what they are best at.

        The pointer stays: this file has no optimizer, and a run does not go on from it.

        Raises:
            UserError: as `save`
        """
        if self.save_dir and self.save_to_disk:
            best = {"metric": metric, "value": float(value), "iteration": iteration}
            self._write(BEST, {"iteration": iteration, "best": best})

    def save_averaged(self, state: dict[str, Any], iteration: int) -> None:
        """Write averaged weights (MODEL.EMA) as `model_ema.pth`, to be used as MODEL.WEIGHTS.

        Args:
            state: the model's names -> tensors
        Raises:
            UserError: as `save`
        """
        if self.save_dir and self.save_to_disk:
            self._write(AVERAGED, {"model": state, "iteration": iteration})

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """
        Raises:
            UserError: the pointer could not be written and is as it was
        """
        pointer = Path(self.save_dir, POINTER)
        try:
            with atomic_write(pointer, "w") as file:
                file.write(last_filename_basename)
        except OSError as error:
            raise self._failure(pointer, error, len(last_filename_basename)) from error

    def _write(self, name: str, parts: dict[str, Any]) -> None:
        path = Path(self.save_dir, name)
        content = {"model": self.model.state_dict()} | parts
        if self._class_names:
            content.setdefault("class_names", self._class_names)
        self._log.info("Saving checkpoint to %s", path)
        try:
            with atomic_write(path) as file, _checksums():
                torch.save(content, file)
        except OSError as error:
            size = _size(content) if error.errno in TOO_LITTLE_ROOM else 0
            raise self._failure(path, error, size) from error

    def _failure(self, path: Path, error: OSError, size: int) -> UserError:
        try:
            usable = self._search().point
        except UserError:
            usable = None
        return cannot_write(path, error, size=size, usable=usable)

    @contextlib.contextmanager
    def _only_warned(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self._log.warning("Cannot delete an old checkpoint in %s: %s", self.save_dir, error)

    # ---- going on

    def resume_point(self) -> ResumePoint | None:
        """The newest checkpoint of the folder that is whole; the same one in all processes.

        What is damaged, cut short or missing is passed over, with a warning. All processes must
        call it: the main one looks, the others are told.

        Returns:
            None where there is no checkpoint
        Raises:
            UserError: there are some, and none of them is whole
        """
        found: Any = self._decide() if comm.is_main_process() else None
        found = comm.all_gather(found)[0]
        if isinstance(found, UserError):
            raise found
        self._resume_point = found
        return self._resume_point

    @property
    def resumed_from(self) -> ResumePoint | None:
        """What `resume_or_load` found to go on from; None for a new run."""
        return self._resume_point

    def has_checkpoint(self) -> bool:
        """Whether the folder has a checkpoint to go on from; all processes must call it."""
        return (self._resume_point or self.resume_point()) is not None

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Load model and checkpointables from `resume_point`; else the model alone from `path`.

        All processes must call it. Deletes what killed writes of checkpoints have left over.

        Args:
            path: of the weights of a new run, "" for none
            resume: False leaves the folder's checkpoints alone
        Returns:
            what the file holds beside model and checkpointables
        Raises:
            UserError: as `load`, in all processes if in one; as `resume_point`
        """
        if self.save_dir and comm.is_main_process():
            for leftover in remove_leftovers(self.save_dir, WRITTEN):
                self._log.info("Deleted %s, left over from a killed run", leftover)
        point = self._resume_point = self.resume_point() if resume else None
        loaded, failure = {}, None
        self._resuming = point is not None
        try:
            loaded = self.load(str(point.path)) if point else self.load(path, checkpointables=[])
        except UserError as error:
            failure = error
        finally:
            self._resuming = False
        failures = comm.all_gather(failure and str(failure))
        if failure and len(failures) == 1:
            raise failure
        if any(failures):
            said = [f"process {rank}: {text}" for rank, text in enumerate(failures) if text]
            raise UserError(
                f"{len(said)} of {len(failures)} processes cannot load their start. All machines "
                "of a run need the same files. " + "; ".join(said)
            )
        return loaded

    def load(self, path: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        Raises:
            UserError: the file is missing, cannot be fetched or is no checkpoint
        """
        try:
            return super().load(path, *args, **kwargs)
        except UserError:
            raise
        except Exception as error:
            # Whatever a file's content provokes (zip, pickle, yaml, shape errors, network, ...)
            # is the file's fault here: our own code has not run yet.
            raise UserError(_load_advice(path, error)) from error

    def _search(self) -> Search:
        return newest_whole(self.save_dir, list(self.checkpointables))

    def _decide(self) -> ResumePoint | UserError | None:
        if not self.save_dir:
            return None
        try:
            search = self._search()
        except UserError as error:
            return error
        if search.passed_over and search.point is None:
            return UserError(
                f"no checkpoint in {self.save_dir} can be gone on from:\n  "
                + "\n  ".join(search.passed_over)
                + "\nTo begin anew, choose another OUTPUT_DIR, or move these files away."
            )
        for reason in search.passed_over:
            self._log.warning("Passed over: %s", reason)
        if search.passed_over:
            self._log.warning("Going on from: %s", search.point)
        return search.point

    def _load_file(self, filename: str) -> dict[str, Any]:
        content = read_checkpoint(filename)  # executes nothing, whatever the format
        # Detectron2's main branch keeps here what followed a "?" in the name.
        asked = getattr(self, "_parsed_url_during_load", None)
        if asked is not None and asked.query == "matching_heuristics=True":
            content["matching_heuristics"] = True
        if self._class_transfer is None or self._resuming:
            return content
        return reconcile_classes(content, self.model, self._class_names, self._class_transfer)


def check_checkpoint_keys(cfg: CfgNode) -> None:
    """
    Raises:
        UsageError: a period below 1, a negative number of files
    """
    for key, least in (("CHECKPOINT_PERIOD", 1), ("CHECKPOINTS_KEPT", 0)):
        if cfg.SOLVER[key] < least:
            raise UsageError(f"SOLVER.{key} is {cfg.SOLVER[key]}, expected {least} or more")


@contextlib.contextmanager
def _checksums() -> Iterator[None]:
    """Whatever the program around us asked torch for: without them no damage would be seen."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


class _Counter(io.RawIOBase):
    size = 0

    def write(self, data: Any) -> int:
        self.size += memoryview(data).nbytes
        return memoryview(data).nbytes


def _size(content: Any) -> int:
    """Bytes that torch.save makes of it."""
    counter = _Counter()
    torch.save(content, cast(IO[bytes], counter))
    return counter.size


def _load_advice(path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "://" in path:
        return (
            f"cannot fetch the weights {path} ({reason}). Without a network, copy the file from a "
            "machine that has one and give its path as MODEL.WEIGHTS, or train from scratch with "
            'MODEL.WEIGHTS ""'
        )
    if not os.path.exists(path):
        return f"{path} does not exist (MODEL.WEIGHTS, or a checkpoint in OUTPUT_DIR)"
    return (
        f"{path} cannot be loaded ({type(error).__name__}: {reason}); it has "
        f"{os.path.getsize(path)} bytes. Is it a checkpoint, and did its copying end?"
    )
