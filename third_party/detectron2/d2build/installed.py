"""Find a Detectron2 that somebody else installed: it is never replaced."""

import importlib.metadata
import re
import site
import sys
import sysconfig
from pathlib import Path

from .errors import BuildError

MARKER = "_mask_rcnn_ext_build.py"  # our wheels have it in detectron2/, others do not


def environment_folders():
    """Folders the target environment imports from.

    pip's build isolation changes sys.path but not the interpreter, so sysconfig still tells.
    """
    paths = sysconfig.get_paths()
    folders = [paths["purelib"], paths["platlib"], *site.getsitepackages()]
    if _sees_base():
        base = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
        paths = sysconfig.get_paths(vars=base)
        folders += [paths["purelib"], paths["platlib"]]
    if sys.prefix == sys.base_prefix or _sees_base():
        folders.append(site.getusersitepackages())
    return [Path(folder) for folder in dict.fromkeys(folders)]


def _sees_base():
    try:
        text = (Path(sys.prefix) / "pyvenv.cfg").read_text()
    except OSError:
        return False
    return bool(re.search(r"(?im)^include-system-site-packages\s*=\s*true", text))


def find_foreign(folders):
    """What of a Detectron2 not made by us lies in the folders, or None."""
    for folder in folders:
        package = folder / "detectron2"
        if (package / MARKER).is_file():
            continue
        if (package / "__init__.py").is_file():
            return package
        egg_link = folder / "detectron2.egg-link"  # `setup.py develop`
        if egg_link.is_file():
            return egg_link
        for found in importlib.metadata.distributions(path=[str(folder)]):
            if (found.metadata["Name"] or "").lower() == "detectron2":
                return f"detectron2 {found.version} in {folder}"  # an editable install
    return None


def refuse_foreign(folders=None):
    found = find_foreign(environment_folders() if folders is None else folders)
    if found is not None:
        raise BuildError(
            f"this environment already has a Detectron2 that this project did not make ({found}). "
            "It is used as it is and not replaced. To have this build instead, uninstall it first "
            "(python -m pip uninstall detectron2) or use another environment."
        )
