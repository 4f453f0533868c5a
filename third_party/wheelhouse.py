"""Collect wheels for a machine without network.

    make wheelhouse PYTHON=3.12 HAVE="torch torchvision"

Makes the wheels of this project and of Detectron2, then resolves what they need for the other
machine's Python, follows the requirements except through what that machine has already, and
downloads the rest through pip as configured. Install there with

    python -m pip install --no-index --find-links wheelhouse mask_rcnn_ext detectron2
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# No wheels of these on the package index; they are pure Python, so one built here fits any machine.
SDIST_ONLY = ("fvcore", "iopath", "antlr4-python3-runtime")
ROOTS = ("mask_rcnn_ext[test]", "detectron2")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.12", help="version there, such as 3.12")
    parser.add_argument("--out", type=Path, default=Path("wheelhouse"))
    parser.add_argument("--have", default="", help="packages that the machine has, by name")
    args = parser.parse_args()
    match = re.search(r"3\.\d+", args.python)
    if match is None:
        parser.error(f"--python {args.python!r}: expected a version such as 3.12")
    have = {_normal(name) for name in re.split(r"[\s,]+", args.have) if name}
    args.out.mkdir(parents=True, exist_ok=True)
    for stale in args.out.glob("*.whl"):
        stale.unlink()

    constraints = ["-c", str(ROOT / "constraints.txt")]
    print("making the wheels of mask_rcnn_ext and Detectron2, and of what has none", flush=True)
    wheel = ["wheel", "-q", "--no-deps", "-w", str(args.out)]
    _pip(*wheel, str(ROOT), str(ROOT / "third_party" / "detectron2"))
    needs_build = [name for name in SDIST_ONLY if name not in have]
    if needs_build:
        _pip(*wheel, *constraints, *needs_build)

    target = ["--python-version", match[0], "--only-binary", ":all:"]
    links = ["--find-links", str(args.out)]
    print(f"resolving for Python {match[0]}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        _pip(
            *["install", "-q", "--dry-run", "--ignore-installed", "--report", str(report)],
            *["--target", folder, *target, *links, *constraints, *ROOTS],
        )
        resolved = json.loads(report.read_text())["install"]
    wanted = needed(resolved, [_normal(re.sub(r"\[.*", "", root)) for root in ROOTS], have)
    present = {_normal(path.name.split("-")[0]) for path in args.out.glob("*.whl")}
    pinned = sorted(f"{name}=={version}" for name, version in wanted.items() if name not in present)
    print(f"downloading {len(pinned)} packages", flush=True)
    _pip("download", "-q", "--no-deps", "-d", str(args.out), *target, *links, *pinned)

    wheels = sorted(args.out.glob("*.whl"))
    size = sum(path.stat().st_size for path in wheels) / 2**20
    print(f"{args.out}: {len(wheels)} wheels, {size:.0f} MiB, for Python {match[0]}")
    print(
        f"install there: python -m pip install --no-index --find-links {args.out.name} "
        "mask_rcnn_ext detectron2"
    )
    return 0


def needed(resolved: list[dict], roots: list[str], have: set[str]) -> dict[str, str]:
    """Follow requirements from the roots, not through what is there already.

    Args:
        resolved: entries of pip's installation report
        roots: normalized names to start from
        have: normalized names that the other machine has; what only they need is left out too
    Returns:
        name -> version
    """
    packages = {_normal(entry["metadata"]["name"]): entry["metadata"] for entry in resolved}
    wanted: dict[str, str] = {}
    queue = list(roots)
    while queue:
        name = queue.pop()
        if name in wanted or name in have or name not in packages:
            continue
        wanted[name] = packages[name]["version"]
        for requirement in packages[name].get("requires_dist", []):
            # Markers and extras were settled by pip: what does not apply is not in the report,
            # or is there because something else needs it.
            queue.append(_normal(re.split(r"[\s\[;<>=!~(]", requirement, maxsplit=1)[0]))
    return wanted


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pip(*words: str) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(f"wheelhouse: pip {words[0]} failed (exit code {code}); its message is above")


if __name__ == "__main__":
    sys.exit(main())
