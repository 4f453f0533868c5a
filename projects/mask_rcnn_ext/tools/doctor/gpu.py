"""The GPU: driver, PyTorch's build, the architectures that it was compiled for, Triton."""

from __future__ import annotations

import shutil
from pathlib import Path

from .findings import LEVELS, NOTE, OK, PIP, PROBLEM, WARNING, Finding
from .libraries import TORCH_SCRIPT
from .probe import Probe, failed, probe

_DRIVER = Path("/proc/driver/nvidia/version")
_GPU_SCRIPT = (
    TORCH_SCRIPT
    + """
attempt("gpu_ops", lambda: ops("cuda"))
attempt("triton", lambda: __import__("triton").__version__)
"""
)


def run_on_gpu() -> Probe:
    """The torch probe with operations on the GPU and Triton."""
    return probe(_GPU_SCRIPT)


def check_gpu(torch: Probe, *, wanted: bool) -> list[Finding]:
    """
    Args:
        torch: of TORCH_SCRIPT, or of `run_on_gpu` where a GPU is wanted
        wanted: whether its absence is a problem
    """
    if "torch" not in torch.said:
        return []  # said already
    missing = PROBLEM if wanted else NOTE
    driver = _DRIVER.is_file() or shutil.which("nvidia-smi") is not None
    gpus, wrong = torch.said.get("gpus", []), failed(torch.said.get("gpus", ""))
    if wrong or not gpus:
        if not driver:
            return [Finding(missing, "GPU", "none: no NVIDIA driver here; the CPU is used")]
        if torch.said.get("cuda") is None:
            return [
                Finding(
                    graver(missing, WARNING),
                    "GPU",
                    f"there is a driver, but torch {torch.said['torch']} is built for CPUs",
                    f"{PIP} install --force-reinstall torch torchvision",
                )
            ]
        text = f"there is a driver, but torch (CUDA {torch.said['cuda']}) sees no GPU {wrong}"
        mend = "nvidia-smi  # is the driver new enough, is CUDA_VISIBLE_DEVICES empty?"
        return [Finding(graver(missing, WARNING), "GPU", text.strip(), mend)]
    found = [_one(torch, *gpu) for gpu in gpus]
    if len(gpus) > 1 and torch.said.get("nccl") is not True:
        found.append(
            Finding(
                PROBLEM,
                "NCCL",
                f"{len(gpus)} GPUs, and this torch has no NCCL: they cannot train together",
                f"{PIP} install --force-reinstall torch torchvision",
            )
        )
    return found + (_tried(torch) if wanted else [])


def graver(one: str, other: str) -> str:
    """The graver of two levels."""
    return max(one, other, key=LEVELS.index)


def _one(torch: Probe, name: str, capability: list[int], memory: int) -> Finding:
    major, minor = capability
    said = f"{name}, {memory / 2**30:.0f} GiB, capability {major}.{minor}"
    arches = torch.said.get("arches", [])
    # Binaries run on later minor versions; PTX (compute_) is compiled for any later GPU.
    fits = any(_serves(arch, major, minor) for arch in arches)
    if arches and not fits:
        return Finding(
            PROBLEM,
            "GPU",
            f"{said}; torch {torch.said['torch']} is compiled for {', '.join(arches)}",
            f"{PIP} install --upgrade torch torchvision",
        )
    return Finding(OK, "GPU", f"{said}, CUDA {torch.said['cuda']}")


def _serves(arch: str, major: int, minor: int) -> bool:
    kind, _, number = arch.partition("_")
    digits = "".join(c for c in number if c.isdigit())
    if not digits:
        return False
    its_major, its_minor = int(digits[:-1]), int(digits[-1])
    if kind == "compute":
        return (its_major, its_minor) <= (major, minor)
    return its_major == major and its_minor <= minor


def _tried(torch: Probe) -> list[Finding]:
    found = []
    wrong = failed(torch.said.get("gpu_ops", f"error: {torch.error}"))
    if wrong:
        text = f"nms and roi_align do not run on it: {wrong}"
        mend = f"{PIP} install --force-reinstall torch torchvision"
        found.append(Finding(PROBLEM, "GPU", text, mend))
    else:
        found.append(Finding(OK, "GPU", "nms and roi_align run on it"))
    wrong = failed(torch.said.get("triton", f"error: {torch.error}"))
    if wrong:
        text = f"cannot be imported ({wrong}); RoI layers take torchvision's kernels, slower"
        found.append(Finding(WARNING, "Triton", text, f"{PIP} install triton"))
    else:
        found.append(Finding(OK, "Triton", torch.said["triton"]))
    return found
