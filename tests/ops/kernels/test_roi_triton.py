"""The Triton kernels without a GPU: interpreted (roi_triton_cases.py), and compiled but not run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mask_rcnn_ext.ops import kernels

CASES = Path(__file__).with_name("roi_triton_cases.py")
_TRITON = "Triton cannot be imported; it comes with PyTorch's CUDA wheels for Linux"


def test_importing_the_package_needs_no_triton():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from mask_rcnn_ext.ops import kernels\n"
        "runs, why = kernels.is_available()\n"
        "assert not runs and 'pip install triton' in why, why\n"
        "assert not any('roi_triton' in name for name in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_available_says_why_not(monkeypatch: pytest.MonkeyPatch):
    triton = pytest.importorskip("triton", reason=_TRITON)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert kernels.is_available() == (
        False,
        "PyTorch sees no CUDA device (torch.cuda.is_available() is False)",
    )
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    runs, why = kernels.is_available()
    assert not runs
    assert "Old GPU has compute capability (7, 5), the kernels need (8, 0)" in why
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    assert kernels.is_available()[0]
    monkeypatch.setattr(triton, "__version__", "3.2.0")
    assert kernels.is_available() == (
        False,
        "Triton 3.2.0 is older than 3.3; install a newer PyTorch",
    )


def test_features_on_the_cpu_are_refused(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("triton", reason=_TRITON)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="features are on cpu, the Triton kernels need a CUDA dev"):
        kernels.multilevel_roi_average(
            [torch.zeros(1, 1, 2, 2)], torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64),
            (1, 1), [1.0], 0, "RoIAlign", ordered=True,
        )  # fmt: skip


@pytest.mark.timeout(600)
def test_kernels_interpreted_on_the_cpu():
    """In a process of its own: Triton chooses between compiling and interpreting at its import."""
    pytest.importorskip("triton", reason=_TRITON)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert re.search(r"\d+ passed", done.stdout), done.stdout


GEOMETRY = {"LEVELS": 4, "C": 256, "PH": 7, "PW": 7, "LAYER": "RoIAlignV2", "RATIO": 0}
BLOCKS = {"BLOCK_P": 8, "BLOCK_X": 4, "BLOCK_K": 32, "PARTS": 8}
ODD = {"LEVELS": 1, "C": 5, "PH": 3, "PW": 14, "BLOCK_C": 8}
KERNELS = {
    "average_forward": 2,
    "axis_tables": 1,
    "average_backward_atomic": 1,
    "average_backward_ordered": 1,
}  # and their warps


def _compiled(
    name: str, dtype: str, capability: int, tmp_path: Path, **constants: Any
) -> dict[str, Any]:
    """Everything that Triton makes of a kernel, as far as the machine code (cubin)."""
    pytest.importorskip("triton", reason=_TRITON)
    if kernels.is_interpreted():
        pytest.skip("TRITON_INTERPRET is set for the whole test run, so nothing can be compiled")
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mask_rcnn_ext.ops.kernels import roi_backward_jit, roi_forward_jit, roi_triton

    kernel = getattr(roi_forward_jit, name, None) or getattr(roi_backward_jit, name)
    width = 4 if dtype == "fp32" or "atomic" in name else 2
    constants = {**GEOMETRY, **BLOCKS, "BLOCK_C": 512 // width, **constants}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    pointers = {
        **dict.fromkeys(("rois", "frames", "table_y", "table_x"), "*fp32"),
        **dict.fromkeys(("levels", "order", "starts"), "*i64"),
        **dict.fromkeys(("out", "grad_out"), f"*{dtype}"),
        **{f"p{i}": "*fp32" if "atomic" in name else f"*{dtype}" for i in range(6)},
        "windows": "*i32",
    }
    signature, aligned = {}, {}
    for i, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument in pointers:
            signature[argument] = pointers[argument]
            aligned[(i,)] = [["tt.divisibility", 16]]
        else:
            signature[argument] = "fp32" if re.fullmatch("s[0-5]", argument) else "i32"
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": KERNELS[name], **roi_triton._OPTIONS}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options).asm


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(
    ("name", "dtype"),
    # axis_tables sees no features.
    [(n, d) for n in KERNELS for d in ("fp32", "bf16") if n != "axis_tables" or d == "fp32"],
)
def test_kernels_compile_without_a_gpu(name: str, dtype: str, capability: int, tmp_path: Path):
    made = _compiled(name, dtype, capability, tmp_path)
    assert len(made["cubin"]) > 0
    # Features move 16 bytes a thread; a lost alignment hint would show here, not in any result.
    if name in ("average_forward", "average_backward_ordered"):
        assert ".v4.b32" in "".join(re.findall(r"ld\.global\S*", made["ptx"]))
        assert ".v4.b32" in "".join(re.findall(r"st\.global\S*", made["ptx"]))


@pytest.mark.parametrize("layer", ["RoIAlign", "RoIWarp"])
@pytest.mark.parametrize("name", ["average_forward", "axis_tables"])
def test_layers_compile_at_a_fixed_number_of_samples(name: str, layer: str, tmp_path: Path):
    assert _compiled(name, "fp16", 90, tmp_path, LAYER=layer, RATIO=2)["cubin"]


@pytest.mark.parametrize("name", KERNELS)
def test_odd_shapes_compile(name: str, tmp_path: Path):
    assert _compiled(name, "fp16", 80, tmp_path, **ODD)["cubin"]


def test_ordered_gradient_has_no_atomic_instruction(tmp_path: Path):
    ptx = _compiled("average_backward_ordered", "bf16", 90, tmp_path)["ptx"]
    assert not re.search(r"\b(atom|red)\.", ptx)
    ptx = _compiled("average_backward_atomic", "bf16", 90, tmp_path)["ptx"]
    assert re.search(r"\b(atom|red)\.", ptx)


def test_positions_are_not_fused(tmp_path: Path):
    """A fused multiply-add rounds once: samples would differ from PyTorch's at the border."""
    assert "fma.rn" not in _compiled("axis_tables", "fp32", 90, tmp_path)["ptx"]
    ptx = _compiled("average_forward", "fp32", 90, tmp_path)["ptx"]
    # 2 warps hold 8 bins x 128 channels, 16 a thread, and add four cells to each.
    assert ptx.count("fma.rn") == 16 * 4
