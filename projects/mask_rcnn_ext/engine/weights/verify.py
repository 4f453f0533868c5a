"""Whether a weights file is whole: it can be read, its checksums hold, its numbers are finite."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ...errors import UsageError, UserError
from .checksum import digest, promises
from .contents import named_tensors
from .safe_read import read_weights
from .torch_file import damaged_entry


@dataclass(frozen=True)
class Verdict:
    """
    findings: what is wrong, a sentence each; none if all is well
    checked: what was looked at and is right
    sha256: of the file
    """

    findings: list[str]
    checked: list[str]
    sha256: str


def verify(path: Path, sha256: str = "") -> Verdict:
    """
    Args:
        path: a local file
        sha256: what it should be, or its first digits (8 or more)
    Raises:
        UsageError: `sha256` is none; no such file
    """
    wanted = sha256.strip().lower()
    if wanted and not re.fullmatch(r"[0-9a-f]{8,64}", wanted):
        raise UsageError(f"--sha256 is {sha256!r}, expected 8 to 64 hexadecimal digits")
    try:
        content = read_weights(path)
    except UsageError:
        raise
    except UserError as error:
        return Verdict([str(error)], [], digest(path, "sha256") if path.is_file() else "")
    came = digest(path, "sha256")
    findings, checked = [], ["it can be read, and holds nothing but data"]
    if wanted and not came.startswith(wanted):
        findings.append(f"its sha256 is {came}, expected {wanted}")
    elif wanted:
        checked.append("its sha256 is the given one")
    checked += [f"its {p.algorithm} is what {p.origin} says" for p in promises(path)]
    if zipfile.is_zipfile(path):
        damaged = damaged_entry(path)
        if damaged is None:
            checked.append("each entry of the archive has its CRC")
        else:
            findings.append(f"{damaged} has changed: it does not have its CRC")
    count = 0
    for name, tensor in named_tensors(content):
        count += 1
        findings += _defects(name, tensor)
    if not count:
        findings.append("it holds no tensors")
    elif not any("NaN" in one for one in findings):
        checked.append(f"{count} tensors are finite")
    return Verdict(findings, checked, came)


def _defects(name: str, tensor: torch.Tensor) -> list[str]:
    if tensor.layout != torch.strided or tensor.device.type != "cpu":
        return [f"{name} has no numbers of its own ({tensor.layout}, {tensor.device})"]
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return [f"{name} of shape {tuple(tensor.shape)} has fewer numbers in the file"]
    if not tensor.dtype.is_floating_point and not tensor.dtype.is_complex:
        return []
    wrong = tensor.numel() - int(tensor.isfinite().sum())
    return [f"{name}: {wrong} of {tensor.numel()} numbers are NaN or infinite"] if wrong else []
