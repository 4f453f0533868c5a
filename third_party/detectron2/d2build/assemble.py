"""From the sdist's files to those of the wheel."""

from . import editing
from .edits import EDITS
from .installed import MARKER
from .sdist import expected_hash

# Small projects that the official builds install below detectron2.projects.
PROJECTS = {
    "projects/PointRend/point_rend/": "projects/point_rend/",
    "projects/DeepLab/deeplab/": "projects/deeplab/",
    "projects/Panoptic-DeepLab/panoptic_deeplab/": "projects/panoptic_deeplab/",
}

# The licence asks that changed files say so.
NOTICE = f"# Changed from Detectron2 v0.6 by the mask_rcnn_ext project; {MARKER} says how.\n"


def package_files(source, project, edits=EDITS):
    """Path in the wheel -> bytes, for all of the package detectron2."""
    files = {}
    for path, data in source.items():
        for start, target in {"detectron2/": "", **PROJECTS}.items():
            if path.startswith(start):
                files[target + path[len(start) :]] = data
    texts = {path: data.decode() for path, data in files.items() if path.endswith(".py")}
    for path in editing.apply(edits, texts):
        files[path] = (NOTICE + texts[path]).encode()
    added = project / "added" / "detectron2"
    for path in sorted(added.rglob("*.py")):
        files[path.relative_to(added).as_posix()] = path.read_bytes()
    files[MARKER] = _marker(project, edits).encode()
    return {f"detectron2/{path}": data for path, data in files.items()}


def _marker(project, edits):
    """Who made this package: its presence tells our build from others, EDITS what it mends."""
    lines = [
        '"""Written when mask_rcnn_ext\'s third_party/detectron2 built this package."""',
        "",
        f'SDIST_SHA256 = "{expected_hash(project)}"',
        "",
        "# name of each edit: what happens without it",
        "EDITS = {",
        *(f"    {edit.name!r}: {edit.why!r}," for edit in edits),
        "}",
        "",
        "FILES = {",
        *(f"    {e.name!r}: {sorted({h.file for h in e.hunks})!r}," for e in edits),
        "}",
        "",
    ]
    return "\n".join(lines)
