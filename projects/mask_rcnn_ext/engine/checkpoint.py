"""Detectron2's checkpointer over files that a kill or a full disk cannot break."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer

from ..errors import UserError
from ..files import atomic_write


class Checkpointer(DetectionCheckpointer):
    """Saves atomically, the pointer `last_checkpoint` last; errors say what is still usable."""

    def __init__(
        self,
        model: Any,
        save_dir: str = "",
        *,
        class_names: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        """
        Args:
            class_names: what the model's outputs mean; saved beside the weights, so that they can
                be used where the data set is not
        """
        super().__init__(model, save_dir, **kwargs)
        self._class_names = list(class_names or ())
        inner: Any = self.path_manager
        self.path_manager: Any = _AtomicPathManager(inner)

    def save(self, name: str, **kwargs: Any) -> None:
        """
        Raises:
            UserError: the file could not be written; the checkpoint before it is untouched
        """
        if self._class_names:
            kwargs.setdefault("class_names", self._class_names)
        try:
            super().save(name, **kwargs)
        except OSError as error:
            before = self.get_checkpoint_file() if self.has_checkpoint() else ""
            kept = (
                f"The previous checkpoint {before} is whole; mend the cause and run the same "
                "command with --resume."
                if before
                else "There is no earlier checkpoint in this folder."
            )
            raise UserError(
                f"cannot write checkpoint {os.path.join(self.save_dir, name)}.pth: "
                f"{error.strerror or error}. {kept}"
            ) from error

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

    def has_checkpoint(self) -> bool:
        """Whether the folder has a pointer to a checkpoint that exists."""
        return super().has_checkpoint() and os.path.isfile(self.get_checkpoint_file())


class _AtomicPathManager:
    """A path manager whose local writes go to a temporary file first."""

    def __init__(self, inner: Any):
        self._inner = inner

    def open(self, path: str, mode: str = "r", **kwargs: Any) -> contextlib.AbstractContextManager:
        if "w" in mode and "://" not in path:
            return atomic_write(path, mode)
        return self._inner.open(path, mode, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _load_advice(path: str, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "://" in path:
        return (
            f"cannot fetch the weights {path} ({reason}). Without a network, copy the file from a "
            "machine that has one and give its path as MODEL.WEIGHTS, or train from scratch with "
            'MODEL.WEIGHTS ""'
        )
    if not os.path.exists(path):
        return f"MODEL.WEIGHTS {path} does not exist"
    return (
        f"{path} cannot be loaded ({type(error).__name__}: {reason}); it has "
        f"{os.path.getsize(path)} bytes. Is it a checkpoint, and did its copying end?"
    )
