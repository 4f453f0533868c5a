"""Read published weights without executing anything that a file says.

A pickle is a program. Here it may build tensors, numbers in numpy arrays and plain containers, and
call nothing else: torch's weights_only loader reads `.pth`, mask_rcnn_ext.pickles reads `.pkl`. The
first gets the stand-ins of the second for numpy's functions, and so refuses the same.
`.safetensors` has no programs in it.

    read_checkpoint   the form in which Detectron2's checkpointer wants a file
    read_weights      what the file holds
"""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

from ...errors import UsageError, UserError
from ...pickles import Refused, TooBig, load_pickle
from .checksum import check_sums
from .safetensors_file import is_safetensors, load_safetensors
from .torch_file import is_torch_file, load_torch

_HEAD = 64  # bytes that tell the formats apart


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A weights file in the form that `DetectionCheckpointer._load_file` has for it.

    Args:
        path: a local file: `.pth` of Detectron2 or a bare state dict, `.pkl` of Detectron2's zoo,
            Caffe2 or MSRA, `.pyth` of pycls, `.safetensors`
    Returns:
        {"model": name -> tensor or numpy array}; with "matching_heuristics": True where names are
        to be matched by their ends, "__author__" where it is known, and what else the file holds
    Raises:
        UsageError, UserError: as `read_weights`; also a file without weights by name
    """
    path = Path(path)
    content = read_weights(path)
    if not isinstance(content, dict):
        raise UserError(
            f"{path} holds a {type(content).__name__}, not weights by name; expected a state dict, "
            "or a checkpoint with one under 'model'"
        )
    if path.suffix == ".pyth":
        return _from_pycls(content, path)
    if path.suffix == ".pkl" and not {"model", "__author__"} <= set(content):
        return _from_caffe2(content, path)
    return content if "model" in content else {"model": content}


def _from_pycls(content: dict[str, Any], path: Path) -> dict[str, Any]:
    state = content.get("model_state")
    if not isinstance(state, dict):
        raise UserError(
            f"{path} lacks 'model_state', where pycls keeps a network (.pyth is its ending); it "
            f"has: {', '.join(map(str, content)) or 'nothing'}. Name another program's file .pth"
        )
    state = {name: v for name, v in state.items() if not name.endswith("num_batches_tracked")}
    return {"model": state, "__author__": "pycls", "matching_heuristics": True}


def _from_caffe2(content: dict[str, Any], path: Path) -> dict[str, Any]:
    blobs = content.get("blobs", content)  # detectors have "blobs", ImageNet networks do not
    if not isinstance(blobs, dict):
        raise UserError(f"{path} has 'blobs', but they are a {type(blobs).__name__}, not a dict")
    state = {name: value for name, value in blobs.items() if not name.endswith("_momentum")}
    return {"model": state, "__author__": "Caffe2", "matching_heuristics": True}


def read_weights(path: str | Path) -> Any:
    """What the file holds; its content decides the format, not its name.

    Args:
        path: a local file of torch.save, a pickle (also of Python 2) of numpy arrays, safetensors
    Returns:
        plain containers of tensors (on the CPU), numpy arrays and scalars, numbers and strings
    Raises:
        UsageError: there is no such file
        UserError: the file is no checkpoint, is damaged or cut short, or holds something else than
            data; the message names what was refused, and nothing of it was executed. Or its
            checksum is not the one that its name or a list beside it says
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
            check_sums(path)
            return _load(file, path)
    except UserError as error:
        raise type(error)(f"{path} {error}") from None
    except TooBig as error:
        raise UserError(
            f"{path} was not read: it holds {error}, and would fill the memory. No program writes "
            "such a file by itself; fetch it again from where it was published"
        ) from None
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


def format_of(start: bytes, path: Path, size: int) -> str:
    """ "torch", "safetensors" or "pickle", by the content; "" for anything else.

    Args:
        start: the file's first 64 bytes
    """
    if path.suffix == ".safetensors" or is_safetensors(start, size):
        return "safetensors"
    if is_torch_file(start):
        return "torch"
    # pickles of protocol 2 and later; of 0 and 1
    return "pickle" if start[0] == 0x80 or start[:1] in b"(]}c" else ""


def _load(file: IO[bytes], path: Path) -> Any:
    start = file.read(_HEAD)
    file.seek(0)
    if not start:
        raise UserError("is empty (0 bytes)")
    kind = format_of(start, path, path.stat().st_size)
    if kind == "safetensors":
        return load_safetensors(path)
    if kind == "torch":
        return load_torch(file)
    if kind == "pickle":
        return load_pickle(file)
    raise UserError(
        "is neither a file of torch.save nor a pickle nor safetensors; it starts with "
        f"{start[:24]!r}. A web page or a Git LFS pointer in place of the file looks like this."
    )
