"""Where the files that travel with the package are: configs and dataset descriptions.

In a checkout they are top-level folders; in an installed wheel they lie inside the package, put
there by setup.py. Nobody else needs to know.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent.parent


def configs_dir() -> Path:
    """The folder that holds `Base-RCNN-FPN.yaml` and the experiment configs."""
    return _folder("configs")


def datasets_dir() -> Path:
    """The folder that describes the data sets (no images in it)."""
    return _folder("datasets")


def _folder(name: str) -> Path:
    inside = _PACKAGE / name
    # Only a checkout has the folder beside `projects/`; an installed package has it inside.
    return inside if inside.is_dir() else _CHECKOUT / name
