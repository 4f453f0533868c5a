"""Read published weights without executing anything that a file says.

A pickle is a program. Here it may build tensors, numbers in numpy arrays and plain containers, and
call nothing else: torch's weights_only loader reads `.pth`, mask_rcnn_ext.pickles reads `.pkl`. The
first gets the stand-ins of the second for numpy's functions, and so refuses the same.
"""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import IO, Any

import torch

from ...errors import UsageError, UserError
from ...pickles import NUMPY, ArrayStandIn, DtypeStandIn, Refused, load_pickle, settle

# What torch.save wrote before it wrote zip archives: the pickle of a fixed number comes first.
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def read_weights(path: str | Path) -> Any:
    """What the file holds; its content decides the format, not its name.

    Args:
        path: a local file of torch.save, or a pickle (also of Python 2) of numpy arrays
    Returns:
        plain containers of tensors (on the CPU), numpy arrays and scalars, numbers and strings
    Raises:
        UsageError: there is no such file
        UserError: the file is no checkpoint, is damaged or cut short, or holds something else than
            data; the message names what was refused, and nothing of it was executed
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"weights file {path} does not exist")
    if path.is_dir():
        raise UsageError(f"weights file {path} is a folder")
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with file:
            return _load(file)
    except UserError as error:
        raise UserError(f"{path} {error}") from None
    except Refused as error:
        raise UserError(
            f"{path} was not read: besides tensors, numbers in numpy arrays and plain containers "
            f"it holds {error}, and such a thing could execute code. If you trust where the file "
            "comes from, load it with its own program and save only its state dict."
        ) from None
    except Exception as error:
        # Whatever wrong bytes provoke (zip, pickle, unicode, type and memory errors, ...).
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else "no reason"
        raise UserError(
            f"{path} is damaged, cut short or no checkpoint ({type(error).__name__}: {reason}); it "
            f"has {path.stat().st_size} bytes. Compare the size with the source's, copy it again."
        ) from error


def _load(file: IO[bytes]) -> Any:
    start = file.read(64)
    file.seek(0)
    if not start:
        raise UserError("is empty (0 bytes)")
    if start.startswith((b"PK\x03\x04", _TORCH_LEGACY)):
        return load_torch(file)
    if start[0] == 0x80 or start[:1] in b"(]}c":  # pickles of protocol 2 and later; of 0 and 1
        return load_pickle(file)
    raise UserError(
        f"is neither a file of torch.save nor a pickle; it starts with {start[:24]!r}. "
        "A web page or a Git LFS pointer in place of the file looks like this."
    )


def load_torch(file: IO[bytes]) -> Any:
    """
    Raises:
        pickle.UnpicklingError: it holds something else than data
        Exception: of any other kind, for bytes that are no whole archive
    """
    allowed: list[Any] = [(value, name) for name, value in NUMPY.items()]
    before = torch.serialization.get_safe_globals()
    # Of a name that is there twice torch takes either one, so numpy's own step aside meanwhile.
    others = [entry for entry in before if _name_of(entry) not in NUMPY]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*others, *allowed, ArrayStandIn, DtypeStandIn])
    try:
        return settle(torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        refused = re.search(r"[Uu]nsupported.*?GLOBAL (\S+)", str(error))
        if refused is not None:
            raise Refused(refused[1]) from error
        # The rest of torch's message is about switching its protection off.
        reason = re.search(r"WeightsUnpickler error: (.*)", str(error))
        raise pickle.UnpicklingError(reason[1] if reason else str(error)) from error
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def _name_of(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"
