"""The arrows of the house: which room may import which."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "projects" / "mask_rcnn_ext"
ROOMS = ("ops", "modeling", "data", "evaluation", "engine", "paper", "visualization", "tools")
# room -> rooms it must not use. Files beside the rooms (errors, files, ...) serve everybody.
FORBIDDEN = {
    "ops": {"modeling", "data", "evaluation", "engine", "paper", "visualization", "tools"},
    "modeling": {"data", "evaluation", "engine", "paper", "visualization", "tools"},
    "data": {"modeling", "evaluation", "engine", "paper", "visualization", "tools"},
    "evaluation": {"modeling", "engine", "paper", "visualization", "tools"},
    "visualization": {"modeling", "engine", "paper", "tools"},
    "engine": {"paper", "tools"},
    "paper": {"tools", "modeling", "data"},
}
NO_CONFIG = ("ops", "evaluation", "paper")  # convention: only from_config reads a CfgNode


def _imports(path: Path) -> set[str]:
    """Absolute names of everything that a file imports, relative imports resolved."""
    parts = ["mask_rcnn_ext", *path.relative_to(PACKAGE).with_suffix("").parts]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = parts[: -node.level] if node.level else []
            if path.name == "__init__.py" and node.level:
                base = parts[:-1][: len(parts) - node.level]
            module = ".".join([*base, *(node.module or "").split(".")]).strip(".")
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    return found


def _files(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


def test_the_parser_of_this_test_sees_relative_imports():
    assert "mask_rcnn_ext.errors.UserError" in _imports(PACKAGE / "engine" / "run.py")
    assert "mask_rcnn_ext.config" in _imports(PACKAGE / "__init__.py")
    assert "mask_rcnn_ext.data.registration" in _imports(PACKAGE / "data" / "__init__.py")
    assert "mask_rcnn_ext.data.scenes.render" in _imports(PACKAGE / "data/scenes/__init__.py")


@pytest.mark.parametrize("room", FORBIDDEN)
def test_arrows(room):
    for path in _files(room):
        for name in _imports(path):
            for other in FORBIDDEN[room]:
                assert not f"{name}.".startswith(f"mask_rcnn_ext.{other}."), (path, name)


def test_of_evaluation_the_paper_uses_its_arithmetic_only():
    for path in _files("paper"):
        for name in _imports(path):
            if f"{name}.".startswith("mask_rcnn_ext.evaluation."):
                assert f"{name}.".startswith("mask_rcnn_ext.evaluation.analysis."), (path, name)


@pytest.mark.parametrize("room", NO_CONFIG)
def test_no_config_where_plain_values_do(room):
    for path in _files(room):
        names = _imports(path)
        assert not any(n.startswith(("detectron2.config", "mask_rcnn_ext.config")) for n in names)


def test_ops_need_torch_and_numpy_only():
    """And what comes with torch: torchvision's RoI kernels, Triton for a GPU."""
    allowed = {"torch", "numpy", "torchvision", "triton", "mask_rcnn_ext", *sys.stdlib_module_names}
    for path in _files("ops"):
        assert {name.split(".")[0] for name in _imports(path)} <= allowed, path


def test_every_python_file_is_in_a_room_or_serves_all():
    beside = {path.name for path in PACKAGE.glob("*.py")}
    serving = {"errors.py", "files.py", "memory.py", "pickles.py", "resources.py"}
    assert beside == {"__init__.py", "compat.py", "config.py", *serving}
    folders = {path.name for path in PACKAGE.iterdir() if list(path.glob("**/*.py"))}
    assert folders <= set(ROOMS)


def test_train_net_stays_small():
    assert len((PACKAGE.parents[1] / "train_net.py").read_text().splitlines()) <= 100
