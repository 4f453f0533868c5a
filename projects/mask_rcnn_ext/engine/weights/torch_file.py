"""Files of torch.save: read by torch's weights_only loader, and no bigger in memory than on disk.

torch decides what a file may call. Three things that it lets pass are refused here, since a small
file could fill the memory with them: compressed entries, a bytearray of any length, and a tensor
without its numbers.
"""

from __future__ import annotations

import mmap
import os
import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from ...pickles import NUMPY, ArrayStandIn, DtypeStandIn, Refused, TooBig, settle, within

_ZIP = b"PK\x03\x04"
# What torch.save wrote before it wrote zip archives: the pickle of a fixed number comes first.
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_BYTEARRAY = re.compile(rb"c(?:builtins|__builtin__)\nbytearray\n")


def is_torch_file(start: bytes) -> bool:
    """
    Args:
        start: the file's first bytes, at least 15
    """
    return start.startswith((_ZIP, _LEGACY))


def load_torch(file: IO[bytes]) -> Any:
    """
    Args:
        file: a file on disk, at its start
    Raises:
        Refused: it holds something else than data; TooBig: less than it claims
        Exception: of any other kind, for bytes that are no whole archive
    """
    size = os.fstat(file.fileno()).st_size
    _refuse_bombs(file, size)
    allowed: list[Any] = [(value, name) for name, value in NUMPY.items()]
    before = torch.serialization.get_safe_globals()
    # Of a name that is there twice torch takes either one, so numpy's own step aside meanwhile.
    others = [entry for entry in before if _name_of(entry) not in NUMPY]
    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals([*others, *allowed, ArrayStandIn, DtypeStandIn])
    try:
        with within(size):
            content = settle(torch.load(file, map_location="cpu", weights_only=True))
    except Refused:
        raise
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
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for tensor in tensors_in(content)
        if tensor.layout == torch.strided and tensor.device.type == "cpu"
    }
    if sum(storages.values()) > size:
        raise TooBig(f"tensors of {sum(storages.values())} bytes in a file of {size}")
    return content


def damaged_entry(path: Path) -> str | None:
    """The first entry of a zip archive that has not its CRC; torch.load looks at none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip()
    except Exception as error:
        # Whatever a wrong byte in a header provokes (zip, struct, unicode, overflow, ...).
        return f"the table of contents ({error})"


def tensors_in(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in nested containers; each container once."""
    seen: set[int] = set()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, torch.Tensor):
            yield one
        elif isinstance(one, Mapping | list | tuple) and id(one) not in seen:
            seen.add(id(one))
            waiting.extend(one.values() if isinstance(one, Mapping) else one)


def _refuse_bombs(file: IO[bytes], size: int) -> None:
    if file.read(len(_ZIP)) == _ZIP:
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            # torch.save writes its entries as they are, one after the other.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise TooBig("compressed entries, which torch.save does not write")
            if sum(entry.file_size for entry in entries) > size:
                raise TooBig("entries that are bigger than the file")
            programs = [e for e in entries if e.filename.endswith("data.pkl")]
            found = any(_BYTEARRAY.search(archive.read(program)) for program in programs)
    else:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            found = _BYTEARRAY.search(content) is not None
    if found:
        raise TooBig("a bytearray, which may be of any length")
    file.seek(0)


def _name_of(entry: Any) -> str:
    return entry[1] if isinstance(entry, tuple) else f"{entry.__module__}.{entry.__qualname__}"
