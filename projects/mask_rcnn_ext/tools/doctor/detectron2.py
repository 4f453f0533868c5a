"""Detectron2: which one it is, whether it loads here, and what its `_C` is needed for."""

from __future__ import annotations

from pathlib import Path

from .findings import NOTE, OK, PIP, PROBLEM, Finding
from .libraries import package_folder
from .probe import Probe, failed, probe

_MODULES = ("structures", "layers", "data", "modeling", "engine", "evaluation", "model_zoo")
_SCRIPT = """
import detectron2
attempt("_C", lambda: __import__("detectron2._C", fromlist=["x"]).__file__)
""" + "".join(
    f'attempt("{name}", lambda: __import__("detectron2.{name}") and 0)\n' for name in _MODULES
)
# What an unedited v0.6 says on today's libraries: a part of the message -> why.
_KNOWN = {
    "has no attribute 'LINEAR'": "Pillow 10 dropped Image.LINEAR",
    "has no attribute 'bool'": "numpy 1.24 dropped np.bool",
    "has no attribute 'int'": "numpy 1.24 dropped np.int",
    "has no attribute 'float'": "numpy 1.24 dropped np.float",
    "has no attribute 'str'": "numpy 1.24 dropped np.str",
    "No module named 'pkg_resources'": "setuptools 82 dropped pkg_resources",
    "No module named 'deeplearning'": "this commit of main imports a package of Meta's",
    "undefined symbol": "its _C was compiled for another torch",
}
_USES_OF_C = "rotated boxes and deformable convolution"


def check_detectron2() -> list[Finding]:
    folder = package_folder("detectron2")
    mend = _mend(folder)
    if folder is None:
        return [Finding(PROBLEM, "Detectron2", "is not installed", mend)]
    return _judge(folder, probe(_SCRIPT), mend)


def _judge(folder: Path, tried: Probe, mend: str) -> list[Finding]:
    which = f"{_which(folder)} in {folder}"
    broken = {name: failed(tried.said[name]) for name in _MODULES if name in tried.said}
    broken = {name: text for name, text in broken.items() if text}
    if tried.error or broken:
        name, text = next(iter(broken.items()), ("import", tried.error))
        why = next((f" ({why})" for sign, why in _KNOWN.items() if sign in text), "")
        where = f"detectron2.{name}" if broken else "detectron2"
        return [Finding(PROBLEM, "Detectron2", f"{which}: {where} fails: {text}{why}", mend)]
    found = [Finding(OK, "Detectron2", f"{which} loads")]
    compiled = failed(tried.said.get("_C", "error: not tried"))
    if not compiled:
        found.append(Finding(OK, "Detectron2's _C", "loads"))
    elif "No module named" in compiled:
        text = f"is not there; only {_USES_OF_C} need it, Mask R-CNN does not"
        found.append(Finding(NOTE, "Detectron2's _C", text))
    else:
        why = next((f" ({why})" for sign, why in _KNOWN.items() if sign in compiled), "")
        text = f"is there and does not load: {compiled}{why}"
        found.append(Finding(PROBLEM, "Detectron2's _C", text, mend))
    return found


def _which(folder: Path) -> str:
    """By features: v0.6 and main report the same version."""
    if (folder / "_mask_rcnn_ext_build.py").is_file():
        return "this project's build of v0.6"
    # Main has trackers, the tag v0.6 not yet.
    return "main" if (folder / "tracking").is_dir() else "v0.6"


def _mend(folder: Path | None) -> str:
    """Our build lies beside the package in a checkout; it never replaces another one by itself."""
    build = Path(__file__).resolve().parents[4] / "third_party" / "detectron2"
    where = str(build) if build.is_dir() else "./third_party/detectron2  # in a checkout of ours"
    install = f"{PIP} install {where}"
    if folder is None:
        return install
    return f"{PIP} uninstall -y detectron2 && {install}"
