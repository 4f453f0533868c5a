"""GPU kernels of the RoI layers, behind a door that opens without Triton installed.

Nothing here imports Triton until a kernel is asked for, so that a machine without it can import
the package; `is_available` says whether one may ask, and why not.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
MOST_LEVELS = 6
MINIMUM_TRITON = (3, 3)  # the oldest that they have been compiled with; 3.2 comes with torch 2.6
MINIMUM_CAPABILITY = (8, 0)  # bfloat16 arithmetic; the oldest that the kernels are compiled for


def is_available() -> tuple[bool, str]:
    """(whether the Triton kernels can run in this process, why not or on what)."""
    try:
        import triton
    except ImportError as error:
        return False, f"Triton cannot be imported ({error}); pip install triton"
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < MINIMUM_TRITON:
        needed = ".".join(map(str, MINIMUM_TRITON))
        return False, f"Triton {triton.__version__} is older than {needed}; install a newer PyTorch"
    if is_interpreted():
        return True, f"Triton {triton.__version__}, interpreted on the CPU (TRITON_INTERPRET=1)"
    if not torch.cuda.is_available():
        return False, "PyTorch sees no CUDA device (torch.cuda.is_available() is False)"
    capability = torch.cuda.get_device_capability()
    if capability < MINIMUM_CAPABILITY:
        return False, (
            f"{torch.cuda.get_device_name()} has compute capability {capability}, "
            f"the kernels need {MINIMUM_CAPABILITY}"
        )
    return True, f"Triton {triton.__version__} on {torch.cuda.get_device_name()}"


def is_interpreted() -> bool:
    """Whether Triton kernels run on the CPU, in Python; Triton asks this when it is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")


def multilevel_roi_average(
    features: Sequence[torch.Tensor],
    rois: torch.Tensor,
    levels: torch.Tensor,
    output_size: tuple[int, int],
    scales: Sequence[float],
    sampling_ratio: int,
    layer: str,
    *,
    ordered: bool,
) -> torch.Tensor:
    """`roi_triton.multilevel_roi_average`, imported at the first call."""
    from .roi_triton import multilevel_roi_average as call

    return call(features, rois, levels, output_size, scales, sampling_ratio, layer, ordered=ordered)
