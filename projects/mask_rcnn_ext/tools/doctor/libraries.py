"""Python and the libraries: there, loadable, of versions that go together."""

from __future__ import annotations

import re
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from .findings import NOTE, OK, PIP, PROBLEM, WARNING, Finding
from .probe import Probe, failed, probe

_OLDEST_PYTHON = (3, 11)
_OPENCVS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
# Module -> what to install. torch and Detectron2 have checks of their own.
_MODULES = {
    "numpy": "numpy",
    "PIL": "pillow",
    "yaml": "PyYAML",
    "cv2": "opencv-python",
    "pycocotools.mask": "pycocotools",
    "hotcoco": "hotcoco",
    "fvcore": "fvcore",
    "iopath": "iopath",
    "matplotlib": "matplotlib",
    "msgspec": "msgspec",
    "jinja2": "jinja2",
}
TORCH_SCRIPT = """
import torch
say("torch", torch.__version__)
say("cuda", torch.version.cuda)
say("threads", torch.get_num_threads())
def gpus():
    return [
        [torch.cuda.get_device_name(i), list(torch.cuda.get_device_capability(i)),
         torch.cuda.get_device_properties(i).total_memory]
        for i in range(torch.cuda.device_count())
    ]
attempt("gpus", lambda: gpus() if torch.cuda.is_available() else [])
attempt("arches", torch.cuda.get_arch_list)
attempt("nccl", torch.distributed.is_nccl_available)
import torchvision
say("torchvision", torchvision.__version__)
def ops(device):
    from torchvision.ops import nms, roi_align
    boxes = torch.tensor([[0., 0., 8., 8.], [0., 0., 8., 7.], [4., 4., 9., 9.]], device=device)
    kept = nms(boxes, torch.tensor([.9, .8, .7], device=device), 0.5).tolist()
    rois = torch.cat([torch.zeros(3, 1, device=device), boxes], 1)
    mean = roi_align(torch.ones(1, 1, 16, 16, device=device), rois, 2, 1.0, 2, True).mean().item()
    assert kept == [0, 2] and abs(mean - 1) < 0.1, (kept, mean)
    return "ran"
attempt("ops", lambda: ops("cpu"))
"""


def check_python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < _OLDEST_PYTHON:
        oldest = ".".join(map(str, _OLDEST_PYTHON))
        return Finding(
            PROBLEM,
            "Python",
            f"{found} is older than {oldest}",
            f"python{oldest} -m venv .venv && . .venv/bin/activate",
        )
    return Finding(OK, "Python", f"{found}, {sys.executable}")


def check_torch(torch: Probe) -> list[Finding]:
    """torch, torchvision, and whether they fit.

    Args:
        torch: of TORCH_SCRIPT
    """
    if "torch" not in torch.said:
        reason = "is not installed" if find_spec("torch") is None else "cannot be imported"
        text = f"{reason} ({torch.error})"
        mend = f"{PIP} install {'' if find_spec('torch') is None else '--force-reinstall '}torch"
        return [Finding(PROBLEM, "torch", text, f"{mend} torchvision")]
    version = torch.said["torch"]
    needed = _torch_that_torchvision_needs()
    pair = f"{PIP} install --force-reinstall {_fitting_torchvision(version)}"
    if needed and not version.split("+")[0].startswith(needed):
        return [
            Finding(
                PROBLEM,
                "torch",
                f"{version} with torchvision {_version_of('torchvision')}, which was built for "
                f"torch {needed}: its operations do not load, or crash",
                pair,
            )
        ]
    if "torchvision" not in torch.said:
        return [
            Finding(PROBLEM, "torchvision", f"cannot be imported ({torch.error})", pair),
        ]
    wrong = failed(torch.said.get("ops", f"error: {torch.error}"))
    if wrong:
        return [Finding(PROBLEM, "torchvision", f"nms and roi_align do not run: {wrong}", pair)]
    both = f"{version} with torchvision {torch.said['torchvision']}"
    return [Finding(OK, "torch", f"{both}; nms and roi_align run")]


def check_requirements() -> list[Finding]:
    """Versions that our package asks for, and those that Detectron2 asks for."""
    found = []
    ours = _unmet("mask_rcnn_ext")
    for name, wanted, there in ours:
        found.append(
            Finding(
                PROBLEM,
                name,
                f"{there or 'not installed'}, mask_rcnn_ext needs {wanted}",
                f"{PIP} install '{wanted}'",
            )
        )
    for name, wanted, there in _unmet("detectron2"):
        if name in {name for name, _, _ in ours}:
            continue
        if there is None:
            text = f"not installed, Detectron2 needs {wanted}"
            found.append(Finding(PROBLEM, name, text, f"{PIP} install '{wanted}'"))
        else:
            # iopath <0.1.10 and such pins are older than the releases that they exclude.
            text = f"{there}, Detectron2's metadata say {wanted}; pip complains, it works here"
            found.append(Finding(NOTE, name, text))
    return found or [Finding(OK, "requirements", "all versions are as asked for")]


def check_modules() -> list[Finding]:
    """The other libraries can be imported."""
    imports = "".join(
        f"attempt({name!r}, lambda: getattr(__import__({name.split('.')[0]!r} if "
        f"__import__({name!r}) else ''), '__version__', ''))\n"
        for name in _MODULES
    )
    tried = probe(imports)
    found = []
    for name, package in _MODULES.items():
        if name not in tried.said:
            text = f"cannot be imported: {tried.error}"
            found.append(_reinstall(name, package, text))
            break  # the process ended here
        wrong = failed(tried.said[name])
        if wrong:
            found.append(_reinstall(name, package, f"cannot be imported: {wrong}"))
    if found:
        return found
    return [Finding(OK, "libraries", f"{', '.join(_MODULES)} can be imported")]


def check_opencv() -> list[Finding]:
    """Several builds of OpenCV overwrite each other's files."""
    there = [name for name in _OPENCVS if _version_of(name)]
    if len(there) < 2:
        return []
    return [
        Finding(
            WARNING,
            "OpenCV",
            f"{' and '.join(there)} are installed; both own the folder cv2, and removing either "
            "breaks the other",
            f"{PIP} uninstall -y {' '.join(there)} && {PIP} install opencv-python",
        )
    ]


def _reinstall(name: str, package: str, text: str) -> Finding:
    if name == "cv2" and "libGL" in text:
        mend = "apt-get install -y libgl1 libglib2.0-0"
    elif find_spec(name.split(".")[0]) is None:
        mend = f"{PIP} install {package}"
    else:
        mend = f"{PIP} install --force-reinstall --no-deps {package}"
    return Finding(PROBLEM, name, text, mend)


def _torch_that_torchvision_needs() -> str:
    """ "2.14.0", or "" where its metadata do not say."""
    try:
        requirements = metadata.requires("torchvision") or []
    except metadata.PackageNotFoundError:
        return ""
    for text in requirements:
        exact = re.match(r"torch\s*\(?==\s*([\d.]+)", text)
        if exact:
            return exact[1]
    return ""


def _fitting_torchvision(torch: str) -> str:
    """torchvision 0.(n + 15) belongs to torch 2.n."""
    parts = re.match(r"2\.(\d+)", torch)
    plain = torch.split("+")[0]
    if not parts:
        return "torch torchvision"
    return f"torch=={plain} 'torchvision==0.{int(parts[1]) + 15}.*'"


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _unmet(package: str) -> list[tuple[str, str, str | None]]:
    """(name, requirement, installed version) of each requirement that is not met."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return []
    try:
        texts = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return []
    unmet = []
    for text in texts:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        there = _version_of(wanted.name)
        if there is None and wanted.name == "opencv-python":
            there = next((v for name in _OPENCVS if (v := _version_of(name))), None)
        if there is None or not wanted.specifier.contains(there, prereleases=True):
            unmet.append((wanted.name, f"{wanted.name}{wanted.specifier}", there))
    return unmet


def package_folder(name: str) -> Path | None:
    """Where a package is, without importing it."""
    try:
        spec = find_spec(name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin).parent if spec is not None and spec.origin else None
