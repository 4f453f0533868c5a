"""Where a result comes from: code, config, libraries, data; as plain values."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ..config import flatten

_PACKAGES = (
    "torch",
    "torchvision",
    "detectron2",
    "numpy",
    "opencv-python",
    "pycocotools",
    "hotcoco",
    "fvcore",
    "pillow",
    "mask_rcnn_ext",
)

# Keys without influence on weights and figures: where things are written, how often the run saves
# and tells, what it draws, and how many processes work for it (samples depend on the seed and
# their position alone). What DATASETS.REGISTRY registers counts through the data's fingerprints.
UNHASHED_KEYS = (
    "OUTPUT_DIR",
    "VIS_PERIOD",
    "DATASETS.REGISTRY",
    "DATALOADER.NUM_WORKERS",
    "SOLVER.CHECKPOINT_PERIOD",
    "SOLVER.CHECKPOINTS_KEPT",
    "TEST.CITYSCAPES_SUBMISSION",
    "TEST.ENCODING_PROCESSES",
    "TEST.SAMPLE_PICTURES",
    "TEST.SAMPLE_SCORE_THRESH",
    "LOG.",  # all of that section
)
_GIT_SECONDS = 30


def provenance(cfg: CfgNode, fingerprints: Mapping[str, str]) -> dict[str, Any]:
    """What a checkpoint says of its making.

    Args:
        cfg: the run's, complete
        fingerprints: data set name -> fingerprint of its annotation file
    Returns:
        strings, None and dicts of them: commit, changes (see `code_version`), config_hash,
        versions, datasets
    """
    return {
        **code_version(),
        "config_hash": config_hash(cfg),
        "versions": versions(),
        "datasets": dict(fingerprints),
    }


def config_hash(cfg: CfgNode) -> str:
    """sha256 of all keys and values but UNHASHED_KEYS; the order of keys does not count."""
    kept = {
        key: value
        for key, value in flatten(cfg)
        if not any(key == one or one.endswith(".") and key.startswith(one) for one in UNHASHED_KEYS)
    }
    # JSON writes tuples and lists alike, as YAML does, which configs travel in.
    return hashlib.sha256(json.dumps(kept, sort_keys=True, default=str).encode()).hexdigest()


def code_version(file: str = __file__) -> dict[str, str | None]:
    """The git commit that a file's checkout is at, and what was changed since.

    Args:
        file: any file of the package
    Returns:
        "commit": its hash, followed by "+changes" if tracked files differ or the package has
        untracked ones; None if the file is in no checkout
        "changes": a sha256 that is the same for the same changes; None if there are none
    """
    folder = Path(file).resolve().parent
    # Installed below another project's checkout, the file is not one of git's.
    if _git(folder, "ls-files", "--error-unmatch", file) is None:
        return {"commit": None, "changes": None}
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": None, "changes": None}
    package = Path(__file__).resolve().parent.parent
    root = Path((_git(folder, "rev-parse", "--show-toplevel") or b"").decode().strip())
    # Names and contents, since the text of a diff depends on the user's git settings.
    tracked = _names(_git(folder, "diff", "HEAD", "--name-only", "--no-renames", "-z"), root)
    untracked = _names(
        _git(package, "ls-files", "--others", "--exclude-standard", "-z", "--", "."), package
    )
    changes = hashlib.sha256()
    for path in sorted({*tracked, *untracked}):
        changes.update(str(path.relative_to(root)).encode() + b"\0" + _content(path) + b"\0")
    text = commit.decode().strip()
    if not tracked and not untracked:
        return {"commit": text, "changes": None}
    return {"commit": f"{text}+changes", "changes": changes.hexdigest()}


def versions() -> dict[str, str]:
    """Python's and those of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not an installed package"
    return found


def _git(folder: Path, *words: str) -> bytes | None:
    """What git prints; None if it fails or is not there."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, timeout=_GIT_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _names(listed: bytes | None, folder: Path) -> list[Path]:
    return [folder / os.fsdecode(name) for name in (listed or b"").split(b"\0") if name]


def _content(path: Path) -> bytes:
    """A hash of it; that of a deleted file is empty."""
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""
